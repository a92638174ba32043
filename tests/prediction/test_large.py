"""Large images: by windows, tiles and bands what is answered whole, and what of it goes on after an interruption."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from pixelwise.core.bands import Bands
from pixelwise.core.polygons import fill
from pixelwise.core.sample import Preprocessing
from pixelwise.core.segments import Segments
from pixelwise.data.io import read_mask
from pixelwise.data.windows import open_windows
from pixelwise.errors import OutputError
from pixelwise.prediction import large, load, predict_folder
from pixelwise.prediction.canvas import ScratchCanvas
from pixelwise.prediction.large import is_large, overview
from pixelwise.views import View

rasterio = pytest.importorskip("rasterio")
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
SIZE = (300, 212)
TILE = 192


def scene(seed=0, channels=3):
    rng = np.random.default_rng(seed)
    low = torch.from_numpy(rng.random((1, channels, 20, 15)).astype(np.float32))
    pixels = torch.nn.functional.interpolate(low, SIZE, mode="bicubic")[0].clamp(0, 1) * 255
    return pixels.permute(1, 2, 0).round().byte().numpy()


@pytest.fixture
def photos(tmp_path):
    """A large image between two small ones, and a large GeoTIFF."""
    (tmp_path / "in").mkdir()
    Image.fromarray(scene()).save(tmp_path / "in/b.png")
    for name in ("a", "c"):
        Image.fromarray(scene(1)[:30, :33]).save(tmp_path / f"in/{name}.png")
    with rasterio.open(tmp_path / "in/d.tif", "w", driver="GTiff", height=SIZE[0], width=SIZE[1], count=3,
                       dtype="uint8", tiled=True, blockxsize=64, blockysize=64, crs="EPSG:32632", photometric="rgb",
                       transform=rasterio.Affine(0.5, 0, 5e5, 0, -0.5, 5e6)) as file:  # fmt: skip
        file.write(np.moveaxis(scene(2), -1, 0))
    return tmp_path / "in"


def files_of(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_class_maps_are_those_of_the_whole_image(models, photos, tmp_path):
    """The net looks no further than its halo, so every pixel is the same."""
    tiles = []
    run = predict_folder(models["semantic"], photos, tmp_path / "tiles", exact=True, device="cpu", tile=TILE,
                         on_tile=lambda *said: tiles.append(said))  # fmt: skip
    whole = predict_folder(models["semantic"], photos, tmp_path / "whole", exact=True, device="cpu")
    assert run.ok
    assert whole.ok
    assert [path.name for path, _ in run.done] == ["a.png", "b.png", "c.png", "d.tif"]
    assert {path.name for _, _, path in tiles} == {"b.png", "d.tif"}
    assert max(done for done, _, _ in tiles) == max(total for _, total, _ in tiles) > 3
    for (_, ours), (_, theirs) in zip(run.done, whole.done):
        assert ours[0].read_bytes() == theirs[0].read_bytes()
    assert not [p for p in (tmp_path / "tiles").iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("maps", ["auto", "png", "tiff"])
def test_the_kind_of_map_and_its_place(models, photos, tmp_path, maps):
    run = predict_folder(models["semantic"], photos, tmp_path / "out", device="cpu", tile=TILE, maps=maps)
    files = {path.name: written[0] for path, written in run.done}
    endings = {"auto": ".tif", "png": ".png", "tiff": ".tif"}
    assert files["d.tif"].suffix == endings[maps]
    assert files["b.png"].suffix == (".tif" if maps == "tiff" else ".png")
    if maps != "png":
        with rasterio.open(files["d.tif"]) as file:
            assert file.crs.to_epsg() == 32632
            assert file.transform[2] == 5e5
            assert np.array_equal(file.read(1), read_mask(files["d.tif"]))


@pytest.mark.parametrize("task", ["instance", "panoptic"])
def test_objects_agree_with_their_tables(models, photos, tmp_path, task):
    save = ["instances", "objects"] + ["panoptic"] * (task == "panoptic")
    run = predict_folder(models[task], photos, tmp_path / "out", device="cpu", tile=TILE, save=save)
    assert run.ok
    rows = [line.split(",") for line in (tmp_path / "out/objects.csv").read_text().splitlines()[1:]]
    for path, files in run.done:
        ids = read_mask(files[0])
        table = json.loads(files[0].with_suffix(".json").read_text())
        assert [row["score"] for row in table] == sorted((row["score"] for row in table), reverse=True)
        assert sorted(np.unique(ids[ids > 0]).tolist()) == [row["id"] for row in table]
        told = {int(row[2]): row for row in rows if row[1] == path.stem}
        for row in table:
            ys, xs = np.nonzero(ids == row["id"])
            assert row["area"] == len(ys) == int(told[row["id"]][6])
            assert row["box"] == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
            assert [float(v) for v in told[row["id"]][7:9]] == pytest.approx(
                [xs.mean() + 0.5, ys.mean() + 0.5], abs=0.006
            )
    if task == "panoptic":
        content = json.loads((tmp_path / "out/panoptic.json").read_text())
        for entry in content["annotations"]:
            pixels = np.asarray(Image.open(tmp_path / "out/panoptic" / entry["file_name"])).astype(int)
            ids = pixels[..., 0] + 256 * pixels[..., 1] + 65536 * pixels[..., 2]
            assert {s["id"]: s["area"] for s in entry["segments_info"]} == dict(
                zip(*(v.tolist() for v in np.unique(ids[ids > 0], return_counts=True))))  # fmt: skip


def test_polygons_are_those_of_the_whole_image(models, photos, tmp_path):
    kinds = ["coco", "geojson", "labelme", "yolo"]
    runs = [predict_folder(models["semantic"], photos, tmp_path / name, exact=True, device="cpu", tile=tile, save=kinds,
                           overlay=False) for name, tile in (("tiles", TILE), ("whole", None))]  # fmt: skip
    assert all(run.ok for run in runs)
    assert files_of(tmp_path / "tiles") == files_of(tmp_path / "whole")
    content = json.loads((tmp_path / "tiles/geojson/d.geojson").read_text())
    assert content["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::32632"
    corners = np.concatenate([np.concatenate(polygon) for feature in content["features"]
                              for polygon in feature["geometry"]["coordinates"]])  # fmt: skip
    assert corners.min(0).tolist() == [5e5, 5e6 - 0.5 * SIZE[0]]
    assert corners.max(0).tolist() == [5e5 + 0.5 * SIZE[1], 5e6]


@pytest.mark.parametrize("task", ["instance", "panoptic"])
def test_polygons_of_objects_are_their_pixels(models, photos, tmp_path, task):
    """Of objects joined over tiles: each feature fills to one id of the map of instances."""
    run = predict_folder(models[task], photos / "b.png", tmp_path / "out", device="cpu", tile=TILE,
                         save=["instances", "geojson", "coco"], overlay=False)  # fmt: skip
    assert run.ok
    ids = read_mask(tmp_path / "out/instances/b.png")
    table = {row["id"]: row for row in json.loads((tmp_path / "out/instances/b.json").read_text())}
    features = json.loads((tmp_path / "out/geojson/b.geojson").read_text())["features"]
    things = [feature for feature in features if feature["properties"]["thing"]]
    assert len(things) == len(table)
    assert len(things) > 1 or task == "panoptic"
    for feature in things:
        shape = feature["geometry"]["coordinates"]
        shape = [shape] if feature["geometry"]["type"] == "Polygon" else shape
        mask = fill([[ring[:-1] for ring in polygon] for polygon in shape], SIZE)
        (found,) = np.unique(ids[mask])
        assert mask.sum() == feature["properties"]["area"] == table[found]["area"]
        assert feature["properties"]["class"] == table[found]["class"]
    coco = json.loads((tmp_path / "out/coco/instances.json").read_text())
    assert [a["area"] for a in coco["annotations"]] == [feature["properties"]["area"] for feature in features]


def test_confidence_is_that_of_the_whole_image(models, photos, tmp_path):
    found = []
    for name, tile in (("tiles", TILE), ("whole", None)):
        run = predict_folder(models["semantic"], photos, tmp_path / name, exact=True, device="cpu", tile=tile, save=[],
                             overlay=False, confidence=True)  # fmt: skip
        assert run.ok
        assert [files[0].suffix for _, files in run.done] == [".png", ".png", ".png", ".tif"]
        found.append([read_mask(files[0]).astype(int) for _, files in run.done])
    for one, other in zip(*found):
        assert np.ptp(other) > 10
        assert np.abs(one - other).max() <= 1
    assert not list((tmp_path / "tiles").rglob("*.sure"))
    with rasterio.open(tmp_path / "tiles/confidence/d.tif") as file:
        assert file.crs.to_epsg() == 32632


def test_confidence_of_blended_and_of_joined_tiles(models, write_model, photos, tmp_path):
    """Whatever the tiles are made one answer by, what is sure follows from their probabilities."""
    for name, model in (("panoptic", models["panoptic"]), ("blended", models["semantic"])):
        words = {"tta": [View(scale=1.5)]} if name == "blended" else {}
        run = predict_folder(model, photos / "b.png", tmp_path / name, device="cpu", tile=96, save=[], overlay=False,
                             confidence=True, **words)  # fmt: skip
        assert run.ok
        sure = read_mask(run.done[0][1][0]).astype(int)
        like = predict_folder(model, photos / "b.png", tmp_path / f"{name} whole", device="cpu", save=[], overlay=False,
                              confidence=True, **words)  # fmt: skip
        whole = read_mask(like.done[0][1][0]).astype(int)
        assert sure.shape == whole.shape == SIZE
        assert np.median(np.abs(sure - whole)) <= 2


def test_what_is_written_only_whole_is_said_before_the_work(models, photos, tmp_path):
    run = predict_folder(models["semantic"], photos, tmp_path / "out", device="cpu", tile=TILE,
                         save=["classes", "cityscapes"], on_tile=lambda *_: pytest.fail("work"))  # fmt: skip
    assert [path.name for path, _ in run.done] == ["a.png", "c.png"]
    assert [path.name for path, _ in run.failed] == ["b.png", "d.tif"]
    assert all("cityscapes can be written only of a whole answer" in reason for _, reason in run.failed)


def test_percentiles_are_those_of_the_whole_image(write_model, photos, tmp_path):
    """Bright at the top, dark at the bottom: each tile's own would be others."""
    pixels = (scene().astype(int) * np.linspace(1, 0.1, SIZE[0])[:, None, None]).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    preprocessing = Preprocessing(percentiles=(1.0, 99.0), order="", mean=(0.4,) * 3, std=(0.25,) * 3)
    model = write_model(tmp_path / "m.safetensors", preprocessing=preprocessing)
    maps = []
    for name, tile in (("whole", None), ("tiles", TILE)):
        run = predict_folder(model, tmp_path / "x.png", tmp_path / name, device="cpu", exact=True, tile=tile)
        maps.append(run.done[0][1][0])
    assert np.array_equal(read_mask(maps[0]), read_mask(maps[1]))


