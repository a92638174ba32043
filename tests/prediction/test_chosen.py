"""The engine that chooses: begins with the net itself, tries what pays on the second image, keeps what agrees."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from pixelwise.core.choice import NO_WISHES, REFERENCE, Wishes
from pixelwise.core.machine import Machine
from pixelwise.core.outputs import Dense, Frame
from pixelwise.errors import ConfigError
from pixelwise.prediction import chosen, load
from pixelwise.prediction.chosen import ChosenEngine, equal_share

ALL = {"onnx": "1", "onnxscript": "1", "onnxruntime": "1", "openvino": "2026"}
AMX = Machine(flags=("avx512_bf16", "amx_bf16"), cores=2, packages=ALL)
CPU = torch.device("cpu")
FRAMES = (Frame.whole(10, 10),)
IMAGE = torch.zeros(1, 3, 10, 10)


class Fakes:
    """Engines that advance a clock: `seconds` of an image, `wrong` share of its pixels, `faults` at opening."""

    def __init__(self) -> None:
        self.now, self.opened = 0.0, []
        self.seconds = {REFERENCE: 1.0, "eager bf16": 0.5, "openvino bf16": 0.1, "openvino fp32": 0.6, "onnx fp32": 0.7}
        self.wrong, self.faults, self.any_size = dict.fromkeys(self.seconds, 0.0), {}, True

    def open(self, engine, net, *, device, precision):
        name = f"{engine} {precision}"
        self.opened.append(name)
        if name in self.faults:
            raise self.faults[name]

        def run(images, frames=None):
            self.now += self.seconds[name] * len(images)
            right = torch.arange(100).view(1, 1, 10, 10) >= 100 * self.wrong[name]
            return Dense(torch.cat([right, ~right], 1).float().expand(len(images), -1, -1, -1), frames)

        run.any_size = self.any_size or engine == "eager"
        return run


@pytest.fixture
def fakes(monkeypatch):
    made = Fakes()
    monkeypatch.setattr(chosen, "open_engine", made.open)
    monkeypatch.setattr(chosen.time, "perf_counter", lambda: made.now)
    return made


def make(wishes=NO_WISHES, **facts):
    return ChosenEngine(nn.Conv2d(3, 2, 1), device=CPU, wishes=wishes, machine=AMX, **facts)


def names(engine, images):
    """The way by which each of so many images was answered."""
    found = []
    for _ in range(images):
        engine(IMAGE, FRAMES)
        found.append(engine.choice.name)
    return found


def test_few_images_are_the_nets_own(fakes):
    engine = make()
    assert names(engine, 5) == [REFERENCE] * 5, "nobody said how many will come"
    engine.expect(2)
    assert names(engine, 2) == [REFERENCE] * 2
    assert fakes.opened == [REFERENCE]


def test_many_images_change_after_the_second(fakes):
    engine = make()
    engine.expect(1000)
    assert names(engine, 4) == [REFERENCE, *["openvino bf16"] * 3]
    assert (engine.name, engine.facts.agreement) == ("openvino", {"openvino bf16": 1.0})
    before = fakes.now
    engine(IMAGE, FRAMES)
    assert fakes.now - before == pytest.approx(0.1), "no way but the chosen one runs"


def test_an_engine_that_disagrees_gives_way_to_the_next(fakes):
    fakes.wrong |= {"openvino bf16": 0.01, "eager bf16": 0.03}
    engine = make()
    engine.expect(1000)
    assert names(engine, 3)[-1] == "onnx fp32"
    assert "not openvino bf16: 99.00%" in engine.choice.reasons["engine"]
    assert engine.facts.agreement["eager bf16"] == pytest.approx(0.97)


def test_a_way_that_is_not_quicker_is_not_taken(fakes):
    fakes.seconds = dict.fromkeys(fakes.seconds, 1.0)
    engine = make()
    engine.expect(1000)
    assert names(engine, 3)[-1] == REFERENCE
    assert set(fakes.opened) == set(fakes.seconds), "each was tried"


@pytest.mark.parametrize("error", [ConfigError("openvino has no nms."), RuntimeError("a shape that does not fit")])
def test_an_engine_that_cannot_is_passed_over(fakes, error):
    fakes.faults = {"openvino bf16": error, "openvino fp32": error}
    engine = make()
    engine.expect(1000)
    assert names(engine, 3)[-1] == "eager bf16"
    assert f"not openvino bf16: {error}" in engine.choice.reasons["engine"]


def test_a_fault_of_the_net_itself_is_raised(fakes):
    engine = make()
    engine.expect(1000)
    engine(IMAGE, FRAMES)
    fakes.seconds.pop(REFERENCE)
    with pytest.raises(KeyError):
        engine(IMAGE, FRAMES)


def test_sizes_that_vary_argue_against_a_program_for_each(fakes):
    fakes.any_size = False
    engine = make()
    engine.expect(1000, sizes=700)
    assert names(engine, 3)[-1] == "eager bf16"
    assert "not openvino bf16: it would prepare for each of about 700 sizes" in engine.choice.reasons["engine"]
    engine = make()
    engine.expect(1000, sizes=3)
    assert names(engine, 3)[-1] == "openvino bf16"


def test_wishes_are_followed_from_the_first_image(fakes):
    for wishes, name in ((Wishes(exact=True), REFERENCE), (Wishes(engine="onnx", precision="fp32"), "onnx fp32")):
        engine = make(wishes)
        engine.expect(1000)
        assert names(engine, 3) == [name] * 3
    assert set(fakes.opened) == {REFERENCE, "onnx fp32"}


def test_agreement_known_before_serves_the_first_image(fakes):
    engine = make(agreement={"eager bf16": 0.999})
    assert names(engine, 2) == ["eager bf16"] * 2
    engine.expect(1000)
    assert names(engine, 3)[-1] == "openvino bf16"


def test_equal_pixels():
    logits = torch.zeros(2, 3, 4, 5)
    other = logits.clone()
    other[0, 1, 0, :2] = 1.0  # 2 of 40 pixels
    frames = (Frame.whole(4, 5),) * 2
    assert equal_share(Dense(logits, frames), Dense(other, frames), 2) == pytest.approx(38 / 40)


def test_exact_is_the_net_to_the_bit(models):
    image = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    predictor = load(models["semantic"], "cpu", exact=True, images=100)
    for _ in range(3):
        found = predictor.output(image)
    x = predictor.card.preprocessing(torch.from_numpy(image).permute(2, 0, 1)[None])
    with torch.no_grad():
        assert torch.equal(found.logits[..., :40, :30], predictor.net(x).logits[..., :40, :30])
    assert predictor.choice.reasons["engine"] == "exact"


def test_bf16_is_tried_on_real_nets(models, monkeypatch):
    """The trial itself, with a machine that claims units and a saving that pays at once."""
    monkeypatch.setattr(chosen, "here", lambda: replace(AMX, packages={}))
    monkeypatch.setattr("pixelwise.core.choice.LEAST_SAVING", -1e9)
    monkeypatch.setattr("pixelwise.core.choice.WORTH", 1e9)
    predictor = load(models["semantic"], "cpu", images=50)
    image = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    for _ in range(2):
        predictor(image)
    assert 0.5 < predictor.engine.facts.agreement["eager bf16"] <= 1
    assert set(predictor.engine.facts.seconds) == {REFERENCE, "eager bf16"}
