"""What a training step minimises: any callable `(net, batch, task, progress) -> {name: loss}`."""

from pixelwise.objectives.supervised import Supervised

__all__ = ["Supervised"]
