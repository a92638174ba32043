"""What a net returns, on its own grid, and how it is read: `probs`, `class_map`, `candidates`, one image at a time.

A task reads; it never asks which kind of output it has. A new kind brings these three readings and its loss.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from pixelwise.kernels.resample import sample_window
from pixelwise.kernels.upsample_argmax import largest_of, upsample_argmax

STRIP = 1 << 22  # numbers that a full-size reading may hold at once, whatever the classes and the image


@dataclass(frozen=True)
class Frame:
    """How one image lies in the batch. All sizes are (height, width) in pixels.

    original   the size to answer at.
    padded     the size of the tensor that the net saw.
    window     (top, left, height, width): the part of `padded` that shows the image.
    """

    original: tuple[int, int]
    padded: tuple[int, int]
    window: tuple[int, int, int, int]

    @classmethod
    def whole(cls, height: int, width: int) -> Frame:
        return cls((height, width), (height, width), (0, 0, height, width))


Window = tuple[int, int, int, int]  # top, left, height, width, in pixels of the original image


@dataclass(frozen=True)
class Merge:
    """How candidates become one map: the rule of the paper, with its numbers.

    paint      things by falling score, kept above `score` when at least `overlap` of them is still free; stuff takes
               what they leave (Kirillov et al. 2019, 1801.00868)
    argmax     each pixel goes to the candidate with the largest score x mask; kept above `score` when at least
               `overlap` of its own mask is left (Cheng et al. 2021, 2107.06278). Pixels where its mask is below 0.01,
               which no answer can show, are not counted as left.
    partition  the candidates do not overlap; all are kept, and what none covers is known to be nothing
    Stuff segments below `stuff_area` pixels become unknown. `best`: as instances at most so many are answered, 0 for
    the task's own limit; where every pair of query and class is one, masks repeat and each takes a layer.
    """

    rule: Literal["paint", "argmax", "partition"]
    overlap: float = 0.5
    score: float = 0.5
    stuff_area: int = 0
    best: int = 0


@dataclass(frozen=True)
class Candidates:
    """Possible segments of one image at its original size.

    scores  [Q, K] in 0..1: how sure it is that candidate q is a segment of class k
    boxes   [Q, 4] int64 x0 y0 x1 y1 of the windows
    crops   Q masks [y1-y0, x1-x0]: bool, or float32 probabilities where the rule needs them
    size    (H, W)
    """

    scores: np.ndarray
    boxes: np.ndarray
    crops: list[np.ndarray]
    size: tuple[int, int]
    merge: Merge


@runtime_checkable
class Output(Protocol):
    """What every kind of output can do for image i of the batch."""

    @property
    def frames(self) -> tuple[Frame, ...]: ...

    @property
    def aux(self) -> tuple[tuple[str, float, Any], ...]: ...

    def probs(self, i: int, window: Window | None = None) -> Tensor: ...

    def class_map(self, i: int, window: Window | None = None) -> Tensor:
        """[H, W] integers of any type; those of the house are the smallest signed ones that hold the labels 0..K."""
        ...

    def candidates(self, i: int) -> Candidates: ...


def cut_strips(frame: Frame, window: Window | None, depth: int) -> Iterator[Window]:
    """Cuts the window into strips of rows that hold at most STRIP numbers of `depth` maps."""
    top, left, height, width = window or (0, 0, *frame.original)
    rows = max(1, STRIP // max(1, depth * width))
    for y in range(top, top + height, rows):
        yield y, left, min(rows, top + height - y), width


def read_grid(maps: Tensor, frame: Frame, window: Window | None, align_corners: bool) -> Tensor:
    """[K, h, w] on the net's grid -> [K, H, W] on the original image (or on a window of it), one bilinear step."""
    origin, step, size = _lie(maps, frame, window, align_corners)
    if _is_image(origin, step):  # a view
        return _cut(maps, origin, size).float()
    return sample_window(maps, origin=origin, step=step, size=size)


def read_labels(maps: Tensor, frame: Frame, window: Window | None, align_corners: bool,
                floor: float | None = None) -> Tensor:  # fmt: skip
    """[H, W] the channel that is largest in `read_grid`, K where none exceeds `floor`; int8, int16 or int32.

    The enlarged maps are never built.
    """
    origin, step, size = _lie(maps, frame, window, align_corners)
    if _is_image(origin, step):
        return largest_of(_cut(maps, origin, size), floor)
    return upsample_argmax(maps, origin=origin, step=step, size=size, floor=floor)


Pair = tuple[float, float]


