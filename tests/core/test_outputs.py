"""The readings of outputs against plain torch at full size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from pixelwise.core import outputs
from pixelwise.core.outputs import Dense, Frame, Output, Queries, heads

PLACED = Frame(original=(30, 45), padded=(24, 32), window=(2, 3, 20, 26))


def at_original(maps: torch.Tensor, frame: Frame, align_corners: bool) -> torch.Tensor:
    """The plain way where the original has the window's size: to the padded size, then cut out."""
    top, left, height, width = frame.window
    full = F.interpolate(maps[None], size=frame.padded, mode="bilinear", align_corners=align_corners)[0]
    return full[:, top : top + height, left : left + width]


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("grid", [(24, 32), (6, 8), (5, 9)])
def test_maps_are_upsampled_by_the_nets_rule_and_cut_to_the_window(grid, align_corners):
    frame = Frame(original=(20, 26), padded=(24, 32), window=(2, 3, 20, 26))
    dense = Dense(torch.randn(2, 4, *grid), (frame, frame), align_corners=align_corners)
    expected = at_original(dense.logits[1], frame, align_corners)
    torch.testing.assert_close(dense.probs(1), expected.softmax(0), atol=1e-5, rtol=1e-5)
    assert torch.equal(dense.class_map(1), expected.argmax(0))


