"""Answers by tiles: those of the whole image where the net has a halo, objects joined where tiles meet."""

from __future__ import annotations

import copy
import tracemalloc
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn

import pixelwise
from pixelwise.core.classes import Classes
from pixelwise.core.outputs import Candidates, Dense, Merge, Output
from pixelwise.core.registry import create_model
from pixelwise.core.sample import Preprocessing, percentiles
from pixelwise.core.segments import NOTHING, UNKNOWN
from pixelwise.errors import ConfigError
from pixelwise.nn.receptive import halo_of
from pixelwise.prediction import levels, stitch
from pixelwise.prediction.stitch import Progress, answer_by_tiles, halo_for, tiling_for, too_large
from pixelwise.prediction.tiling import Tiling
from pixelwise.tasks import Semantic, make_task
from pixelwise.views import PLAIN

CLASSES = Classes(names=["road", "person", "sky"], things=["person"], ids=(7, 24, 23), void=(255,))


class Sheet:
    """A canvas that notes how often each pixel was written."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.rows = np.full(size, -9, np.int32)
        self.times = np.zeros(size, int)

    def put(self, top: int, left: int, rows: np.ndarray) -> None:
        assert rows.dtype == np.int32
        h, w = rows.shape
        self.rows[top : top + h, left : left + w] = rows
        self.times[top : top + h, left : left + w] += 1


@dataclass
class Card:
    preprocessing: Preprocessing = field(default_factory=Preprocessing)


class Asked:
    """A predictor of a net in float64, in which convolutions of any size of image add up to the same labels."""

    def __init__(self, net: nn.Module, task: Any, views: Any = PLAIN) -> None:
        self.net, self.task, self.views, self.card = net.double().eval(), task, views, Card()

    def forward(self, pixels: Tensor) -> Output:
        return self.net(pixels[None].double())

    def expect(self, images: int, sizes: int = 1) -> None:
        assert images >= 0
        assert 1 <= sizes <= 4


def tiled(asked: Any, image: Tensor, tiling: Tiling | None = None, **words: Any) -> tuple[np.ndarray, Any]:
    """Final rows [H, W] and the table."""
    size = (image.shape[1], image.shape[2])
    sheet = words.pop("sheet", None) or Sheet(size)

    def read(window: tuple[int, int, int, int]) -> Tensor:
        top, left, h, w = window
        assert min(top, left) >= 0
        assert top + h <= size[0]
        assert left + w <= size[1]
        return image[:, top : top + h, left : left + w]

    table = answer_by_tiles(asked, read, size, sheet, tiling=tiling, **words)
    return table.final(sheet.rows), table


SMALL: dict[str, dict[str, Any]] = {
    "unet": {"width": 4, "depth": 2},
    "unet-bilinear": {"width": 4, "depth": 2},
    "unet-2015": {"width": 4, "depth": 1},
    "unet-milesial": {"width": 4, "depth": 2},
    "unetplusplus": {"width": 2},
    "segnet": {"encoder": "basic", "width": 3},
    "attention_unet": {"width": 2},
}


@pytest.mark.parametrize("name", SMALL)
def test_a_halo_gives_the_labels_of_the_whole_image(name):
    torch.manual_seed(1)
    net = create_model(name, classes=3, **SMALL[name]).double().eval()
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=2 / module.weight[0].numel() ** 0.5)
    halo = halo_of(net)
    assert halo is not None
    assert halo.any_size
    image = torch.rand(3, 2 * halo.pixels + 101, 2 * halo.pixels + 130)
    asked = Asked(net, Semantic(CLASSES))
    with torch.no_grad():
        whole = asked.task.decode(asked.forward(image), 0).row_map().numpy()
    margin = -(-halo.pixels // halo.stride) * halo.stride
    core = -(-70 // halo.stride) * halo.stride
    sheet = Sheet(whole.shape)
    rows, table = tiled(
        asked, image, Tiling(2 * margin + core, 2 * margin, margin, halo.stride, exact=True), sheet=sheet
    )
    assert (sheet.times == 1).all()
    assert (rows == whole).all()
    assert table.labels.tolist() == [0, 1, 2]
    assert len(np.unique(whole)) > 1


# -- objects ----------------------------------------------------------------------------------------------------------

OBJECTS = Classes(names=["cell", "worm"], things=["cell", "worm"])


class Shown(nn.Module):
    """Reads the answer off the image, whose channels are the logits."""

    def forward(self, images: Tensor) -> Dense:
        return Dense(images)


def drawing(class_map: np.ndarray, channels: int = 3) -> Tensor:
    """[channels, H, W] logits that name these classes; -1 is the last channel, nothing."""
    labels = torch.from_numpy(class_map).long() % channels
    return 4 * torch.nn.functional.one_hot(labels, channels).permute(2, 0, 1).float()


def assert_same_segments(rows: np.ndarray, table: Any, whole: Any) -> None:
    """The same objects with the same pixels and labels, however they are numbered."""
    other = whole.row_map().numpy().astype(np.int64)
    pairs = np.unique(np.stack([rows.ravel(), other.ravel()]), axis=1)
    assert len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]
    assert ((pairs[0] < 0) == (pairs[1] < 0)).all()
    for row, beside in pairs.T[pairs[0] >= 0].tolist():
        assert table.labels[row] == whole.labels[beside]
        assert table.areas[row] == whole.pixel_counts[beside]
        assert abs(float(table.scores[row]) - float(whole.scores[beside])) < 1e-5


def both_ways(
    class_map: np.ndarray, tiling: Tiling, task: str = "instance", classes: Classes = OBJECTS, **options: Any
) -> Any:
    asked = Asked(Shown(), make_task(task, classes, **options))
    image = drawing(class_map, asked.task.classes.channels)
    whole = asked.task.decode(asked.forward(image), 0)
    rows, table = tiled(asked, image, tiling)
    assert_same_segments(rows, table, whole)
    return table


TILES = [
    Tiling(32, 8),
    Tiling(32, 16, 4),
    Tiling(32, 16, 4, exact=True),
    Tiling(48, 24, 8, 8, exact=True),
    Tiling(200, 8),
]


def blobs(seed: int, size: tuple[int, int] = (96, 130)) -> np.ndarray:
    """Objects of all shapes, many of them larger than a tile."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(2, *size)), (0, 3, 3))
    return np.where(noise[0] > 0.02, (noise[1] > 0).astype(int), -1)


