"""The public surface that others build on: names, signatures, keys, ranges, shapes."""

from __future__ import annotations

import inspect
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pixelwise
from pixelwise import Classes, Dense, Segments, errors

NAMES = {
    "Batch", "Classes", "Dense", "Instance", "Panoptic", "Preprocessing", "Queries", "Sample", "Segments", "Semantic",
    "create_model", "errors", "evaluate", "examine", "from_checkpoint", "import_checkpoint", "load", "load_weights",
    "losses", "metrics", "open_data", "predict_folder", "train",
}  # fmt: skip
CLASSES = Classes(names=["road", "car", "person"], things=["car", "person"])


def parameters(function: object, kind: inspect._ParameterKind) -> list[str]:
    return [p.name for p in inspect.signature(function).parameters.values() if p.kind is kind]  # type: ignore[arg-type]


def positional(function: object) -> list[str]:
    return parameters(function, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def scene() -> tuple[Segments, Segments]:
    """(prediction, truth) of 8 x 8: a road with an unknown corner, a car and a person; the person is missed."""
    ids = np.zeros((8, 8), np.int8)
    ids[1:4, 1:4], ids[5:7, 5:7], ids[7, 7] = 1, 2, -2
    truth = Segments(ids, labels=[0, 1, 2])
    return Segments(np.where(ids == 2, 0, ids).clip(0), labels=[0, 1], scores=[0.9, 0.8]), truth


# -- names ------------------------------------------------------------------------------------------------------------


def test_about_twenty_names_and_each_is_there():
    assert set(pixelwise.__all__) == NAMES | {"__version__"}
    for name in pixelwise.__all__:
        assert getattr(pixelwise, name) is not None
    assert pixelwise.__version__.count(".") == 2


def test_everything_public_says_what_it_does():
    for name in NAMES:
        assert inspect.getdoc(getattr(pixelwise, name)), name


@pytest.mark.parametrize("module", [pixelwise.losses, pixelwise.metrics], ids=lambda m: m.__name__)
def test_all_of_losses_and_metrics_can_be_had(module):
    for name in module.__all__:
        assert inspect.getdoc(getattr(module, name)), name


def test_every_error_is_of_the_tree():
    kinds = [v for v in vars(errors).values() if isinstance(v, type) and issubclass(v, Exception)]
    assert len(kinds) >= 7
    assert all(issubclass(kind, errors.PixelwiseError) for kind in kinds)
    tree = errors.__doc__ or ""
    assert all(kind.__name__ in tree for kind in kinds), "the tree at the top of errors.py lacks one"


# -- models -----------------------------------------------------------------------------------------------------------


def test_create_model_takes_a_name_and_the_number_of_classes():
    assert positional(pixelwise.create_model) == ["name"]
    assert parameters(pixelwise.create_model, inspect.Parameter.KEYWORD_ONLY) == ["classes"]
    assert parameters(pixelwise.create_model, inspect.Parameter.VAR_KEYWORD) == ["options"]
    with torch.device("meta"):
        net = pixelwise.create_model("unet", classes=21)
    assert isinstance(net, torch.nn.Module)
    assert sum(p.numel() for p in net.parameters()) == 31_044_821


@pytest.mark.parametrize("size", [(8, 8), (9, 31), (33, 16)])
def test_a_net_answers_dense_logits_for_any_size_from_8_up(size):
    net = pixelwise.create_model("unet", classes=5, width=4, depth=3).eval()
    with torch.no_grad():
        output = net(torch.rand(2, 3, *size))
    assert isinstance(output, Dense)
    assert output.logits.shape[:2] == (2, 5)
    assert output.full().shape == (2, 5, *size)
    assert output.probs(0).shape == (5, *size)
    assert output.class_map(1).shape == size


# -- segments ---------------------------------------------------------------------------------------------------------


def test_segments_from_masks():
    assert positional(Segments.from_masks) == ["masks", "labels", "scores", "crowd"]
    masks = torch.zeros(2, 6, 7, dtype=torch.bool)
    masks[0, :3], masks[1, 2:5, 1:4] = True, True  # they overlap
    segments = Segments.from_masks(masks, torch.tensor([2, 0]))
    assert torch.equal(segments.masks, masks)
    assert segments.masks.dtype == torch.bool
    assert segments.labels.tolist() == [2, 0]
    assert segments.scores.tolist() == [1.0, 1.0]
    assert segments.crowd.tolist() == [False, False]
    scored = Segments.from_masks(masks.numpy(), [2, 0], [0.25, 0.5], [True, False])
    assert scored.scores.tolist() == [0.25, 0.5]
    assert scored.crowd.tolist() == [True, False]


@pytest.mark.parametrize("void", [255, 11])
def test_segments_from_class_map_and_back(void):
    assert positional(Segments.from_class_map) == ["class_map", "void"]
    labels = torch.tensor([[0, 2, void], [1, 1, 0]])
    segments = Segments.from_class_map(labels, void)
    assert segments.class_map(void).tolist() == labels.tolist()


def test_classes_take_lists():
    assert Classes(names=["a", "b"], things=["b"]).is_thing.tolist() == [False, True]


# -- metrics ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("metric", "keys"), [
    (pixelwise.metrics.ConfusionMatrix(3, ignore_index=255),
     {"iou", "dice", "miou", "pixel_accuracy", "mean_accuracy", "fwiou"}),
    (pixelwise.metrics.PanopticQuality(CLASSES), {"pq", "sq", "rq"}),
    (pixelwise.metrics.AveragePrecision(CLASSES), {"ap", "ap50", "ap75"}),
], ids=lambda value: type(value).__name__)  # fmt: skip
def test_metrics_update_merge_and_compute(metric, keys):
    assert positional(metric.update)[:2] == ["prediction", "truth"]
    assert positional(metric.merge) == ["other"]
    metric.update(*scene())
    scores = metric.compute()
    assert keys <= set(scores)
    for key in keys:
        value = np.asarray(scores[key])
        assert value.dtype == np.float64
        assert ((value >= 0) & (value <= 1)).all(), key


