"""Several models as one: a model with itself is itself, two are the mean of both, and unlike ones are refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from pixelwise.cli import main
from pixelwise.core.classes import Classes
from pixelwise.core.modelfile import load_model, save_model
from pixelwise.core.sizes import SizeRule
from pixelwise.errors import ConfigError
from pixelwise.evaluation import evaluate
from pixelwise.prediction import load
from pixelwise.prediction.ensemble import labels_of
from pixelwise.prediction.stitch import segments_by_tiles, tiling_for
from pixelwise.views import View

IMAGE = np.random.default_rng(2).integers(0, 256, (33, 50, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def other(models, tmp_path_factory):
    """Other weights, normalised in another way, seen at another size."""
    net, card = load_model(models["semantic"])
    torch.manual_seed(8)
    torch.nn.init.normal_(net.head.weight, std=3.0)
    way = replace(card.preprocessing, mean=(0.1, 0.5, 0.3), std=(0.5, 0.2, 0.3), size=SizeRule(short=48))
    path = tmp_path_factory.mktemp("other") / "other.safetensors"
    save_model(path, net, replace(card, preprocessing=way))
    return path


@pytest.mark.parametrize("task", ["semantic", "instance", "panoptic"])
@pytest.mark.parametrize("tta", [None, "flip+turn"])
def test_a_model_with_itself_is_itself(models, task, tta):
    path = models[task]
    one, twice = load(path, "cpu", tta, exact=True), load([path, path], "cpu", tta, exact=True)
    alone, together = one.output(IMAGE), twice.output(IMAGE)
    torch.testing.assert_close(together.probs(0), alone.probs(0))
    assert torch.equal(together.class_map(0), alone.class_map(0))
    answer, expected = twice(IMAGE), one(IMAGE)
    assert torch.equal(answer.ids, expected.ids)
    torch.testing.assert_close(answer.scores, expected.scores)


def test_two_are_the_mean_of_their_probabilities(models, other):
    paths = [models["semantic"], other]
    joined = load(paths, "cpu", exact=True).output(IMAGE)
    single = [load(path, "cpu", exact=True).output(IMAGE).probs(0) for path in paths]
    torch.testing.assert_close(joined.probs(0), (single[0] + single[1]) / 2)
    assert (single[0] - single[1]).abs().max() > 0.3
    part = (3, 5, 20, 31)
    torch.testing.assert_close(joined.probs(0, part), joined.probs(0)[:, 3:23, 5:36])


def test_views_of_all_members_count_alike(models, other):
    paths = [models["semantic"], other, other]
    joined = load(paths, "cpu", (View(), View(turns=1)), exact=True).output(IMAGE)
    single = [load(path, "cpu", (View(), View(turns=1)), exact=True).output(IMAGE).probs(0) for path in paths]
    torch.testing.assert_close(joined.probs(0), sum(single) / 3)


def test_a_batch_is_its_images(models, other):
    together = load([models["semantic"], other], "cpu", "flip", exact=True)
    images = torch.stack([together.pixels(IMAGE), together.pixels(IMAGE[::-1].copy())])
    batch = together.forward_batch(images)
    for i, image in enumerate(images):
        torch.testing.assert_close(batch.probs(i), together.forward(image).probs(0))


def test_it_says_what_it_is(models, other):
    together = load([models["semantic"], other], "cpu")
    assert repr(together) == "Predictor(unet + unet, semantic, 3 classes, cpu)"
    assert [member.card.preprocessing.size for member in together.members] == [None, SizeRule(short=48)]


CLASSES = {
    "lacks person; it has besides tree": Classes(names=["road", "tree", "sky"]),
    "has besides tree": Classes(names=["road", "person", "sky", "tree"], things=["person"]),
    "do not agree whether person, sky can be counted": Classes(names=["road", "person", "sky"], things=["sky"]),
}


@pytest.mark.parametrize("said", CLASSES)
def test_other_classes_are_refused(models, write_model, tmp_path, said):
    path = write_model(tmp_path / "m.safetensors", classes=CLASSES[said])
    with pytest.raises(ConfigError, match=said) as error:
        load([models["semantic"], path], "cpu")
    assert str(path) in str(error.value)
    assert str(models["semantic"]) in str(error.value)


def test_another_task_or_other_images_are_refused(models, write_model, tmp_path):
    with pytest.raises(ConfigError, match="trained for instance, not semantic"):
        load([models["semantic"], models["instance"]], "cpu")
    deep = write_model(tmp_path / "m.safetensors", channels=1, top=65535.0)
    with pytest.raises(ConfigError, match="takes 1 channels, not 3; its images go up to 65535, not 255"):
        load([models["semantic"], deep], "cpu")
    with pytest.raises(ConfigError, match="no model"):
        load([], "cpu")


def test_a_net_that_knows_of_pixels_without_class_is_refused(models, write_model, tmp_path):
    classes = replace(load_model(models["semantic"])[1].classes, nothing=True)
    path = write_model(tmp_path / "m.safetensors", classes=classes)
    with pytest.raises(ConfigError, match="its net has 4 channels, not 3, for pixels"):
        load([models["semantic"], path], "cpu")


@pytest.mark.parametrize("tta", [None, "flip"])
@pytest.mark.parametrize("task", ["semantic", "instance", "panoptic"])
def test_classes_are_matched_by_name(write_model, tmp_path, task, tta):
    """The same net, trained from a table in another order: together they are what one of them is."""
    names, things, turned = ["road", "person", "sky", "car"], ["person", "car"], ["car", "sky", "person", "road"]
    path = write_model(tmp_path / "one.safetensors", task=task, classes=Classes(names=names, things=things))
    net, card = load_model(path)
    other = replace(card, classes=Classes(names=turned, things=things))
    own, wanted = (labels_of(c).names for c in (card, other))
    rows = [own.index(name) for name in wanted] + list(range(len(own), card.outputs))
    with torch.no_grad():
        net.head.weight.copy_(net.head.weight[rows])
        net.head.bias.copy_(net.head.bias[rows])
    save_model(tmp_path / "other.safetensors", net, other)
    alone, together = (load(p, "cpu", tta, exact=True) for p in (path, [path, tmp_path / "other.safetensors"]))
    torch.testing.assert_close(together.output(IMAGE).probs(0), alone.output(IMAGE).probs(0))
    answer, expected = together(IMAGE), alone(IMAGE)
    assert torch.equal(answer.ids, expected.ids)
    assert torch.equal(answer.labels, expected.labels)
    turned_alone = load(tmp_path / "other.safetensors", "cpu", tta, exact=True)
    assert not torch.equal(turned_alone.output(IMAGE).probs(0), alone.output(IMAGE).probs(0))


@pytest.fixture
def data(tmp_path):
    """Four images of two sizes, in the plain layout."""
    rng, root = np.random.default_rng(0), tmp_path / "set"
    for folder in ("images", "masks"):
        (root / folder / "test").mkdir(parents=True)
    for i, size in enumerate(((24, 40), (24, 40), (40, 24), (31, 17))):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(root / f"images/test/{i}.png")
        mask = np.array([7, 24, 23], np.uint8)[rng.integers(0, 3, size)]
        Image.fromarray(mask).save(root / f"masks/test/{i}.png")
    lines = ["7 road 90 90 90", "24 person 220 20 60 thing", "23 sky 70 130 180", "# ignore index: 255"]
    (root / "classes.txt").write_text("\n".join(lines) + "\n")
    return root


def test_commands_take_further_models(models, other, data, tmp_path, capsys):
    out = tmp_path / "scores"
    words = [str(models["semantic"]), str(data), "--with", str(other), "--tta", "vflip", "--exact", "--no-report",
             "--out", str(out), "--device", "cpu"]  # fmt: skip
    with pytest.raises(SystemExit) as end:
        main(["evaluate", *words])
    assert end.value.code == 0
    written = json.loads((out / "scores.json").read_text())
    scores = evaluate([models["semantic"], other], data, device="cpu", tta="vflip", exact=True, boundary=False)
    assert written["model"] == f"{models['semantic']} + {other}" == scores.model
    assert written["tta"] == scores.tta == "1, 1 mirrored turned 180"
    assert written["metrics"]["miou"] == pytest.approx(scores["miou"])
    alone = evaluate(models["semantic"], data, device="cpu", tta="vflip", exact=True, boundary=False)
    assert alone["miou"] != scores["miou"]
    image = data / "images/test/0.png"
    with pytest.raises(SystemExit) as end:
        main(["predict", str(models["semantic"]), str(image), "--with", str(other), "--out", str(tmp_path / "out"),
              "--exact", "--no-overlay", "--device", "cpu"])  # fmt: skip
    assert end.value.code == 0
    answer = np.asarray(Image.open(tmp_path / "out/classes/0.png"))
    expected = load([models["semantic"], other], "cpu", exact=True)(image).class_map().numpy()
    assert np.array_equal(answer, np.array([7, 24, 23])[expected])


def test_tiles_of_an_ensemble_in_all_views_are_the_whole(models, tmp_path):
    """Both nets have a halo, and the image's sides are multiples of their stride: not a pixel differs."""
    net, card = load_model(models["semantic"])
    torch.manual_seed(9)
    torch.nn.init.normal_(net.head.weight, std=3.0)
    save_model(tmp_path / "third.safetensors", net, card)
    together = load([models["semantic"], tmp_path / "third.safetensors"], "cpu", "dihedral", exact=True)
    image = torch.from_numpy(np.random.default_rng(5).integers(0, 256, (3, 224, 288), dtype=np.uint8))
    tiling = tiling_for(together, (224, 288), memory=1 << 20)
    assert tiling.exact
    assert max(tiling.counts((224, 288))) > 1
    whole = together.decode(together.forward(image))
    assert torch.equal(segments_by_tiles(together, image, tiling).ids, whole.ids)


def test_images_after_with_are_taken_for_models(models, capsys):
    with pytest.raises(SystemExit) as end:
        main(["predict", str(models["semantic"]), "--with", str(models["semantic"]), "photo.jpg"])
    assert end.value.code == 2
    assert "--with takes all words after it for models: put it last" in capsys.readouterr().err
