"""The loss of star-convex polygons, term by term as the paper and the authors' code have it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pixelwise.core.classes import Classes
from pixelwise.core.rays import Rays
from pixelwise.core.segments import BOX, NOTHING, SCRIBBLE, UNKNOWN, Segments
from pixelwise.errors import ConfigError
from pixelwise.kernels.stars import object_probabilities, star_distances
from pixelwise.losses.criterion import Recipe, criterion
from pixelwise.losses.rays import target

ONE = SimpleNamespace(classes=Classes(names=["cell"], things=["cell"], nothing=True), name="instance")
TWO = SimpleNamespace(classes=Classes(names=["a", "b"], things=["a", "b"], nothing=True), name="instance")


def truth(**columns: object) -> Segments:
    ids = np.full((24, 30), NOTHING, np.int8)
    ids[2:10, 3:14], ids[12:22, 5:12], ids[8:20, 16:28] = 0, 1, 2
    ids[:4, 20:] = UNKNOWN
    return Segments(torch.from_numpy(ids), torch.tensor([0, 1, 1]), **columns)


def output(grid: int = 2, things: int = 1, rays: int = 8, batch: int = 1, seed: int = 0) -> Rays:
    rng = torch.Generator().manual_seed(seed)
    h, w = -(-24 // grid), -(-30 // grid)

    def maps(channels: int) -> torch.Tensor:
        return torch.randn(batch, channels, h, w, generator=rng).requires_grad_()

    return Rays(maps(1), maps(rays), maps(things + 1) if things > 1 else None, grid=grid)


@pytest.mark.parametrize("grid", [1, 2])
def test_each_term_is_the_papers(grid):
    out, seen = output(grid, things=2), truth()
    ids = seen.ids.long()
    cells = ids[:, ::grid, ::grid]
    known = (cells[0] != UNKNOWN).double()
    depth, reach = object_probabilities(cells)[0].double(), star_distances(ids, 8, grid)[0].double()
    entropy = F.binary_cross_entropy(out.objects[0, 0].double().sigmoid(), depth, reduction="none")
    error = (out.rays[0].double() - reach).abs().mean(0)
    off = out.rays[0].double().abs().mean(0)
    labels = torch.tensor([0, 1, 1, 2, 2])[cells[0]]  # the marks index from the end
    wrong = F.cross_entropy(out.classes.double(), labels[None], reduction="none")[0]
    expected = {
        "objects": (entropy * known).sum() / known.sum(),
        "rays": 0.2 * ((error * depth).sum() / depth.sum() + 1e-4 * (off * (known - depth)).sum() / known.sum()),
        "classes": (wrong * known).sum() / known.sum(),
    }
    found = criterion(out, (seen,), TWO, Recipe())
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == torch.float32
        assert found[name].item() == pytest.approx(value.item(), rel=1e-5)


def test_weights_of_classes():
    out, seen = output(things=2), truth()
    plain, weighted = (criterion(out, (seen,), TWO, Recipe(class_weights=w))["classes"] for w in ((), (2.0, 2.0, 2.0)))
    torch.testing.assert_close(weighted, 2 * plain)


@pytest.mark.parametrize("how", ["crowd", "scribble", "unknown"])
def test_what_is_not_told_apart_counts_nowhere(how):
    columns = {"crowd": {"crowd": [False, True, False]}, "scribble": {"kind": [0, SCRIBBLE, 0]}, "unknown": {}}[how]
    seen, out = truth(**columns), output()
    if how == "unknown":
        seen.ids[seen.ids == 1] = UNKNOWN
    sum(criterion(out, (seen,), ONE, Recipe()).values()).backward()
    hidden = (truth().ids[0, ::2, ::2] == 1) | (truth().ids[0, ::2, ::2] == UNKNOWN)
    for part in (out.objects, out.rays):
        assert not part.grad[0, :, hidden].any()
        assert part.grad[0, :, ~hidden].any()


def test_rows_without_pixels_say_nothing():
    seen = truth()
    boxed = Segments(seen.ids, torch.tensor([0, 1, 1, 0]), kind=[0, 0, 0, BOX], given_boxes=torch.ones(4, 4))
    for name, value in criterion(output(), (boxed,), ONE, Recipe()).items():
        torch.testing.assert_close(value, criterion(output(), (seen,), ONE, Recipe())[name])


def test_lower_layer_shows_where_objects_overlap():
    masks = np.zeros((2, 24, 30), bool)
    masks[0, 4:16, 4:16], masks[1, 8:20, 10:24] = True, True
    overlapping = Segments.from_masks(masks, [0, 0])
    assert len(overlapping.ids) == 2
    flat = Segments(overlapping.row_map(), [0, 0])
    a, b = (target((t,), 8, 2, 1) for t in (overlapping, flat))
    assert torch.equal(a.distances, b.distances)
    assert torch.equal(a.depths, b.depths)


@pytest.mark.parametrize("fill", [NOTHING, UNKNOWN])
def test_images_without_objects(fill):
    out = output(batch=2, things=2)
    losses = criterion(out, (Segments.empty((24, 30), fill=fill),) * 2, TWO, Recipe())
    total = sum(losses.values())
    total.backward()
    assert total.isfinite()
    assert all(part.grad.isfinite().all() for part in (out.objects, out.rays, out.classes))
    if fill == UNKNOWN:
        assert total.item() == 0
        assert not any(part.grad.any() for part in (out.objects, out.rays, out.classes))
    else:
        assert out.objects.grad.any()


def test_bf16_is_computed_in_float32():
    out, seen = output(), truth()
    half = Rays(out.objects.bfloat16(), out.rays.bfloat16(), grid=2)
    for name, value in criterion(half, (seen,), ONE, Recipe()).items():
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(criterion(out, (seen,), ONE, Recipe())[name].item(), rel=0.02)


def test_truth_as_output_has_the_least_loss():
    seen = truth()
    wanted = target((seen,), 8, 1, 1)
    best = Rays(torch.logit(wanted.depths[:, None].clamp(1e-6, 1 - 1e-6)), wanted.distances)
    least = criterion(best, (seen,), ONE, Recipe())
    assert float(least["rays"]) < 0.02  # but for 1e-4 x the distances off the deepest pixels
    worse = criterion(Rays(best.objects + 0.3, best.rays + 1), (seen,), ONE, Recipe())
    assert all(worse[name] > least[name] for name in least)


def test_classes_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="classes=3"):
        criterion(output(), (truth(),), TWO, Recipe())
    stuff = SimpleNamespace(classes=Classes(names=["ground", "cell"], things=["cell"]), name="panoptic")
    with pytest.raises(ConfigError, match="task instance"):
        criterion(output(), (truth(),), stuff, Recipe())
    with pytest.raises(ConfigError, match="several classes"):
        criterion(output(), (truth(),), ONE, Recipe(class_weights=(1.0, 2.0)))


def test_two_thousand_objects_take_little_memory():
    y, x = np.mgrid[:256, :256]
    ids = torch.from_numpy(((y // 5) * 52 + x // 5).astype(np.int16))
    seen = Segments(ids, torch.zeros(int(ids.max()) + 1, dtype=torch.int64))
    assert len(seen) > 2000
    wanted = target((seen,), 32, 2, 1)
    assert wanted.distances.shape == (1, 32, 128, 128)
    assert float(wanted.distances.max()) < 8
