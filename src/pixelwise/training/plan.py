"""What a training derives from the data and the machine where nobody said it; each choice is said aloud."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pixelwise.config import TrainSettings, parse_options
from pixelwise.core.choice import Choice, Wishes, for_training
from pixelwise.core.machine import here, hold_threads
from pixelwise.core.modelfile import read_card
from pixelwise.core.registry import create_model, load, split_variant
from pixelwise.core.sample import Batch, Preprocessing, Sample, collate
from pixelwise.core.segments import Segments
from pixelwise.data.dataset import DataSet, Record
from pixelwise.data.statistics import Statistics
from pixelwise.errors import ConfigError
from pixelwise.losses.criterion import Recipe
from pixelwise.losses.mix import Mix, parse
from pixelwise.losses.weights import class_weights
from pixelwise.nn.checkpointing import checkpoint_blocks
from pixelwise.nn.encoder import trained_with
from pixelwise.tasks import Instance, Panoptic, Semantic
from pixelwise.training.caching import pick_cache
from pixelwise.training.log import many
from pixelwise.training.memory import fit_batch, memory_limit, step_bytes

Task = Semantic | Instance | Panoptic
IMAGES_TO_SEE = {"cpu": 12_000, "cuda": 60_000}  # training images drawn in all, where no length is given
CROP_PIXELS = {"cpu": 80_000, "cuda": 262_144}
RATES = {"adamw": 1e-3, "adam": 1e-3, "rmsprop": 1e-3, "sgd": 2e-2}


@dataclass(frozen=True)
class Plan:
    """A training's settings with nothing left open, and how each open one was decided."""

    crop: tuple[int, int]
    batch_size: int
    epochs: int | None
    minutes: float | None
    lr: float
    workers: int
    cache: str
    evaluate_every: int | None
    device: str
    precision: str
    said: tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Plan:
        """Read back from run.json."""
        cache = {True: "memory", False: "off"}.get(data["cache"], data["cache"])  # the words of earlier runs
        return cls(**{**data, "crop": tuple(data["crop"]), "said": tuple(data["said"]), "cache": cache})


def suited(settings: TrainSettings, device: torch.device, resumed: Plan | None) -> Choice:
    """Precision, threads and workers on this machine; a run that is gone on with keeps its precision.

    Raises ConfigError for what the device cannot, and for wishes that contradict each other.
    """
    precision = settings.precision if resumed is None else resumed.precision
    choice = for_training(here(), Wishes(str(device), precision, workers=settings.workers, exact=settings.exact))
    hold_threads(choice.threads)
    return choice


def labelled(dataset: DataSet, split: str) -> tuple[Record, ...]:
    """The images of a split that have a truth."""
    return tuple(record for record in dataset.records(split) if record.labelled)


def validation(dataset: DataSet, settings: TrainSettings) -> tuple[Record, ...]:
    """Those to validate on: a data set may be without `val`, but not without a split that was named."""
    name = settings.dataset.val
    return labelled(dataset, name) if name in dataset.splits or name != "val" else ()


def preprocessing_of(settings: TrainSettings, dataset: DataSet, stats: Statistics, net: nn.Module,
                     say: Callable[[str], None]) -> Preprocessing:  # fmt: skip
    """Channels, range, mean and deviation from the data; where each image has its own range, that is all.

    A training that starts from a model file goes on with that file's, where it takes such images: its weights expect
    them so. But for the size rule: crops set the scale. So do photographs of 8 bits and an encoder whose weights are
    timm's: the mean and deviation are those it was trained with.
    """
    names = {1: "L", 3: "RGB"}
    channels, order, own = dataset.channels, names.get(dataset.channels, ""), settings.dataset.percentiles
    top = 255.0 if dataset.dtype == "uint8" else 65535.0
    if own is not None:
        return Preprocessing(channels=channels, order=order, range=top, mean=(0.0,) * channels, std=(1.0,) * channels,
                             percentiles=own)  # fmt: skip
    std = tuple(max(float(s), 1e-3) for s in stats.std)
    if settings.weights is not None:
        theirs = read_card(settings.weights).preprocessing
        if (theirs.channels, theirs.range) == (channels, top):
            return replace(theirs, size=None)
    elif parse_options(settings.options).get("pretrained") is True:
        mean, std_of = trained_with(net)
        if (channels, top) == (3, 255.0):
            say(f"input     mean {_numbers(mean)}, deviation {_numbers(std_of)}: those of the encoder's weights")
            return Preprocessing(mean=mean, std=std_of)
        say(f"input     mean and deviation of the data: the encoder's are of 3 channels of 8 bits, not {channels} of "
            f"{dataset.dtype}")  # fmt: skip
    return Preprocessing(channels=channels, order=order, range=top,
                         mean=tuple(float(m) for m in stats.mean), std=std)  # fmt: skip


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in values)