@pytest.mark.parametrize("tiling", TILES)
@pytest.mark.parametrize("seed", range(3))
def test_components_are_those_of_the_whole_image(seed, tiling):
    table = both_ways(blobs(seed), tiling)
    assert len(table.labels) > 10


def shapes() -> dict[str, np.ndarray]:
    """Class maps of 96 x 130, of nothing but one object or a few."""
    y, x = np.mgrid[:96, :130]
    ring = abs(np.hypot(y - 48, x - 60) - 36) < 4
    return {
        "long": np.where(abs(y - 50) < 3, 0, -1),
        "ring": np.where(ring, 0, -1),
        "horseshoe": np.where(ring & ((y < 48) | (abs(x - 60) > 20)), 0, -1),
        "diagonal": np.where(abs(y - 0.7 * x) < 3, 1, -1),
        "line of one pixel": np.where(y == x, 1, -1),
        "corner": np.where((abs(y - 24) < 2) & (abs(x - 24) < 2), 0, -1),
        "all": np.zeros((96, 130), int),
        "none": np.full((96, 130), -1),
        "spiral": np.where((np.hypot(y - 48, x - 65) - 3 * np.arctan2(y - 48, x - 65)) % 19 < 8, 0, -1),
        "comb": np.where((y < 6) | (x % 10 < 4), 0, -1),
    }


