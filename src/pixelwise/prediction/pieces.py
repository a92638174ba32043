"""Pieces of segments, as tiles find them one after the other, joined into those of the whole image: a union-find forest
(Galler and Fischer 1964) with a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pixelwise.core.segments import NOTHING, UNKNOWN

COLUMNS = {"parent": np.int32, "label": np.int32, "area": np.int64, "sum": np.float64, "least_area": np.int64,
           "least_score": np.float32}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Table:
    """The segments of the whole image.

    labels, scores, areas   [N] int64, float32 in 0..1, int64 pixels
    rows                    [P] int32: the final row 0..N-1 of each provisional one on the canvas, NOTHING or UNKNOWN
    """

    labels: Tensor
    scores: Tensor
    areas: Tensor
    rows: np.ndarray

    def final(self, provisional: np.ndarray) -> np.ndarray:
        """Rows as tiles wrote them, of any shape -> int32 rows of this table; NOTHING and UNKNOWN stay."""
        known = np.concatenate([np.array([UNKNOWN, NOTHING], np.int32), self.rows])
        return known[provisional.astype(np.int64) - UNKNOWN]


class Pieces:
    """What is known of each provisional row; the first ones, 0 to K-1, stand for all that is of a label.

    count   rows so far
    `add` gives new rows, `cover` counts their pixels, `join` makes two the same segment, `table` is the end of it.
    """

    def __init__(self, labels: int) -> None:
        self.first = labels
        self.count = 0
        self.rest = NOTHING
        self._columns = {name: np.zeros(max(64, labels), kind) for name, kind in COLUMNS.items()}
        self.add(np.arange(labels), np.ones(labels), np.zeros(labels))

    def __getitem__(self, name: str) -> np.ndarray:
        """A column [count], to be read and written."""
        return self._columns[name][: self.count]

    def add(self, label: np.ndarray, least_area: np.ndarray, least_score: np.ndarray) -> np.ndarray:
        """New rows of these labels; returns their numbers, int32."""
        start, self.count = self.count, self.count + len(label)
        if self.count > len(self._columns["parent"]):
            self._columns = {n: np.resize(c, 2 * self.count) for n, c in self._columns.items()}
        rows = np.arange(start, self.count, dtype=np.int32)
        new = {"parent": rows, "label": label, "area": 0, "sum": 0, "least_area": least_area,
               "least_score": least_score}  # fmt: skip
        for name, values in new.items():
            self._columns[name][start : self.count] = values
        return rows

    def cover(self, rows: np.ndarray, pixels: np.ndarray, score: np.ndarray) -> None:
        """Each of the rows, none twice, owns so many more pixels, which have this score."""
        self["area"][rows] += pixels
        self["sum"][rows] += pixels * score.astype(np.float64)

    def root(self, row: int) -> int:
        parent = self._columns["parent"]
        while parent[row] != row:
            parent[row] = parent[parent[row]]  # halves the path
            row = int(parent[row])
        return row

    def join(self, one: int, other: int) -> None:
        """From now on they are one segment; the older number stands for it."""
        a, b = sorted((self.root(one), self.root(other)))
        self._columns["parent"][b] = a

    def roots(self) -> np.ndarray:
        """[count] the row that stands for each."""
        parent = self["parent"].copy()  # never above its row
        while True:
            above = parent[parent]
            if (above == parent).all():
                return parent
            parent = above

    def table(self) -> Table:
        """The segments that are left, in the order in which they were found; what is too small or too unsure is not."""
        roots = self.roots()
        area = np.zeros(self.count, np.int64)
        np.add.at(area, roots, self["area"])
        total = np.bincount(roots, self["sum"], minlength=self.count)
        score = np.where(area > 0, total / np.maximum(area, 1), 1.0).astype(np.float32)
        own = roots == np.arange(self.count)
        kept = own & (area >= self["least_area"]) & (score >= self["least_score"])
        number = np.full(self.count, self.rest, np.int32)
        number[kept] = np.arange(np.count_nonzero(kept))
        label = torch.from_numpy(self["label"][kept].astype(np.int64))
        return Table(label, torch.from_numpy(score[kept]), torch.from_numpy(area[kept]), number[roots])

    def state(self) -> dict[str, np.ndarray]:
        """Everything, as plain arrays."""
        return {**{name: self[name].copy() for name in COLUMNS}, "first": np.array(self.first),
                "rest": np.array(self.rest)}  # fmt: skip

    @classmethod
    def restored(cls, state: Mapping[str, np.ndarray]) -> Pieces:
        """From what `state` gave."""
        pieces = cls(0)
        pieces.first, pieces.rest, pieces.count = int(state["first"]), int(state["rest"]), len(state["parent"])
        pieces._columns = {name: state[name].astype(kind) for name, kind in COLUMNS.items()}
        return pieces
