"""`pixelwise import`: a foreign checkpoint becomes a model file, with preprocessing and class names in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelwise.checkpoints.loading import from_checkpoint
from pixelwise.checkpoints.reading import is_own
from pixelwise.core.modelfile import ModelCard, save_model
from pixelwise.data.table import read_table
from pixelwise.errors import ConfigError


@dataclass(frozen=True)
class Imported:
    """A checkpoint that became a model file.

    path        of the model file      card   as it stands in it
    dialect     of the checkpoint      parameters   how many numbers the net learns
    """

    path: Path
    card: ModelCard
    dialect: str
    parameters: int

    def lines(self) -> list[str]:
        """What was recognised, for people."""
        card, size = self.card, self.card.preprocessing.size
        numbered = card.classes.names[0] == "class 0"
        names = "no published label set has as many: give --classes" if numbered else _first(card.classes.names)
        sides = "of their own size"
        if size is not None:
            sides = f"with a shorter side of {size.short}" + (f", a longer of at most {size.long}" if size.long else "")
        return [
            f"recognised  {card.architecture}, names as in {self.dialect}, {self.parameters:,} parameters",
            f"classes     {len(card.classes)}, {len(card.classes.things)} of them things ({names})",
            f"images      {card.preprocessing.order} {sides}",
            f"model       {self.path}",
        ]


def import_checkpoint(path: str | Path, out: str | Path, *, classes: str | Path | None = None,
                      architecture: str | None = None, **options: Any) -> Imported:  # fmt: skip
    """Writes a model file from a checkpoint (see `from_checkpoint`); it is then as good as one that was trained here.

    classes  a class table such as classes.txt, in the order of the net's labels, for other than published label sets
    Raises ModelFileError, ConfigError, DataError for the table, OutputError where it cannot be written.

    >>> import_checkpoint("maskrcnn_resnet50_fpn_coco.pth", "model.safetensors").card.architecture
    'mask_rcnn'
    """
    path, out = Path(path), Path(out)
    if is_own(path):
        raise ConfigError(f"{path} is a model file of Pixelwise's own already: use it as it is.")
    if out.suffix != ".safetensors":
        raise ConfigError(f"A model file ends in .safetensors, got {out}.")
    named = None if classes is None else read_table(classes).classes
    net, card = from_checkpoint(path, architecture, classes=named, **options)
    save_model(out, net, card)
    parameters = sum(p.numel() for p in net.parameters())
    return Imported(out, card, str(card.training["imported"]["dialect"]), parameters)


def _first(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