def test_resized_images_are_answered_at_their_own_size():
    logits = torch.randn(1, 3, 20, 26)
    frame = Frame(original=(30, 45), padded=(20, 26), window=(0, 0, 20, 26))
    expected = F.interpolate(logits, size=(30, 45), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(Dense(logits, (frame,)).probs(0), expected.softmax(0), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["dense", "sigmoid", "queries"])
def test_a_window_is_a_part_of_the_whole(kind):
    torch.manual_seed(0)
    if kind == "queries":
        output = Queries(torch.randn(1, 6, 6, 8) * 3, torch.randn(1, 6, 5), (PLACED,))
    else:
        activation = "sigmoid" if kind == "sigmoid" else "softmax"
        output = Dense(torch.randn(1, 4, 6, 8), (PLACED,), activation=activation)
    window = (4, 7, 12, 21)
    cut = (..., slice(4, 16), slice(7, 28))
    torch.testing.assert_close(output.probs(0, window), output.probs(0)[cut], atol=1e-5, rtol=1e-5)
    assert torch.equal(output.class_map(0, window), output.class_map(0)[cut])


@pytest.mark.parametrize("kind", ["dense", "queries"])
def test_strips_change_nothing(kind, monkeypatch):
    torch.manual_seed(0)
    if kind == "queries":
        output = Queries(torch.randn(1, 6, 6, 8) * 3, torch.randn(1, 6, 5), (PLACED,))
    else:
        output = Dense(torch.randn(1, 4, 6, 8), (PLACED,))
    whole = output.class_map(0), output.probs(0)
    monkeypatch.setattr(outputs, "STRIP", 1)  # a row at a time
    assert torch.equal(output.class_map(0), whole[0])
    torch.testing.assert_close(output.probs(0), whole[1], atol=1e-5, rtol=1e-5)


def test_outputs_without_frames_answer_on_their_grid():
    dense = Dense(torch.randn(2, 3, 5, 6))
    assert dense.frames == (Frame.whole(5, 6),) * 2
    assert dense.probs(0).shape == (3, 5, 6)
    assert isinstance(dense, Output)
    assert isinstance(Queries(torch.randn(1, 2, 5, 6), torch.randn(1, 2, 4)), Output)


def test_full_is_at_the_inputs_size():
    frame = Frame.whole(16, 20)
    dense = Dense(torch.randn(1, 3, 4, 5), (frame,))
    assert torch.equal(dense.full(), F.interpolate(dense.logits, size=(16, 20), mode="bilinear", align_corners=False))
    assert Dense(dense.full()).full().shape == (1, 3, 16, 20)


def test_sigmoid_maps_answer_nothing_where_no_class_is_likely():
    logits = torch.tensor([[[[1.0, -1.0, 0.5]], [[2.0, -3.0, -1.0]]]])  # [1, 2, 1, 3]
    assert Dense(logits, activation="sigmoid").class_map(0).tolist() == [[1, 2, 0]]


def test_dense_candidates_are_connected_components():
    torch.manual_seed(1)
    dense = Dense(torch.randn(1, 3, 12, 15))
    found, labels, probs = dense.candidates(0), dense.class_map(0).numpy(), dense.probs(0).numpy()
    cover = np.zeros((12, 15), int)
    for score, (x0, y0, x1, y1), crop in zip(found.scores, found.boxes, found.crops):
        k = int(score.argmax())
        mask = np.zeros((12, 15), bool)
        mask[y0:y1, x0:x1] = crop
        assert crop.any(0).all() or crop.any(1).all() or crop.any()
        assert (labels[mask] == k).all()
        assert score[k] == pytest.approx(probs[k][mask].mean(), abs=1e-6)
        assert (score > 0).sum() == 1
        cover += mask
    assert (cover == 1).all()
    expected = sum(ndimage.label(labels == k, np.ones((3, 3)))[1] for k in range(3))
    assert len(found.crops) == expected
    assert found.merge.rule == "partition"


def test_queries_are_the_sum_over_queries():
    torch.manual_seed(2)
    queries = Queries(torch.randn(2, 5, 6, 8) * 4, torch.randn(2, 5, 4), (PLACED, Frame.whole(6, 8)))
    known, masks = queries.classes[1].softmax(-1)[:, :-1], queries.masks[1].sigmoid()
    total = torch.einsum("qk,qhw->khw", known, masks)
    torch.testing.assert_close(queries.probs(1), total / total.sum(0))
    assert torch.equal(queries.class_map(1), total.argmax(0))


def test_query_candidates_are_their_masks():
    masks = torch.full((1, 3, 4, 5), -20.0)
    masks[0, 0, 1:3, 2:4] = 20.0
    masks[0, 1, 0, 0] = -1.0  # below a half, yet it counts when pixels are shared out
    found = Queries(masks, torch.zeros(1, 3, 3)).candidates(0)
    assert found.boxes.tolist() == [[2, 1, 4, 3], [0, 0, 1, 1]]
    assert found.crops[0].tolist() == [[1.0, 1.0], [1.0, 1.0]]
    assert found.crops[1][0, 0] == pytest.approx(torch.tensor(-1.0).sigmoid().item())
    assert np.allclose(found.scores, 1 / 3)


def test_readings_work_on_outputs_that_carry_gradients():
    dense = Dense(torch.randn(1, 3, 4, 4, requires_grad=True))
    queries = Queries(torch.randn(1, 2, 4, 4, requires_grad=True), torch.randn(1, 2, 3, requires_grad=True))
    assert len(dense.candidates(0).crops) > 0
    assert len(queries.candidates(0).crops) == 2


def test_heads_walks_nested_auxiliary_outputs():
    inner = Dense(torch.zeros(1, 2, 3, 3))
    middle = Dense(torch.zeros(1, 2, 3, 3), aux=(("deep", 0.5, inner),))
    outer = Dense(torch.zeros(1, 2, 3, 3), aux=(("side", 0.4, middle),))
    assert [(name, weight) for name, weight, _ in heads(outer)] == [("", 1.0), ("side.", 0.4), ("side.deep.", 0.2)]
    assert heads(outer)[2][2] is inner


@pytest.mark.parametrize("kind", ["dense", "queries"])
def test_outputs_are_pytrees(kind):
    if kind == "dense":
        aux = Dense(torch.ones(1, 2, 3, 3))
        output = Dense(torch.zeros(1, 2, 3, 3), (Frame.whole(6, 6),), "sigmoid", True, (("side", 0.4, aux),))
    else:
        aux = Queries(torch.ones(1, 2, 3, 3), torch.ones(1, 2, 3))
        output = Queries(torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3), aux=(("side", 0.4, aux),))
    leaves, form = pytree.tree_flatten(output)
    assert all(isinstance(leaf, torch.Tensor) for leaf in leaves)
    doubled = pytree.tree_unflatten([leaf * 2 for leaf in leaves], form)
    assert type(doubled) is type(output)
    assert doubled.frames == output.frames
    assert doubled.aux[0][:2] == ("side", 0.4)
    assert float(pytree.tree_leaves(doubled.aux[0][2])[0].mean()) == 2.0