@pytest.mark.parametrize("tiling", TILES)
@pytest.mark.parametrize("shape", shapes())
def test_an_object_is_one_however_many_tiles_it_crosses(shape, tiling):
    table = both_ways(shapes()[shape], tiling)
    if shape not in ("none", "spiral"):
        assert len(table.labels) == 1


class Told(nn.Module):
    """Reads objects off the image: channel k holds the numbers (from 1) of objects that lie on those of k + 1.

    label(number) and score(number, window's size) say what each is; `merge` how they become a map.
    """

    def __init__(self, label: Any = lambda n: 0, score: Any = lambda n: 0.9, merge: Merge | None = None,
                 channels: int = 3) -> None:  # fmt: skip
        super().__init__()
        self.label, self.score, self.channels = label, score, channels
        self.merge = merge or Merge("partition")

    def forward(self, images: Tensor) -> Any:
        boxes, crops, scores = [], [], []
        for layer in images[0].numpy().astype(int):
            for number, where in enumerate(ndimage.find_objects(layer), 1):
                if where is not None:
                    y, x = where
                    boxes.append((x.start, y.start, x.stop, y.stop))
                    crops.append(layer[where] == number)
                    scores.append(np.eye(self.channels)[self.label(number)] * self.score(number))
        size = (images.shape[2], images.shape[3])
        table = np.array(scores, np.float32).reshape(-1, self.channels)
        found = Candidates(table, np.array(boxes, np.int64).reshape(-1, 4), crops, size, self.merge)
        return SimpleNamespace(candidates=lambda i: found)


def told(numbers: np.ndarray, tiling: Tiling, net: Told, task: Any) -> tuple[Any, Any]:
    """Compares with the whole image; returns rows and table."""
    asked = Asked(net, task)
    image = torch.from_numpy(np.atleast_3d(numbers.T).T.astype(np.float32))
    whole = task.decode(asked.forward(image), 0)
    rows, table = tiled(asked, image, tiling)
    assert_same_segments(rows, table, whole)
    return rows, table


@pytest.mark.parametrize("tiling", TILES[:4])
def test_objects_that_touch_stay_apart(tiling):
    rng = np.random.default_rng(5)
    seeds = rng.random((150, 2)) * (96, 130)
    y, x = np.mgrid[:96, :130]
    cells = 1 + np.argmin((y - seeds[:, 0, None, None]) ** 2 + (x - seeds[:, 1, None, None]) ** 2, 0)
    task = make_task("instance", OBJECTS)
    rows, table = told(cells, tiling, Told(lambda n: n % 2), task)
    assert len(table.labels) == len(np.unique(cells))
    assert (rows >= 0).all()


def test_a_border_seen_two_ways_joins_nothing_that_is_two():
    y, x = np.mgrid[:32, :64]
    cells = 1 + x // 11 + 6 * (y // 9)

    class Unsure(Told):
        """Sees every border two pixels further right in every other window."""

        seen = 0

        def forward(self, images: Tensor) -> Any:
            self.seen += 1
            shifted = images if self.seen % 2 else images[..., [0, 0, *range(images.shape[3] - 2)]]
            return super().forward(shifted)

    asked = Asked(Unsure(), make_task("instance", OBJECTS))
    _, table = tiled(asked, torch.from_numpy(cells[None].astype(np.float32)), Tiling(32, 16))
    assert len(table.labels) == len(np.unique(cells))


def test_stuff_is_one_and_thresholds_count_on_what_is_joined():
    numbers = np.zeros((96, 130), int)
    numbers[:, :70], numbers[40:44] = 1, 2  # a stuff that the third cuts; a thing across four tiles
    numbers[80:86, 60:66], numbers[2:5, 30:33] = 3, 4  # 36 pixels over a seam; 9 pixels
    numbers[90:, 120:] = 5  # stuff of 60 pixels
    classes = Classes(names=["ground", "cell", "water"], things=["cell"])
    label = {1: 0, 2: 1, 3: 1, 4: 1, 5: 2}
    net = Told(label.get, merge=Merge("partition", stuff_area=61))
    rows, table = told(numbers, Tiling(32, 16, 4), net, make_task("panoptic", classes, min_area=36))
    assert sorted(table.labels.tolist()) == [0, 1, 1]
    assert (rows[numbers == 4] == UNKNOWN).all()
    assert (rows[numbers == 5] == UNKNOWN).all()
    assert (rows[numbers == 0] == NOTHING).all()
    rows, table = told(numbers, Tiling(32, 16, 4), net, make_task("panoptic", classes, min_area=37))
    assert sorted(table.labels.tolist()) == [0, 1]
    assert (rows[numbers == 3] == UNKNOWN).all()


