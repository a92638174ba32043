"""`evaluate`: a model file and a folder -> Scores; classes matched by name, channels by the rule of prediction."""

import io
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

import pixelwise
from pixelwise.core.classes import Classes
from pixelwise.data.dataset import open_data
from pixelwise.data.io import read_mask
from pixelwise.errors import ConfigError, DataError, ModelFileError
from pixelwise.evaluation import Scores, evaluate
from pixelwise.metrics import BoundaryF, BoundaryIoU, ConfusionMatrix
from pixelwise.prediction import load, predict_folder
from pixelwise.prediction.chosen import ChosenEngine

EXACTLY = "Computed by the net itself in fp32 on cpu."

TABLE = ["7 road 128 64 128", "24 person 220 20 60 thing", "23 sky 70 130 180", "# ignore index: 255"]


def write_data(root, table=TABLE, *, ids=(7, 24, 23), channels=3, instances=False):
    """Four images in test, one in train, with masks of the ids; row and column 0 are void."""
    rng = np.random.default_rng(4)
    for split, count in (("test", 4), ("train", 1)):
        for number in range(count):
            size = (24, 30) if number % 2 else (33, 17)
            labels = np.kron(rng.integers(0, len(ids), (4, 4)), np.ones((9, 9), int))[: size[0], : size[1]]
            mask = np.array(ids, np.uint8)[labels]
            mask[0], mask[:, 0] = 255, 255
            image = rng.integers(0, 256, (*size, channels), dtype=np.uint8).squeeze()
            maps = {"images": image, "masks": mask}
            if instances:
                maps["instances"] = np.where(labels == 1, 1 + np.arange(size[1]) // 9, 0).astype(np.uint8)
            for kind, array in maps.items():
                (root / kind / split).mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(root / kind / split / f"{number}.png")
    (root / "classes.txt").write_text("\n".join(table) + "\n")
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data") / "set")


def test_scores_are_those_of_the_written_answers(models, data, tmp_path):
    """The whole way by other means: predict to PNG, read both masks, count with an integer-map metric."""
    scores = evaluate(models["semantic"], data, device="cpu")
    run = predict_folder(models["semantic"], data / "images" / "test", tmp_path, device="cpu", overlay=False)
    lookup = np.full(256, 255)
    lookup[[7, 24, 23]] = 0, 1, 2
    metrics = [ConfusionMatrix(3), BoundaryIoU(3), BoundaryF(3)]
    for path, (written,) in run.done:
        truth = lookup[read_mask(data / "masks" / "test" / path.name)]
        for metric in metrics:
            metric.update(lookup[read_mask(written)], truth)
    expected = {k: v for metric in metrics for k, v in metric.compute().items()}
    assert scores.metrics.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(scores[key], value, err_msg=key)
    assert scores.score == scores["miou"]
    assert (scores.count, scores.task, scores.split) == (4, "semantic", "test")
    assert sorted(name for name, _ in scores.per_image) == sorted(r.name for r in open_data(data).records("test"))


def test_panoptic_and_instance_count_everything(models, tmp_path):
    data = write_data(tmp_path / "set", instances=True)
    panoptic = evaluate(models["panoptic"], data, device="cpu")
    assert {"pq", "sq", "rq", "pq_things", "miou", "confusion"} <= panoptic.metrics.keys()
    assert panoptic.primary == "pq"
    instance = evaluate(models["instance"], data, device="cpu")
    assert {"ap", "ap50", "f1", "f1_50", "accuracy_50"} <= instance.metrics.keys()
    assert instance.classes.names == ("person",)
    for scores in (panoptic, instance):
        Console(quiet=True).print(scores)
        json.dumps(scores.to_dict(), allow_nan=False)


def test_a_perfect_model_has_perfect_scores(models, data, monkeypatch):
    """Truth as the answer, and any class where it is void: everything must be 1."""
    model = load(models["semantic"], "cpu")
    truths = {}

    class Oracle(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, images, frames=None, truths_=None):
            truth = truths[float(images.sum())]
            logits = torch.nn.functional.one_hot(truth.clamp(max=2), 3).permute(2, 0, 1)[None].float()
            return pixelwise.Dense(logits, frames)

    opened = open_data(data)
    for record in opened.records("test"):
        sample = opened.read(record)
        key = float(model.card.preprocessing(sample.image[None]).sum())
        truths[key] = sample.truth.class_map(void=2).long()
    monkeypatch.setattr(model, "engine", ChosenEngine(Oracle(), device=torch.device("cpu")))
    scores = evaluate(model, opened, boundary=False)
    for key in ("miou", "mdice", "pixel_accuracy", "fwiou"):
        assert scores[key] == 1, key
    assert all(score == 1 for _, score in scores.per_image)


def test_boundary_scores_can_be_left_out(models, data):
    assert "boundary_iou" not in evaluate(models["semantic"], data, device="cpu", boundary=False).metrics


def test_augmentation_and_precision_reach_the_net(models, data):
    plain = evaluate(models["semantic"], data, device="cpu", boundary=False)
    flipped = evaluate(models["semantic"], data, device="cpu", boundary=False, tta="flip")
    assert plain.tta == "none"
    assert flipped.tta == "1, 1 mirrored"
    assert not np.array_equal(plain["confusion"], flipped["confusion"])
    with pytest.raises(ConfigError, match="precision"):
        evaluate(models["semantic"], data, device="cpu", precision="half")


def test_scores_on_disk(models, data, tmp_path):
    scores = evaluate(models["semantic"], data, device="cpu", out=tmp_path / "report")
    stored = json.loads((tmp_path / "report" / "scores.json").read_text())
    assert stored == json.loads(json.dumps(scores.to_dict()))
    assert stored["metrics"]["miou"] == scores["miou"]
    assert stored["classes"] == ["road", "person", "sky"]
    assert len(stored["per_image"]) == 4


# -- classes that disagree --------------------------------------------------------------------------------------------


def test_another_order_is_matched_by_name(models, data, tmp_path):
    turned = write_data(tmp_path / "set", ["1 sky", "2 road", "3 person thing"], ids=(2, 3, 1))
    scores = evaluate(models["semantic"], turned, device="cpu")
    expected = evaluate(models["semantic"], data, device="cpu")
    assert np.array_equal(scores["confusion"], expected["confusion"])
    assert scores.notes == ("The data's classes were matched to the model's by name.", EXACTLY)
    assert expected.notes == (EXACTLY,)


def test_a_part_of_the_classes(models, tmp_path):
    part = write_data(tmp_path / "set", ["7 road", "23 sky"], ids=(7, 23))
    scores = evaluate(models["semantic"], part, device="cpu")
    assert "has no person" in scores.notes[0]
    assert scores["confusion"][1].sum() == 0
    assert scores["confusion"][[0, 2]].sum() > 0


def test_foreign_classes_are_refused(models, tmp_path):
    foreign = write_data(tmp_path / "set", ["7 road", "24 persons thing", "23 sky"])
    with pytest.raises(DataError, match=r"does not know: persons \(it knows road, person, sky\).*classes\.txt"):
        evaluate(models["semantic"], foreign, device="cpu")


def test_class_maps_alone_do_not_score_instances(models, data):
    for task in ("instance", "panoptic"):
        with pytest.raises(DataError, match="class maps only"):
            evaluate(models[task], data, device="cpu")


def test_grey_data_for_a_colour_model(models, tmp_path):
    scores = evaluate(models["semantic"], write_data(tmp_path / "set", channels=1), device="cpu", boundary=False)
    assert scores.notes == ("The data has 1 channels, the model takes 3; converted.", EXACTLY)


def test_missing_split_and_missing_model(models, data, tmp_path):
    with pytest.raises(DataError, match=r"no split 'tests'. It has train \(images: 1\), test \(images: 4\)"):
        evaluate(models["semantic"], data, split="tests", device="cpu")
    with pytest.raises(ModelFileError, match="no model file"):
        evaluate(tmp_path / "m.safetensors", data, device="cpu")


# -- Scores -----------------------------------------------------------------------------------------------------------


def make_scores(**changes):
    values = {"task": "semantic", "primary": "miou", "classes": Classes(names=["a", "b"]), "count": 3, "seconds": 1.5,
              "metrics": {"miou": 0.5, "iou": np.array([0.5, np.nan]), "confusion": np.eye(3, dtype=np.int64),
                          "f1_per_threshold": np.array([0.1, 0.2]), "dice_per_class": np.array([0.25, 1.0])},
              "per_image": (("x", 0.9), ("y", math.nan), ("z", 0.1)),
              "model": "m", "data": "d", "split": "val"}  # fmt: skip
    return Scores(**{**values, **changes})


def test_best_and_worst_leave_out_images_without_a_score():
    assert make_scores().worst(5) == [("z", 0.1), ("x", 0.9)]
    assert make_scores().best(1) == [("x", 0.9)]


def test_columns_by_class():
    assert list(make_scores().by_class()) == ["iou", "dice"]
    assert make_scores().headline() == {"miou": 0.5}


def test_scores_as_json():
    plain = make_scores().to_dict()
    assert plain["metrics"]["iou"] == [0.5, None]
    assert plain["per_image"][1] == {"name": "y", "score": None}
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain


def test_table():
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(make_scores())
    text = console.export_text()
    for word in ("m on d, split val: 3 images", "miou", "50.00", "iou", "25.00", "-"):
        assert word in text


def test_public_names():
    assert pixelwise.evaluate is evaluate
