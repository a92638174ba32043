"""Weights that others trained: read without running them, recognised by their keys, turned into ours."""

from pixelwise.checkpoints.importing import Imported, import_checkpoint
from pixelwise.checkpoints.loading import Report, from_checkpoint, load_weights
from pixelwise.checkpoints.reading import read_checkpoint

__all__ = ["Imported", "Report", "from_checkpoint", "import_checkpoint", "load_weights", "read_checkpoint"]
