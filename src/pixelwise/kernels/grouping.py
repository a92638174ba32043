"""Grouping of pixels by their votes for a centre (Panoptic-DeepLab, Cheng et al. 2020, 1911.10194, section 3.3).

A centre is a maximum of the heat map; every pixel votes for a place and belongs to the centre nearest to it. Whatever
the way, the distance is (dy * dy + dx * dx) in float32, and of several equally near centres the first one (the upper,
then the left) wins; a vote that is not finite goes to the first centre. Memory never holds centres x pixels at once.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

STRIP = 1 << 20  # numbers held at once
MARGIN = 0.25  # of the image's size: votes so far outside are still sorted into cells


def find_centres(heat: Tensor, *, threshold: float, window: int, top_k: int) -> Tensor:
    """[N, 2] int64 (y, x) of the maxima of heat [H, W], row by row.

    A pixel is one when it exceeds `threshold` and 0 and nothing in the window x window pixels around it (odd) exceeds
    it. Of equal maxima within each other's windows, which would split an object, the first stays (the authors' code
    keeps all). With `top_k` of them or more only those above the top_k-th are kept, as in the authors' code: top_k - 1
    where all differ.
    """
    tall = F.max_pool2d(heat[None, None], (window, 1), stride=1, padding=(window // 2, 0))
    highest = F.max_pool2d(tall, (1, window), stride=1, padding=(0, window // 2))[0, 0]
    peak = (heat == highest) & (heat > max(threshold, 0.0))
    centres = peak.nonzero()
    values = heat[peak]
    if len(values.unique()) < len(values):
        first = _first_of_equals(peak, window)[peak]
        centres, values = centres[first], values[first]
    if len(values) >= top_k:
        centres = centres[values > values.topk(top_k).values[-1]]
    return centres


def _first_of_equals(peak: Tensor, window: int) -> Tensor:
    """[H, W] bool: peaks without another one before them, in reading order, in their window."""
    order = torch.arange(peak.numel(), 0, -1, device=peak.device, dtype=torch.float64).view(peak.shape)
    order = torch.where(peak, order, 0.0)  # the first has the largest number
    tall = F.max_pool2d(order[None, None], (window, 1), stride=1, padding=(window // 2, 0))
    return peak & (F.max_pool2d(tall, (1, window), stride=1, padding=(0, window // 2))[0, 0] == order)


def nearest_in_strips(votes: Tensor, centres: Tensor) -> Tensor:
    """[P] int64 the nearest of the centres [N, 2] to each vote [P, 2], N at least 1: every pair is looked at.

    The reference, and the way of GPUs.
    """
    at = centres.to(votes.dtype)
    found = []
    for part in votes.split(max(1, STRIP // len(at))):
        dy, dx = part[:, :1] - at[:, 0], part[:, 1:] - at[:, 1]  # [p, N]
        distance = dy * dy + dx * dx
        found.append(distance.nan_to_num_(nan=torch.inf).argmin(1))
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.int64, device=votes.device)


class NearestCentre:
    """The nearest centre to any number of votes, the same one as `nearest_in_strips` finds.

    The image and a margin are cut into cells. For each cell stand the centres that can be nearest to some place in it:
    those whose least distance to the cell is no more than the least of the largest ones. Most cells have one to three.

    >>> NearestCentre(torch.tensor([[2, 3], [8, 8]]), (10, 10))(torch.tensor([[3.0, 3.0], [9.0, 5.0]]))
    tensor([0, 1])
    """

    def __init__(self, centres: Tensor, size: tuple[int, int]) -> None:
        """centres [N, 2] (y, x), N at least 1; size (H, W) of the image."""
        self.at = centres.float()
        self.cells = centres.device.type == "cpu" and len(centres) > 1
        if self.cells:
            self._sort_into_cells(size)

    def _sort_into_cells(self, size: tuple[int, int]) -> None:
        count = len(self.at)
        low = torch.tensor([-MARGIN * side for side in size])
        extent = torch.tensor([(1 + 2 * MARGIN) * side for side in size])
        side = float((extent.prod() / min(8192, max(256, 16 * count))).sqrt())
        rows, self.columns = (max(1, int(n / side + 1)) for n in extent.tolist())
        self.low, self.side, self.rows = low, side, rows
        middle = torch.cartesian_prod(torch.arange(rows), torch.arange(self.columns)).float().add_(0.5) * side + low
        half = side / 2 * 1.001 + 0.01  # a place within rounding of the border is looked for on both sides
        counts, names = [], []
        for part in middle.split(max(1, STRIP // count)):
            away = (part[:, None] - self.at).abs()  # [c, N, 2]
            least, most = (away - half).clamp_min(0).square().sum(2), (away + half).square().sum(2)
            possible = least <= most.amin(1, keepdim=True)
            counts.append(possible.sum(1))
            names.append(possible.nonzero()[:, 1])
        self.counts, self.names = torch.cat(counts).int(), torch.cat(names).int()
        self.starts = self.counts.cumsum(0, dtype=torch.int32) - self.counts

    def __call__(self, votes: Tensor) -> Tensor:
        """[P] int64 row of the nearest centre to each vote [P, 2] (y, x) float32."""
        if not self.cells:
            return nearest_in_strips(votes, self.at)
        found = [self._look_up(part) for part in votes.split(STRIP // 4)]
        return torch.cat(found) if found else torch.zeros(0, dtype=torch.int64)

    def _look_up(self, votes: Tensor) -> Tensor:
        place = (votes - self.low) / self.side
        inside = ((place >= 0) & (place < torch.tensor([self.rows, self.columns]))).all(1)
        if not bool(inside.all()):
            found = torch.zeros(len(votes), dtype=torch.int64)
            found[~inside] = nearest_in_strips(votes[~inside], self.at)
            if bool(inside.any()):
                found[inside] = self._look_up(votes[inside])
            return found
        row, column = place.int().unbind(1)  # positive: towards zero is down
        cell = row * self.columns + column
        start, count = self.starts.index_select(0, cell), self.counts.index_select(0, cell)
        found = self.names.index_select(0, start).long()
        open_ = (count > 1).nonzero()[:, 0]
        y, x = votes[open_].unbind(1)
        start, count, best = start[open_], count[open_], found[open_]
        nearest = self._distance(best, y, x)
        for step in range(1, int(count.max()) if len(count) else 0):
            name = self.names.index_select(0, start + step).long()
            distance = self._distance(name, y, x)
            nearer = distance < nearest
            best, nearest = torch.where(nearer, name, best), torch.where(nearer, distance, nearest)
            going = (count > step + 1).nonzero()[:, 0]
            if len(going) < len(count):
                found[open_] = best
                open_, start, count, best = open_[going], start[going], count[going], best[going]
                nearest, y, x = nearest[going], y[going], x[going]
        return found

    def _distance(self, name: Tensor, y: Tensor, x: Tensor) -> Tensor:
        dy, dx = y - self.at[:, 0].index_select(0, name), x - self.at[:, 1].index_select(0, name)
        return dy * dy + dx * dx
