"""How the work is done: device, precision, memory format, engine, threads and workers, from the machine and the amount
of work. Pure functions of what `core/machine.py` found, so that every rule can be tried on a made-up machine.

The rules
  device     a GPU where there is one
  training   bf16 autocast where the device has units for it; a processor that emulates bf16 is slower than in float32
  prediction starts with the net itself in float32. When the first image has said how long one takes, each faster way
             (FASTER) whose saving over the images to come exceeds its preparation is a candidate, the quickest first.
             It is taken if it answers that image almost alike (LEAST_AGREEMENT) and is in fact quicker. Where the
             number of images is unknown, they count as one
  threads    OMP_NUM_THREADS, else the cores that the process may use
What is asked for by name wins; what contradicts itself is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pixelwise.core.machine import Machine
from pixelwise.errors import ConfigError, nearest

PRECISIONS = ("fp32", "bf16", "fp16")
MEMORY_FORMAT: Literal["channels_last"] = "channels_last"  # as quick in float32 as contiguous, quicker in bf16
LEAST_AGREEMENT = 0.998  # share of an image's pixels that a fast way must answer as the net does in float32
LEAST_ASKED = 0.95  # the same where that precision was asked for by name: less is no rounding but a fault
REFERENCE = "eager fp32"
WORTH = 0.9  # a candidate must take at most this share of the time that stays without it,
LEAST_SAVING = 2.0  # and save so many seconds: what is over at once stays as it is, the same each time


@dataclass(frozen=True)
class Way:
    """A faster way to predict than the net itself in float32.

    times     as fast, for an image: measured on a processor with avx512_bf16, see benchmarks/results/engines.md. It
              only decides whether a trial is worth its time: what this machine gains is measured in the trial
    seconds   of preparation, rather too many than too few: half of them on an idle core
    measured  whether `times` is; else it is a guess that the trial puts right
    """

    engine: str
    precision: str
    times: float
    seconds: float = 0.0
    measured: bool = True

    @property
    def name(self) -> str:
        return f"{self.engine} {self.precision}"


PACKAGES = {"openvino": ("openvino",), "onnx": ("onnx", "onnxscript", "onnxruntime")}
FASTER: dict[str, tuple[Way, ...]] = {  # by the kind of device
    "cpu": (
        Way("eager", "bf16", 1.9),
        Way("onnx", "fp32", 1.2, 10.0),
        Way("openvino", "fp32", 1.2, 15.0),
        Way("openvino", "bf16", 2.4, 15.0),
    ),
    "cuda": (Way("eager", "fp16", 1.5, measured=False), Way("eager", "bf16", 1.4, measured=False)),
}
CPU_ONLY = {"openvino", "onnx"}


@dataclass(frozen=True)
class Net:
    """What is known of a net. Keys are the names of ways, such as "eager fp32".

    seconds    that one image takes, measured here; nothing before the first image
    agreement  share of pixels answered as in float32, as far as it was measured, here or before
    obstacles  why a way cannot be taken
    """

    seconds: Mapping[str, float] = field(default_factory=dict)
    agreement: Mapping[str, float] = field(default_factory=dict)
    obstacles: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """How much there is to do.

    images  in all, None where nobody knows
    sizes   different sizes among them: some nets become programs for one size each
    """

    images: int | None = None
    sizes: int = 1


@dataclass(frozen=True)
class Wishes:
    """What was asked for by name; None or "auto": nothing was. `exact`: the net itself in float32."""

    device: str | None = None
    precision: str | None = None
    engine: str | None = None
    workers: int | None = None
    exact: bool = False

    def checked(self) -> Wishes:
        """With None for "auto" and what `exact` means. Raises ConfigError for contradictions and unknown words."""
        device, precision, engine = (None if w == "auto" else w for w in (self.device, self.precision, self.engine))
        if precision is not None and precision not in PRECISIONS:
            raise ConfigError(f"There is no precision '{precision}'; {nearest(precision, [*PRECISIONS, 'auto'])}")
        if self.exact and precision not in (None, "fp32"):
            raise ConfigError(f"exact means float32, and precision {precision} was asked for too: leave one out.")
        if self.exact and engine not in (None, "eager"):
            raise ConfigError(f"exact means the net itself, and engine {engine} was asked for too: leave one out.")
        if self.workers is not None and self.workers < 0:
            raise ConfigError(f"workers must be at least 0, got {self.workers}.")
        if self.exact:
            precision, engine = "fp32", "eager"
        return Wishes(device, precision, engine, self.workers, self.exact)


UNKNOWN, FEW, NO_WISHES = Net(), Work(), Wishes()


@dataclass(frozen=True)
class Choice:
    """What was chosen, and why: `reasons` has an entry for each field.

    device         as torch names it
    precision      "fp32", "bf16" or "fp16"
    memory_format  "channels_last" or "contiguous_format"
    threads        of the net
    workers        processes (training) or threads (prediction) that read images meanwhile
    unproven       whether this way is still to be held against float32 on the first image
    """

    device: str
    precision: str
    memory_format: Literal["channels_last", "contiguous_format"]
    engine: str
    threads: int
    workers: int
    reasons: Mapping[str, str]
    unproven: bool = False

    @property
    def name(self) -> str:
        return f"{self.engine} {self.precision}"


def for_training(machine: Machine, wishes: Wishes = NO_WISHES) -> Choice:
    """How a training computes. Raises ConfigError for a device that is not here and for what contradicts itself."""
    wishes = wishes.checked()
    why: dict[str, str] = {}
    device, kind = _device(machine, wishes, why)
    precision = wishes.precision
    if precision is not None:
        why["precision"] = "exact" if wishes.exact else "as asked"
    elif machine.bf16_units(kind):
        precision, why["precision"] = "bf16", f"the {_called(kind)} has units for it (autocast; weights stay float32)"
    else:
        precision, why["precision"] = "fp32", f"the {_called(kind)} has no units for bf16 and would emulate it"
    _check_precision(precision, kind)
    if wishes.engine not in (None, "eager"):
        raise ConfigError(f"A training runs on the net itself, not on the engine {wishes.engine}.")
    why |= {"engine": "training changes the net", "memory_format": "convolutions need no reordering"}
    threads, why["threads"] = _threads(machine)
    workers = wishes.workers
    why["workers"] = "as asked" if workers is not None else _worker_reason(machine, kind)
    if workers is None:
        workers = 0 if machine.cores == 1 else 1 if kind == "cpu" else min(8, machine.cores - 1)
    return Choice(device, precision, MEMORY_FORMAT, "eager", threads, workers, why)


def _worker_reason(machine: Machine, kind: str) -> str:
    if machine.cores == 1:
        return "one core: reading takes its turn"
    return "the net takes longer than reading" if kind == "cpu" else "a GPU waits for one process"


def for_prediction(machine: Machine, net: Net = UNKNOWN, work: Work = FEW, wishes: Wishes = NO_WISHES) -> Choice:
    """How images are predicted. Raises ConfigError for a device or package that is not here and for contradictions."""
    wishes = wishes.checked()
    why: dict[str, str] = {}
    device, kind = _device(machine, wishes, why)
    threads, why["threads"] = _threads(machine)
    way, why["engine"], unproven = _way(machine, net, work, wishes, kind)
    why["precision"], why["memory_format"] = why["engine"], "convolutions need no reordering"
    workers = wishes.workers
    why["workers"] = "as asked" if workers is not None else "read ahead while the net computes"
    if workers is None:
        workers = max(1, min(4, machine.cores // 4) if kind == "cpu" else min(8, machine.cores - 1))
    return Choice(device, way.precision, MEMORY_FORMAT, way.engine, threads, workers, why, unproven)


def _way(machine: Machine, net: Net, work: Work, wishes: Wishes, kind: str) -> tuple[Way, str, bool]:
    """The way to predict, why, and whether it is still to be held against float32."""
    engine, precision = wishes.engine, wishes.precision
    known = [way for way in FASTER.get(kind, ()) if engine in (None, way.engine) and precision in (None, way.precision)]
    plain = Way(engine or "eager", precision or "fp32", 1.0)
    plain = next((way for way in known if way.name == plain.name), plain)
    _check_precision(plain.precision, kind)
    _check_engine(machine, plain.engine, kind)
    if engine is not None and precision is not None:
        return plain, "exact" if wishes.exact else "as asked", False
    least = LEAST_AGREEMENT if precision in (None, "fp32") else LEAST_ASKED
    failed = {way.name: said for way in known if (said := _failed(way, net, least))}
    ways = [way for way in known if _possible(machine, way, kind) and way.name not in {*failed, plain.name}]
    if REFERENCE not in net.seconds:
        free = [way for way in ways if way.name in net.agreement and not way.seconds]
        if free:
            best = max(free, key=lambda way: way.times)
            return best, _agreed(best, net), False
        return plain, "; ".join([*failed.values(), "the first images say how long one takes"]), False
    images = work.images or 1
    stays = images * _each(plain, net)
    takes = {way.name: _takes(way, net, work) for way in ways}
    pays = [way for way in ways if takes[way.name] <= min(WORTH * stays, stays - LEAST_SAVING)]
    if not pays:
        left = f"{images:,} image{'s' if images != 1 else ''} of {_each(plain, net):.2g} s"
        return plain, "; ".join([*failed.values(), f"for {left} nothing else pays its preparation"]), False
    best = min(pays, key=lambda way: takes[way.name])
    saving = f"{images:,} images take about {_time(takes[best.name])} instead of {_time(stays)}"
    proven = best.name in net.agreement
    said = _agreed(best, net) if proven else f"if {least:.1%} of an image's pixels are answered as in float32"
    return best, "; ".join([*failed.values(), saving, said]), not proven


def _each(way: Way, net: Net) -> float:
    """Seconds of an image, measured or expected."""
    return net.seconds.get(way.name, net.seconds[REFERENCE] / way.times)


def _takes(way: Way, net: Net, work: Work) -> float:
    """Seconds until all is done: preparation that is still to come, a trial of two images, and the images."""
    tried = way.name in net.seconds
    images = (work.images or 1) + (0 if tried or way.name in net.agreement else 2)
    return (0.0 if tried else way.seconds) + images * _each(way, net)


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _possible(machine: Machine, way: Way, kind: str) -> bool:
    if way.precision == "bf16" and not machine.bf16_units(kind):
        return False
    return all(package in machine.packages for package in PACKAGES.get(way.engine, ()))


def _failed(way: Way, net: Net, least: float) -> str:
    """Why this way is not taken for this net, "" where nothing is known against it."""
    if way.name in net.obstacles:
        return f"not {way.name}: {net.obstacles[way.name]}"
    found = net.agreement.get(way.name, 1.0)
    if found >= least:
        return ""
    asked = f" (--precision {way.precision} takes it all the same)" if found >= LEAST_ASKED else ""
    return f"not {way.name}: {found:.2%} of the pixels are answered as in float32, {least:.1%} are wanted{asked}"


def _agreed(way: Way, net: Net) -> str:
    return f"{net.agreement[way.name]:.2%} of the pixels are answered as in float32"


def _device(machine: Machine, wishes: Wishes, why: dict[str, str]) -> tuple[str, str]:
    """(device, its kind)."""
    if wishes.device is not None:
        kind = wishes.device.split(":")[0]
        if kind != "cpu" and all(gpu.kind != kind for gpu in machine.gpus):
            raise ConfigError(f"The device '{wishes.device}' is not here; try device=cpu.")
        why["device"] = "as asked"
        return wishes.device, kind
    if machine.gpus:
        why["device"] = machine.gpus[0].name
        return machine.gpus[0].kind, machine.gpus[0].kind
    why["device"] = "no GPU that torch can use"
    return "cpu", "cpu"


def _threads(machine: Machine) -> tuple[int, str]:
    if machine.threads is not None:
        return machine.threads, "OMP_NUM_THREADS"
    limited = machine.cores < machine.present
    return machine.cores, f"of {machine.present} cores the process may use these" if limited else "all cores"


def _check_precision(precision: str, kind: str) -> None:
    if precision == "fp16" and kind != "cuda":
        raise ConfigError("Precision fp16 needs a CUDA device; on this one use bf16 or fp32.")


def _check_engine(machine: Machine, engine: str, kind: str) -> None:
    if engine in CPU_ONLY and kind != "cpu":
        raise ConfigError(f"The engine {engine} runs on CPUs here, and the device is {kind}: use device=cpu.")
    lacking = [package for package in PACKAGES.get(engine, ()) if package not in machine.packages]
    if lacking:
        raise ConfigError(f"The engine {engine} needs {' and '.join(lacking)}: pip install 'pixelwise[{engine}]'.")


def _called(kind: str) -> str:
    return "processor" if kind == "cpu" else "GPU"
