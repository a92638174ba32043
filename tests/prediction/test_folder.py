"""`predict_folder`: what is written, read back; bad files beside good ones; places that cannot be written."""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from pixelwise.core.classes import Classes
from pixelwise.core.segments import Segments
from pixelwise.data.io import read_mask
from pixelwise.data.table import free_ids, read_table
from pixelwise.data.writers import geojson
from pixelwise.data.writers.coco_panoptic import Writer
from pixelwise.errors import ConfigError, DataError, ImageError, OutputError
from pixelwise.prediction import load, predict_folder
from pixelwise.prediction.writers import Answer, ClassMaps, InstanceIds

RNG = np.random.default_rng(2)


@pytest.fixture
def photos(tmp_path):
    """Three images of unlike sizes and modes in two folders."""
    for name, array in {
        "a.png": RNG.integers(0, 256, (20, 31, 3), dtype=np.uint8),
        "night/b.jpg": RNG.integers(0, 256, (40, 16, 3), dtype=np.uint8),
        "night/c.png": RNG.integers(0, 65536, (9, 9), dtype=np.uint16),
    }.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(tmp_path / "in" / name)
    return tmp_path / "in"


def test_class_ids_with_palette(models, photos, tmp_path):
    run = predict_folder(models["semantic"], photos, tmp_path / "out", device="cpu")
    assert run.ok
    model = load(models["semantic"], "cpu")
    assert [path.relative_to(photos).as_posix() for path, _ in run.done] == ["a.png", "night/b.jpg", "night/c.png"]
    for path, files in run.done:
        name = path.relative_to(photos).with_suffix("").as_posix()
        assert files == (tmp_path / f"out/classes/{name}.png", tmp_path / f"out/overlay/{name}.jpg")
        expected = np.array([7, 24, 23])[model(path).class_map().long().numpy()]
        assert np.array_equal(read_mask(files[0]), expected)
        colours = np.asarray(Image.open(files[0]).convert("RGB"))
        assert (colours[expected == 24] == model.task.classes.colours[1]).all()
        assert Image.open(files[1]).size == Image.open(path).size
    legend = np.asarray(Image.open(tmp_path / "out/overlay/legend.png").convert("RGB"))
    assert all((legend == colour).all(2).any() for colour in model.task.classes.colours)
    table = read_table(tmp_path / "out/classes.txt").classes
    assert (table.names, table.things, table.ids) == (("road", "person", "sky"), ("person",), (7, 24, 23))
    assert table.void == (255,)
    assert table.colours == model.task.classes.colours


def test_coco_panoptic(models, photos, tmp_path):
    run = predict_folder(models["panoptic"], [photos], tmp_path / "out", device="cpu", save=["panoptic"])
    assert run.ok
    content = json.loads((tmp_path / "out/panoptic.json").read_text())
    assert [(c["id"], c["name"], c["isthing"]) for c in content["categories"]] == [
        (7, "road", 0), (24, "person", 1), (23, "sky", 0)]  # fmt: skip
    model = load(models["panoptic"], "cpu")
    for image, annotation, (path, _) in zip(content["images"], content["annotations"], run.done):
        assert annotation["image_id"] == image["id"]
        pixels = np.asarray(Image.open(tmp_path / "out/panoptic" / annotation["file_name"])).astype(int)
        ids = pixels[..., 0] + 256 * pixels[..., 1] + 65536 * pixels[..., 2]
        assert ids.shape == (image["height"], image["width"])
        infos = annotation["segments_info"]
        assert sorted(np.unique(ids[ids > 0]).tolist()) == sorted(s["id"] for s in infos)
        segments = model(path)
        classes = segments.class_map(void=255).numpy()
        for info in infos:
            mask = ids == info["id"]
            ys, xs = np.nonzero(mask)
            assert info["area"] == mask.sum()
            assert info["bbox"] == [xs.min(), ys.min(), xs.max() - xs.min() + 1, ys.max() - ys.min() + 1]
            assert info["category_id"] == [7, 24, 23][classes[ys[0], xs[0]]]
        stuff = [s["category_id"] for s in infos if s["category_id"] != 24]
        assert len(stuff) == len(set(stuff))


