"""`Rays`: star-convex polygons around pixels, the output of StarDist (Schmidt et al. 2018, arXiv 1806.03535).

Each cell of the grid says how sure it is to lie deep in an object, and how far that object reaches along R rays. Read
by the authors' post-processing: cells that are sure enough propose polygons, the surest first, and a polygon removes
later ones that overlap it. The object's class is the one its cell names (Weigert and Schmidt 2022, arXiv 2203.02284).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pixelwise.core.outputs import Candidates, Frame, Merge, Window, register
from pixelwise.kernels.star_polygons import rasterise, suppress, vertices

LEAST = 1e-3  # pixels: a distance may come out negative, but no polygon does


@dataclass(frozen=True, eq=False)
class Rays:
    """Objects as polygons, K = things + 1 classes of which the last is nothing.

    objects    [B, 1, h, w] logits of the object probability, 1 at the deepest pixel of an object
    rays       [B, R, h, w] distances to the object's border in pixels of the padded input; ray 0 points right, the
               next ones further down
    classes    [B, K, h, w] logits, the last of them for no object; None where there is one class of things
    grid       cell (i, j) stands for pixel (grid i, grid j) of the padded input
    threshold  cells below this probability propose nothing. The task's own least score comes on top: that is the
               authors' probability threshold, since dropping unsure polygons changes nothing about surer ones
    nms        of two polygons the less sure goes when they share more than this of the smaller one's area
    border     cells so near to the border of the image propose nothing
    """

    objects: Tensor
    rays: Tensor
    classes: Tensor | None = None
    frames: tuple[Frame, ...] = ()
    grid: int = 1
    threshold: float = 0.1
    nms: float = 0.4
    border: int = 0
    aux: tuple[tuple[str, float, Any], ...] = ()

    def __post_init__(self) -> None:
        if not self.frames:
            h, w = self.objects.shape[-2:]
            object.__setattr__(self, "frames", (Frame.whole(self.grid * h, self.grid * w),) * len(self.objects))

    @property
    def channels(self) -> int:
        """K of the readings: things and nothing."""
        return 2 if self.classes is None else int(self.classes.shape[1])

    @cached_property
    def _found(self) -> dict[int, Candidates]:
        """What was found in each image that was read: three readings share it."""
        return {}

    def candidates(self, i: int) -> Candidates:
        """The polygons that are left, the surest first, none of them sharing a pixel: where two did, the surer has it.

        The score is the object probability, in the column of the class that its cell finds most likely among things.
        """
        if i not in self._found:
            points, distances, score, label = self._polygons(i)
            frame = self.frames[i]
            shrink = np.array([o / v for o, v in zip(frame.original, frame.window[2:])])  # padded -> original
            origin = np.array(frame.window[:2])
            centres = (points + 0.5 - origin) * shrink - 0.5
            boxes, crops = rasterise(vertices(centres, distances, shrink), frame.original)
            taken = np.zeros(frame.original, bool)
            for (x0, y0, x1, y1), crop in zip(boxes.tolist(), crops):
                crop &= ~taken[y0:y1, x0:x1]
                taken[y0:y1, x0:x1] |= crop
            scores = np.zeros((len(score), self.channels), np.float32)
            scores[np.arange(len(score)), label] = score
            self._found[i] = Candidates(scores, boxes, crops, frame.original, Merge("partition"))
        return self._found[i]

    def _polygons(self, i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Centres [Q, 2] in the padded input, distances [Q, R], scores [Q] and labels [Q] of what survives."""
        top, left, height, width = self.frames[i].window
        prob = self.objects[i, 0].detach().float().sigmoid()
        y, x = (prob > self.threshold).nonzero(as_tuple=True)
        edge = self.border * self.grid
        at = torch.stack([y, x], 1) * self.grid
        low, high = at.new_tensor([top, left]) + edge, at.new_tensor([top + height, left + width]) - edge
        seen = ((at >= low) & (at < high)).all(1)
        y, x, at = y[seen], x[seen], at[seen]
        order = prob[y, x].argsort(descending=True, stable=True)
        y, x, at = y[order], x[order], at[order]
        points = at.cpu().numpy().astype(np.float32)
        distances = self.rays[i].detach()[:, y, x].T.float().clamp_min(LEAST).cpu().numpy()
        kept = suppress(points, distances, self.nms)
        label = np.zeros(len(points), np.int64)
        if self.classes is not None:
            label = self.classes[i].detach()[:-1, y, x].argmax(0).cpu().numpy()
        return points[kept], distances[kept], prob[y, x].cpu().numpy()[kept], label[kept]

    def probs(self, i: int, window: Window | None = None) -> Tensor:
        """[K, H, W] float32 in 0..1 at the original size: each object's score on its pixels, the rest is nothing."""
        found = self.candidates(i)
        top, left, height, width = window or (0, 0, *found.size)
        maps = torch.zeros(self.channels, height, width)
        for (x0, y0, x1, y1), crop, scores in zip(found.boxes.tolist(), found.crops, found.scores):
            a, b, c, d = max(y0, top), min(y1, top + height), max(x0, left), min(x1, left + width)
            if a < b and c < d:
                k = int(scores.argmax())
                part = torch.from_numpy(crop[a - y0 : b - y0, c - x0 : d - x0])
                maps[k, a - top : b - top, c - left : d - left][part] = float(scores[k])
        maps[-1] = 1 - maps[:-1].sum(0)
        return maps.to(self.objects.device)

    def class_map(self, i: int, window: Window | None = None) -> Tensor:
        """[H, W] int64 the class of the object that is there with a score of at least 0.5, else K - 1, nothing."""
        probs = self.probs(i, window)
        best = probs[:-1].max(0)
        return best.indices.masked_fill(best.values < 0.5, self.channels - 1)


register(Rays, ["objects", "rays", "classes"])