def test_what_had_to_be_decoded_whole_is_said(models, photos, tmp_path):
    Image.fromarray(scene()).save(photos / "e.jpg", progressive=True)
    run = predict_folder(models["semantic"], photos, tmp_path / "out", device="cpu", tile=TILE)
    assert run.ok
    assert [(path.name, "progressive" in why) for path, why in run.whole] == [("e.jpg", True)]


@pytest.mark.parametrize("size", [(50, 30), (4500, 7), (130, 4100)])
def test_the_overview(tmp_path, size, monkeypatch):
    monkeypatch.setattr(large, "PIECE", 60)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    np.save(tmp_path / "a.npy", pixels)
    ids = torch.from_numpy(rng.integers(-2, 5, size).astype(np.int32))
    whole = Segments(ids, [0, 1, 0, 1, 0], scores=torch.linspace(0, 1, 5))
    bands = Bands(size, whole.labels.numpy(), whole.scores.numpy(), lambda a, b: ids.numpy()[a:b])
    with open_windows(tmp_path / "a.npy", Preprocessing()) as windows:
        image, segments = overview(windows, bands)
    factor = -(-max(size) // large.OVERVIEW)
    factor = min(factor, *size)
    h, w = size[0] // factor, size[1] // factor
    assert tuple(image.shape) == (3, h, w)
    assert segments.size == (h, w)
    cells = pixels[: h * factor, : w * factor].reshape(h, factor, w, factor, 3).astype(float).mean((1, 3))
    assert np.abs(image.permute(1, 2, 0).numpy() - cells).max() <= 0.5
    expected = whole.class_map()[factor // 2 :: factor, factor // 2 :: factor][:h, :w]
    assert torch.equal(segments.class_map(), expected)


def test_which_images_are_large(models, tmp_path):
    model = load(models["semantic"], "cpu")
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(tmp_path / "a.png")
    tifffile.imwrite(
        tmp_path / "a.tif", np.zeros((30, 40, 5), np.uint8), photometric="minisblack", planarconfig="contig"
    )
    np.save(tmp_path / "a.npy", np.zeros((30, 40), np.uint8))
    (tmp_path / "b.png").write_text("no image")
    assert [is_large(tmp_path / name, model, 34) for name in ("a.png", "a.tif", "a.npy")] == [True] * 3
    assert [is_large(tmp_path / name, model, 35) for name in ("a.png", "a.tif", "a.npy")] == [False] * 3
    assert not is_large(tmp_path / "a.png", model)
    assert not is_large(tmp_path / "b.png", model, 1)
    assert not is_large(tmp_path / "c.png", model, 1)


def test_what_is_too_large_is_answered_by_tiles_also_where_they_cost_much(models, tmp_path, monkeypatch):
    """Tiles that cost little are taken from MUCH on, all others where the whole image would not fit."""
    model = load(models["semantic"], "cpu")
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(tmp_path / "a.png")
    monkeypatch.setattr(large, "MUCH", 1000)
    for whole, cheap, expected in ((1100, False, True), (1100, True, True), (1300, False, False), (1300, True, True)):
        monkeypatch.setattr(large, "too_large", lambda _, size, most=whole: size[0] * size[1] > most)
        monkeypatch.setattr(large, "_is_cheap", lambda _, cheap=cheap: cheap)
        assert is_large(tmp_path / "a.png", model) == expected
        assert is_large(tmp_path / "a.png", model, by_choice=False) == (whole < 1200)


# -- interruptions ----------------------------------------------------------------------------------------------------

CHILD = """if True:
    import os, signal, sys
    from pixelwise.prediction import large, predict_folder
    large.PATIENCE = 0  # a note after each row of tiles
    model, images, out, resume, save, moment = sys.argv[1:]
    seen = []
    def stop(*said):
        seen.append(said)
        if len(seen) == int(moment):
            os.kill(os.getpid(), signal.SIGKILL)
    run = predict_folder(model, images, out, device="cpu", exact=True, tile=192, save=save.split(","), workers=0,
                         resume=resume == "resume", on_image=stop, on_tile=stop)
    print(len(seen), run.ok)
"""


def child(model, images, out, resume, save, moment):
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        CHILD,
        str(model),
        str(images),
        str(out),
        resume,
        save,
        str(moment),
    ]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.mark.parametrize(
    "moment", [3, pytest.param(1, marks=pytest.mark.slow), pytest.param(8, marks=pytest.mark.slow)]
)
def test_killed_and_resumed_gives_the_same_files(models, photos, tmp_path, moment):
    save = "classes,instances,panoptic,objects,confidence,geojson,coco,yolo,labelme"
    predict_folder(models["panoptic"], photos, tmp_path / "like", device="cpu", exact=True, tile=TILE,
                   save=save.split(","))  # fmt: skip
    killed = child(models["panoptic"], photos, tmp_path / "out", "anew", save, moment)
    assert killed.returncode == -signal.SIGKILL
    resumed = child(models["panoptic"], photos, tmp_path / "out", "resume", save, 10**6)
    assert resumed.returncode == 0, resumed.stderr
    expected, found = files_of(tmp_path / "like"), files_of(tmp_path / "out")
    assert {name: data for name, data in found.items() if ".part" not in name} == expected
    assert int(resumed.stdout.split()[0]) < 4 + 2 * 9, "what was done is not done again"


def test_ctrl_c_keeps_a_large_image_and_resume_goes_on_within_it(models, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(large, "PATIENCE", 0)
    model, tiles = load(models["semantic"], "cpu", exact=True), []

    def stop(done, total, path):
        tiles.append((path.name, done))
        if path.name == "d.tif" and done == total - 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_folder(model, photos, tmp_path / "out", tile=TILE, on_tile=stop)
    (hidden,) = [p for p in (tmp_path / "out").iterdir() if p.name.startswith(".")]
    assert {p.name.partition(".")[2] for p in hidden.iterdir()} == {"jsonl", "rows", "state.npz"}
    first, tiles = len(tiles), []
    run = predict_folder(model, photos, tmp_path / "out", tile=TILE, resume=True,
                         on_tile=lambda done, total, path: tiles.append((path.name, done)))  # fmt: skip
    assert run.ok
    assert len(run.done) == 4
    assert {name for name, _ in tiles} == {"d.tif"}
    assert len(tiles) < first // 2
    assert not hidden.exists()
    like = predict_folder(model, photos, tmp_path / "like", tile=TILE)
    assert [f[0].read_bytes() for _, f in run.done] == [f[0].read_bytes() for _, f in like.done]


def test_an_image_that_changed_is_done_again(models, photos, tmp_path):
    model = load(models["semantic"], "cpu", exact=True)

    def stop(done, total, path):
        if path.name == "c.png":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_folder(model, photos, tmp_path / "out", on_image=stop)
    Image.fromarray(scene(7)[:31, :31]).save(photos / "a.png")
    run = predict_folder(model, photos, tmp_path / "out", resume=True)
    assert Image.open(run.done[0][1][0]).size == (31, 31)


@pytest.mark.parametrize("where", ["claim", "put", "band"])
def test_a_full_disk_leaves_nothing_behind(models, photos, tmp_path, monkeypatch, where):
    def full(*_):
        raise OutputError("out cannot be written: the disk is full; make room or choose another folder.")

    name = {"claim": "_claim", "put": "_put", "band": "band"}[where]
    monkeypatch.setattr(ScratchCanvas, name, full)
    with pytest.raises(OutputError, match="the disk is full"):
        predict_folder(models["semantic"], photos / "b.png", tmp_path / "out", device="cpu", tile=TILE)
    assert [p for p in (tmp_path / "out").rglob("*") if p.is_file()] == []


def test_a_file_that_is_damaged_further_down_fails_alone(models, photos, tmp_path):
    data = (photos / "d.tif").read_bytes()
    (photos / "d.tif").write_bytes(data[: len(data) * 2 // 3])
    run = predict_folder(models["semantic"], photos, tmp_path / "out", device="cpu", tile=TILE)
    assert [(path.name, "damaged" in reason) for path, reason in run.failed] == [("d.tif", True)]
    assert len(run.done) == 3
    assert not list((tmp_path / "out").rglob("*.rows"))
