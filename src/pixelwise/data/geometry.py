"""How an output pixel finds its source: one affine map and at most one elastic bend, for the image and all its ids.

Coordinates are (x, y) in pixel edges: pixel i covers i to i + 1 and its centre is i + 1/2. An output centre is mapped
to a point s of the source; ids are those of the pixel that holds s, the image is read bilinearly at s.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from pixelwise.errors import ConfigError


def translation(x: float, y: float) -> np.ndarray:
    """[3, 3] that adds (x, y)."""
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def scaling(x: float, y: float) -> np.ndarray:
    """[3, 3] that multiplies by (x, y)."""
    return np.diag([float(x), float(y), 1.0])


@dataclass(frozen=True, eq=False)
class Bend:
    """Smooth displacement of a canvas: vectors on a g x g grid over it, bicubic between them.

    vectors  [2, g, g] x and y in pixels; size (H, W) of the canvas; the grid's corners are the canvas's corners.
    """

    vectors: np.ndarray
    size: tuple[int, int]

    def __call__(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Displacement at points x, y that broadcast to one shape; beyond the canvas that of its border."""
        nodes = self.vectors.shape[1]
        vectors = self.vectors.astype(x.dtype)
        open_grid = x.ndim == 2 and x.shape[0] == 1 and y.shape[1] == 1
        if not open_grid:
            x, y = np.broadcast_arrays(x, y)
        across = _cubic_weights(x.ravel() * ((nodes - 1) / self.size[1]), nodes)  # [P, g]
        down = _cubic_weights(y.ravel() * ((nodes - 1) / self.size[0]), nodes)  # [P, g]
        if open_grid:  # two small products instead of weights for every pixel
            return down @ vectors[0] @ across.T, down @ vectors[1] @ across.T  # [H, W] each
        dx, dy = (np.einsum("pg,pg->p", down @ v, across).reshape(x.shape) for v in vectors)
        return dx, dy


def _cubic_weights(position: np.ndarray, nodes: int) -> np.ndarray:
    """[P] positions in grid steps -> [P, nodes] weights of Keys' cubic (a = -1/2) with the border nodes repeated."""
    position = np.clip(position, 0, nodes - 1)
    d = np.abs(position[:, None] - np.arange(-1, nodes + 1, dtype=position.dtype))  # [P, nodes + 2]
    weights = np.where(d < 1, (1.5 * d - 2.5) * d * d + 1, np.where(d < 2, ((-0.5 * d + 2.5) * d - 4) * d + 2, 0))
    weights[:, 1] += weights[:, 0]
    weights[:, -2] += weights[:, -1]
    return weights[:, 1:-1]


@dataclass(frozen=True, eq=False)
class Placement:
    """Where the output looks: output --`after`--> canvas --`bend`--> canvas --`before`--> source.

    size     (H, W) of the output; `source` (H, W) of the stored image
    after    [3, 3] output -> canvas (the source itself where there is no bend)
    min_visible  rows that show less than this share of their pixels become unknown
    things       bool per label: where given, `min_visible` is for these labels only
    """

    size: tuple[int, int]
    source: tuple[int, int]
    after: np.ndarray = field(default_factory=lambda: np.eye(3))
    bend: Bend | None = None
    before: np.ndarray = field(default_factory=lambda: np.eye(3))
    min_visible: float = 0.0
    things: tuple[bool, ...] = ()

    @classmethod
    def whole(cls, size: tuple[int, int]) -> Placement:
        return cls(size, size)

    def then(self, matrix: np.ndarray, size: tuple[int, int]) -> Placement:
        """A further step: `matrix` [3, 3] maps the new output to the present one."""
        return replace(self, after=self.after @ matrix, size=size)

    def bent(self, bend: Bend) -> Placement:
        """A further elastic step. Raises ConfigError where there is one already."""
        if self.bend is not None:
            raise ConfigError("Two elastic warps follow one another; give one of them more strength instead.")
        return replace(self, before=self.after, bend=bend, after=np.eye(3))

    @property
    def affine(self) -> np.ndarray:
        """[3, 3] output -> source without the bend."""
        return self.before @ self.after

    @property
    def magnification(self) -> float:
        """Output pixels per source pixel, in area."""
        m = self.affine
        return float(1.0 / abs(m[0, 0] * m[1, 1] - m[0, 1] * m[1, 0]))

    @property
    def aligned(self) -> bool:
        """Whether rows stay rows, so that x and y may be mapped apart."""
        m = self.affine
        return self.bend is None and abs(m[0, 1]) + abs(m[1, 0]) < 1e-12

    def to_source(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Output points -> source points."""
        if self.bend is None:
            return apply(self.affine, x, y)
        x, y = apply(self.after, x, y)
        dx, dy = self.bend(x, y)
        return apply(self.before, x + dx, y + dy)

    def to_output(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Source points -> output points; a bend is inverted by fixed-point steps (its slope is below 1)."""
        x, y = apply(np.linalg.inv(self.before), np.asarray(x, float), np.asarray(y, float))
        if self.bend is not None:
            goal_x, goal_y = x, y
            for _ in range(8):
                dx, dy = self.bend(x, y)
                x, y = goal_x - dx, goal_y - dy
        return apply(np.linalg.inv(self.after), x, y)


def apply(m: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points x, y that broadcast to one shape times [3, 3]; an open grid stays open where rows stay rows."""
    # Python floats keep float32 points float32
    (a, b, c), (d, e, f) = m[0].tolist(), m[1].tolist()
    return (a * x + b * y if b else a * x) + c, (d * x + e * y if d else e * y) + f