def test_instances_and_their_table(models, photos, tmp_path):
    run = predict_folder(models["instance"], photos, tmp_path / "out", device="cpu")
    model = load(models["instance"], "cpu")
    for path, files in run.done:
        ids = np.asarray(Image.open(files[0]))
        assert ids.dtype == np.uint16
        table = json.loads(files[0].with_suffix(".json").read_text())
        assert len(table) == len(model(path))
        assert [row["score"] for row in table] == sorted((row["score"] for row in table), reverse=True)
        for row in table:
            assert row["area"] == (ids == row["id"]).sum()
            assert row["class"] == "person"


def test_tables_number_objects_as_maps_do(write_model, photos, tmp_path):
    classes = Classes(names=["road", "person", "sky"], things=["road", "sky"])
    model = write_model(tmp_path / "m.safetensors", task="panoptic", classes=classes, thresholds={"score": 0.0})
    predict_folder(model, photos, tmp_path / "out", device="cpu", save=["objects", "instances"], overlay=False)
    with (tmp_path / "out/objects.csv").open(newline="") as file:
        rows = {(row["image"], int(row["object"])): row for row in csv.DictReader(file)}
    tables = {path: json.loads(path.read_text()) for path in (tmp_path / "out/instances").rglob("*.json")}
    assert sum(map(len, tables.values())) > 0
    for path, table in tables.items():
        for told in table:
            row = rows[path.relative_to(tmp_path / "out/instances").with_suffix("").as_posix(), told["id"]]
            assert (row["class"], int(row["area"])) == (told["class"], told["area"])


def test_what_is_lost_is_said_for_each_format(models, photos, tmp_path):
    out = tmp_path / "out"
    run = predict_folder(models["instance"], photos, out, device="cpu", save=["yolo", "labelme"], overlay=False)
    assert {sentence.partition(":")[0] for sentence in run.lost} == {"yolo", "labelme"}
    with pytest.raises(ConfigError, match="'panoptic' is for the task panoptic; this one is instance: choose another"):
        predict_folder(models["instance"], photos, tmp_path / "out", device="cpu", save=["panoptic"])


def test_answers_in_the_formats_of_data_sets(models, photos, tmp_path):
    kinds = ["objects", "coco", "yolo", "labelme", "geojson", "folder", "coco_panoptic"]
    run = predict_folder(models["panoptic"], photos, tmp_path / "out", device="cpu", save=kinds, overlay=False)
    assert run.ok
    model = load(models["panoptic"], "cpu")
    answers = {path.relative_to(photos).as_posix(): model(path) for path, _ in run.done}
    rows = (tmp_path / "out/objects.csv").read_text().splitlines()
    assert len(rows) == 1 + sum(len(answer.compact()) for answer in answers.values())
    content = json.loads((tmp_path / "out/coco/instances.json").read_text())
    assert [image["file_name"] for image in content["images"]] == list(answers)
    assert all(0 < annotation.get("score", 1) <= 1 for annotation in content["annotations"])
    shapes = json.loads((tmp_path / "out/labelme/night/b.json").read_text())
    assert (tmp_path / "out/labelme/night" / shapes["imagePath"]).resolve() == (photos / "night/b.jpg").resolve()
    for name in ("yolo/labels/night/b.txt", "geojson/night/b.geojson", "folder/masks/night/b.png", "panoptic.json"):
        assert (tmp_path / "out" / name).is_file()
    with pytest.raises(ConfigError, match="no kind of answer 'coca' to save; did you mean 'coco'"):
        predict_folder(models["panoptic"], photos, tmp_path / "other", device="cpu", save=["coca"])


def test_confidence(models, photos, tmp_path):
    run = predict_folder(models["semantic"], photos / "a.png", tmp_path / "out", device="cpu", save=[],
                         overlay=False, confidence=True)  # fmt: skip
    ((_, (path,)),) = run.done
    found = np.asarray(Image.open(path)).astype(float) / 255
    expected = load(models["semantic"], "cpu").output(photos / "a.png").probs(0).amax(0).numpy()
    assert np.abs(found - expected).max() <= 0.5 / 255 + 1e-6


