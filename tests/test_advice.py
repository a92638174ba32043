"""`pixelwise machine`: what it says of made-up machines, on the screen and as JSON."""

from __future__ import annotations

import json

import pytest

from pixelwise import advice
from pixelwise.advice import describe_machine, gains, lines
from pixelwise.cli import main
from pixelwise.core.machine import Gpu, Machine

ALL = {"torch": "2", "numba": "1", "triton": "3", "onnx": "1", "onnxscript": "1", "onnxruntime": "1", "openvino": "26"}
AMX = Machine("Xeon", ("avx2", "avx512f", "avx512_bf16", "amx_bf16"), 4, 8 << 30, packages=ALL, present=64)
OLD = Machine("Core i5", ("avx2",), 4, 8 << 30, packages={"torch": "2"}, present=4)
CARD = Machine("Epyc", (), 16, 64 << 30, (Gpu("cuda", "NVIDIA H100", 80 << 30, (9, 0), bf16=True),), {"torch": "2"})


def said(machine):
    return "\n".join(lines(describe_machine(machine=machine)))


def test_what_was_found_is_said():
    text = said(AMX)
    assert "Xeon: avx2, avx512f, avx512_bf16, amx_bf16" in text
    assert "4 of 64 may be used" in text
    assert "8.0 GiB" in text
    assert "none that torch can use" in text
    assert "not installed: numba, triton, onnx" in said(OLD)
    assert "NVIDIA H100, 80 GiB, compute capability 9.0, bf16" in said(CARD)


def test_what_is_chosen_is_said_with_its_reason():
    found = describe_machine(machine=AMX)
    assert found["training"]["precision"] == "bf16"
    ways = {count: [(c["engine"], c["precision"]) for c in chosen] for count, chosen in found["predicting"].items()}
    assert ways[1] == [("eager", "fp32")]
    assert ways[10_000][0] == ("openvino", "bf16")
    assert ways[10_000][-1] == ("eager", "fp32"), "what remains where nothing agrees"
    assert len(set(ways[10_000])) == len(ways[10_000])
    assert "the processor has units for it" in said(AMX)
    assert "would emulate it" in said(OLD)
    assert {c["device"] for c in describe_machine(machine=CARD)["predicting"][1]} == {"cuda"}


def test_packages_are_praised_by_measured_numbers_alone():
    assert list(gains(AMX)) == list(gains(CARD)) == []
    praise = list(gains(OLD))
    assert any("pip install 'pixelwise[openvino]'" in sentence and "1.2 times" in sentence for sentence in praise)
    assert not any("bf16" in sentence for sentence in praise), "this processor would emulate it"
    assert all("benchmarks/results/engines.md" in sentence for sentence in praise)


def test_a_model_is_timed(write_model, tmp_path, monkeypatch):
    monkeypatch.setattr(advice, "SIZE", 16)
    path = write_model(tmp_path / "m.safetensors")
    assert 0 < describe_machine(path, AMX)["net_seconds"] < 10


def test_the_command(capsys):
    with pytest.raises(SystemExit) as left:
        main(["machine"])
    assert left.value.code == 0
    assert capsys.readouterr().out.startswith("processor ")
    with pytest.raises(SystemExit):
        main(["machine", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert set(found["predicting"]) == {"1", "100", "10000"}
    assert found["machine"]["cores"] >= 1
