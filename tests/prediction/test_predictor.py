"""`load` and `Predictor`: any input and size, answers at the original size, errors that say what to do."""

import json
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

import pixelwise
from pixelwise.core.classes import Classes
from pixelwise.core.modelfile import load_model
from pixelwise.errors import ConfigError, ImageError, ModelFileError
from pixelwise.prediction import load

RNG = np.random.default_rng(1)


@pytest.fixture(scope="module")
def predictor(models):
    return load(models["semantic"], "cpu")


def test_the_answer_is_the_nets_argmax(predictor, models):
    image = RNG.integers(0, 256, (32, 48, 3), dtype=np.uint8)
    net, card = load_model(models["semantic"])
    x = (torch.from_numpy(image).permute(2, 0, 1)[None] / 255 - 0.4) / 0.25
    with torch.no_grad():
        expected = net(x).logits.argmax(1)[0]
    segments = predictor(image)
    assert torch.equal(segments.class_map().long(), expected)
    assert predictor.task.classes == card.classes


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 3), (8, 8), (33, 50), (64, 17)])
@pytest.mark.parametrize("task", ["semantic", "instance", "panoptic"])
def test_any_size_and_task(models, size, task):
    segments = load(models[task], "cpu")(RNG.integers(0, 256, (*size, 3), dtype=np.uint8))
    assert segments.size == size
    assert (segments.labels < len(load(models[task]).task.classes)).all()


@pytest.mark.parametrize("trained", ["panoptic", "semantic"])
def test_one_net_answers_every_task(tmp_path, write_model, trained):
    """What a panoptic net says of instances and classes is what its maps hold; a semantic one has its components."""
    classes = Classes(names=["road", "person", "sky"], things=["sky"], void=(255,))
    path = write_model(tmp_path / "m.safetensors", task=trained, classes=classes)
    image = RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8)
    whole, labels = (load(path, "cpu", task=task)(image) for task in ("panoptic", "semantic"))
    objects = load(path, "cpu", task="instance")
    found = objects(image)
    assert torch.equal(whole.class_map(), labels.class_map())
    assert objects.task.classes.names == ("sky",)
    assert len(found) == int((whole.labels == 2).sum()) > 0
    assert torch.equal(found.row_map() >= 0, whole.class_map() == 2)


def test_thresholds_go_with_the_net_to_another_task(tmp_path, write_model):
    path = write_model(tmp_path / "m.safetensors", task="panoptic", thresholds={"score": 0.2, "min_area": 7})
    other = load(path, "cpu", task="instance")
    assert (other.task.score, other.task.min_area) == (0.2, 7)
    assert "score 0.2 (chosen on validation)" in other.thresholds


def test_a_net_of_instances_does_not_know_stuff(models):
    with pytest.raises(ConfigError, match=r"trained for instances, on person alone.*panoptic"):
        load(models["instance"], "cpu", task="panoptic")
    with pytest.raises(ConfigError, match="did you mean 'panoptic'"):
        load(models["semantic"], "cpu", task="panoptik")


def test_every_kind_of_input_gives_one_answer(predictor, tmp_path):
    image = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "x.png")
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    answers = predictor([tmp_path / "x.png", str(tmp_path / "x.png"), Image.fromarray(image), image, tensor])
    assert len(answers) == 5
    for answer in answers:
        assert torch.equal(answer.ids, answers[0].ids)
    assert predictor([]) == []


def test_sixteen_bits_and_eight_agree(predictor):
    image = RNG.integers(0, 256, (16, 16), dtype=np.uint8)
    assert torch.equal(predictor(image).ids, predictor(image.astype(np.uint16) * 257).ids)


def test_output_gives_probabilities(predictor):
    output = predictor.output(RNG.integers(0, 256, (5, 30, 3), dtype=np.uint8))
    probs = output.probs(0)
    assert probs.shape == (3, 5, 30)
    torch.testing.assert_close(probs.sum(0), torch.ones(5, 30))