def test_the_confusion_matrix_takes_integer_maps_and_absent_classes_are_nan():
    assert positional(pixelwise.metrics.ConfusionMatrix) == ["num_classes", "ignore_index"]
    matrix = pixelwise.metrics.ConfusionMatrix(4)
    matrix.update(torch.tensor([[0, 1, 1, 2]]), torch.tensor([[0, 1, 255, 1]]))
    scores = matrix.compute()
    assert scores["iou"].shape == scores["dice"].shape == (4,)
    assert scores["iou"][:3].tolist() == [1, 0.5, 0]
    assert math.isnan(scores["iou"][3])
    assert math.isnan(scores["dice"][3])
    assert scores["miou"] == 0.5
    assert scores["pixel_accuracy"] == pytest.approx(2 / 3)


# -- losses -----------------------------------------------------------------------------------------------------------

CALLS = {
    "cross_entropy": {"weight": None, "label_smoothing": 0},
    "dice": {"weight": None, "smooth": 0},
    "focal": {"gamma": 2, "weight": None},
    "tversky": {"alpha": 0.5, "beta": 0.5, "weight": None, "smooth": 0},
    "lovasz_softmax": {"weight": None},
    "ohem_cross_entropy": {"threshold": 0.7, "min_kept": 100_000, "weight": None},
}


@pytest.mark.parametrize("name", CALLS)
def test_losses_share_their_call(name):
    loss = getattr(pixelwise.losses, name)
    assert positional(loss) == ["logits", "target"]
    options = inspect.signature(loss).parameters
    expected = {"ignore_index": 255, **CALLS[name]}
    assert {key: options[key].default for key in expected} == expected
    assert all(options[key].kind is inspect.Parameter.KEYWORD_ONLY for key in expected)
    logits = torch.randn(2, 3, 4, 5, requires_grad=True)
    value = loss(logits, torch.full((2, 4, 5), 255))
    assert value.shape == ()
    assert value.item() == 0
    value.backward()
    assert not logits.grad.any()


def test_region_losses_pool_over_the_batch_and_average_over_all_classes():
    """Class 0 fills image 0, class 1 image 1, class 2 is absent: it adds 0 and is divided by."""
    target = torch.zeros(2, 4, 4, dtype=torch.long)
    target[1] = 1
    logits = torch.zeros(2, 3, 4, 4)
    third = 1 / 3  # of each class at each pixel: TP = 16/3, FP = 16/3, FN = 32/3 of classes 0 and 1, pooled
    tp, fp, fn = 16 * third, 16 * third, 16 * 2 * third
    dice = 2 * (1 - 2 * tp / (2 * tp + fp + fn)) / 3
    assert pixelwise.losses.dice(logits, target).item() == pytest.approx(dice)
    wanted = 2 * (1 - tp / (tp + 0.3 * fp + 0.7 * fn)) / 3  # alpha weighs false positives
    assert pixelwise.losses.tversky(logits, target, alpha=0.3, beta=0.7).item() == pytest.approx(wanted)
    alone = (1 - 2 * tp / (2 * tp + 0 + fn)) / 3  # within an image the other class is absent, so it adds 0
    assert pixelwise.losses.dice(logits, target, per_image=True).item() == pytest.approx(alone)


# -- from a file to an answer -----------------------------------------------------------------------------------------


def test_load_answers_paths_pictures_arrays_tensors_and_lists(models: dict[str, Path], tmp_path: Path):
    assert positional(pixelwise.load)[0] == "path"
    predictor = pixelwise.load(models["semantic"], device="cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    forms = [tmp_path / "photo.png", str(tmp_path / "photo.png"), Image.fromarray(pixels), pixels,
             torch.from_numpy(pixels).permute(2, 0, 1)]  # fmt: skip
    answers = [predictor(form) for form in forms] + predictor(forms)
    assert all(isinstance(answer, Segments) and answer.size == (20, 30) for answer in answers)
    assert all(torch.equal(answer.class_map(255), answers[0].class_map(255)) for answer in answers)


def test_train_and_evaluate_say_what_they_take():
    assert positional(pixelwise.train) == ["data"]
    assert parameters(pixelwise.train, inspect.Parameter.VAR_KEYWORD) == ["settings"]
    assert positional(pixelwise.evaluate) == ["model", "data"]
    assert inspect.signature(pixelwise.evaluate).parameters["split"].default == "test"
    with pytest.raises(errors.ConfigError, match="did you mean 'epochs'"):
        pixelwise.train("data", epoch=3)