def _lie(maps: Tensor, frame: Frame, window: Window | None, align_corners: bool) -> tuple[Pair, Pair, tuple[int, int]]:
    """Where the first pixel lies on the grid, how far the next one is from it, and how many there are."""
    top, left, height, width = window or (0, 0, *frame.original)
    origin, step = [], []
    for axis, start in enumerate((top, left)):
        grid, padded = maps.shape[1 + axis], frame.padded[axis]
        scale = frame.window[2 + axis] / frame.original[axis]  # original -> padded
        at = (start + 0.5) * scale - 0.5 + frame.window[axis]
        if align_corners:
            shrink = (grid - 1) / max(1, padded - 1)
            origin.append(at * shrink)
        else:
            shrink = grid / padded
            origin.append((at + 0.5) * shrink - 0.5)
        step.append(scale * shrink)
    return (origin[0], origin[1]), (step[0], step[1]), (height, width)


def _is_image(origin: Pair, step: Pair) -> bool:
    """Whether the grid's points are the image's pixels."""
    return step == (1.0, 1.0) and all(o == int(o) for o in origin)


def _cut(maps: Tensor, origin: Pair, size: tuple[int, int]) -> Tensor:
    y, x = int(origin[0]), int(origin[1])
    return maps[:, y : y + size[0], x : x + size[1]]


@dataclass(frozen=True, eq=False)
class Dense:
    """A score for every class at every pixel.

    logits         [B, K, h, w] on the net's grid, any float type.
    activation     "softmax": the classes exclude each other; "sigmoid": each stands alone.
    align_corners  the net's own upsampling rule.
    frames         one per image; the grid covers `frame.padded`.
    aux            (name, weight, output) of auxiliary heads, in training.
    """

    logits: Tensor
    frames: tuple[Frame, ...] = ()
    activation: Literal["softmax", "sigmoid"] = "softmax"
    align_corners: bool = False
    aux: tuple[tuple[str, float, Any], ...] = ()

    def __post_init__(self) -> None:
        if not self.frames:
            h, w = self.logits.shape[-2:]
            object.__setattr__(self, "frames", (Frame.whole(h, w),) * self.logits.shape[0])

    def full(self) -> Tensor:
        """[B, K, H, W] logits at the input's size."""
        size = self.frames[0].padded
        if tuple(self.logits.shape[-2:]) == size:
            return self.logits
        return F.interpolate(self.logits, size=size, mode="bilinear", align_corners=self.align_corners)

    def probs(self, i: int, window: Window | None = None) -> Tensor:
        """[K, H, W] float32 in 0..1 at the original size, or on a window of it."""
        logits = read_grid(self.logits[i], self.frames[i], window, self.align_corners)
        return logits.softmax(0) if self.activation == "softmax" else logits.sigmoid()

    def class_map(self, i: int, window: Window | None = None) -> Tensor:
        """[H, W] channel of the largest logit, see `read_labels`; under "sigmoid" K (nothing) where none is above 0."""
        floor = 0.0 if self.activation == "sigmoid" else None
        return read_labels(self.logits[i], self.frames[i], window, self.align_corners, floor)

    def candidates(self, i: int) -> Candidates:
        """Connected components (8-neighbours) of each channel of the class map; the score is the mean probability."""
        return components(self, i, self.logits.shape[1])


def components(output: Output, i: int, channels: int) -> Candidates:
    """Candidates of an output that has only maps: connected components (8-neighbours) of each channel of `class_map`.

    The score is the mean over the component of the largest probability.
    """
    class_map = output.class_map(i).cpu().numpy()
    top = _winning_probs(output, i, class_map, channels)
    rows: list[tuple[int, float]] = []
    boxes, crops = [], []
    for k, where in enumerate(ndimage.find_objects(class_map.astype(np.int32) + 1, max_label=channels)):
        if where is None:
            continue
        parts, count = ndimage.label(class_map[where] == k, structure=np.ones((3, 3), int))
        means = ndimage.mean(top[where], parts, np.arange(1, count + 1))
        for part, inner in enumerate(ndimage.find_objects(parts), 1):
            y, x = where[0].start + inner[0].start, where[1].start + inner[1].start
            crop = parts[inner] == part
            boxes.append((x, y, x + crop.shape[1], y + crop.shape[0]))
            crops.append(crop)
            rows.append((k, float(means[part - 1])))
    scores = np.zeros((len(rows), channels), np.float32)
    for q, (k, score) in enumerate(rows):
        scores[q, k] = score
    size = output.frames[i].original
    return Candidates(scores, np.array(boxes, np.int64).reshape(-1, 4), crops, size, Merge("partition"))


def _winning_probs(output: Output, i: int, class_map: np.ndarray, channels: int) -> np.ndarray:
    """[H, W] float32 probability of the channel that the class map shows, strip by strip."""
    strips = [output.probs(i, strip).amax(0) for strip in cut_strips(output.frames[i], None, channels)]
    return torch.cat(strips).detach().cpu().numpy().reshape(class_map.shape)


