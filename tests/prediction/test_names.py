"""Where answers go: structure kept, no collisions, whatever people call their files."""

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from pixelwise.prediction.names import distinct, plan


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")


def names_of(jobs):
    return [job.name for job in jobs]


def test_folders_keep_their_structure(tmp_path):
    touch(tmp_path, "in/b.png", "in/a.JPG", "in/deep/er/a.png", "one.tif")
    touch(tmp_path, "in/notes.txt", "in/.hidden/x.png", "in/.y.png")
    jobs, failed = plan([tmp_path / "in", tmp_path / "one.tif"], tmp_path / "out")
    assert names_of(jobs) == ["a", "b", "deep/er/a", "one"]
    assert [job.path.name for job in jobs] == ["a.JPG", "b.png", "a.png", "one.tif"]
    assert failed == []


def test_two_files_of_one_name_take_their_folders(tmp_path):
    touch(tmp_path, "x/cam/img.png", "y/cam/img.png", "z/other.png")
    jobs, _ = plan([tmp_path / "x/cam/img.png", tmp_path / "y/cam", tmp_path / "z"], tmp_path / "out")
    assert names_of(jobs) == ["x/cam/img", "y/cam/img", "other"]


def test_unlike_endings_are_kept(tmp_path):
    touch(tmp_path, "in/a.png", "in/a.jpg", "in/b.png")
    assert names_of(plan([tmp_path / "in"], tmp_path / "out")[0]) == ["a.jpg", "a.png", "b"]


def test_case_alone_does_not_tell_apart(tmp_path):
    """On many disks A.png and a.png are one file."""
    touch(tmp_path, "in/A.png", "in/a.png")
    assert names_of(plan([tmp_path / "in"], tmp_path / "out")[0])[1].endswith("-2")


def test_every_image_once(tmp_path, monkeypatch):
    touch(tmp_path, "in/a.png")
    monkeypatch.chdir(tmp_path)
    jobs, _ = plan(["in", "in/a.png", Path("in/../in/a.png"), tmp_path / "in"], tmp_path / "out")
    assert names_of(jobs) == ["a"]
    assert jobs[0].path == Path("in/a.png")


def test_answers_are_not_taken_for_images(tmp_path):
    touch(tmp_path, "in/a.png", "in/out/overlay/a.jpg")
    assert names_of(plan([tmp_path / "in"], tmp_path / "in" / "out")[0]) == ["a"]
    assert names_of(plan([tmp_path / "in"], tmp_path / "in")[0]) == []


def test_what_is_not_there(tmp_path):
    touch(tmp_path, "empty/readme.txt", "odd.dat")
    jobs, failed = plan([tmp_path / "nowhere", tmp_path / "empty", tmp_path / "odd.dat"], tmp_path / "out")
    assert names_of(jobs) == ["odd"]  # a file that is named is tried
    assert [(path.name, "no such" in reason, "no image" in reason) for path, reason in failed] == [
        ("nowhere", True, False),
        ("empty", False, True),
    ]


PART = st.sampled_from(["a", "A", "b", "a-2", "a.png", "c"])


ENDING = st.sampled_from([".png", ".jpg", ".PNG"])


@given(st.lists(st.tuples(st.lists(PART, max_size=3), PART, ENDING, st.integers(0, 3)), max_size=12))
@settings(max_examples=200, deadline=None)
def test_names_never_collide(files):
    found = {}
    for folders, stem, ending, depth in files:
        path = Path("/", *folders, stem + ending)
        found.setdefault(path, Path(*path.parts[max(1, len(path.parts) - 1 - depth) :]))
    names = distinct(list(found.items()))
    assert len({name.casefold() for name in names}) == len(found)
    for name, path in zip(names, found):
        assert Path(name).stem.startswith(path.stem) or Path(name).name.startswith(path.stem)
        assert not name.startswith("/")


def test_links_to_folders_are_followed_and_circles_end(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "b/1.png").touch()
    (tmp_path / "a/there").symlink_to(tmp_path / "b")
    (tmp_path / "b/back").symlink_to(tmp_path / "a")
    jobs, failed = plan([tmp_path / "a"], tmp_path / "out")
    assert [job.name for job in jobs] == ["there/1"]
    assert failed == []
