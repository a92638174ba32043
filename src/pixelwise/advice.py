"""`pixelwise machine`: what was found, what is chosen on it and why, and what a further package would bring."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from pixelwise.core.choice import FASTER, PACKAGES, REFERENCE, Choice, Net, Work, for_prediction, for_training
from pixelwise.core.machine import FLAGS, Machine, here
from pixelwise.core.machine import PACKAGES as KNOWN

COUNTS = (1, 100, 10_000)  # images
TYPICAL = 0.5  # seconds of an image, where no model is named
SIZE = 512  # pixels a side of the image that a model is timed on
SOURCE = "benchmarks/results/engines.md"


def describe_machine(model: str | Path | None = None, machine: Machine | None = None) -> dict[str, Any]:
    """Everything as plain values for JSON: "machine", "training", "predicting" by number of images, "packages".

    model    a model file, whose net is timed on an image of 512 x 512; None: a net that takes half a second is assumed
    Raises what `load` raises.
    """
    machine = machine or here()
    net = Net({REFERENCE: TYPICAL}) if model is None else timed(model)
    found = asdict(machine) | {"packages": dict(machine.packages)}
    predicting = {count: [asdict(c) for c in candidates(machine, net, count)] for count in COUNTS}
    return {"machine": found, "training": asdict(for_training(machine)), "net_seconds": net.seconds[REFERENCE],
            "predicting": predicting, "packages": list(gains(machine))}  # fmt: skip


def timed(model: str | Path) -> Net:
    """What is known of a model's net: seconds in float32 of the second image, and what its file says of agreement."""
    from pixelwise.prediction import load

    predictor = load(model, exact=True)
    pixels = torch.zeros(predictor.card.preprocessing.channels, SIZE, SIZE, dtype=torch.uint8)
    for _ in range(2):
        begin = time.perf_counter()
        predictor.forward(pixels)
        seconds = time.perf_counter() - begin
    return Net({REFERENCE: seconds}, predictor.card.training.get("agreement", {}))


def candidates(machine: Machine, net: Net, images: int) -> list[Choice]:
    """What is chosen for so many images: the way that is tried first, and the next where one turns out not to agree."""
    found = [for_prediction(machine, net, Work(images))]
    while found[-1].unproven:
        net = replace(net, obstacles={**net.obstacles, found[-1].name: "where it does not answer alike"})
        found.append(for_prediction(machine, net, Work(images)))
    return found


def gains(machine: Machine) -> Iterator[str]:
    """A sentence for each package that is not there and was measured to help on such a processor."""
    if machine.gpus:
        return
    fit = [way for way in FASTER["cpu"] if way.measured and (way.precision != "bf16" or machine.bf16_units("cpu"))]
    have = [way for way in fit if all(p in machine.packages for p in PACKAGES.get(way.engine, ()))]
    for extra, packages in PACKAGES.items():
        lacking = [package for package in packages if package not in machine.packages]
        for precision in dict.fromkeys(way.precision for way in fit if way.engine == extra and lacking):
            best = max((way.times for way in have if way.precision in ("fp32", precision)), default=1.0)
            times = next(way.times for way in fit if (way.engine, way.precision) == (extra, precision))
            if times > best:
                yield (f"{extra}: many images in {precision} about {times / best:.1f} times as fast as now "
                       f"({SOURCE}): pip install 'pixelwise[{extra}]'")  # fmt: skip


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The same for people."""
    machine, training = found["machine"], found["training"]
    flags = [flag for flag in FLAGS if flag in machine["flags"]]
    lacking = [name for name in KNOWN if name not in machine["packages"]]
    yield f"processor   {machine['processor']}: {', '.join(flags) or 'none of ' + ', '.join(FLAGS)}"
    yield f"cores       {machine['cores']} of {machine['present']} may be used{_threads(machine)}"
    yield f"memory      {machine['memory'] / 2**30:.1f} GiB"
    for gpu in machine["gpus"]:
        capability = f", compute capability {'.'.join(map(str, gpu['capability']))}" if gpu["capability"] else ""
        bf16 = "bf16" if gpu["bf16"] else "no bf16"
        yield f"GPU         {gpu['name']}, {gpu['memory'] / 2**30:.0f} GiB{capability}, {bf16}"
    if not machine["gpus"]:
        yield "GPU         none that torch can use"
    yield f"packages    {', '.join(f'{name} {number}' for name, number in machine['packages'].items())}"
    if lacking:
        yield f"            not installed: {', '.join(lacking)}"
    yield f"compiler    {machine['compiler'] or 'none'}"
    yield ""
    yield f"training    {_choice(training)}, {training['workers']} worker{'s' if training['workers'] != 1 else ''}"
    for key in ("device", "precision", "threads", "workers"):
        yield f"            {key}: {training['reasons'][key]}"
    yield f"predicting  with a net that takes {found['net_seconds']:.2g} s an image in float32:"
    for count, ways in found["predicting"].items():
        yield f"            {count:>6,} image{'s' if int(count) != 1 else ' '}  {_choice(ways[0])}"
        yield f"                           {ways[0]['reasons']['engine']}"
        for way in ways[1:]:
            yield f"                           else {way['engine']} {way['precision']}"
    for sentence in found["packages"]:
        yield f"to gain     {sentence}"


def _threads(machine: Mapping[str, Any]) -> str:
    return "" if machine["threads"] is None else f"; OMP_NUM_THREADS={machine['threads']}"


def _choice(choice: Mapping[str, Any]) -> str:
    threads = choice["threads"]
    what = "the net itself" if choice["engine"] == "eager" else choice["engine"]
    form = choice["memory_format"].replace("_format", "").replace("_", "-")
    return f"{choice['device']}, {choice['precision']}, {form}, {what}, {threads} thread{'s' if threads != 1 else ''}"
