"""Cityscapes (Cordts et al., CVPR 2016, 1604.01685): results for the official evaluators, or the set's own layout.

Classes are told by their names; ids are the set's label ids.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from pixelwise.core.atomic import atomic
from pixelwise.core.classes import Classes
from pixelwise.core.segments import Segments
from pixelwise.data import writer
from pixelwise.data.formats import cityscapes
from pixelwise.data.io import write_png
from pixelwise.data.writer import Item
from pixelwise.errors import ConfigError, DataError

DESCRIPTION = "Cityscapes: results (a PNG per instance and a list), labels (labelIds), or truth (gtFine/, leftImg8bit/)"
BESIDE = False  # whether answers stand beside those of other kinds, rather than in a folder of this name
ID_OF = {name: key for key, name, _, _ in cityscapes.LABELS}
HOLDS = {
    "results": frozenset({"overlaps", "scores", "nothing"}),
    "labels": frozenset({"unknown", "crowd"}),
    "truth": frozenset({"unknown", "crowd"}),
}


class Writer(writer.Writer):
    """Writes Cityscapes.

    kind  "results": NAME.txt with a line `NAME_0001.png label score` for each thing, and these masks of 0 and 255
          "labels":  NAME_labelIds.png, the results of the semantic task; 0 is unknown
          "truth":   gtFine/SPLIT/CITY/*_labelIds.png and *_instanceIds.png, leftImg8bit/ with the images, as
                     `cityscapes` reads it; the images must be PNG
    The evaluators find results by city_sequence_frame at the start of a name. Raises ConfigError where no class has a
    name of Cityscapes.
    """

    def __init__(self, out: Path, classes: Classes, *, kind: Literal["results", "labels", "truth"] = "results") -> None:
        super().__init__(out, classes)
        if kind not in HOLDS:
            raise ConfigError(f"kind is 'results', 'labels' or 'truth', got {kind!r}.")
        if not set(classes.names) & set(ID_OF):
            raise ConfigError(f"None of the classes {', '.join(classes.names[:5])} is one of Cityscapes' "
                              f"({', '.join(ID_OF)}); rename them.")  # fmt: skip
        self.kind = kind
        self.HOLDS = HOLDS[kind]  # type: ignore[misc]  # what is held depends on the kind
        self.ids = np.array([ID_OF.get(name, 0) for name in classes.names])

    def place(self, item: Item) -> Path | None:
        if self.kind != "truth":
            return None
        if item.ending.lower() != ".png":
            raise DataError(f"{item.image}: Cityscapes' images are PNG; convert them, or write with images=none.")
        return self.out / "leftImg8bit" / f"{self._base(item)}_leftImg8bit.png"

    def _base(self, item: Item) -> str:
        """SPLIT/CITY/NAME: the city is the folder below the split, or the first word of the name."""
        *folders, name = self.inner(item).split("/")
        name = name.removesuffix("_leftImg8bit")
        return "/".join([item.split or "test", "_".join(folders) or name.split("_")[0], name])

    def write(self, item: Item) -> tuple[Path, ...]:
        segments = self.held(item.segments)
        foreign = self.ids[segments.labels.numpy()] == 0
        self.lose("Segments of classes that Cityscapes does not have, left out", foreign.sum())
        segments = segments.keep(np.flatnonzero(~foreign), rest=-1 if self.kind == "results" else -2)
        if self.kind == "results":
            return self._results(item, segments)
        if self.kind == "labels":
            path = self.out / f"{item.name}_labelIds.png"
            write_png(path, self._label_ids(segments))
            return (path,)
        base = self.out / "gtFine" / self._base(item)
        paths = [base.with_name(f"{base.name}_gtFine_{word}.png") for word in ("labelIds", "instanceIds")]
        write_png(paths[0], self._label_ids(segments))
        write_png(paths[1], self._instance_ids(item, segments))
        return tuple(paths)

    def _results(self, item: Item, segments: Segments) -> tuple[Path, ...]:
        stuff = ~self.classes.is_thing[segments.labels.numpy()]
        self.lose("Segments of stuff, which instance results do not have", stuff.sum())
        base = self.out / item.name
        lines, paths = list[str](), list[Path]()
        for row, ((x0, y0, x1, y1), crop) in enumerate(zip(*segments.windows())):
            if stuff[row]:
                continue
            mask = np.zeros(segments.size, np.uint8)
            mask[y0:y1, x0:x1] = crop * np.uint8(255)
            paths.append(base.with_name(f"{base.name}_{len(paths) + 1:04d}.png"))
            write_png(paths[-1], mask)
            lines.append(f"{paths[-1].name} {self.ids[int(segments.labels[row])]} {float(segments.scores[row]):.6f}\n")
        paths.append(base.with_name(f"{base.name}.txt"))
        with atomic(paths[-1]) as part:
            part.write_text("".join(lines), encoding="utf-8")
        return tuple(paths)

    def _label_ids(self, segments: Segments) -> np.ndarray:
        ids = np.append(self.ids[segments.labels.numpy()], [0, 0]).astype(np.uint8)
        return ids[segments.row_map().long().numpy()]

    def _instance_ids(self, item: Item, segments: Segments) -> np.ndarray:
        """[H, W] uint16: label * 1000 + number, from 0 on, for single things; the label for stuff and crowds."""
        labels, keys = segments.labels.numpy(), segments.keys
        ids = self.ids[labels].copy()
        told = self.classes.is_thing[labels] & ~segments.crowd.numpy()
        for label in np.unique(labels[told]):
            rows = np.flatnonzero(told & (labels == label))
            if len(rows) > 1000:
                raise DataError(f"the image '{item.name}' has {len(rows)} objects of '{self.classes.names[label]}'; "
                                "Cityscapes' ids hold 1000.")  # fmt: skip
            mine = ids[rows] * 1000 + np.arange(len(rows))
            if keys is not None and (keys.numpy()[rows] // 1000 == ids[rows]).all() and _differ(keys.numpy()[rows]):
                mine = keys.numpy()[rows]
            ids[rows] = mine
        return np.append(ids, [0, 0]).astype(np.uint16)[segments.row_map().long().numpy()]


def _differ(values: np.ndarray) -> bool:
    return len(np.unique(values)) == len(values)
