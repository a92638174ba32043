"""`Predictor`: a net with everything around it, from any picture to `Segments` at the picture's own size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor, nn

from pixelwise.core.choice import NO_WISHES, Choice, Wishes, for_prediction
from pixelwise.core.machine import here, pick_device
from pixelwise.core.modelfile import ModelCard, load_model, read_card
from pixelwise.core.outputs import Output
from pixelwise.core.segments import Segments
from pixelwise.core.types import Task
from pixelwise.data.io import MAX_PIXELS
from pixelwise.errors import ConfigError, ModelFileError
from pixelwise.prediction.chosen import ChosenEngine
from pixelwise.prediction.ensemble import check_alike, in_order, labels_of, order_of
from pixelwise.prediction.images import stored_pixels
from pixelwise.prediction.stitch import segments_by_tiles, too_large
from pixelwise.tasks import Instance, Panoptic, make_task
from pixelwise.views import View, join, look, parse, sights


class Predictor:
    """A callable from images to answers. Made by `pixelwise.load`.

    net, card, task, device, views   what it is made of; `task.classes` names the labels of the answers
    engine                           what runs the net: called as it is, see `prediction.chosen`
    members                          this one, and the predictors whose outputs are joined with its own
    max_pixels                       images whose header claims more are refused before they are decoded
    """

    def __init__(self, net: nn.Module, card: ModelCard, task: Task, *, device: torch.device, views: Sequence[View],
                 wishes: Wishes = NO_WISHES, max_pixels: int = MAX_PIXELS,
                 others: Sequence[Predictor] = ()) -> None:  # fmt: skip
        """
        wishes  what was asked for by name, see `load`
        others  further predictors for the same task and classes, whose views count as much as this one's
        Raises ConfigError for what cannot be had.
        """
        self.net = net.to(device).to(memory_format=torch.channels_last).eval()
        self.engine = ChosenEngine(self.net, device=device, wishes=wishes, agreement=card.training.get("agreement"))
        self.card, self.task, self.device = card, task, device
        self.views, self.max_pixels = tuple(views), max_pixels
        self.members: tuple[Predictor, ...] = (self, *others)
        self._orders = [order_of(labels_of(card), labels_of(member.card)) for member in self.members]

    @property
    def choice(self) -> Choice:
        """How the net is run at present, and why; it may change when work is announced and an image has been seen."""
        return self.engine.choice

    def expect(self, images: int, sizes: int = 1) -> None:
        """Announces so many images, of so many different sizes: where it pays, a faster engine is prepared."""
        shapes = {(view.scale, view.turns % 2) for view in self.views}
        for member in self.members:
            member.engine.expect(images * len(self.views), sizes * len(shapes))

    @overload
    def __call__(self, image: list[Any] | tuple[Any, ...]) -> list[Segments]: ...
    @overload
    def __call__(self, image: Any) -> Segments: ...
    def __call__(self, image: Any) -> Segments | list[Segments]:
        """The answer for an image, or for each of a list: path, PIL image, array [H, W] or [H, W, C], tensor [C, H, W].

        Any size from 1 x 1 up; the Segments, on the CPU, have the image's own size. Images too large to be seen whole
        are answered by tiles, see `prediction.stitch`. Raises ImageError.
        """
        if isinstance(image, list | tuple):
            self.expect(len(image))
            return [self._answer(self.pixels(one)) for one in image]
        return self._answer(self.pixels(image))

    def _answer(self, pixels: Tensor) -> Segments:
        """[C, H, W] stored values -> the answer, whole or by tiles."""
        if too_large(self, (int(pixels.shape[1]), int(pixels.shape[2]))):
            return segments_by_tiles(self, pixels)
        return self.decode(self.forward(pixels))

    def output(self, image: Any) -> Output:
        """What the net says of one image, to be read with index 0: `.probs(0)` [K, H, W] in 0..1 at its own size."""
        return self.forward(self.pixels(image))

    def pixels(self, image: Any) -> Tensor:
        """Any picture -> [C, H, W] stored values in the model's channels. Raises ImageError."""
        return stored_pixels(image, self.card.preprocessing, max_pixels=self.max_pixels)

    # no_grad and not inference_mode: answers are used as pseudo-labels, and a loss may not keep an inference tensor
    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Output:
        """[C, H, W] stored values, as `pixels` gives them -> the net's output over all views."""
        return self.forward_batch(pixels[None])

    @torch.no_grad()
    def forward_batch(self, images: Tensor) -> Output:
        """[B, C, H, W] stored values -> the output over all views of all members, for index 0 to B - 1."""
        if len(self.members) == 1:
            return look(self.engine, self._normalised(images), self.views, self.card.preprocessing.size)
        ordered = (in_order(m.sights(images), order) for m, order in zip(self.members, self._orders))
        return join(chain.from_iterable(ordered), len(self.views) * len(self.members))  # each when it is asked for

    def sights(self, images: Tensor) -> Iterator[tuple[View, Output]]:
        """[B, C, H, W] stored values -> (view, what this net alone says of it), each computed when it is asked for."""
        return sights(self.engine, self._normalised(images), self.views, self.card.preprocessing.size)

    def _normalised(self, images: Tensor) -> Tensor:
        return self.card.preprocessing(images.to(self.device))

    @torch.no_grad()
    def decode(self, output: Output) -> Segments:
        """The task's answer, on the CPU."""
        return self.task.decode(output, 0).to("cpu")

    @property
    def thresholds(self) -> str:
        """What is too unsure or too small to be answered, and who said so; "" for a task without thresholds."""
        if not isinstance(self.task, Instance | Panoptic):
            return ""
        chosen = {} if self.card.task == "semantic" else self.card.thresholds
        found = {"score": self.task.score, "min_area": self.task.min_area}
        said = [f"{name} {value:g}{' (chosen on validation)' if chosen.get(name) == value else ''}"
                for name, value in found.items() if value is not None]  # fmt: skip
        return ", ".join(said)

    def __repr__(self) -> str:
        card, nets = self.card, " + ".join(member.card.architecture for member in self.members)
        return f"Predictor({nets}, {card.task}, {len(self.task.classes)} classes, {self.device})"


