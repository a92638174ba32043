"""How sure an answer is at each pixel: the probability of the most probable channel, in 8 bits."""

from __future__ import annotations

import numpy as np

from pixelwise.core.outputs import Output, Window, cut_strips


def confidence(output: Output, channels: int, window: Window | None = None) -> np.ndarray:
    """[h, w] uint8: 255 times the probability of the most probable of `channels` at each pixel of image 0, or a part.

    Goes strip by strip, so that its probabilities never lie in memory whole.
    """
    strips = (output.probs(0, strip).amax(0) for strip in cut_strips(output.frames[0], window, channels))
    return np.concatenate([strip.mul(255).round().byte().cpu().numpy() for strip in strips])
