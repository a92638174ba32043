"""Every setting, as frozen dataclasses: read from the command line (tyro) and from `run.json`, written to `run.json`.

No torch here, so that `--help` is instant. `None` means: derived from the data or the machine, and said aloud.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from pixelwise.errors import ConfigError, nearest

T = TypeVar("T")


@dataclass(frozen=True)
class TransformSettings:
    """What is drawn anew for each training image."""

    scale: tuple[float, float] = (0.5, 1.5)
    """Range of random scales, log-uniform."""
    scales: tuple[float, ...] = ()
    """Discrete scales instead, such as 0.5 0.75 1 1.25 1.5."""
    uniform_scale: bool = False
    """Draw the scale uniformly; with --transforms.scale 0.1 2.0 this is large-scale jitter (Ghiasi et al. 2020)."""
    flip: float = 0.5
    """Probability of mirroring left and right."""
    vertical_flip: float = 0.0
    """Probability of mirroring top and bottom (microscopes and aerial images have no up)."""
    rotation: float = 0.0
    """Largest turn, in degrees."""
    elastic: float = 0.0
    """Strength of the elastic warp, in pixels of standard deviation (U-Net 2015 has 10)."""
    brightness: float = 0.3
    """Largest change of brightness, as a share."""
    contrast: float = 0.3
    """Largest change of contrast, as a share."""
    saturation: float = 0.3
    """Largest change of saturation, as a share (three channels only)."""
    hue: float = 0.02
    """Largest shift of hue, as a share of the colour circle (three channels only)."""
    blur: float = 0.0
    """Probability of a slight blur."""
    noise: float = 0.0
    """Standard deviation of added noise, as a share of the range."""
    max_class_share: float = 0.75
    """A crop in which one class has more than this share is drawn again, a few times. 1 switches it off."""
    rare_focus: float = 0.0
    """Probability that a crop is placed on a pixel of a class drawn by its rarity."""
    min_visible: float = 0.0
    """Objects of which a crop, or what is pasted over them, leaves less than this share become void."""
    copy_paste: float = 0.0
    """Probability of pasting objects of another training image (copy-paste, Ghiasi et al. 2020); needs things."""
    paste_scale: tuple[float, float] = (0.1, 2.0)
    """Range of the scale of the image that pasted objects come from, uniform."""
    paste_blend: float = 0.0
    """Blend the edges of pasted objects by a Gaussian of this standard deviation, in pixels."""

    def __post_init__(self) -> None:
        for name in ("scale", "paste_scale"):
            low, high = getattr(self, name)
            _require(0 < low <= high < 100, f"transforms.{name} is {low} {high}; give the smallest and largest factor.")
        _require(all(0 < s < 100 for s in self.scales), f"transforms.scales is {self.scales}; factors are above 0.")
        _require(0 <= self.elastic < math.inf, f"transforms.elastic is {self.elastic}; it must be at least 0.")
        most = {"rotation": 180.0, "hue": 0.5, "paste_blend": 100.0}
        for name in ("flip", "vertical_flip", "rotation", "brightness", "contrast", "saturation", "hue", "blur",
                     "noise", "max_class_share", "rare_focus", "min_visible", "copy_paste", "paste_blend"):  # fmt: skip
            value, top = getattr(self, name), most.get(name, 1.0)
            _require(0 <= value <= top, f"transforms.{name} is {value}; it must be in 0..{top:g}.")


@dataclass(frozen=True)
class OptimSettings:
    """The optimiser."""

    name: Literal["adamw", "adam", "sgd", "rmsprop"] = "adamw"
    """Which one."""
    weight_decay: float | None = None
    """0.01 for AdamW, 1e-4 for SGD, else 0. Norms and biases have none."""
    momentum: float = 0.9
    """For SGD and RMSprop."""
    clip: float = 1.0
    """Largest norm of the gradient; 0 switches clipping off."""
    accumulate: int = 1
    """Batches whose gradients are summed before a step."""
    ema: float | None = None
    """Decay of the running average of the weights that is scored and saved; 0 switches it off. By default a hundredth
    of the training is averaged."""

    def __post_init__(self) -> None:
        decay, ema = self.weight_decay, self.ema
        _require(decay is None or 0 <= decay < math.inf, f"optim.weight_decay is {decay}; it must be at least 0.")
        _require(0 <= self.momentum < 1, f"optim.momentum is {self.momentum}; it must be in [0, 1).")
        _require(0 <= self.clip < math.inf, f"optim.clip is {self.clip}; it must be at least 0.")
        _require(self.accumulate >= 1, f"optim.accumulate is {self.accumulate}; it must be at least 1.")
        _require(ema is None or 0 <= ema < 1, f"optim.ema is {ema}; it must be in [0, 1).")


@dataclass(frozen=True)
class ScheduleSettings:
    """The learning rate over the training."""

    name: Literal["cosine", "poly", "onecycle", "plateau", "constant"] = "cosine"
    """Its shape."""
    warmup: float = 0.02
    """Share of the training in which the rate rises from 0 (`onecycle` has its own: three tenths)."""
    power: float = 0.9
    """Of `poly`."""
    factor: float = 0.1
    """`plateau` multiplies the rate by this ..."""
    patience: int = 5
    """... after so many evaluations without a better one."""

    def __post_init__(self) -> None:
        _require(0 <= self.warmup < 1, f"schedule.warmup is {self.warmup}; it must be in [0, 1).")
        _require(0 < self.power < math.inf, f"schedule.power is {self.power}; it must be above 0.")
        _require(0 < self.factor < 1, f"schedule.factor is {self.factor}; it must be in (0, 1).")
        _require(self.patience >= 0, f"schedule.patience is {self.patience}; it must be at least 0.")


@dataclass(frozen=True)
class DataSettings:
    """What is read, and how."""

    format: str | None = None
    """Layout on disk, one of `pixelwise list formats`; found by looking by default."""
    options: tuple[str, ...] = ()
    """Options of the format, such as annotations=both (Cityscapes) or missing=skip: see docs/data.md."""
    train: str = "train"
    """Split to train on."""
    val: str = "val"
    """Split to choose the best model by; `test` is never touched."""
    balanced: bool = False
    """Draw images with rare classes more often (repeat factors, LVIS)."""
    percentiles: tuple[float, float] | None = None
    """Stretch each image from these percentiles of its own values, such as 1 99.8, in place of normalising all alike:
    for pictures of very different brightness, as microscopes give."""


@dataclass(frozen=True)
class TrainSettings:
    """Train a model on a folder of images and masks."""

    data: Annotated[Path, tyro.conf.Positional]
    """The data set's folder."""
    model: str = "unet"
    """Architecture, or architecture-variant: see `pixelwise list models`."""
    options: tuple[str, ...] = ()
    """Options of the net, such as width=24 norm=group."""
    out: Path = Path("runs/last")
    """Folder for the model, log and report."""
    task: Literal["auto", "semantic", "instance", "panoptic"] = "auto"
    """What to learn; by default what the data has truth for."""
    epochs: int | None = None
    """Passes over the training images."""
    minutes: float | None = None
    """Time budget instead; the schedule fits it, and evaluation is included."""
    batch_size: int | None = None
    """Images a step and process; probed so that memory suffices."""
    crop: tuple[int, ...] = ()
    """Height and width (or one number for both) of training crops, in pixels."""
    lr: float | None = None
    """Highest learning rate."""
    loss: str | None = None
    """A loss or a weighted mix such as ce+0.5*dice for the classes of pixels: see `pixelwise list losses`. By default
    the net's own, for most ce+dice."""
    class_weights: Literal["none", "inverse", "median", "enet", "effective"] = "none"
    """Weigh classes by their share of the training pixels, by this rule."""
    monitor: Literal["score", "loss"] = "score"
    """What picks the best model: the task's score, or the loss on `val`."""
    evaluate_every: int | None = None
    """Epochs between evaluations on `val`."""
    stop_after: int = 0
    """Stop early after so many evaluations without a better one; 0 never."""
    seed: int = 0
    """Everything random follows from it."""
    resume: bool = False
    """Go on with the run in `--out`, exactly where it stopped."""
    weights: Path | None = None
    """Start from a model file; other classes get a new last layer."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto: bf16 on GPUs and on CPUs that have bf16 units, else fp32."""
    exact: bool = False
    """Everything in float32: the same as --precision fp32."""
    gradient_checkpointing: bool = False
    """Keep fewer activations and compute them again in the backward pass: less memory, more time, the same result."""
    shard: bool = False
    """Under torchrun: shard weights and optimiser over processes (FSDP2) instead of copying them (DDP)."""
    workers: int | None = None
    """Processes that read and transform images."""
    cache: Literal["auto", "memory", "disk", "off"] = "auto"
    """Keep decoded images between epochs: in memory, on disk (several trainings may share them), or not at all. auto:
    in memory where they take less than 1 GB. No batch depends on it."""
    cache_folder: Path | None = None
    """Where --cache disk keeps them; by default below your own folder for caches."""
    cache_gb: float | None = None
    """How much --cache disk may hold in all, in GB; by default half of what is free on that disk."""
    tensorboard: bool = False
    """Write TensorBoard events too (needs pixelwise[tensorboard])."""
    report: bool = True
    """Write report.html at the end."""
    dataset: DataSettings = field(default_factory=DataSettings)
    transforms: TransformSettings = field(default_factory=TransformSettings)
    optim: OptimSettings = field(default_factory=OptimSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)

    def __post_init__(self) -> None:
        _require(self.epochs is None or self.minutes is None, "Give --epochs or --minutes, not both.")
        for name, least in (("epochs", 1), ("batch_size", 1), ("evaluate_every", 1), ("workers", 0), ("stop_after", 0)):
            value = getattr(self, name)
            _require(value is None or value >= least, f"{name} is {value}; it must be at least {least}.")
        _require(self.minutes is None or 0 < self.minutes < math.inf, f"minutes is {self.minutes}; it must be above 0.")
        _require(0 <= self.seed < 2**63, f"seed is {self.seed}; it must be a whole number from 0 up, below 2^63.")
        _require(self.lr is None or 0 < self.lr < math.inf, f"lr is {self.lr}; it must be above 0.")
        _require(self.cache_gb is None or 0 < self.cache_gb < math.inf,
                 f"cache_gb is {self.cache_gb}; it must be above 0.")  # fmt: skip
        folder_or_size = self.cache_folder is not None or self.cache_gb is not None
        _require(self.cache == "disk" or not folder_or_size,
                 f"--cache-folder and --cache-gb are for --cache disk; it is {self.cache}.")  # fmt: skip
        crop = self.crop
        _require(len(crop) <= 2 and all(c >= 8 for c in crop), f"crop is {crop}; give one or two numbers from 8 up.")