def load(path: str | Path | Sequence[str | Path], device: str | torch.device | None = None,
         tta: str | Sequence[View] | None = None, *,
         task: str | None = None, score: float | None = None, precision: str | None = None, engine: str | None = None,
         exact: bool = False, images: int | None = None, max_pixels: int = MAX_PIXELS) -> Predictor:  # fmt: skip
    """Opens a model file for prediction; or several of the same task and classes (matched by name), which then answer
    together: the mean of their probabilities, and the objects that they agree on. Thresholds and how objects are put
    together are those of the first.

    device     a name like "cpu" or "cuda:0"; None: the GPU where there is one
    tta        test-time augmentation: None, "flip", "flip+scale" ...: better and slower, see `views.parse`
    task       what to answer, "semantic", "instance" or "panoptic"; None: what the model was trained for
    score      objects below it are not answered; None: as chosen on validation, see the file's `thresholds`
    precision  "fp32", "bf16" or "fp16"; None: as the machine, the net and the amount of work suggest, see `core.choice`
    engine     "eager" (the net itself), "compiled", "onnx" or "openvino"; None: the same
    exact      the net itself in float32, whatever is faster
    images     how many will be predicted, where that is known: many may pay for a faster engine; None: few
    Raises ModelFileError (see `core.modelfile.load_model`), ConfigError and MissingExtraError.

    >>> segments = load("runs/first/model.safetensors")("photo.jpg")
    """
    paths = [path] if isinstance(path, str | Path) else list(path)
    if not paths:
        raise ConfigError("There is no model to load: give the path of a model file, or several.")
    if images is not None and images < 1:
        raise ConfigError(f"images is how many will be predicted, at least 1, got {images}: leave it out if not known.")
    chosen, views = pick_device(device), parse(tta)
    wishes = Wishes(str(chosen), precision, engine, exact=exact)
    for_prediction(here(), wishes=wishes)  # what cannot be had is refused before the weights are read
    for other in paths[1:]:
        check_alike((paths[0], read_card(paths[0])), (other, read_card(other)))
    how = {"device": chosen, "views": views, "wishes": wishes, "max_pixels": max_pixels}
    others = [_open(other, task, score, how) for other in paths[1:]]
    predictor = _open(paths[0], task, score, {**how, "others": others})
    predictor.expect(images or 1)
    return predictor


def _open(path: str | Path, task: str | None, score: float | None, how: Mapping[str, Any]) -> Predictor:
    """`how`  the predictor's further arguments"""
    net, card = load_model(path, how["device"])
    answered = task_of(card, path)
    if task is not None:
        answered = other_task(answered, task)
    if score is not None:
        answered = with_score(answered, score)
    return Predictor(net, card, answered, **how)


def task_of(card: ModelCard, path: str | Path) -> Task:
    """The task a model was trained for. Raises ModelFileError when the card's classes do not fit its net."""
    try:
        task = make_task(card.task, card.classes, **card.thresholds)
    except (ConfigError, TypeError) as error:
        raise ModelFileError(f"{path}: its header does not describe a task: {error}") from error
    if task.classes.channels != card.outputs:
        raise ModelFileError(
            f"{path}: its header names {len(card.classes)} classes, for which the task '{card.task}' needs a net of "
            f"{task.classes.channels} outputs, but its weights are those of {card.outputs}. The header was edited: use "
            "the original file."
        )
    return task


def other_task(trained: Task, name: str) -> Task:
    """The task of that name for a net that was trained for another: outputs are read, whatever they were trained for.

    What was chosen on validation to leave out of panoptic maps is left out of the instances too, and the reverse.
    Raises ConfigError for an unknown name, for instances of classes that are no things, and for a net that was trained
    on the things alone where there is stuff to answer.
    """
    if name == trained.name:
        return trained
    if isinstance(trained, Instance) and len(trained.source) > len(trained.classes):
        raise ConfigError(f"The model was trained for instances, on {', '.join(trained.classes.names)} alone: it does "
                          f"not know the stuff that the task {name} asks for.")  # fmt: skip
    options: dict[str, Any] = {"whole": True} if name == "instance" else {}
    if name != "semantic" and isinstance(trained, Instance | Panoptic):
        options["min_area"] = trained.min_area
        options |= {} if trained.score is None else {"score": trained.score}
    return make_task(name, trained.classes, **options)


def with_score(task: Task, score: float) -> Task:
    """The task with this least score of objects. Raises ConfigError outside 0..1, and for a task without objects."""
    if not isinstance(task, Instance | Panoptic):
        raise ConfigError(f"The task {task.name} answers no objects that a least score could leave out: leave --score "
                          "away, or choose the task instance or panoptic.")  # fmt: skip
    return replace(task, score=score)
