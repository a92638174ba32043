"""Trees and hedges of a drawn street: crowns of many overlapping dabs, dark below, light on the sun's side."""

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from pixelwise.data.streets.canvas import Canvas, Colour, mix, scale
from pixelwise.data.streets.labels import Label

# Summer greens, autumn and blossom; within a row a street mixes neighbours of one family.
LEAVES: tuple[tuple[Colour, ...], ...] = (
    ((92, 132, 62), (70, 106, 60), (124, 146, 70), (100, 126, 78), (82, 116, 84)),
    ((200, 142, 60), (180, 94, 56), (208, 180, 88), (168, 128, 62)),
    ((220, 172, 178), (232, 204, 198), (206, 160, 158)),
)


@dataclass(frozen=True)
class Tree:
    """A tree (with a trunk) or a bush (`trunk` 0) at X, Z; metres."""

    x: float
    z: float
    trunk: float
    high: float  # of the crown alone
    wide: float
    leaf: Colour
    conical: bool = False


def random_tree(rng: np.random.Generator, x: float, z: float, leaf: Colour) -> Tree:
    """A street tree."""
    high = rng.uniform(3.0, 5.5)
    conical = rng.random() < 0.18
    wide = high * (rng.uniform(0.4, 0.5) if conical else rng.uniform(0.75, 1.1))
    factor = rng.uniform(0.85, 1.15)
    return Tree(
        x, z, rng.uniform(0.5, 1.0) if conical else rng.uniform(1.7, 2.6), high, wide, scale(leaf, factor), conical
    )


def draw_tree(canvas: Canvas, rng: np.random.Generator, tree: Tree) -> None:
    """Paint a tree; the trunk belongs to vegetation, as in Cityscapes."""
    camera, light, truth = canvas.camera, canvas.light, int(Label.VEGETATION)
    size = camera.span(1.0, tree.z)
    x, ground = camera.project(tree.x, 0.0, tree.z)
    if abs(x - canvas.ids.shape[1] / 2) > canvas.ids.shape[1] / 2 + tree.wide * size:
        return
    if tree.trunk:
        bark = light.tone((104, 84, 68), 0.35, tree.z)
        top, lean = ground - (tree.trunk + tree.high * 0.4) * size, rng.uniform(-0.15, 0.15) * size
        half = 0.13 * size
        points = [
            (x - half * 1.4, ground),
            (x + half * 1.4, ground),
            (x + half * 0.7 + lean, top),
            (x - half * 0.7 + lean, top),
        ]
        canvas.polygon(points, bark, truth)
        lit = [
            (x, ground),
            (x + half * 1.3 * light.side, ground),
            (x + half * 0.6 * light.side + lean, top),
            (x + lean, top),
        ]
        canvas.polygon(lit, light.tone((128, 106, 86), 0.8, tree.z))
        for reach in (-0.3, 0.32):
            fork = [
                (x + lean * 0.7, ground - tree.trunk * size),
                (x + reach * tree.wide * size, ground - (tree.trunk + tree.high * 0.35) * size),
            ]
            canvas.stroke(fork, 0.09 * size, bark, truth)
    centre = (x, ground - (tree.trunk + tree.high / 2) * size)
    _crown(canvas, rng, tree, centre, size)


# Coats of a crown: dabs, their size, their shift towards the sun, how much of it they get, brightness.
COATS = (
    (60, 0.30, 0.0, 0.05, 0.66),
    (80, 0.19, 0.06, 0.3, 0.80),
    (110, 0.12, 0.16, 0.65, 0.95),
    (120, 0.07, 0.24, 0.9, 1.06),
)


def _crown(canvas: Canvas, rng: np.random.Generator, tree: Tree, centre: tuple[float, float], size: float) -> None:
    """Clumps of dabs in coats from dark to light, each coat finer and further towards the sun."""
    light, truth = canvas.light, int(Label.VEGETATION)
    half_w, half_h = tree.wide / 2 * size, tree.high / 2 * size
    turn, reach = rng.uniform(0, 2 * np.pi, 9), rng.uniform(0.25, 0.62, 9)
    clump_x, clump_y = np.cos(turn) * reach, np.sin(turn) * reach
    if tree.conical:
        clump_y = np.linspace(-0.75, 0.75, 9)
        clump_x = 0.4 * (clump_y + 0.8) * rng.uniform(-1, 1, 9)
    dense = float(np.clip(half_h / 90, 0.25, 1.8))
    for count, dab, towards, shade, bright in COATS:
        kept = max(12, int(count * dense))
        of = rng.integers(0, 9, kept)
        turn, reach = rng.uniform(0, 2 * np.pi, kept), np.sqrt(rng.random(kept))
        sizes = rng.uniform(0.7, 1.35, kept)
        spread = (0.46 - dab * 0.5) * (0.45 + 0.35 * (clump_y[of] + 1) if tree.conical else 1.0)
        along = clump_x[of] + np.cos(turn) * reach * spread + towards * light.side * 0.6
        up = clump_y[of] + np.sin(turn) * reach * spread - towards
        px, py = (
            (centre[0] + along * half_w).astype(int).tolist(),
            (centre[1] + up * half_h).astype(int).tolist(),
        )
        radii = np.maximum(dab * min(half_w, half_h) * sizes / dense**0.5, 1).astype(int).tolist()
        tones = [light.tone(scale(tree.leaf, bright * f), shade, tree.z) for f in (0.9, 1.0, 1.08)]
        for number, (a, b, r) in enumerate(zip(px, py, radii, strict=True)):
            cv2.circle(canvas.image, (a, b), r, tones[number % 3], -1)
            cv2.circle(canvas.ids, (a, b), r, truth, -1)


def draw_hedge(
    canvas: Canvas, rng: np.random.Generator, x: float, near: float, far: float, high: float, leaf: Colour
) -> None:
    """A clipped hedge along the street from `near` to `far` metres, far end first."""
    light, project, truth = canvas.light, canvas.camera.project, int(Label.VEGETATION)
    edges = np.linspace(far, max(near, 1.2), 7)
    for back, front in pairwise(edges.tolist()):
        shade = 0.2 if (x > 0) == (light.side > 0) else 0.85
        wall = [project(x, 0, front), project(x, 0, back), project(x, high, back), project(x, high, front)]
        canvas.polygon(wall, light.tone(scale(leaf, 0.75), shade, front), truth)
        if max(point[0] for point in wall) < 0 or min(point[0] for point in wall) > canvas.ids.shape[1]:
            continue
        size = canvas.camera.span(1.0, front)
        tones = [light.tone(scale(leaf, bright), shade, front) for bright in (0.66, 0.8, 0.92, 1.06)]
        for z, lift, grow in rng.random((30, 3)):
            a, b = project(x, high * lift**0.5, front + (back - front) * z)
            radius = max(1, int(min((0.05 + 0.1 * grow) * size, 60)))
            if abs(a) < 16000 and abs(b) < 16000:
                dab = tones[int(1.5 * lift**0.5 + 2.4 * grow)]
                cv2.circle(canvas.image, (int(a), int(b)), radius, dab, -1)
                cv2.circle(canvas.ids, (int(a), int(b)), radius, truth, -1)


def row_leaf(rng: np.random.Generator) -> Colour:
    """The leaf colour that the trees of one street share."""
    family = LEAVES[int(rng.choice(3, p=[0.62, 0.26, 0.12]))]
    one, other = rng.integers(len(family), size=2)
    return mix(family[int(one)], family[int(other)], rng.uniform(0, 0.5))
