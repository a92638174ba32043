"""What star-convex polygons are learnt from: distances to an object's border along rays, and how deep pixels lie in it.

Schmidt, Weigert, Broaddus, Myers 2018, "Cell Detection with Star-convex Polygons", arXiv 1806.03535. Both are computed
for all objects of all images at once, so that 2,000 objects cost what two of the same pixels do.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

FAR = 1 << 28  # a squared distance beyond every image
TIE = 1e-3  # a move so near to half a pixel may be rounded otherwise at another pixel, in float32


def ray_steps(rays: int) -> tuple[Tensor, Tensor]:
    """[R] float32 each: how far down and how far right one pixel along each ray leads. Ray 0 points right."""
    angles = torch.arange(rays, dtype=torch.float32) * torch.tensor(2 * math.pi / rays, dtype=torch.float32)
    return angles.double().sin().float(), angles.double().cos().float()


def star_distances(ids: Tensor, rays: int, grid: int = 1) -> Tensor:
    """How far it is from every `grid`-th pixel to the end of its object, along `rays` directions.

    ids  [B, H, W] integer; an object's pixels share a number from 0 up, negative numbers are no object
    Returns [B, R, h, w] float32 in pixels, h = ceil(H / grid); 0 where there is no object. A ray walks in steps of one
    pixel in float32 until the nearest pixel is of another object or outside the image, then goes back to that pixel's
    edge: half a pixel along the ray's main axis. That is the authors' definition, rounding included.
    """
    own = ids[:, ::grid, ::grid]
    if not bool((own >= 0).any()):
        return torch.zeros((len(ids), rays, *own.shape[1:]), device=ids.device)
    steps = steps_of_maps(ids, rays, grid) if ids.device.type == "cpu" else steps_of_rays(ids, rays, grid)
    lengths = _lengths(rays, int(steps.max())).to(ids.device)  # [steps + 1, R]
    out = torch.stack([lengths[:, ray][steps[:, ray].int()] for ray in range(rays)], 1)
    return out.masked_fill_((own < 0)[:, None], 0.0)


def _walk(rays: int, longest: int) -> tuple[Tensor, Tensor]:
    """[longest + 1, R] float32 each: down and right after so many steps, added up one by one as the authors do."""
    down, right = (torch.stack([torch.zeros(rays), *[step] * longest]) for step in ray_steps(rays))
    for table in (down, right):  # `torch.cumsum` is free to add up in another order
        for k in range(1, longest + 1):
            table[k] += table[k - 1]
    return down, right


def _lengths(rays: int, longest: int) -> Tensor:
    """[longest + 1, R] the length of a ray that met its end at step k."""
    down, right = ray_steps(rays)
    back = 0.5 / torch.maximum(down.abs(), right.abs()) - 1
    y, x = _walk(rays, longest)
    y, x = y + back * down, x + back * right
    return (y * y + x * x).sqrt()


def steps_of_maps(ids: Tensor, rays: int, grid: int) -> Tensor:
    """[B, R, h, w] int16: at which step each ray leaves its object; what it is where there is none does not count.

    All pixels walk together, by comparing the map with itself moved: on a CPU ten times faster than ray by ray.
    """
    kind = np.uint8 if int(ids.max()) < 254 else np.int32
    maps = _Moved((ids.clamp_min(-1) + 1).cpu().numpy().astype(kind), grid)  # 0 is no object
    own, longest = maps.at(0.0, 0.0).copy(), 64
    same, walk = np.empty_like(own, bool), _table(rays, longest)
    steps = np.ones((len(own), rays, *own.shape[1:]), np.int16)
    for ray in range(rays):
        alive, count, k = own > 0, np.zeros_like(own, np.uint8), 1
        while alive.any():
            if k > longest:
                longest *= 2
                walk = _table(rays, longest)
            np.equal(maps.at(*walk[k][ray]), own, out=same)
            alive &= same
            count += alive.view(np.uint8)
            if k % 255 == 0:  # bytes are added four times faster than wider numbers, but end here
                steps[:, ray] += count
                count[:] = 0
            k += 1
        steps[:, ray] += count
    return torch.from_numpy(steps)


def _table(rays: int, longest: int) -> list[list[list[float]]]:
    """[longest + 1][R][2] of `_walk`, as plain numbers."""
    return torch.stack(_walk(rays, longest), 2).tolist()


class _Moved:
    """Every `grid`-th pixel of maps [B, H, W], the maps moved; beyond their border is 0.

    They are kept as grid x grid maps of every `grid`-th pixel, of which a moved one is a view.
    """

    def __init__(self, ids: np.ndarray, grid: int) -> None:
        height, width = ids.shape[1:]
        self.grid, self.size = grid, (-(-height // grid), -(-width // grid))
        margin = (max(self.size) + 2) * grid
        walled = np.zeros((len(ids), 2 * margin + height + grid, 2 * margin + width + grid), ids.dtype)
        walled[:, margin : margin + height, margin : margin + width] = ids
        self.parts = [[np.ascontiguousarray(walled[:, y::grid, x::grid]) for x in range(grid)] for y in range(grid)]
        self.axes = [grid * np.arange(n, dtype=np.float32) for n in self.size]
        self.margin = margin

    def at(self, down: float, right: float) -> np.ndarray:
        """[B, h, w] the map at (grid i + down, grid j + right), rounded to the nearest pixel, halves to even."""
        if abs(down % 1 - 0.5) > TIE and abs(right % 1 - 0.5) > TIE:  # all pixels move alike
            y, x = round(down) + self.margin, round(right) + self.margin
            top, left = y // self.grid, x // self.grid
            part = self.parts[y % self.grid][x % self.grid]
            return part[:, top : top + self.size[0], left : left + self.size[1]]
        return self._one_by_one(down, right)

    def _one_by_one(self, down: float, right: float) -> np.ndarray:
        """Where a half is rounded, to even, the way depends on the pixel it is added to."""
        rows, columns = (np.rint(axis + np.float32(move)).astype(np.int64) + self.margin
                         for axis, move in zip(self.axes, (down, right)))  # fmt: skip
        out = np.empty((len(self.parts[0][0]), *self.size), self.parts[0][0].dtype)
        for y in range(self.grid):
            for x in range(self.grid):
                i, j = (np.flatnonzero(where % self.grid == phase) for where, phase in ((rows, y), (columns, x)))
                out[:, i[:, None], j] = self.parts[y][x][:, rows[i, None] // self.grid, columns[j] // self.grid]
        return out


def steps_of_rays(ids: Tensor, rays: int, grid: int) -> Tensor:
    """The same, each ray by itself and only those that still walk: for devices that do many things at once."""
    height, width = ids.shape[1:]
    walled = torch.full((len(ids), height + 2, width + 2), -1, dtype=torch.int32, device=ids.device)
    walled[:, 1:-1, 1:-1] = ids  # the wall is no object, so that no ray leaves the map
    walled = walled.flatten()
    starts = ids[:, ::grid, ::grid]
    image, row, column = (starts >= 0).nonzero(as_tuple=True)  # [P] each
    met = torch.ones(len(row) * rays, dtype=torch.int16, device=ids.device)
    live = torch.arange(len(met), device=ids.device)
    start, ray = live // rays, live % rays
    y0, x0 = (grid * row).float()[start], (grid * column).float()[start]
    base, own = ((image * (height + 2) + 1) * (width + 2) + 1)[start], starts[image, row, column].int()[start]
    k, walk = 1, [table.to(ids.device) for table in _walk(rays, 64)]
    while len(live):
        if k == len(walk[0]):
            walk = [table.to(ids.device) for table in _walk(rays, 2 * k)]
        y, x = (y0 + walk[0][k][ray]).round(), (x0 + walk[1][k][ray]).round()  # halves to even, in float32
        kept = (walled[base + y.long() * (width + 2) + x.long()] == own).nonzero()[:, 0]
        live, ray, y0, x0, base, own = (part[kept] for part in (live, ray, y0, x0, base, own))
        met[live] += 1
        k += 1
    steps = torch.ones((len(ids), rays, *starts.shape[1:]), dtype=torch.int16, device=ids.device)
    steps.permute(0, 2, 3, 1)[image, row, column] = met.view(-1, rays)
    return steps


def object_probabilities(ids: Tensor) -> Tensor:
    """How deep each pixel lies in its object: the distance to the nearest pixel outside, 1 for the deepest.

    ids  [B, h, w] as in `star_distances`
    Returns [B, h, w] float32 in 0..1, 0 where there is no object. The image's border is no end of an object, but where
    one object fills an image, all beyond the border counts as outside.
    """
    ids = ids.int().clamp_min(-1)
    depth = _squared_depths(ids).double().sqrt()
    count = int(ids.max()) + 1 if ids.numel() else 0
    if count <= 0:
        return torch.zeros(ids.shape, device=ids.device)
    which = torch.arange(len(ids), device=ids.device)[:, None, None] * (count + 1) + ids + 1  # one number per object
    deepest = depth.new_zeros(len(ids) * (count + 1)).scatter_reduce(0, which.flatten(), depth.flatten(), "amax")
    return (depth / (deepest[which] + 1e-10)).float()


def _squared_depths(ids: Tensor) -> Tensor:
    """[B, h, w] int64: squared distance to the nearest pixel of another number, exactly; 0 where there is no object.

    The nearest one in a row y' is y' - y rows away, and there in the same column if that is of another number, else
    where the run of equal numbers ends. So rows are visited by growing distance until none can be nearer.
    """
    height = ids.shape[1]
    runs = _run_ends(ids)
    nearest = runs.masked_fill(ids < 0, 0)
    for k in range(1, height):
        if k * k >= int(nearest.max()):
            break
        for here, there in ((slice(k, None), slice(None, -k)), (slice(None, -k), slice(k, None))):
            same = ids[:, here] == ids[:, there]
            found = torch.where(same, runs[:, there], 0) + k * k
            nearest[:, here] = torch.minimum(nearest[:, here], found)
    return _framed(ids, nearest)


def _run_ends(ids: Tensor) -> Tensor:
    """[B, h, w] int64: squared distance along the row to the nearest other number, FAR where there is none."""
    width = ids.shape[2]
    at = torch.arange(width, device=ids.device).expand(ids.shape)
    change = ids[:, :, 1:] != ids[:, :, :-1]
    first = at.clone().masked_fill_(torch.cat([~change[:, :, :0].any(-1, True), ~change], 2), -FAR)
    first[:, :, 0] = -FAR
    last = at.clone().masked_fill_(torch.cat([~change, ~change[:, :, :0].any(-1, True)], 2), FAR)
    last[:, :, -1] = FAR
    first = first.cummax(2).values  # where the run of each pixel begins
    last = last.flip(2).cummin(2).values.flip(2)
    left, right = at - first + 1, last - at + 1
    return torch.minimum(left, right).clamp_max(1 << 14).square()


def _framed(ids: Tensor, squared: Tensor) -> Tensor:
    """An image filled by one object has no other number: its depth is that to the image's border."""
    filled = (squared >= FAR).flatten(1).all(1)
    if not bool(filled.any()):
        return squared
    height, width = ids.shape[1:]
    y, x = torch.arange(height, device=ids.device)[:, None], torch.arange(width, device=ids.device)
    depth = torch.minimum(torch.minimum(y + 1, height - y), torch.minimum(x + 1, width - x)).square()
    return torch.where(filled[:, None, None], depth, squared)
