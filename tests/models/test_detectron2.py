"""detectron2's files: its nets with the same weights give the same boxes, scores, masks, logits and panoptic map.

The numbers in tests/data/detectron2_r50_fpn.json are detectron2's answers for weights and an image that are functions
of names and sizes (`drawn_weight`, `drawn_image`).
"""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from pixelwise.checkpoints import from_checkpoint, import_checkpoint, load_weights
from pixelwise.core.outputs import Frame
from pixelwise.core.registry import create_model
from pixelwise.core.segments import UNKNOWN
from pixelwise.data.labels import label_set
from pixelwise.errors import ModelFileError
from pixelwise.models import mask_rcnn, panoptic_fpn
from pixelwise.prediction import load
from pixelwise.tasks import make_task

WANTED = json.loads((Path(__file__).parents[1] / "data" / "detectron2_r50_fpn.json").read_text())
SCALES = {"stem.conv1": 0.006, "cls_score": 0.36, "bbox_pred": 0.5, "anchor_deltas": 0.3}
SIZE, OTHER = tuple(WANTED["size"]), tuple(WANTED["other"])


def drawn_weight(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    values = np.random.RandomState(zlib.crc32(name.encode())).uniform(-1, 1, shape)
    part, _, leaf = name.rpartition(".")
    if leaf == "running_var":
        values = 1 + 0.5 * values
    elif "norm" in part and leaf == "weight":
        values = (1 + 0.2 * values) * (0.3 if "conv3" in part else 1)
    elif leaf == "weight":
        fan = math.prod(shape[1:]) if "deconv" not in part else shape[0]
        values = values * math.sqrt(6 / fan)
        if "cls_score" in part or "predictor" in part:
            values = values - values.mean(axis=1, keepdims=True)
        for key, scale in SCALES.items():
            values = values * scale if key in part else values
    else:
        values = 0.1 * values
    return torch.from_numpy(values.astype(np.float32))


def drawn_image(height: int, width: int) -> torch.Tensor:
    """[3, H, W] uint8, in the order of the net: blue, green, red."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    waves = ((7, 11, 300), (13, 5, 500), (9, -8, 900))
    colours = [127.5 + 60 * np.sin(x / a + y / b) + 60 * np.sin(x * y / d) for a, b, d in waves]
    return torch.from_numpy(np.stack(colours).round().clip(0, 255).astype(np.uint8))


def keys(kind: str) -> dict[str, tuple[int, ...]]:
    found = {name: tuple(shape) for name, shape in WANTED["keys"].items()}
    return found if kind == "panoptic_fpn" else {n: s for n, s in found.items() if not n.startswith("sem_seg_head")}


@pytest.fixture(scope="module")
def state():
    return {name: drawn_weight(name, shape) for name, shape in keys("panoptic_fpn").items()}


@torch.no_grad()
def answer(net, original):
    pixels = drawn_image(*SIZE).flip(0)[None]  # as stored, red first
    frame = Frame(original, SIZE, (0, 0, *SIZE))
    return net(panoptic_fpn.KEYS["detectron2"].preprocessing(pixels), (frame,))


def assert_objects_as_detectron2(output, boxes, areas):
    """Objects whose scores are equal to the last bits may come in another order."""
    theirs, ours = torch.tensor(boxes), output.original_boxes(0)
    distance = (theirs[:, None] - ours).abs().amax(2)  # [N, N]
    nearest = distance.min(1)
    assert nearest.values.max() < 0.02
    row = nearest.indices
    assert sorted(row.tolist()) == list(range(len(ours)))
    assert output.labels[0][row].tolist() == WANTED["labels"]
    assert torch.allclose(output.scores[0][row], torch.tensor(WANTED["scores"]), atol=2e-4)
    crops = output.candidates(0).crops
    found = [int(crops[i].sum()) for i in row[: len(areas)].tolist()]
    assert np.allclose(found, areas, atol=2, rtol=0.02)
    assert np.mean(np.array(found) == areas) > 0.8


@pytest.mark.parametrize("kind", ["mask_rcnn", "panoptic_fpn"])
def test_names_shapes_and_parameters(kind):
    with torch.device("meta"):
        state = {name: torch.empty(shape) for name, shape in keys(kind).items()}
        dialect = {"mask_rcnn": mask_rcnn, "panoptic_fpn": panoptic_fpn}[kind].KEYS["detectron2"]
        net = create_model(kind, **dialect.options(state))
    new = dialect.translate(state)
    assert (new.left, new.dropped) == ((), ())
    assert {n: t.shape for n, t in new.tensors.items()} == {n: t.shape for n, t in net.state_dict().items()}
    assert sum(p.numel() for p in net.parameters()) == WANTED["parameters"][kind]


def test_the_variants_are_these_nets():
    with torch.device("meta"):
        one = create_model("mask_rcnn-detectron2_r50_fpn", classes=81)
        two = create_model("panoptic_fpn-detectron2_r50", classes=133, things=tuple(range(80)))
    assert sum(p.numel() for p in one.parameters()) == WANTED["parameters"]["mask_rcnn"]
    assert sum(p.numel() for p in two.parameters()) == WANTED["parameters"]["panoptic_fpn"]


def test_panoptic_fpn_answers_as_detectron2(state, tmp_path):
    torch.save({"model": state, "iteration": 1}, tmp_path / "model_final.pth")
    net, card = from_checkpoint(tmp_path / "model_final.pth", stuff_area=400)
    assert (card.architecture, card.task, card.outputs) == ("panoptic_fpn", "panoptic", 133)
    assert card.classes == label_set("coco-panoptic")
    output = answer(net, SIZE)
    assert_objects_as_detectron2(output, WANTED["boxes"], WANTED["areas"])
    theirs = WANTED["semantic"]
    grid = np.ix_(theirs["rows"], theirs["columns"])
    logits = torch.nn.functional.interpolate(output.semantic.logits, scale_factor=4, mode="bilinear")[0]
    ours = logits.roll(1, 0).numpy()[:, grid[0], grid[1]]  # things first, as in detectron2
    assert np.allclose(ours, theirs["logits"], atol=2e-3)
    assert_segments_as_detectron2(make_task("panoptic", card.classes).decode(output, 0))


def assert_segments_as_detectron2(segments):
    values = WANTED["panoptic"]["runs"]
    ids = np.repeat(values[::2], values[1::2]).reshape(SIZE)
    theirs = np.zeros(ids.shape, int) - 1
    for key, category, thing in WANTED["panoptic"]["segments"]:
        theirs[ids == key] = category if thing else 79 + category
    ours = segments.class_map(255).numpy().astype(int)
    ours[ours == 255] = -1
    assert np.mean(ours == theirs) > 0.998
    assert len(segments) == len(WANTED["panoptic"]["segments"])
    assert (segments.ids == UNKNOWN).any()
    for key, category, thing in WANTED["panoptic"]["segments"]:
        row, count = np.unique(segments.ids[0].numpy()[ids == key], return_counts=True)
        best = row[count.argmax()]
        assert count.max() >= 0.9 * (ids == key).sum()
        assert int(segments.labels[best]) == (category if thing else 79 + category)


def test_mask_rcnn_answers_as_detectron2_on_a_larger_image(state, tmp_path):
    net = create_model("mask_rcnn-detectron2_r50_fpn", classes=81).eval()
    report = load_weights(net, {n: state[n] for n in keys("mask_rcnn")})
    assert (report.dialect, len(report.loaded)) == ("detectron2", len(keys("mask_rcnn")))
    assert_objects_as_detectron2(answer(net, OTHER), WANTED["other_boxes"], WANTED["other_areas"])


def test_a_panoptic_file_is_not_taken_for_mask_rcnn(state):
    with pytest.raises(ModelFileError, match=r"left over: sem_seg_head\.p2"):
        load_weights(create_model("mask_rcnn-detectron2_r50_fpn", classes=81), state)


def test_another_backbone_is_refused_by_name():
    with torch.device("meta"):
        state = {name: torch.empty(shape) for name, shape in keys("mask_rcnn").items()}
        state["backbone.bottom_up.res4.6.conv1.weight"] = torch.empty(1)
    with pytest.raises(ModelFileError, match=r"a ResNet of \[3, 4, 7, 3\] blocks"):
        mask_rcnn.KEYS["detectron2"].options(state)


@pytest.mark.slow
def test_an_imported_file_predicts_at_the_size_it_was_trained_at(state, tmp_path):
    torch.save(state, tmp_path / "model.pth")
    made = import_checkpoint(tmp_path / "model.pth", tmp_path / "model.safetensors")
    assert made.parameters == WANTED["parameters"]["panoptic_fpn"]
    pixels = drawn_image(40, 50).flip(0).permute(1, 2, 0).numpy()
    output = load(tmp_path / "model.safetensors", "cpu").output(pixels)
    assert output.frames[0] == Frame((40, 50), (800, 1000), (0, 0, 800, 1000))
    assert output.probs(0).shape == (133, 40, 50)