def test_scores_are_the_mean_by_area_and_decide_on_the_whole():
    numbers = np.zeros((32, 120), int)
    numbers[10:14, 4:116] = 1
    net = Told(score=lambda n: net.scores.pop(0))
    task = make_task("instance", OBJECTS)
    for last, answered in ((0.5, 1), (0.3, 0)):
        net.scores = [0.6, 0.5, 0.5, 0.4, last]
        rows, table = tiled(Asked(net, task), torch.from_numpy(numbers[None].astype(np.float32)), Tiling(40, 20))
        assert len(table.labels) == answered
        assert (rows >= 0).sum() == answered * 448
    net.scores = [0.6, 0.5, 0.5, 0.4, 0.55]
    _, table = tiled(Asked(net, task), torch.from_numpy(numbers[None].astype(np.float32)), Tiling(40, 20))
    cores = np.diff([4, 30, 50, 70, 90, 116])
    assert float(table.scores[0]) == pytest.approx((cores * [0.6, 0.5, 0.5, 0.4, 0.55]).sum() / 112)


def test_of_objects_that_lie_on_each_other_the_surest_shows_and_none_is_joined_to_another():
    layers = np.zeros((2, 64, 120), int)
    layers[0, 20:30, 10:110] = 1
    layers[1, 23:33, 10:110] = 2
    task = make_task("instance", OBJECTS)
    net = Told(score=lambda n: 0.6 + 0.1 * n)
    rows, table = tiled(Asked(net, task), torch.from_numpy(layers.astype(np.float32)), Tiling(40, 16))
    assert table.areas.tolist() == [1000, 1000]
    assert (rows[23:33, 10:110] == table.scores.argmax().item()).all()
    assert (rows[20:23, 10:110] == table.scores.argmin().item()).all()


@pytest.mark.parametrize("task", ["instance", "panoptic", "semantic"])
def test_work_goes_on_from_any_row_of_tiles(task):
    class_map, tiling = blobs(7), Tiling(32, 16, 4)
    asked = Asked(Shown(), make_task(task, OBJECTS))
    image = drawing(class_map, 3)
    states: list[Progress] = []
    sheet = Sheet((96, 130))
    rows, table = tiled(asked, image, tiling, sheet=sheet, on_tile=states.append)
    down, across = tiling.counts((96, 130))
    assert [s.done for s in states] == list(range(1, down * across + 1))
    assert [s.total for s in states] == [down * across] * len(states)
    kept: list[Any] = []

    def keep(progress: Progress) -> None:
        if progress.state is not None:
            kept.append((progress.state(), sheet.rows.copy()))

    sheet = Sheet((96, 130))
    tiled(asked, image, tiling, sheet=sheet, on_tile=keep)
    assert len(kept) == down
    for state, written in kept:
        assert all(isinstance(value, np.ndarray) and value.dtype != object for value in state.values())
        again, seen = Sheet((96, 130)), []
        again.rows[:] = written
        found, other = tiled(asked, image, tiling, sheet=again, start=state, on_tile=seen.append)
        assert (found == rows).all()
        assert torch.equal(other.labels, table.labels)
        assert torch.equal(other.scores, table.scores)
        assert len(seen) < len(states)
    with pytest.raises(ConfigError, match="begin anew"):
        tiled(asked, image, Tiling(64, 16, 4), start=kept[0][0])


