"""`View`: one look at an image, mirrored, turned by right angles and scaled, and the way back from it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from pixelwise.core.outputs import Frame, Window
from pixelwise.core.sizes import SizeRule
from pixelwise.errors import ConfigError


@dataclass(frozen=True)
class View:
    """One look at the image: first mirrored, then turned. Together these are the eight symmetries of the square.

    mirrored  left and right exchanged
    scale     factor of the image's size; below 1 it is reduced with a filter, so that it does not alias
    turns     quarter turns against the clock, 0..3; an odd number exchanges height and width
    Top and bottom are exchanged by mirrored=True, turns=2. Raises ConfigError for numbers outside their range.
    """

    mirrored: bool = False
    scale: float = 1.0
    turns: int = 0

    def __post_init__(self) -> None:
        if not 0.1 <= self.scale <= 8:
            raise ConfigError(f"A view's scale must lie in 0.1..8, got {self.scale}.")
        if isinstance(self.turns, bool) or self.turns not in (0, 1, 2, 3):
            raise ConfigError(f"A view's quarter turns must be 0, 1, 2 or 3, got {self.turns!r}.")

    def __str__(self) -> str:
        return f"{self.scale:g}{' mirrored' * self.mirrored}{f' turned {90 * self.turns}' if self.turns else ''}"

    @property
    def upright(self) -> bool:
        """Whether the image is shown as it lies."""
        return not self.mirrored and not self.turns

    @property
    def inverse(self) -> View:
        """What puts back what this view mirrors and turns; a mirrored turn is its own inverse."""
        return View(self.mirrored, turns=self.turns if self.mirrored else -self.turns % 4)

    def then(self, other: View) -> View:
        """The view that shows what `other` shows of what this one shows."""
        turns = other.turns + (-self.turns if other.mirrored else self.turns)
        return View(self.mirrored != other.mirrored, self.scale * other.scale, turns % 4)

    def take(self, images: Tensor, rule: SizeRule | None = None) -> Tensor:
        """[B, C, H, W] float -> [B, C, h, w] as the net is to see it: the rule and the scale in one step."""
        height, width = int(images.shape[-2]), int(images.shape[-1])
        size = (height, width) if rule is None else rule(height, width)
        if self.scale != 1:
            size = max(1, round(size[0] * self.scale)), max(1, round(size[1] * self.scale))
        if size != (height, width):
            shrinks = size[0] < height or size[1] < width
            filtered = shrinks and (rule is None or rule.antialias or self.scale < 1)
            images = F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=filtered)
        return self.turn(images)

    def turn(self, maps: Tensor) -> Tensor:
        """[..., H, W] -> mirrored and turned, without any scale."""
        maps = maps.flip(-1) if self.mirrored else maps
        return torch.rot90(maps, self.turns, (-2, -1)) if self.turns else maps

    def put(self, maps: Tensor) -> Tensor:
        """[..., h, w] maps at the size of the answer, as this view saw them -> [..., H, W] as the image lies."""
        return self.inverse.turn(maps)

    def put_vectors(self, vectors: Tensor) -> Tensor:
        """[2, h, w] directions (dy, dx) as this view saw them -> [2, H, W] as the image lies: their signs and axes turn
        with the map."""
        down, right = self.put(vectors)
        for _ in range(self.turns):  # a quarter turn against the clock made (dy, dx) into (-dx, dy)
            down, right = right, -down
        return torch.stack([down, -right if self.mirrored else right])

    def size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of an image -> those of what this view shows of it, without any scale."""
        return (size[1], size[0]) if self.turns % 2 else size

    def window(self, window: Window | None, size: tuple[int, int]) -> Window | None:
        """Where this view sees a window of an image of that size (height, width)."""
        if window is None:
            return None
        top, left, h, w = window
        height, width = size
        left = width - left - w if self.mirrored else left
        for _ in range(self.turns):  # the pixel (y, x) comes to (width - 1 - x, y)
            top, left, h, w = width - left - w, top, w, h
            height, width = width, height
        return top, left, h, w

    def frame(self, frame: Frame) -> Frame:
        """The frame of what this view showed -> as the image lies."""
        back = self.inverse
        window = back.window(frame.window, frame.padded)
        assert window is not None
        return replace(frame, original=back.size(frame.original), padded=back.size(frame.padded), window=window)