def _require(fine: bool, message: str) -> None:
    if not fine:
        raise ConfigError(message)


def parse_options(words: tuple[str, ...]) -> dict[str, Any]:
    """('width=24', 'norm=group') -> {'width': 24, 'norm': 'group'}. Raises ConfigError for a word without '='."""
    options: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        _require(bool(equals and key), f"option '{word}' is not of the form name=value.")
        options[key] = _literal(text)
    return options


def _literal(text: str) -> Any:
    if text in ("true", "false", "True", "False"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


# -- to and from plain JSON values ------------------------------------------------------------------------------------


def to_dict(settings: Any) -> dict[str, Any]:
    """A settings dataclass as JSON values."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if isinstance(value, (tuple, list)):
            return [plain(v) for v in value]
        return str(value) if isinstance(value, Path) else value

    return plain(settings)


def from_dict(kind: type[T], data: Mapping[str, Any], *, source: str = "settings", prefix: str = "") -> T:
    """JSON values -> a settings dataclass. Raises ConfigError for a wrong key (naming the nearest) or type."""
    hints = typing.get_type_hints(kind)
    known = [f.name for f in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for key in data:
        if key not in known:
            raise ConfigError(f"{source}: there is no setting '{prefix}{key}'; {nearest(key, known)}")
    values = {key: _convert(hints[key], value, source, prefix + key) for key, value in data.items()}
    try:
        return kind(**values)
    except TypeError as error:
        raise ConfigError(f"{source}: {error}") from None


def _convert(hint: Any, value: Any, source: str, name: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    wrong = ConfigError(f"{source}: '{name}' is {value!r}; expected {_say(hint)}.")
    if origin is Annotated:
        return _convert(args[0], value, source, name)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return _convert(next(a for a in args if a is not type(None)), value, source, name)
    if origin is Literal:
        if value not in args:
            raise ConfigError(f"{source}: '{name}' is {value!r}; {nearest(str(value), map(str, args))}")
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)) or (args[-1] is not ... and len(value) != len(args)):
            raise wrong
        return tuple(_convert(args[0], v, source, f"{name}[{i}]") for i, v in enumerate(value))
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise wrong
        return from_dict(hint, value, source=source, prefix=f"{name}.")  # type: ignore[arg-type]
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise wrong
    return value


def _say(hint: Any) -> str:
    return getattr(hint, "__name__", str(hint)).replace("typing.", "")