# -- blending ---------------------------------------------------------------------------------------------------------


class Pooled(nn.Module):
    """Says of a pixel what depends on the mean of all that it is shown."""

    def __init__(self, activation: Any = "softmax") -> None:
        super().__init__()
        self.activation = activation

    def forward(self, images: Tensor) -> Dense:
        return Dense(3 * (images - images.mean((2, 3), keepdim=True)), activation=self.activation)


def blended(asked: Asked, image: Tensor, tiling: Tiling) -> Tensor:
    """[K, H, W] float64: the definition, all windows at once."""
    total, weight = torch.zeros_like(image, dtype=torch.float64), torch.zeros(image.shape[1:], dtype=torch.float64)
    for tile in (tile for tiles in tiling.rows((image.shape[1], image.shape[2])) for tile in tiles):
        top, left, h, w = tile.window
        down, across = (np.exp(-0.5 * ((np.arange(n) + 0.5 - n / 2) / (n / 8)) ** 2) for n in (h, w))
        own = torch.from_numpy(np.outer(down, across))
        probs = asked.forward(image[:, top : top + h, left : left + w]).probs(0)
        total[:, top : top + h, left : left + w] += probs * own
        weight[top : top + h, left : left + w] += own
    return total / weight


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize(
    "tiling", [Tiling(32, 16, blended=True), Tiling(48, 8, 0, 8, blended=True), Tiling(40, 24, blended=True)]
)
def test_windows_are_blended_by_gaussian_weights(tiling, activation):
    image = torch.from_numpy(ndimage.gaussian_filter(np.random.default_rng(2).normal(size=(3, 96, 130)), (0, 4, 4)) * 9)
    asked = Asked(Pooled(activation), make_task("semantic", CLASSES))
    probs = blended(asked, image, tiling)
    sheet = Sheet((96, 130))
    rows, table = tiled(asked, image, tiling, sheet=sheet)
    assert (sheet.times == 1).all()
    best = probs.topk(2, 0)
    expected = best.indices[0].numpy()
    sure = (best.values[0] - best.values[1]).numpy() > 2e-3  # float16 rounds what waits for the next row of windows
    if activation == "sigmoid":
        expected = np.where(best.values[0] > 0.5, expected, NOTHING)
        sure &= abs(best.values[0] - 0.5).numpy() > 2e-3
    assert sure.mean() > 0.95
    assert (rows == expected)[sure].all()
    assert table.labels.tolist() == [0, 1, 2]


def test_blending_goes_on_from_any_row_of_windows():
    image = torch.rand(3, 96, 130)
    asked, tiling = Asked(Pooled(), make_task("semantic", CLASSES)), Tiling(32, 20, blended=True)
    kept: list[Any] = []
    sheet = Sheet((96, 130))

    def keep(progress: Progress) -> None:
        if progress.state is not None:
            kept.append((copy.deepcopy(progress.state()), sheet.rows.copy()))

    rows, _ = tiled(asked, image, tiling, sheet=sheet, on_tile=keep)
    for state, written in kept:
        again = Sheet((96, 130))
        again.rows[:] = written
        found, _ = tiled(asked, image, tiling, sheet=again, start=state)
        assert (found == rows).all()


# -- a model file -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["semantic", "instance", "panoptic"])
def test_a_predictor_answers_large_images_by_tiles(models, task, monkeypatch):
    predictor = pixelwise.load(models[task], "cpu", exact=True)
    assert halo_for(predictor) == halo_of(predictor.net)
    image = np.random.default_rng(4).integers(0, 256, (300, 420, 3), np.uint8)
    image = ndimage.gaussian_filter(image, (6, 6, 0)) * 4
    if task == "instance":
        predictor.task = replace(predictor.task, keep=10**6)  # of an image, and so of a tile
    whole = predictor(image)
    monkeypatch.setattr(stitch, "SMALL", 1000)
    assert not too_large(predictor, (300, 420))
    assert too_large(predictor, (30000, 42000))
    tiling = tiling_for(predictor, (300, 420), memory=1 << 22)
    assert tiling.exact
    assert tiling.counts((300, 420)) > (1, 1)
    found = stitch.segments_by_tiles(predictor, predictor.pixels(image), tiling)
    assert found.size == (300, 420)
    assert found.ids.dtype == whole.ids.dtype
    assert (found.class_map(nothing=200) == whole.class_map(nothing=200)).float().mean() > 0.9999
    assert abs(len(found) - len(whole)) <= 0.02 * len(whole)