@dataclass(frozen=True, eq=False)
class Queries:
    """A set of Q masks with a class each (MaskFormer, Cheng et al. 2021, 2107.06278, and its kin).

    masks    [B, Q, h, w] logits on the net's grid
    classes  [B, Q, K+1] logits; the last stands for "no segment"
    merge    Mask2Former's: 0.8 for score and overlap, the best 100 pairs of query and class as instances
    """

    masks: Tensor
    classes: Tensor
    frames: tuple[Frame, ...] = ()
    align_corners: bool = False
    merge: Merge = field(default_factory=lambda: Merge("argmax", overlap=0.8, score=0.8, best=100))
    aux: tuple[tuple[str, float, Any], ...] = ()

    def __post_init__(self) -> None:
        if not self.frames:
            h, w = self.masks.shape[-2:]
            object.__setattr__(self, "frames", (Frame.whole(h, w),) * self.masks.shape[0])

    def probs(self, i: int, window: Window | None = None) -> Tensor:
        """[K, H, W] in 0..1: sum over queries of class probability x mask probability, normalised over the classes."""
        known = self.classes[i].float().softmax(-1)[:, :-1]  # [Q, K]
        strips = []
        for strip in cut_strips(self.frames[i], window, self.masks.shape[1]):
            masks = read_grid(self.masks[i], self.frames[i], strip, self.align_corners).sigmoid()
            strips.append(torch.einsum("qk,qhw->khw", known, masks))
        total = torch.cat(strips, 1)
        return total / total.sum(0, keepdim=True).clamp_min(1e-12)

    def class_map(self, i: int, window: Window | None = None) -> Tensor:
        """[H, W] class with the largest sum over queries of class probability x mask probability, as `largest_of`."""
        strips = [largest_of(self.probs(i, strip)) for strip in cut_strips(self.frames[i], window, self.masks.shape[1])]
        return torch.cat(strips)

    def candidates(self, i: int) -> Candidates:
        """Every query whose mask exceeds 0.01 somewhere, as soft masks cut to the box of what does.

        A mask that nowhere reaches 0.5 is no segment, but under "argmax" it takes pixels from others.
        """
        scores = self.classes[i].detach().float().softmax(-1)[:, :-1]
        boxes, crops, rows = [], [], []
        for q in range(self.masks.shape[1]):
            mask = read_grid(self.masks[i, q : q + 1].detach(), self.frames[i], None, self.align_corners)[0].sigmoid()
            if float(mask.max()) <= 0.01:
                continue
            mask_np = mask.cpu().numpy()
            alive = mask_np > 0.01
            ys, xs = np.flatnonzero(alive.any(1)), np.flatnonzero(alive.any(0))
            x0, y0, x1, y1 = xs[0], ys[0], xs[-1] + 1, ys[-1] + 1
            boxes.append((x0, y0, x1, y1))
            crops.append(mask_np[y0:y1, x0:x1].copy())
            rows.append(q)
        table = scores[rows].cpu().numpy() if rows else np.zeros((0, scores.shape[1]), np.float32)
        return Candidates(table, np.array(boxes, np.int64).reshape(-1, 4), crops, self.frames[i].original, self.merge)


def heads(output: Any) -> list[tuple[str, float, Any]]:
    """The output and its auxiliary ones as (prefix, weight, output), the main one first with "" and 1."""
    found: list[tuple[str, float, Any]] = [("", 1.0, output)]
    for name, weight, aux in output.aux:
        found += [(f"{name}." + inner, weight * w, head) for inner, w, head in heads(aux)]
    return found


def register(kind: type, tensors: Sequence[str]) -> None:
    """Makes an output a pytree, so that torch.export, DDP and compile see its tensors (and its auxiliary outputs)."""
    names = [f.name for f in fields(kind)]
    static = [n for n in names if n not in tensors and n != "aux"]

    def flatten(output: Any) -> tuple[list[Any], Any]:
        children = [getattr(output, n) for n in tensors] + [aux for _, _, aux in output.aux]
        plain = tuple(getattr(output, n) for n in static), tuple((n, w) for n, w, _ in output.aux)
        return children, plain

    def unflatten(children: Any, context: Any) -> Any:
        children = list(children)
        values, marks = context
        aux = tuple((n, w, child) for (n, w), child in zip(marks, children[len(tensors) :]))
        made: Any = object.__new__(kind)  # no checks: children may be placeholders
        for name, value in (*zip(tensors, children), *zip(static, values), ("aux", aux)):
            object.__setattr__(made, name, value)
        return made

    name = f"{kind.__module__}.{kind.__qualname__}"
    pytree.register_pytree_node(kind, flatten, unflatten, serialized_type_name=name)


register(Dense, ["logits"])
register(Queries, ["masks", "classes"])