def test_answers_can_be_trained_on(predictor):
    """An answer made in inference mode could not be the target of a loss."""
    segments = predictor(RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    logits = torch.zeros(1, 3, 8, 8, requires_grad=True)
    torch.nn.functional.cross_entropy(logits, segments.class_map().long()[None]).backward()
    assert logits.grad.abs().sum() > 0


def test_augmentation(models):
    image = RNG.integers(0, 256, (24, 24, 3), dtype=np.uint8)
    flipped = load(models["semantic"], "cpu", tta="flip")
    torch.testing.assert_close(
        flipped.output(image).probs(0), flipped.output(image[:, ::-1]).probs(0).flip(-1), atol=1e-5, rtol=1e-5
    )
    with pytest.raises(ConfigError, match="did you mean 'flip'"):
        load(models["semantic"], tta="flp")


def test_bf16_is_close(models):
    image = RNG.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    exact = load(models["semantic"], "cpu").output(image).probs(0)
    rough = load(models["semantic"], "cpu", precision="bf16").output(image).probs(0)
    assert rough.dtype == torch.float32
    assert 0 < (exact - rough).abs().max() < 0.3
    with pytest.raises(ConfigError, match="did you mean 'bf16'"):
        load(models["semantic"], precision="bf61")


def test_a_model_of_other_channels(tmp_path, write_model):
    model = load(write_model(tmp_path / "m.safetensors", channels=5, top=65535.0), "cpu")
    assert model(RNG.integers(0, 65536, (9, 9, 5), dtype=np.uint16)).size == (9, 9)
    assert model(RNG.integers(0, 256, (9, 9), dtype=np.uint8)).size == (9, 9)
    with pytest.raises(ImageError, match="has 3 channels, the model takes 5"):
        model(RNG.integers(0, 256, (9, 9, 3), dtype=np.uint8))


def test_thresholds_of_the_card_reach_the_task(tmp_path, write_model):
    model = load(write_model(tmp_path / "m.safetensors", task="instance", thresholds={"score": 0.99, "keep": 3}), "cpu")
    assert (model.task.score, model.task.keep) == (0.99, 3)
    strange = write_model(tmp_path / "s.safetensors", thresholds={"score": 0.5})
    with pytest.raises(ModelFileError, match=r"s\.safetensors.*score"):
        load(strange)


def test_devices(models):
    assert load(models["semantic"], torch.device("cpu")).device.type == "cpu"
    for wrong in ("gpu", "cuda:77"):
        with pytest.raises(ConfigError, match=f"'{wrong}'.*cpu"):
            load(models["semantic"], wrong)


def test_bad_files_are_named(predictor, tmp_path):
    (tmp_path / "text.png").write_text("no image at all")
    (tmp_path / "empty.jpg").write_bytes(b"")
    Image.fromarray(RNG.integers(0, 256, (50, 50, 3), dtype=np.uint8)).save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:700])
    for name in ("text.png", "empty.jpg", "cut.jpg", "missing.png"):
        with pytest.raises(ImageError, match=name):
            predictor(tmp_path / name)


def test_a_bomb_is_not_decoded(models, tmp_path):
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    with pytest.raises(ImageError, match=r"bomb\.png.*max_pixels"):
        load(models["semantic"])(tmp_path / "bomb.png")
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(tmp_path / "x.png")
    with pytest.raises(ImageError, match="max_pixels"):
        load(models["semantic"], max_pixels=399)(tmp_path / "x.png")
    assert load(models["semantic"], max_pixels=400)(tmp_path / "x.png").size == (20, 20)


def test_classes_that_do_not_fit_the_net(models, tmp_path):
    """A class struck from the header: weights and architecture still fit, the labels would be wrong."""
    data = models["semantic"].read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    stored = json.loads(header["__metadata__"]["card"])
    stored["card"]["classes"] = {"names": ["road", "person"]}
    header["__metadata__"]["card"] = json.dumps(stored)
    text = json.dumps(header).encode()
    path = tmp_path / "edited.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
    with pytest.raises(ModelFileError, match=r"edited\.safetensors.*names 2 classes.*those of 3"):
        load(path)


def test_public_name(models):
    assert pixelwise.load is load
    assert "semantic, 3 classes" in repr(load(models["semantic"], "cpu"))


def test_a_number_of_images_is_one_at_least(models):
    with pytest.raises(ConfigError, match="at least 1, got -3"):
        load(models["semantic"], "cpu", images=-3)