def save_memory(settings: TrainSettings, net: nn.Module, say: Callable[[str], None]) -> None:
    """Gradient checkpointing, where it is asked for. Raises ConfigError where the net has nothing for it."""
    if settings.gradient_checkpointing:
        again = many(checkpoint_blocks(net), "block")
        say(f"          gradient checkpointing: {again} computed again in the backward pass")


def make_plan(settings: TrainSettings, dataset: DataSet, stats: Statistics, images: int,
              choice: Choice) -> Plan:  # fmt: skip
    """Fills in what `settings` leaves open; `images` is how many there are to train on, `choice` suits the machine."""
    said: list[str] = []
    kind = "cpu" if choice.device == "cpu" else "cuda"
    crop = _crop(settings, stats, kind, said)
    batch = settings.batch_size or min(8 if kind == "cpu" else 16, max(2, images))
    epochs, minutes = settings.epochs, settings.minutes
    if epochs is None and minutes is None:
        epochs = min(300, max(10, math.ceil(IMAGES_TO_SEE[kind] / images)))
        said.append(f"epochs {epochs}: about {epochs * images:,} training images in all (set --epochs or --minutes)")
    every = settings.evaluate_every
    if every is None and minutes is None:
        every = max(1, math.ceil(50 / max(1, images // batch)))
    lr, cache = settings.lr or RATES[settings.optim.name], pick_cache(settings, dataset, stats, images, said)
    return Plan(crop, batch, epochs, minutes, lr, choice.workers, cache, every, choice.device, choice.precision,
                tuple(said))  # fmt: skip


def _crop(settings: TrainSettings, stats: Statistics, kind: str, said: list[str]) -> tuple[int, int]:
    sizes = np.array(list(stats.sizes), dtype=float)  # [S, 2] height, width
    if settings.crop:
        _check_crop(settings, sizes)
        return settings.crop[0], settings.crop[-1]
    height, width = np.median(sizes, axis=0)
    shrink = min(1.0, math.sqrt(CROP_PIXELS[kind] / (height * width)))
    crop = tuple(max(32, int(side * shrink / 32) * 32) for side in (height, width))
    said.append(f"crop {crop[0]} x {crop[1]}, from images of {height:.0f} x {width:.0f} in the median (set --crop)")
    return crop[0], crop[1]


def _check_crop(settings: TrainSettings, sizes: np.ndarray) -> None:
    """Raises ConfigError for a crop of which most is mirrored border however the images are scaled."""
    crop, scales = np.array([settings.crop[0], settings.crop[-1]]), settings.transforms
    largest = sizes.max(0) * max(scales.scales or scales.scale)
    if (crop > 2 * largest).any():
        raise ConfigError(
            f"--crop {crop[0]} {crop[1]} is more than twice as large as the images, which reach {largest[0]:.0f} x "
            f"{largest[1]:.0f} pixels (height x width) after scaling: most of it would be mirrored border. Use a "
            "smaller --crop."
        )


def fit(plan: Plan, settings: TrainSettings, net: nn.Module, dataset: DataSet, task: Task, device: torch.device,
        step: Callable[[nn.Module, Batch], Tensor]) -> Plan:  # fmt: skip
    """The plan with a batch size that memory holds. Raises MemoryLimitError where none does.

    step   (net, batch) -> loss: a forward pass as training has it
    """
    batch = probe(plan, dataset, task).to(device)
    with memory_limit("Not even two crops fit: use a smaller --crop or a smaller model."):
        per_image = step_bytes(net, lambda trial: step(trial, batch), device) // 2
    fixed = 6 * sum(p.numel() * p.element_size() for p in net.parameters())  # weights, gradients, Adam's two, averages
    size = fit_batch(plan.batch_size, per_image, fixed, device, asked=settings.batch_size is not None,
                     checkpointing=settings.gradient_checkpointing)  # fmt: skip
    if size == plan.batch_size:
        return plan
    return replace(plan, batch_size=size, said=(*plan.said, f"batch size {size}, so that memory suffices"))


def step_advice(plan: Plan, settings: TrainSettings) -> str:
    """What to do where a step's memory runs out after all."""
    saving = "" if settings.gradient_checkpointing else "--gradient-checkpointing, "
    return (f"A batch of {plan.batch_size} crops of {plan.crop} is too much: use a smaller --batch-size (and "
            f"--optim.accumulate to make up for it), {saving}a smaller --crop, or a smaller model.")  # fmt: skip


def probe(plan: Plan, dataset: DataSet, task: Task) -> Batch:
    """Two black crops full of the first class: two, since norms over a batch want more than one."""
    image = torch.zeros(dataset.channels, *plan.crop, dtype=torch.uint8 if dataset.dtype == "uint8" else torch.uint16)
    truth = task.view(Segments.from_class_map(torch.zeros(plan.crop, dtype=torch.int64), 255))
    return collate([Sample(image, truth, "probe")] * 2)


def check_words(settings: TrainSettings) -> None:
    """Loss, model and options, before any data is read. Raises ConfigError."""
    mix = mix_of(settings)
    if settings.class_weights != "none" and (mix is None or not mix.takes_class_weights):
        hint = "add ce, focal, ohem or topk" if mix else f"{settings.model} has losses of its own"
        raise ConfigError(f"--class-weights {settings.class_weights}: no term of the loss {mix or ''} takes them; "
                          f"{hint}.")  # fmt: skip
    if settings.monitor == "loss" and getattr(_module(settings), "DRAWS", False):
        raise ConfigError(f"--monitor loss: {settings.model} has a loss in training alone, where it draws boxes by the "
                          "truth. Use --monitor score.")  # fmt: skip
    with torch.device("meta"):  # built without memory or time
        net = create_model(settings.model, classes=2, **filled_later(parse_options(settings.options)))
    if settings.gradient_checkpointing:
        checkpoint_blocks(net)


def _module(settings: TrainSettings) -> Any:
    """The model's file: what it says beside its net (LOSS, TASKS, DRAWS)."""
    return load("models", split_variant(settings.model)[0])


def mix_of(settings: TrainSettings) -> Mix | None:
    """The losses over the classes of pixels: as asked, or the net's own; None for a net that labels no pixels.

    Raises ConfigError for losses that are asked of such a net.
    """
    own = getattr(_module(settings), "LOSS", "ce+dice")
    if own is None and settings.loss is not None:
        raise ConfigError(f"--loss {settings.loss}: {settings.model} gives no class to each pixel, and has losses of "
                          "its own. Leave --loss out.")  # fmt: skip
    return None if own is None else parse(settings.loss or own)


def recipe_of(settings: TrainSettings, task: Task, stats: Statistics) -> Recipe:
    """How outputs become a loss, from the settings and the training split."""
    mix = mix_of(settings)
    return Recipe() if mix is None else Recipe(mix, weights_of(settings, task, stats))


def check_task(settings: TrainSettings, task: Task) -> None:
    """Raises ConfigError for a net that cannot be trained for a task."""
    tasks = getattr(_module(settings), "TASKS", None)
    if tasks is not None and task.name not in tasks:
        raise ConfigError(f"{settings.model} is trained for the task {' or '.join(tasks)}, not {task.name}: choose "
                          "another --model (`pixelwise list models`), or another --task.")  # fmt: skip


def check_unscored(settings: TrainSettings) -> None:
    """Where there is nothing to validate on. Raises ConfigError for a setting that would do nothing."""
    s = settings
    used = {"--schedule.name plateau": s.schedule.name == "plateau", "--stop-after": s.stop_after > 0,
            "--monitor loss": s.monitor == "loss", "--evaluate-every": s.evaluate_every is not None}  # fmt: skip
    for word, asked in used.items():
        if asked:
            raise ConfigError(f"{word} needs images to validate on, and the split '{s.dataset.val}' has none.")


def weights_of(settings: TrainSettings, task: Task, stats: Statistics) -> tuple[float, ...]:
    """Class weights [channels] by the rule asked for, from the training split; () for none."""
    if settings.class_weights == "none":
        return ()
    counts = task_counts(task, stats)
    seen = np.asarray(stats.seen_counts, dtype=np.int64)
    if isinstance(task, Instance):
        seen = seen[task.source.is_thing]
    if task.classes.nothing:  # the ground is in every image
        seen = np.append(seen, counts.sum())
    return tuple(class_weights(counts, settings.class_weights, seen=seen).tolist())


def task_counts(task: Task, stats: Statistics) -> np.ndarray:
    """Pixels of each of the net's channels in the training split."""
    counts = np.asarray(stats.pixel_counts, dtype=np.int64)
    rest = int(stats.nothing)
    if isinstance(task, Instance):
        things = task.source.is_thing
        counts, rest = counts[things], rest + int(counts[~things].sum())
    return np.append(counts, rest) if task.classes.nothing else counts


def filled_later(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a net whose weights are filled in next: it must not ask for timm's, which may not be there."""
    return {name: value for name, value in options.items() if name != "pretrained"}


def model_options(settings: TrainSettings, dataset: DataSet, task: Task) -> dict[str, Any]:
    """The net's options: what the user gave, the number of input channels, and which labels are things if it asks."""
    options: dict[str, Any] = {"channels": dataset.channels}
    if "things" in inspect.signature(_module(settings).build).parameters:
        options["things"] = np.flatnonzero(task.classes.is_thing).tolist()
    return {**options, **parse_options(settings.options)}