def test_percentiles_are_those_of_the_whole_image(write_model, tmp_path, monkeypatch):
    colours = Preprocessing(mean=(0.4,) * 3, std=(0.25,) * 3, percentiles=(1.0, 99.8))
    predictor = pixelwise.load(write_model(tmp_path / "m.safetensors", preprocessing=colours), "cpu", exact=True)
    image = np.random.default_rng(4).integers(0, 200, (300, 200, 3), np.uint8)
    image[:150] //= 8  # a dark half: tiles there have other percentiles
    whole = predictor(image).row_map()
    found = stitch.segments_by_tiles(predictor, predictor.pixels(image), tiling_for(predictor, (300, 200), 1 << 22))
    assert (found.row_map() == whole).float().mean() > 0.9999
    assert predictor.card.preprocessing is not None
    assert predictor.card.preprocessing.percentiles == (1.0, 99.8)
    deep = torch.from_numpy(np.random.default_rng(4).integers(0, 65536, (2, 50, 70), np.uint16))
    monkeypatch.setattr(levels, "PIECE", 32)
    counts = levels._counts(lambda w: deep[:, w[0] : w[0] + w[2], w[1] : w[1] + w[3]], (50, 70))
    expected = percentiles(deep[None].to(torch.int32), (1.0, 99.8)).flatten().tolist()
    assert levels.percentiles_of(counts, (1.0, 99.8)) == expected


class Away:
    """A canvas that keeps nothing."""

    def put(self, top: int, left: int, rows: np.ndarray) -> None:
        assert rows.dtype == np.int32


@pytest.mark.parametrize("tiling", [Tiling(64, 16, 4), Tiling(64, 16, 4, blended=True)])
def test_memory_does_not_depend_on_the_height(tiling):
    asked = Asked(Shown(), make_task("semantic" if tiling.blended else "instance", OBJECTS))
    part = drawing(np.tile(np.arange(256) // 32 % 3, (64, 1)))

    def most(height: int) -> int:
        live: list[int] = []

        def look(progress: Progress) -> None:
            if progress.state is not None:
                live.append(sum(array.nbytes for array in progress.state().values()))

        tracemalloc.start()
        answer_by_tiles(asked, lambda w: part[:, : w[2], w[1] : w[1] + w[3]], (height, 256), Away(), tiling=tiling,
                        on_tile=look)  # fmt: skip
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak + max(live[:-1])

    most(256)
    assert most(2560) < 1.25 * most(512)


def test_blending_is_that_of_monai():
    inferers = pytest.importorskip("monai.inferers")
    image = torch.from_numpy(ndimage.gaussian_filter(np.random.default_rng(2).normal(size=(3, 96, 128)), (0, 4, 4)) * 9)
    asked = Asked(Pooled(), make_task("semantic", CLASSES))
    rows, _ = tiled(asked, image, Tiling(32, 16, blended=True))
    probs = inferers.sliding_window_inference(image[None], (32, 32), 1, lambda x: asked.forward(x[0]).probs(0)[None],
                                              overlap=0.5, mode="gaussian")[0]  # fmt: skip
    inner = (slice(16, -16), slice(16, -16))  # it cuts weights off below 0.001, which shows at the image's border
    best = probs[(slice(None), *inner)].topk(2, 0)
    sure = (best.values[0] - best.values[1]).numpy() > 0.02
    assert sure.mean() > 0.9
    assert (rows[inner] == best.indices[0].numpy())[sure].all()
