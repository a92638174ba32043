"""`look`: a net on every view of a tensor of images, joined into one `Output`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from pixelwise.core.outputs import Frame, Output
from pixelwise.core.sizes import SizeRule
from pixelwise.kernels.mirror import mirror
from pixelwise.views.joined import join
from pixelwise.views.names import PLAIN
from pixelwise.views.view import View

MIN_SIZE = 8  # pixels a side that every net takes, unless it says otherwise by its attribute `min_size`


def look(net: Callable[..., Any], images: Tensor, views: Sequence[View] = PLAIN,
         rule: SizeRule | None = None) -> Output:  # fmt: skip
    """Runs the net over every view of images [B, C, H, W] (normalised, all of one size) and joins what it answers.

    net   a net or an engine: (images [B, C, h, w], frames) -> Output
    rule  the size the net expects (`Preprocessing.size`); None: the images' own
    Images smaller than the net's least size are padded by reflection; the answers are at the images' own size. Each
    view's output is reduced before the next is computed: see `views.joined` for what is held.
    """
    seen = sights(net, images, views, rule)
    if len(views) == 1 and views[0].upright:
        return next(seen)[1]
    return join(seen, len(views))


def sights(net: Callable[..., Any], images: Tensor, views: Sequence[View],
           rule: SizeRule | None = None) -> Iterator[tuple[View, Output]]:  # fmt: skip
    """(view, the net's output for it), each computed when it is asked for."""
    least, size = int(getattr(net, "min_size", MIN_SIZE)), _size(images)
    for view in views:
        taken = view.take(images, rule)
        height, width = _size(taken)
        seen = mirror(taken, (0, max(0, least - height), 0, max(0, least - width)))
        frame = Frame(view.size(size), _size(seen), (0, 0, height, width))
        yield view, net(seen.contiguous(memory_format=torch.channels_last), (frame,) * len(images))


def _size(images: Tensor) -> tuple[int, int]:
    return int(images.shape[-2]), int(images.shape[-1])