def test_bad_files_are_reported_and_the_rest_done(models, photos, tmp_path):
    (photos / "text.png").write_text("not an image")
    (photos / "empty.png").write_bytes(b"")
    whole = (photos / "night/b.jpg").read_bytes()
    (photos / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    inputs = [photos, tmp_path / "missing.png"]
    seen = []
    run = predict_folder(models["semantic"], inputs, tmp_path / "out", device="cpu", save=["classes"],
                         on_image=lambda done, total, path: seen.append((done, total)))  # fmt: skip
    assert not run.ok
    assert len(run.done) == 3
    assert {path.name for path, _ in run.failed} == {"text.png", "empty.png", "cut.jpg", "missing.png"}
    assert all(reason and "cut.jpg" not in reason for _, reason in run.failed)
    assert seen == [(n, 6) for n in range(1, 7)]
    assert len(list((tmp_path / "out/classes").rglob("*.png"))) == 3


def test_what_a_format_cannot_hold_stops_no_other_image(models, photos, tmp_path, monkeypatch):
    taken = []

    def make(self, item):
        taken.append(item.name)
        if len(taken) == 2:
            raise DataError("the image has 70000 objects, more than a 16-bit map holds.")
        return (), {}

    monkeypatch.setattr(geojson.Writer, "make", make)
    run = predict_folder(models["semantic"], photos, tmp_path / "out", device="cpu", save=["geojson"], overlay=False)
    assert [reason for _, reason in run.failed] == ["the image has 70000 objects, more than a 16-bit map holds."]
    assert len(run.done) == len(taken) - 1 > 1


def test_after_ctrl_c_what_is_done_can_be_used(models, photos, tmp_path):
    def stop(done, total, path):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_folder(models["panoptic"], photos, tmp_path / "out", device="cpu", on_image=stop)
    assert 2 <= len(json.loads((tmp_path / "out/panoptic.json").read_text())["annotations"]) <= 3


def test_number_of_workers_changes_nothing(models, photos, tmp_path):
    runs = [predict_folder(models["semantic"], photos, tmp_path / str(w), device="cpu", save=["classes"], workers=w)
            for w in (0, 3)]  # fmt: skip
    for (_, one), (_, other) in zip(runs[0].done, runs[1].done):
        assert one[0].read_bytes() == other[0].read_bytes()


def test_two_inputs_of_one_name(models, photos, tmp_path):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    run = predict_folder(models["semantic"], [photos / "a.png", tmp_path / "a.png"], tmp_path / "out", device="cpu")
    written = [files[0] for _, files in run.done]
    assert len(set(written)) == 2
    assert [Image.open(file).size for file in written] == [(31, 20), (8, 8)]


def test_unwritable_output_is_said_before_the_first_image(models, photos, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="another folder"):
        predict_folder(models["semantic"], photos, tmp_path / "file" / "out", device="cpu", on_image=lambda *_: 1 / 0)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission(models, photos, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o555)
    with pytest.raises(OutputError, match="permission"):
        predict_folder(models["semantic"], photos, tmp_path / "closed", device="cpu")


def test_disk_full_stops_with_advice(models, photos, tmp_path):
    """A limit on the size of files stands for the full disk."""
    script = """if True:
        import resource, signal, sys
        from pixelwise.errors import OutputError
        from pixelwise.prediction import load, predict_folder
        model = load(sys.argv[1], "cpu")
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        try:
            predict_folder(model, sys.argv[2], sys.argv[3])
        except OutputError as error:
            print("OutputError:", error)
    """
    command = [sys.executable, "-c", script, str(models["semantic"]), str(photos), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "OutputError:" in done.stdout
    assert [p.name for p in (tmp_path / "out").rglob("*") if p.is_file()] == []


@pytest.mark.parametrize(("task", "save", "said"), [
    ("semantic", ["clases"], "did you mean 'classes'"),
    ("semantic", ["panoptic"], "is for the task panoptic; this one is semantic"),
    ("semantic", ["instances"], "instance or panoptic"),
])  # fmt: skip
def test_kinds_that_cannot_be(models, photos, tmp_path, task, save, said):
    with pytest.raises(ConfigError, match=said):
        predict_folder(models[task], photos, tmp_path / "out", device="cpu", save=save)
    assert not (tmp_path / "out").exists()


def test_memory_that_does_not_suffice_is_a_failed_image(models, photos, tmp_path, monkeypatch):
    model = load(models["semantic"], "cpu")
    real = model.forward

    def forward(pixels):
        if pixels.shape[1] == 40:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory")
        return real(pixels)

    monkeypatch.setattr(model, "forward", forward)
    run = predict_folder(model, photos, tmp_path / "out", save=["classes"])
    assert [(path.name, "memory" in reason) for path, reason in run.failed] == [("b.jpg", True)]
    monkeypatch.setattr(model.engine, "engine", torch.nn.Linear(2, 2))  # a fault in the net is no bad image
    with pytest.raises((RuntimeError, TypeError)):
        predict_folder(model, photos, tmp_path / "out", save=["classes"])


# -- single writers ---------------------------------------------------------------------------------------------------


def answer_of(segments, name="x"):
    height, width = segments.size
    pixels = torch.zeros(3, height, width, dtype=torch.uint8)
    return Answer(name=name, pixels=pixels, segments=segments)


def test_pixels_without_a_class(tmp_path):
    classes = Classes(names=["cell"], ids=(1,), void=(3,), nothing=True)
    segments = Segments(torch.tensor([[0, -1, -2]], dtype=torch.int8), [0])
    writer = ClassMaps(tmp_path, classes)
    assert read_mask(*writer.write(answer_of(segments))).tolist() == [[1, 0, 3]]
    writer.finish()
    table = read_table(tmp_path / "classes.txt")
    assert (table.nothing, table.classes.void, table.classes.nothing) == ((0,), (3,), True)


def test_ids_above_255_need_16_bits(tmp_path):
    classes = Classes(names=["a", "b"], ids=(300, 1000))
    segments = Segments(torch.tensor([[0, 1, -2]], dtype=torch.int8), [0, 1])
    (path,) = ClassMaps(tmp_path, classes).write(answer_of(segments))
    assert read_mask(path).tolist() == [[300, 1000, 255]]
    with pytest.raises(ConfigError, match=r"0\.\.65535"):
        ClassMaps(tmp_path, Classes(names=["a"], ids=(-1,)))


@pytest.mark.parametrize(("ids", "void", "expected"), [
    ((0, 1), (255,), (2, 255)), ((1, 2), (0,), (3, 0)), ((0, 255), (), (1, 256)), ((1,), (-1,), (0, 255)),
])  # fmt: skip
def test_free_ids(ids, void, expected):
    names = [str(i) for i in ids]
    assert free_ids(Classes(names=names, ids=ids, void=void)) == expected


def test_of_overlapping_objects_the_surer_shows(tmp_path):
    masks = np.zeros((2, 2, 3), bool)
    masks[0, :, :2], masks[1, :, 1:] = True, True
    segments = Segments.from_masks(masks[[1, 0]], [0, 0], scores=[0.9, 0.4])
    (path,) = InstanceIds(tmp_path, Classes(names=["cell"], things=["cell"])).write(answer_of(segments))
    assert np.asarray(Image.open(path)).tolist() == [[2, 1, 1]] * 2


def test_more_objects_than_16_bits_hold(tmp_path):
    count = 65536
    segments = Segments(torch.full((1, 1), -1, dtype=torch.int32), torch.zeros(count, dtype=torch.int64))
    with pytest.raises(ImageError, match="65536 objects"):
        InstanceIds(tmp_path, Classes(names=["cell"], things=["cell"])).write(answer_of(segments))


def test_panoptic_ids_beyond_one_byte(tmp_path):
    ids = torch.arange(70_000, dtype=torch.int32).view(1, 70_000)
    segments = Segments(ids, torch.zeros(70_000, dtype=torch.int64))
    (path,) = Writer(tmp_path, Classes(names=["cell"], things=["cell"])).write(answer_of(segments))
    pixels = np.asarray(Image.open(path)).astype(int)[0]
    assert np.array_equal(pixels[:, 0] + 256 * pixels[:, 1] + 65536 * pixels[:, 2], np.arange(1, 70_001))


@pytest.mark.parametrize("words", [{"tile": 0}, {"tile": -5}, {"workers": -1}])
def test_numbers_that_mean_nothing_are_refused(models, photos, tmp_path, words):
    (name,) = words
    with pytest.raises(ConfigError, match=rf"{name} must be at least [01], got"):
        predict_folder(models["semantic"], photos, tmp_path / "out", device="cpu", **words)
    assert not (tmp_path / "out").exists()
