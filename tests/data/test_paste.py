"""Copy-paste against a pixel-by-pixel account of who covers whom."""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pixelwise.config import TransformSettings
from pixelwise.core.classes import Classes
from pixelwise.core.sample import Sample, collate, image_tensor
from pixelwise.core.segments import BOX, MASK, NOTHING, SCRIBBLE, TAG, UNKNOWN, Segments
from pixelwise.data.geometry import Placement
from pixelwise.data.paste import CopyPaste, paste, whole_objects
from pixelwise.data.transforms import LARGE_SCALE_JITTER, Chain, Flip, RandomCrop, RandomScale, training_transforms
from pixelwise.errors import ConfigError, DataError
from pixelwise.losses.criterion import Recipe, criterion
from pixelwise.losses.mix import parse
from pixelwise.models.unet import build
from pixelwise.tasks import make_task

SIZE = (24, 30)


def picture(value: int, channels: int = 3, dtype: type = np.uint8, size: tuple[int, int] = SIZE) -> torch.Tensor:
    return image_tensor(np.full((*size, channels), value, dtype))


def scene(seed: int, count: int, *, void: bool = True, classes: int = 3) -> Segments:
    """`count` boxes at random, overlapping as they fall, some crowds, on nothing or on stuff (the last class)."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, *SIZE), bool)
    for mask in masks:
        y, x = rng.integers(0, SIZE[0] - 3), rng.integers(0, SIZE[1] - 3)
        mask[y : y + rng.integers(1, 12), x : x + rng.integers(1, 12)] = True
    labels = rng.integers(0, classes - 1, count)
    crowd = rng.random(count) < 0.2
    unknown = rng.random(SIZE) < 0.1 if void else None
    if seed % 2 and count:
        ground = np.ones((1, *SIZE), bool)
        masks = np.concatenate([masks, ground & ~masks.any(0)])
        labels, crowd = np.append(labels, classes - 1), np.append(crowd, False)
    return Segments.from_masks(masks, labels, crowd=crowd, void=unknown)


def sample_of(truth: Segments | None, value: int, name: str = "picture", **options: Any) -> Sample:
    return Sample(picture(value, **options), truth, name)


@given(st.integers(0, 10_000), st.integers(0, 7), st.integers(1, 7), st.sampled_from([0.0, 0.3, 0.8]))
def test_masks_are_those_of_an_account_by_pixels(seed: int, below: int, above: int, least: float) -> None:
    host, theirs = scene(seed, below), scene(seed + 1, above)
    rows = np.random.default_rng(seed).permutation(len(theirs))[: 1 + seed % len(theirs)]
    out = paste(sample_of(host, 10), sample_of(theirs, 200), rows, min_visible=least)
    assert out.truth is not None

    over = theirs.masks.numpy()[rows]  # [n, H, W]
    covered = over.any(0)
    expected, labels, unknown = [], [], host.unknown.numpy() & ~covered
    for mask, label in zip(host.masks.numpy(), host.labels.tolist()):
        left = mask & ~covered
        share = left.sum() / mask.sum() if mask.any() else 1.0
        if mask.any() and not left.any():
            continue
        if share < least:
            unknown |= left
            continue
        expected.append(left)
        labels.append(label)
    known = np.array([*expected, *over]).any(0)
    labels += theirs.labels.numpy()[rows].tolist()

    assert out.truth.labels.tolist() == labels
    np.testing.assert_array_equal(out.truth.masks.numpy(), np.array([*expected, *over]).reshape(-1, *SIZE))
    np.testing.assert_array_equal(out.truth.unknown.numpy(), unknown & ~known)
    np.testing.assert_array_equal(out.image.numpy()[0] == 200, covered)
    assert (out.image.numpy()[:, ~covered] == 10).all()


def test_every_layer_is_erased() -> None:
    masks = np.zeros((3, *SIZE), bool)
    masks[0, 2:20, 2:20], masks[1, 4:18, 4:18], masks[2, 6:16, 6:16] = True, True, True
    host = Segments.from_masks(masks, [0, 0, 0])
    assert len(host.ids) == 3
    over = np.zeros((1, *SIZE), bool)
    over[0, 8:12, 8:12] = True
    out = paste(sample_of(host, 0), sample_of(Segments.from_masks(over, [1]), 9), np.array([0])).truth
    assert out is not None
    assert (out.ids[:, 8:12, 8:12] >= 0).sum() == 16  # one segment a pixel, nothing shines through from above
    assert (out.ids[0, 8:12, 8:12] == 3).all()
    assert out.pixel_counts.tolist() == [18 * 18 - 16, 14 * 14 - 16, 10 * 10 - 16, 16]


def test_the_sample_that_is_given_is_never_written_to() -> None:
    host, source = sample_of(scene(3, 5), 10), sample_of(scene(4, 5), 200)
    assert host.truth is not None
    assert source.truth is not None
    before = [t.clone() for t in (host.image, host.truth.ids, source.image, source.truth.ids)]
    paste(host, source, np.arange(len(source.truth)), blend=1.0)
    for old, now in zip(before, (host.image, host.truth.ids, source.image, source.truth.ids)):
        assert torch.equal(old, now)


@pytest.mark.parametrize(
    ("channels", "dtype"), [(1, np.uint8), (3, np.uint8), (7, np.uint8), (1, np.uint16), (5, np.uint16)]
)
@pytest.mark.parametrize("blend", [0.0, 1.5])
def test_any_channels_and_depth_and_the_edge_is_blended(channels: int, dtype: type, blend: float) -> None:
    low, high = 20, 220 if dtype == np.uint8 else 60000
    masks = np.zeros((1, *SIZE), bool)
    masks[0, :, 15:] = True
    kind: dict[str, Any] = {"channels": channels, "dtype": dtype}
    host = sample_of(Segments.empty(SIZE), low, **kind)
    out = paste(host, sample_of(Segments.from_masks(masks, [0]), high, **kind), np.array([0]), blend=blend)
    assert out.image.dtype == host.image.dtype
    line = out.image.to(torch.int32).numpy()[:, 12]  # [C, W]
    assert (line[:, :5] == low).all()
    assert (line[:, -5:] == high).all()
    if blend:  # the share is the Gaussian's integral up to the pixel
        share = torch.special.ndtr((torch.arange(30) - 15 + 0.5) / blend).numpy()
        assert np.abs(line - (low + share * (high - low))).max() < 0.012 * (high - low)
        assert (np.diff(line, axis=1) >= 0).all()
    else:
        assert set(np.unique(line)) == {low, high}
    assert out.truth is not None
    assert out.truth.pixel_counts.tolist() == [24 * 15]  # the truth is cut hard in any case


def test_only_things_whose_outline_is_known_are_pasted() -> None:
    ids = torch.full((1, *SIZE), NOTHING, dtype=torch.int8)
    for row in range(4):
        ids[0, 4 * row : 4 * row + 3] = row
    truth = Segments(
        ids, torch.tensor([0, 0, 1, 0, 0, 0]), crowd=torch.tensor([False, True, False, False, False, False]),
        kind=torch.tensor([MASK, MASK, MASK, SCRIBBLE, BOX, TAG]),
        given_boxes=torch.tensor([[0.0, 0, 4, 4]] * 6),
    )  # fmt: skip
    assert whole_objects(truth, (True, False)).tolist() == [0]
    assert whole_objects(truth).tolist() == [0, 2]


def test_boxes_tags_areas_and_keys_of_the_host() -> None:
    ids = torch.full((1, *SIZE), NOTHING, dtype=torch.int8)
    ids[0, :10, :10] = 0
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10], [0, 12, 10, 22], [0, 0, 30, 24]])
    host = Segments(ids, torch.zeros(4, dtype=torch.int64), keys=torch.arange(4), given_boxes=boxes,
                    kind=torch.tensor([MASK, BOX, BOX, TAG]), given_areas=torch.tensor([90.0, 100, 99, 0]))  # fmt: skip
    over = np.zeros((1, *SIZE), bool)
    over[0, :8, 5:] = True  # hides 40 of 100 pixels of the mask and 80 of the first box
    theirs = Segments.from_masks(over, [0])
    kept = paste(sample_of(host, 0), sample_of(theirs, 9), np.array([0]), min_visible=0.1).truth
    assert kept is not None
    assert kept.keys is None
    assert kept.kind is not None
    assert kept.kind.tolist() == [MASK, BOX, BOX, TAG, MASK]
    assert kept.areas.tolist() == pytest.approx([54, 20, 99, 0, 200])
    assert kept.boxes.tolist() == [[0, 0, 10, 10], [20, 0, 30, 10], [0, 12, 10, 22], [0, 0, 30, 24], [5, 0, 30, 8]]
    dropped = paste(sample_of(host, 0), sample_of(theirs, 9), np.array([0]), min_visible=0.5).truth
    assert dropped is not None
    assert dropped.kind is not None
    assert dropped.kind.tolist() == [MASK, BOX, TAG, MASK]
    assert (dropped.ids[0, 8:10, 20:] == UNKNOWN).all()  # somewhere in its box there still is something
    assert (dropped.ids[0, 10:, 20:] == NOTHING).all()


def chain(probability: float = 1.0, **options: Any) -> CopyPaste:
    return CopyPaste(Chain((Flip(0.5), RandomCrop(SIZE))), probability, **options)


def test_all_follows_from_the_generator_and_every_number_of_objects_comes() -> None:
    host, source = sample_of(Segments.empty(SIZE), 0), sample_of(scene(2, 4, void=False), 200)
    assert source.truth is not None
    source = replace(source, truth=replace(source.truth, crowd=torch.zeros(len(source.truth), dtype=torch.bool)))
    transform = chain()
    counts = set()
    for seed in range(60):
        one, two = (transform(host, np.random.default_rng(seed), lambda rng: source) for _ in range(2))
        assert one.truth is not None
        assert two.truth is not None
        assert torch.equal(one.image, two.image)
        assert torch.equal(one.truth.ids, two.truth.ids)
        counts.add(len(one.truth))
    assert counts == {1, 2, 3, 4}


def test_probability_is_kept() -> None:
    host, source = sample_of(Segments.empty(SIZE), 0), sample_of(scene(2, 4), 200)
    changed = sum(chain(0.3)(host, np.random.default_rng(s), lambda rng: source) is not host for s in range(300))
    assert 60 < changed < 120


@pytest.mark.parametrize("truth", [None, Segments.empty(SIZE), Segments.empty(SIZE, fill=UNKNOWN)])
def test_picks_without_an_object_change_nothing(truth: Segments | None) -> None:
    host = sample_of(scene(3, 4), 10)
    assert chain()(host, np.random.default_rng(0), lambda rng: sample_of(truth, 200)) is host
    assert chain()(replace(host, truth=None), np.random.default_rng(0), lambda rng: host).truth is None


def test_an_image_without_objects_gets_some() -> None:
    out = chain()(sample_of(Segments.empty(SIZE), 10), np.random.default_rng(0), lambda rng: sample_of(scene(2, 4), 9))
    assert out.truth is not None
    assert len(out.truth) > 0


def test_images_that_do_not_go_together_are_refused_by_name() -> None:
    host, source = sample_of(scene(3, 4), 10, "left"), sample_of(scene(2, 4), 9, "right", channels=1)
    with pytest.raises(DataError, match=r"'right' \(\[1, 24, 30\].*'left' \(\[3, 24, 30\]"):
        chain()(host, np.random.default_rng(0), lambda rng: source)


@pytest.mark.parametrize("wrong", [{"probability": 1.1}, {"min_visible": -0.1}, {"blend": -1.0}])
def test_impossible_numbers_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        CopyPaste(Flip(), **wrong)


def test_two_thousand_objects_are_pasted_fast() -> None:
    """A grid of 2,025 objects over another; time is measured against what a loop over masks would take."""
    grid = torch.arange(45 * 45, dtype=torch.int16).reshape(45, 45)
    ids = grid.repeat_interleave(11, 0).repeat_interleave(11, 1)
    truth = Segments(ids, torch.zeros(45 * 45, dtype=torch.int64))
    one = Sample(picture(10, size=truth.size), truth, "one")
    two = Sample(picture(200, size=truth.size), Segments(torch.roll(ids, 5, 1), truth.labels), "two")
    rows = np.random.default_rng(0).permutation(45 * 45)[:1000]
    start = perf_counter()
    out = paste(one, two, rows, min_visible=0.3)
    assert perf_counter() - start < 0.5
    assert out.truth is not None
    assert out.truth.pixel_counts.min() > 0
    assert int((out.truth.ids >= 0).sum() + (out.truth.ids == UNKNOWN).sum()) == ids.numel()
    assert out.truth.ids.dtype == torch.int16


# -- in the chain that training uses ----------------------------------------------------------------------------------


def test_training_pastes_after_the_crop_with_a_wide_uniform_jitter() -> None:
    made = training_transforms(
        TransformSettings(copy_paste=0.4, min_visible=0.2, paste_blend=1.0), crop=24, things=[True]
    )
    kinds = [type(t).__name__ for t in made.transforms]
    assert kinds.index("CopyPaste") == kinds.index("RandomCrop") + 1
    step = made.transforms[kinds.index("CopyPaste")]
    assert isinstance(step, CopyPaste)
    assert (step.probability, step.blend, step.min_visible, step.things) == (0.4, 1.0, 0.2, (True,))
    assert isinstance(step.jitter, Chain)
    assert step.jitter.transforms[0] == LARGE_SCALE_JITTER == RandomScale(0.1, 2.0, uniform=True)
    assert "CopyPaste" not in [type(t).__name__ for t in training_transforms(TransformSettings(), crop=24).transforms]


def test_pasting_without_things_is_refused() -> None:
    with pytest.raises(ConfigError, match="no class is a thing"):
        training_transforms(TransformSettings(copy_paste=0.5), crop=24, things=[False, False])
    with pytest.raises(ConfigError, match="copy_paste"):
        TransformSettings(copy_paste=1.5)
    with pytest.raises(ConfigError, match="paste_scale"):
        TransformSettings(paste_scale=(2.0, 0.1))


def test_uniform_and_log_uniform_scales_have_their_medians() -> None:
    sample = Sample(picture(1, size=(1000, 1000)), None, "large")

    def factors(transform: RandomScale) -> np.ndarray:
        rng, whole = np.random.default_rng(0), Placement.whole((1000, 1000))
        return np.array([transform.place(whole, sample, rng).size[0] / 1000 for _ in range(900)])

    for transform, median in ((LARGE_SCALE_JITTER, 1.05), (RandomScale(0.1, 2.0), np.sqrt(0.2))):
        drawn = factors(transform)
        assert drawn.min() >= 0.0999
        assert drawn.max() <= 2.0001
        assert np.median(drawn) == pytest.approx(median, rel=0.12)


@pytest.mark.parametrize("task_name", ["instance", "panoptic", "semantic"])
def test_a_batch_whose_objects_all_vanish_trains(task_name: str) -> None:
    """Large-scale jitter and crops can leave no object, or nothing that is known at all."""
    classes = Classes(names=("cell", "clump"), things=("cell", "clump"), nothing=True)
    task = make_task(task_name, classes)
    gone = sample_of(Segments.empty(SIZE), 10), sample_of(Segments.empty(SIZE, fill=UNKNOWN), 10)
    net = build(classes=task.classes.channels, width=4, depth=2)
    for samples in (gone, gone[1:]):
        batch = collate([replace(s, truth=task.view(s.truth)) for s in samples if s.truth is not None])
        output = net(batch.images.float(), batch.frames)
        loss = sum(criterion(output, batch.truths, task, Recipe(parse("ce+dice"))).values())
        assert isinstance(loss, torch.Tensor)
        assert torch.isfinite(loss)
        loss.backward()
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in net.parameters())


@given(st.integers(0, 10_000))
def test_the_least_visible_share_is_of_the_object_at_the_new_scale(seed: int) -> None:
    """An object that lies wholly in the crop never counts as cut, whatever the scale; one that is cut does."""
    ids = torch.full((1, 64, 64), NOTHING, dtype=torch.int8)
    ids[0, 20:40, 20:40] = 0
    sample = Sample(picture(5, size=(64, 64)), Segments(ids, torch.tensor([0])), "square")
    rng = np.random.default_rng(seed)
    factor = float(rng.uniform(0.3, 2.0))
    made = Chain((RandomScale(factor, factor), RandomCrop((48, 48), min_visible=0.7)))
    out = made(sample, rng, lambda r: sample)
    whole = Chain((RandomScale(factor, factor), RandomCrop((48, 48))))
    rng = np.random.default_rng(seed)
    rng.uniform()
    loose = whole(sample, rng, lambda r: sample).truth
    assert out.truth is not None
    assert loose is not None
    share = int((loose.ids == 0).sum()) / (20 * factor) ** 2 if len(loose) else 0.0
    if share > 0.85:
        assert len(out.truth) == 1
    if share < 0.55:
        assert len(out.truth) == 0
        if len(loose):  # what is left of it is unknown, not background
            assert bool((out.truth.ids[loose.ids == 0] == UNKNOWN).all())
