"""The rules of choosing, on made-up machines."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pixelwise.core.choice import LEAST_AGREEMENT, REFERENCE, Net, Wishes, Work, for_prediction, for_training
from pixelwise.core.machine import Gpu, Machine
from pixelwise.errors import ConfigError

FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
ALL = {"torch": "2", "onnx": "1", "onnxscript": "1", "onnxruntime": "1", "openvino": "2026"}
CARD = Machine(flags=FLAGS, cores=16, present=16, gpus=(Gpu("cuda", "NVIDIA H100", 80 << 30, (9, 0), bf16=True),))
TURING = replace(CARD, gpus=(Gpu("cuda", "Tesla T4", 16 << 30, (7, 5)),))
AMX = Machine(flags=FLAGS, cores=8, present=8, packages=ALL)
PLAIN_AMX = replace(AMX, packages={"torch": "2"})
OLD = Machine(flags=("avx2",), cores=4, present=4, packages={"torch": "2"})
SMALL = replace(AMX, cores=1, present=1)
CONTAINER = replace(AMX, cores=2, present=64)
SECOND = Net(seconds={REFERENCE: 1.0})


@pytest.mark.parametrize(("machine", "device", "precision"), [
    (CARD, "cuda", "bf16"), (TURING, "cuda", "fp32"), (AMX, "cpu", "bf16"), (OLD, "cpu", "fp32"),
])  # fmt: skip
def test_training_takes_bf16_where_there_are_units(machine, device, precision):
    choice = for_training(machine)
    assert (choice.device, choice.precision, choice.engine) == (device, precision, "eager")
    assert choice.memory_format == "channels_last"
    assert set(choice.reasons) == {"device", "precision", "memory_format", "engine", "threads", "workers"}
    assert all(choice.reasons.values())


@pytest.mark.parametrize(("machine", "threads", "training", "predicting"), [
    (CARD, 16, 8, 8), (AMX, 8, 1, 2), (OLD, 4, 1, 1), (SMALL, 1, 0, 1), (CONTAINER, 2, 1, 1),
    (replace(CARD, cores=1), 1, 0, 1), (replace(CONTAINER, threads=5), 5, 1, 1),
])  # fmt: skip
def test_threads_and_workers_stay_within_the_cores(machine, threads, training, predicting):
    assert (for_training(machine).threads, for_training(machine).workers) == (threads, training)
    choice = for_prediction(machine)
    assert (choice.threads, choice.workers) == (threads, predicting)


def test_a_container_says_that_it_is_limited():
    assert for_training(CONTAINER).reasons["threads"] == "of 64 cores the process may use these"
    assert for_training(replace(CONTAINER, threads=5)).reasons["threads"] == "OMP_NUM_THREADS"


@pytest.mark.parametrize("machine", [CARD, AMX, OLD])
def test_prediction_begins_with_the_net_itself(machine):
    assert for_prediction(machine).name == REFERENCE
    assert for_prediction(machine, SECOND, Work(1)).name == REFERENCE
    assert for_prediction(machine, SECOND, Work(None)).name == REFERENCE, "unknown is few"


@pytest.mark.parametrize(("machine", "images", "name"), [
    (AMX, 3, REFERENCE), (AMX, 8, "eager bf16"), (AMX, 10_000, "openvino bf16"), (PLAIN_AMX, 10_000, "eager bf16"),
    (OLD, 10_000, REFERENCE), (replace(OLD, packages=ALL), 20, REFERENCE), (CARD, 1000, "eager fp16"),
])  # fmt: skip
def test_what_is_faster_is_tried_where_it_pays(machine, images, name):
    choice = for_prediction(machine, SECOND, Work(images))
    assert choice.name == name
    assert choice.unproven == (name != REFERENCE)


def test_an_engine_in_float32_pays_on_an_old_processor():
    assert for_prediction(replace(OLD, packages=ALL), SECOND, Work(10_000)).name in ("onnx fp32", "openvino fp32")


def test_quick_nets_stay_as_they_are():
    """Less than two seconds to save are not worth that answers depend on a clock."""
    assert for_prediction(AMX, Net(seconds={REFERENCE: 0.001}), Work(1000)).name == REFERENCE


def test_what_disagrees_is_not_taken_and_the_next_is_tried():
    net = replace(SECOND, agreement={"openvino bf16": 0.9968}, seconds={REFERENCE: 1.0, "openvino bf16": 0.4})
    choice = for_prediction(AMX, net, Work(10_000))
    assert choice.name == "eager bf16"
    assert (
        "not openvino bf16: 99.68% of the pixels are answered as in float32, 99.8% are wanted"
        in (choice.reasons["engine"])
    )
    assert "--precision bf16 takes it" in choice.reasons["engine"]
    net = replace(net, agreement={"openvino bf16": 0.9968, "eager bf16": 0.99})
    choice = for_prediction(AMX, net, Work(10_000))
    assert choice.precision == "fp32"
    assert choice.unproven


def test_what_proved_itself_stays_and_what_is_slower_here_does_not():
    good = dict.fromkeys(("openvino bf16", "eager bf16", "openvino fp32", "onnx fp32"), LEAST_AGREEMENT)
    seconds = {REFERENCE: 1.0, "eager bf16": 0.3, "openvino bf16": 0.5, "openvino fp32": 2.0, "onnx fp32": 1.1}
    choice = for_prediction(AMX, Net(seconds, good), Work(10_000))
    assert (choice.name, choice.unproven) == ("eager bf16", False)
    slow = {**seconds, "eager bf16": 3.0, "openvino bf16": 1.2}
    assert for_prediction(AMX, Net(slow, good), Work(10_000)).name == REFERENCE


def test_agreement_known_from_training_serves_the_first_image():
    known = Net(agreement={"eager bf16": 0.9991})
    assert for_prediction(AMX, known).name == "eager bf16"
    assert for_prediction(OLD, known).name == REFERENCE, "a processor that emulates bf16 stays in float32"
    assert for_prediction(AMX, Net(agreement={"eager bf16": 0.99})).name == REFERENCE


def test_an_obstacle_is_said():
    net = replace(SECOND, obstacles={"openvino bf16": "it has no NMS.", "openvino fp32": "it has no NMS."})
    choice = for_prediction(AMX, net, Work(10_000))
    assert choice.engine != "openvino"
    assert "not openvino bf16: it has no NMS." in choice.reasons["engine"]


@pytest.mark.parametrize("machine", [CARD, AMX, OLD])
@pytest.mark.parametrize("work", [Work(), Work(10_000)])
def test_wishes_win(machine, work):
    for wishes, name in ((Wishes(exact=True), REFERENCE), (Wishes(precision="bf16", engine="eager"), "eager bf16"),
                         (Wishes(precision="fp32", engine="compiled"), "compiled fp32")):  # fmt: skip
        choice = for_prediction(machine, SECOND, work, wishes)
        assert (choice.name, choice.unproven) == (name, False)
    assert for_prediction(machine, SECOND, work, Wishes(device="cpu", workers=7)).workers == 7
    assert for_prediction(machine, SECOND, work, Wishes(device="cpu")).device == "cpu"
    assert for_training(machine, Wishes(exact=True)).precision == "fp32"
    assert for_training(machine, Wishes(precision="bf16", workers=3)).workers == 3


def test_a_precision_that_was_asked_for_may_differ_from_float32():
    wishes = Wishes(precision="bf16")
    assert for_prediction(AMX, wishes=wishes).name == "eager bf16"
    net = Net({REFERENCE: 1.0, "eager bf16": 0.5, "openvino bf16": 0.2}, {"openvino bf16": 0.97})
    assert for_prediction(AMX, net, Work(10_000), wishes).name == "openvino bf16"
    broken = replace(net, agreement={"openvino bf16": 0.5})
    assert for_prediction(AMX, broken, Work(10_000), wishes).name == "eager bf16"


def test_an_engine_that_was_asked_for_stays():
    assert for_prediction(AMX, wishes=Wishes(engine="openvino")).name == "openvino fp32"
    assert for_prediction(AMX, SECOND, Work(10_000), Wishes(engine="openvino")).name == "openvino bf16"


@pytest.mark.parametrize(("machine", "wishes", "says"), [
    (AMX, Wishes(exact=True, precision="bf16"), "exact means float32, and precision bf16"),
    (AMX, Wishes(exact=True, engine="openvino"), "exact means the net itself, and engine openvino"),
    (AMX, Wishes(precision="bf61"), "did you mean 'bf16'"), (AMX, Wishes(precision="fp16"), "needs a CUDA device"),
    (AMX, Wishes(device="cuda"), "'cuda' is not here"), (AMX, Wishes(workers=-1), "at least 0"),
    (PLAIN_AMX, Wishes(engine="openvino"), r"needs openvino: pip install 'pixelwise\[openvino\]'"),
    (CARD, Wishes(engine="openvino"), "runs on CPUs"),
])  # fmt: skip
def test_contradictions_are_refused(machine, wishes, says):
    with pytest.raises(ConfigError, match=says):
        for_prediction(machine, wishes=wishes)


def test_a_training_has_no_other_engine():
    with pytest.raises(ConfigError, match="not on the engine openvino"):
        for_training(AMX, Wishes(engine="openvino"))
    with pytest.raises(ConfigError, match="needs a CUDA device"):
        for_training(AMX, Wishes(precision="fp16"))
    assert for_training(AMX, Wishes("auto", "auto", "auto")).precision == "bf16"
