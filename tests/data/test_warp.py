"""Image, ids, boxes and areas move together, by one half-pixel rule."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pixelwise.core.sample import Sample, image_tensor
from pixelwise.core.segments import BOX, MASK, NOTHING, TAG, UNKNOWN, Segments
from pixelwise.data.geometry import Bend, Placement, scaling, translation
from pixelwise.data.resample import warp_image
from pixelwise.data.transforms import Chain, Elastic, Flip, Pad, RandomCrop, RandomScale, Resize, Rotation
from pixelwise.data.warp import warp, warp_boxes, warp_ids

HEIGHT, WIDTH = 96, 130
STEP = 256.0  # levels per pixel of the ramp


def no_pick(rng: np.random.Generator) -> Sample:
    raise AssertionError("no transform here asks for another sample")


def ramp(height: int = HEIGHT, width: int = WIDTH) -> Sample:
    """Channel 0 grows along x, channel 1 along y; layer 0 holds the column, layer 1 the row."""
    x, y = np.arange(width), np.arange(height)
    image = np.zeros((height, width, 2), np.uint16)
    image[..., 0] = (x[None] + 0.5) * STEP
    image[..., 1] = (y[:, None] + 0.5) * STEP
    ids = np.stack([np.tile(x, (height, 1)), np.tile(y[:, None] + width, (1, width))]).astype(np.int16)
    count = width + height
    truth = Segments(torch.from_numpy(ids), np.zeros(count, int), keys=np.append(x, y))
    return Sample(image_tensor(image), truth, "ramp")


GEOMETRIC = {
    "half": RandomScale(0.5, 0.5),
    "shrink": RandomScale(0.37, 0.37),
    "little smaller": RandomScale(0.93, 0.93),
    "grow": RandomScale(1.7, 1.7),
    "resize": Resize((70, 50)),
    "flip": Flip(1.0, 0.0),
    "upside down": Flip(0.0, 1.0),
    "rotation": Rotation(40.0),
    "elastic": Elastic(4.0, 4),
    "pad": Pad((150, 170)),
    "crop": RandomCrop((40, 56)),
    "crop larger than the image": RandomCrop((140, 150)),
    "all": Chain((RandomScale(0.4, 0.6), Rotation(20.0), Elastic(2.0, 3), Flip(1.0, 1.0), RandomCrop((30, 44)))),
    "all, growing": Chain((RandomScale(1.5, 2.0), Rotation(20.0), Elastic(4.0), Flip(1.0, 0.0), RandomCrop((64, 64)))),
}


@pytest.mark.parametrize("name", GEOMETRIC)
@pytest.mark.parametrize("seed", [0, 1])
def test_image_and_ids_show_the_same_place(name: str, seed: int) -> None:
    out = GEOMETRIC[name](ramp(), np.random.default_rng(seed), no_pick)
    assert out.truth is not None
    assert out.truth.size == out.size
    assert out.truth.keys is not None
    shrink = 5.0  # a mirrored border reaches this far into an averaged image
    for layer, limit in ((0, WIDTH), (1, HEIGHT)):
        place = out.image[layer].to(torch.int32).numpy() / STEP
        ids = out.truth.ids[layer].numpy()
        stored = np.append(out.truth.keys.numpy(), [-9, -9])[ids] + 0.5
        inside = (ids >= 0) & (stored > shrink) & (stored < limit - shrink)
        both = inside & (out.truth.ids[1 - layer].numpy() >= 0)
        assert both.sum() > 300
        assert np.abs(place - stored)[both].max() <= 0.55  # a pixel reaches half a step to each side
        if name not in ("half", "shrink"):  # there every third source point or more lies on the edge of two pixels
            assert abs(float((place - stored)[both].mean())) < 0.06


def turned(angle: float, factor: float, size: tuple[int, int], shift: tuple[float, float]) -> Placement:
    a = np.deg2rad(angle)
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    return Placement.whole((HEIGHT, WIDTH)).then(translation(*shift) @ turn @ scaling(factor, factor), size)


def grid_of(p: Placement) -> torch.Tensor:
    """torch's sampling grid [1, h, w, 2]: -1 and 1 are the source's outer edges."""
    x, y = np.meshgrid(np.arange(p.size[1]) + 0.5, np.arange(p.size[0]) + 0.5)
    sx, sy = p.to_source(x, y)
    return torch.from_numpy(np.stack([sx / p.source[1] * 2 - 1, sy / p.source[0] * 2 - 1], -1))[None]


@pytest.mark.parametrize("channels", [1, 3, 7])
def test_warp_agrees_with_grid_sample(channels: int) -> None:
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.uniform(0, 255, (1, channels, 12, 16)))
    image = F.interpolate(coarse, (HEIGHT, WIDTH), mode="bilinear")[0].round()
    ids = rng.integers(0, 50, (2, HEIGHT, WIDTH)).astype(np.int8)
    for p in (turned(33, 0.8, (80, 90), (10.3, -7.1)), turned(0, 0.7, (80, 90), (-20.2, 4.4))):
        out = warp_image(image.permute(1, 2, 0).numpy().astype(np.uint8), p)
        expected = F.grid_sample(image[None], grid_of(p), padding_mode="reflection", align_corners=False)[0]
        assert out.shape == (80, 90, channels)
        assert np.abs(out.transpose(2, 0, 1) - expected.numpy()).max() < 2.0
        nearest = F.grid_sample(
            torch.from_numpy(ids)[None].double() + 2, grid_of(p), mode="nearest", align_corners=False
        )
        nearest = nearest[0].numpy() - 2
        nearest[1][nearest[1] == UNKNOWN] = NOTHING
        assert (nearest != warp_ids(ids, p)).mean() < 0.002  # rounding on the very edge of a pixel


def test_halving_is_the_mean_of_four() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3)).astype(np.uint8)
    p = Resize((32, 48)).place(Placement.whole((64, 96)), None, None)  # type: ignore[arg-type]
    expected = F.avg_pool2d(torch.from_numpy(image).permute(2, 0, 1).float(), 2).permute(1, 2, 0).numpy()
    assert np.abs(warp_image(image, p) - expected).max() <= 1.0


@pytest.mark.parametrize("factor", [0.2, 0.31, 0.5, 0.62])
@pytest.mark.parametrize("angle", [0.0, 12.0])
def test_shrinking_does_not_alias(factor: float, angle: float) -> None:
    """Stripes finer than the new pixels become nearly grey, where reading single points would leave waves."""
    stripes = np.zeros((240, 240, 1), np.uint8)
    stripes[:, ::2] = 255
    chain = Chain((RandomScale(factor, factor), Rotation(angle), RandomCrop((40, 40))))
    out = chain(Sample(image_tensor(stripes), None, "stripes"), np.random.default_rng(1), no_pick)
    assert out.truth is None
    assert out.image.float().std() < 27  # the mean over 1 / 0.62 stripes swings by that much
    assert abs(float(out.image.float().mean()) - 127.5) < 4
    picked = warp_ids(stripes.transpose(2, 0, 1).astype(np.int16), turned(angle, 1 / factor, (40, 40), (20.0, 60.0)))
    assert picked[picked >= 0].std() > 100 or factor == 0.5  # at exactly a half every point lies on the same stripe


def test_outside_is_unknown_and_mirrored() -> None:
    sample = ramp(8, 10)
    out = Pad((12, 20))(sample, np.random.default_rng(0), no_pick)
    assert out.truth is not None
    assert (out.truth.ids[0, :, :5] == UNKNOWN).all()
    assert (out.truth.ids[1, :2] == NOTHING).all()
    assert bool(out.truth.unknown[0, 0])
    columns = (out.image[0, 5].to(torch.int32).float() / STEP - 0.5).round().int().tolist()
    assert columns == [4, 3, 2, 1, 0, *range(10), 9, 8, 7, 6, 5]


def test_crop_far_larger_than_the_image() -> None:
    sample = ramp(5, 4)
    out = Chain((RandomCrop((64, 48)),))(sample, np.random.default_rng(3), no_pick)
    assert out.truth is not None
    assert out.size == (64, 48)
    assert int((out.truth.ids[0] >= 0).sum()) == 20


# -- rows, boxes, areas -----------------------------------------------------------------------------------------------


def two_squares(**columns: object) -> Sample:
    """A 10 x 10 object at the left (key 7) and one in the middle (key 9) on background, 40 x 60."""
    ids = torch.full((1, 40, 60), NOTHING, dtype=torch.int8)
    ids[0, 10:20, 0:10] = 0
    ids[0, 10:20, 30:40] = 1
    truth = Segments(ids, [0, 1], keys=[7, 9], **columns)  # type: ignore[arg-type]
    return Sample(torch.zeros(3, 40, 60, dtype=torch.uint8), truth, "squares")


def cut(left: int, width: int = 30, **limits: object) -> Placement:
    p = Placement(size=(40, 60), source=(40, 60), **limits)  # type: ignore[arg-type]
    return p.then(translation(left, 0), (40, width))


def test_rows_out_of_sight_are_dropped() -> None:
    truth = warp(two_squares(), cut(20)).truth
    assert truth is not None
    assert truth.keys is not None
    assert truth.keys.tolist() == [9]
    assert truth.labels.tolist() == [1]
    assert int((truth.ids == 0).sum()) == 100
    assert truth.boxes.tolist() == [[10, 10, 20, 20]]


@pytest.mark.parametrize(("least", "keys"), [(0.0, [7, 9]), (0.29, [7, 9]), (0.31, [9])])
def test_rows_hardly_seen_become_unknown(least: float, keys: list[int]) -> None:
    truth = warp(two_squares(), cut(7, 50, min_visible=least)).truth  # shows 3 of 10 columns of the first
    assert truth is not None
    assert truth.keys is not None
    assert truth.keys.tolist() == keys
    assert int((truth.ids == UNKNOWN).sum()) == (30 if keys == [9] else 0)
    assert int((truth.ids == NOTHING).sum()) == 40 * 50 - 130


def test_least_share_is_for_things_only() -> None:
    truth = warp(two_squares(), cut(7, 50, min_visible=0.5, things=(False, True))).truth
    assert truth is not None
    assert truth.labels.tolist() == [0, 1]


def test_share_counts_in_source_pixels() -> None:
    """Doubling the size must not make 3 visible columns of 10 look like 6."""
    p = cut(7, 50, min_visible=0.5).then(scaling(0.5, 0.5), (80, 100))
    truth = warp(two_squares(), p).truth
    assert truth is not None
    assert truth.labels.tolist() == [1]


def test_hidden_row_of_an_upper_layer_is_no_background() -> None:
    sample = two_squares()
    assert sample.truth is not None
    upper = torch.where(sample.truth.ids == 0, sample.truth.ids, NOTHING)
    lower = torch.where(sample.truth.ids == 1, sample.truth.ids, NOTHING)
    layered = Sample(sample.image, Segments(torch.cat([lower, upper]), [0, 1]), "layers")
    truth = warp(layered, cut(7, 50, min_visible=0.5)).truth
    assert truth is not None
    assert int(truth.unknown.sum()) == 30


def test_given_areas_follow_share_and_scale() -> None:
    p = cut(5, 50).then(scaling(0.5, 0.5), (80, 100))  # half of the first object, all at twice the size
    truth = warp(two_squares(given_areas=[80.0, 120.0]), p).truth
    assert truth is not None
    assert truth.areas.tolist() == [160.0, 480.0]


def test_boxes_of_box_rows_move_as_boxes() -> None:
    boxes = [[0.0, 10.0, 10.0, 20.0], [1.0, 1.0, 2.0, 2.0], [34.5, 0.0, 44.5, 8.0], [0, 0, 5.0, 5.0], [0, 0, 60, 40]]
    sample = two_squares()
    assert sample.truth is not None
    truth = Segments(sample.truth.ids, [0, 1, 1, 0, 1], kind=[MASK, MASK, BOX, BOX, TAG], given_boxes=boxes)
    out = warp(Sample(sample.image, truth, "boxes"), cut(8, 34)).truth
    assert out is not None
    assert out.kind is not None
    assert out.kind.tolist() == [MASK, MASK, BOX, TAG]  # the second box lies wholly outside
    assert out.boxes[0].tolist() == [0, 10, 2, 20]  # measured, not the given one
    assert out.boxes[1].tolist() == [22, 10, 32, 20]
    assert out.boxes[2].tolist() == [26.5, 0, 34, 8]
    assert out.boxes[3].tolist() == [0, 0, 34, 40]


def test_hidden_box_leaves_no_background() -> None:
    ids = torch.full((1, 40, 60), NOTHING, dtype=torch.int8)
    truth = Segments(ids, [0], kind=[BOX], given_boxes=[[0, 0, 10, 10]])
    out = warp(Sample(torch.zeros(1, 40, 60, dtype=torch.uint8), truth, "box"), cut(8, min_visible=0.5)).truth
    assert out is not None
    assert len(out) == 0
    assert (out.ids[0, :10, :2] == UNKNOWN).all()
    assert int((out.ids == UNKNOWN).sum()) == 20


@pytest.mark.parametrize("seed", range(3))
def test_a_warped_box_holds_what_it_held(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = Placement.whole((HEIGHT, WIDTH))
    for step in (RandomScale(1.5, 1.5), Rotation(30), Elastic(4.0), Flip(0.5, 0.5)):
        p = step.place(p, None, rng)  # type: ignore[arg-type]
    box = np.array([[30.0, 20.0, 70.0, 60.0]])
    warped, share = warp_boxes(box, p)
    x, y = p.to_output(rng.uniform(30, 70, 500), rng.uniform(20, 60, 500))
    held = (x > warped[0, 0] - 0.5) & (x < warped[0, 2] + 0.5) & (y > warped[0, 1] - 0.5) & (y < warped[0, 3] + 0.5)
    seen = (x > 0) & (x < p.size[1]) & (y > 0) & (y < p.size[0])
    assert held[seen].all()
    assert 0 < share[0] <= 1


def test_no_rows_and_no_truth() -> None:
    image = torch.zeros(3, 40, 60, dtype=torch.uint8)
    empty = Segments(torch.full((1, 40, 60), NOTHING, dtype=torch.int8), [], given_boxes=np.zeros((0, 4)))
    out = warp(Sample(image, empty, "none"), cut(10))
    assert out.truth is not None
    assert len(out.truth) == 0
    assert out.truth.size == (40, 30)


# -- placement --------------------------------------------------------------------------------------------------------


def test_to_output_inverts_to_source() -> None:
    rng = np.random.default_rng(0)
    p = Placement.whole((HEIGHT, WIDTH))
    for step in (RandomScale(0.7, 0.7), Rotation(30), Elastic(3.0), Flip(1.0, 1.0), RandomCrop((40, 40))):
        p = step.place(p, Sample(torch.zeros(1, HEIGHT, WIDTH), None, ""), rng)
    x, y = rng.uniform(0, 40, (2, 100))
    back = p.to_output(*p.to_source(x, y))
    assert np.abs(np.stack(back) - [x, y]).max() < 1e-2


def test_bend_is_keys_bicubic() -> None:
    """Against torch's antialiased bicubic (a = -1/2), away from the border where that has another rule."""
    vectors = np.random.default_rng(0).normal(size=(2, 7, 7))
    bend = Bend(vectors, (60, 60))
    at = np.arange(70) - 4.5  # where torch's half-pixel rule puts the pixels of 70 on nodes 10 apart
    options = {"size": (70, 70), "mode": "bicubic", "align_corners": False, "antialias": True}
    expected = F.interpolate(torch.from_numpy(vectors)[None], **options)[0].numpy()  # type: ignore[arg-type]
    assert np.abs(np.stack(bend(at[None], at[:, None])) - expected)[:, 15:55, 15:55].max() < 1e-9
    at = np.arange(0.0, 61.0, 10.0)
    dx, dy = bend(at[None], at[:, None])
    assert np.allclose(np.stack([dx, dy]), vectors)  # it passes through its nodes, those at the border too
    scattered = bend(*np.meshgrid(at, at))
    assert np.allclose(np.stack(scattered), np.stack([dx, dy]))
