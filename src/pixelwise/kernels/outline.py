"""The outlines of all rows of a map at once, a line of the map at a time: corners, and which corner follows on which.

Between the lines y - 1 and y of the map lie W + 1 grid points. Around each are four pixels, a b above and c d below.
A row (a segment's number, 0 and up; -1 stands for everything else) has a corner there if its border turns. Corners are
nodes, numbered as they are found, from left to right and from top to bottom; what was found is

    nodes [5, capacity] int32   X, Y; NEXT, the corner that follows with the row's pixels at the right of one who walks
                                with y down (on the left with y up); ABOVE, an older node of the same component or the
                                node itself; ROW
    meets [capacity] uint8      how many nodes further the corner of a pixel is that touches this pixel here alone

A component is what hangs together by the sides of its pixels. Its oldest node is its upper left corner and stands for
it; all its rings are joined to it, as a run of its pixels joins the border at its left and at its right.
"""

from __future__ import annotations

import numpy as np

from pixelwise.kernels.compiled import compiled

X, Y, NEXT, ABOVE, ROW = range(5)
MOST = 4  # corners at one grid point


@compiled
def root(nodes: np.ndarray, node: int) -> int:
    """The node that stands for a node's component."""
    while nodes[ABOVE, node] != node:
        nodes[ABOVE, node] = nodes[ABOVE, nodes[ABOVE, node]]  # halves the path
        node = nodes[ABOVE, node]
    return node


@compiled
def join(nodes: np.ndarray, one: int, other: int) -> None:
    """From now on they are of one component."""
    a, b = root(nodes, one), root(nodes, other)
    nodes[ABOVE, max(a, b)] = min(a, b)


@compiled
def follow(nodes: np.ndarray, one: int, other: int) -> None:
    """The corner `other` follows on the corner `one`."""
    nodes[NEXT, one] = other
    join(nodes, one, other)


@compiled
def add_line(points: np.ndarray, above: np.ndarray, below: np.ndarray, y: int, left: np.ndarray, right: np.ndarray,
             nodes: np.ndarray, meets: np.ndarray, count: int) -> int:  # fmt: skip
    """Adds the corners between two lines; returns how many nodes there are then. There must be room for MOST a point.

    points        [P] the grid points 0..W to be looked at: at least those between two pixels of a line that differ
    above, below  [W + 2] rows of the two lines, with -1 before and behind
    left, right   [W + 1] at each grid point the last corner of the border of what lies left (right) of it: the upper
                  end of an upright side whose lower end is still to come
    """
    fresh = count
    over, under = -1, -1  # the left ends of the level sides over and under which the walk is
    start = -1  # where the run of pixels begins below
    for x in points:
        a, b, c, d = above[x], above[x + 1], below[x], below[x + 1]
        into_left, into_over, into_right, into_under = left[x], over, right[x], under
        at_a, at_b = -1, -1
        if a >= 0 and a != b and a != c:  # a corner of one pixel
            at_a, count = _new(nodes, meets, count, x, y, a)
            follow(nodes, into_left, at_a)
            follow(nodes, at_a, into_over)
        if b >= 0 and b != a and b != d:
            at_b, count = _new(nodes, meets, count, x, y, b)
            follow(nodes, at_b, into_right)
            over = at_b
        if c >= 0 and c != a and c != d:
            node, count = _new(nodes, meets, count, x, y, c)
            follow(nodes, into_under, node)
            left[x] = node
            if b == c:
                meets[at_b] = node - at_b
        if d >= 0 and d != b and d != c:
            node, count = _new(nodes, meets, count, x, y, d)
            right[x] = under = node
            if a == d:
                meets[at_a] = node - at_a
        if b >= 0 and a == b and a == c and a != d:  # a corner of three
            node, count = _new(nodes, meets, count, x, y, a)
            over = left[x] = node
        elif a >= 0 and a == b and a == d and a != c:
            node, count = _new(nodes, meets, count, x, y, a)
            follow(nodes, node, into_over)
            right[x] = node
        elif a >= 0 and a == c and a == d and a != b:
            node, count = _new(nodes, meets, count, x, y, a)
            follow(nodes, into_left, node)
            under = node
        elif b >= 0 and b == c and b == d and a != b:
            node, count = _new(nodes, meets, count, x, y, b)
            follow(nodes, into_under, node)
            follow(nodes, node, into_right)
        if c != d:
            if c >= 0 and (right[start] >= fresh or left[x] >= fresh):
                join(nodes, right[start], left[x])
            start = x
    return count


@compiled
def _new(nodes: np.ndarray, meets: np.ndarray, count: int, x: int, y: int, row: int) -> tuple[int, int]:
    """A node, and how many there are with it."""
    nodes[X, count], nodes[Y, count], nodes[ABOVE, count], nodes[ROW, count] = x, y, count, row
    meets[count] = 0
    return count, count + 1


@compiled
def part(nodes: np.ndarray, meets: np.ndarray, count: int) -> None:
    """At the end: makes ABOVE the node that stands for the component, and rings visit no grid point twice.

    Where two pixels of one component touch at a point alone, the ring goes on to the other pixel instead of around its
    own: so a hole that visits the point twice becomes two holes, as the component would be cut in two by one.
    """
    for node in range(count):
        nodes[ABOVE, node] = nodes[ABOVE, nodes[ABOVE, node]]  # older nodes are right by now
    for node in range(count):
        other = node + int(meets[node])
        if other != node and nodes[ABOVE, node] == nodes[ABOVE, other]:
            nodes[NEXT, node], nodes[NEXT, other] = nodes[NEXT, other], nodes[NEXT, node]


@compiled
def walk(nodes: np.ndarray, count: int, order: np.ndarray, starts: np.ndarray) -> int:
    """Writes the nodes ring by ring to `order` [count], and where rings begin to `starts`; returns how many there are.

    Rings come in the order of their oldest nodes, and begin with these. NEXT is used up.
    """
    at, rings = 0, 0
    for first in range(count):
        if nodes[NEXT, first] < 0:
            continue
        starts[rings] = at
        rings += 1
        node = first
        while nodes[NEXT, node] >= 0:
            order[at] = node
            at += 1
            behind = nodes[NEXT, node]
            nodes[NEXT, node] = -1
            node = behind
    return rings


@compiled
def gather(nodes: np.ndarray, order: np.ndarray, starts: np.ndarray, rings: np.ndarray, points: np.ndarray) -> None:
    """Writes x and y of the rings, in the order in which `rings` numbers them, to `points` [count, 2]."""
    to = 0
    for ring in rings:
        for at in range(starts[ring], starts[ring + 1]):
            points[to, 0], points[to, 1] = nodes[X, order[at]], nodes[Y, order[at]]
            to += 1
