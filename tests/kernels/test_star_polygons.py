"""Polygon overlap, suppression and pixels against the authors' numbers, OpenCV's convex clipping and counted pixels."""

from __future__ import annotations

import json
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from pixelwise.kernels import star_polygons
from pixelwise.kernels.star_polygons import Edges, overlaps, rasterise, suppress, vertices

ORACLE = json.loads((Path(__file__).parent.parent / "data" / "stardist.json").read_text())


def shared(polygons: np.ndarray) -> np.ndarray:
    """[N - 1] what the first of polygons [N, 2, R] shares with the others."""
    return overlaps(Edges(polygons), 0, np.arange(1, len(polygons)))


@pytest.mark.parametrize("seed", range(8))
def test_convex_polygons_share_what_opencv_finds(seed):
    rng = np.random.default_rng(seed)
    centres, radii = rng.uniform(20, 40, (6, 2)), rng.uniform(3, 15, (6, 1))
    polygons = vertices(centres, np.broadcast_to(radii, (6, 24)), (1.0, rng.uniform(0.4, 2)))
    expected = [cv2.intersectConvexConvex(polygons[0].T.copy(), p.T.copy())[0] for p in polygons[1:]]
    np.testing.assert_allclose(shared(polygons), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_star_polygons_share_what_fine_pixels_count(seed):
    rng = np.random.default_rng(seed)
    polygons = vertices(rng.uniform(20, 30, (5, 2)), rng.uniform(4, 15, (5, 16)))
    fine = 40
    _, crops = rasterise(polygons * fine, (50 * fine, 50 * fine))
    boxes = rasterise(polygons * fine, (50 * fine, 50 * fine))[0]
    full = np.zeros((5, 50 * fine, 50 * fine), bool)
    for mask, (x0, y0, x1, y1), crop in zip(full, boxes, crops):
        mask[y0:y1, x0:x1] = crop
    counted = (full[0] & full[1:]).sum((1, 2)) / fine**2
    np.testing.assert_allclose(shared(polygons), counted, rtol=0.01, atol=0.3)


def test_equal_touching_and_flat_polygons():
    square = np.array([[0, 0, 4, 4], [0, 4, 4, 0]], float)
    beside, corner = square + np.array([[0], [4]]), square + np.array([[4], [4]])
    flat, inner = square * np.array([[1], [0]]), square / 2 + 1
    found = shared(np.stack([square, square, beside, corner, flat, inner, square[:, ::-1]]))
    np.testing.assert_allclose(found, [16, 0, 0, 0, 4, 16], atol=1e-12)


@pytest.mark.parametrize(("kind", "most"), [("smooth", 0.006), ("small", 0.006), ("rough", 0.02), ("spiky", 0.03)])
def test_overlaps_are_the_authors_up_to_their_rounding(kind, most):
    """Their clipping rounds the corners of what two polygons share to whole pixels."""
    for case in (c for c in ORACLE["pairs"] if c["kind"] == kind):
        points, distances = np.array(case["points"], np.float32), np.array(case["distances"], np.float32)
        edges = Edges(np.trunc(vertices(points, distances)))
        found = overlaps(edges, 0, np.array([1]))[0] / edges.areas.min()
        assert found == pytest.approx(case["overlap"], abs=most)


@pytest.mark.parametrize("seed", range(6))
def test_discs_inside_only_save_time(seed, monkeypatch):
    """They share less than their polygons, so what they decide is decided alike without them."""
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 60, (150, 2))
    spread = rng.uniform(0, 0.6)
    distances = (rng.uniform(2, 12, (150, 1)) * (1 + spread * rng.uniform(-1, 1, (150, 16)))).astype(np.float32)
    shapes = np.trunc(vertices(points, distances)).astype(float)
    discs, edges = star_polygons._discs(points.astype(float), shapes), Edges(shapes)
    assert (discs > 0).any()
    lens = star_polygons._lens((points[0] - points[1:]).astype(float), discs[0], discs[1:])
    assert (lens <= overlaps(edges, 0, np.arange(1, 150)) + 1e-6).all()
    quick = suppress(points, distances, 0.4)
    monkeypatch.setattr(star_polygons, "_discs", lambda centres, polygons: np.zeros(len(centres)))
    assert np.array_equal(suppress(points, distances, 0.4), quick)


@pytest.mark.parametrize("case", ORACLE["suppression"], ids=lambda c: f"{c['name']}-{len(c['distances'][0])}")
def test_survivors_and_their_pixels_are_the_authors(case):
    points, distances = np.array(case["points"]), np.array(case["distances"], np.float32)
    kept = suppress(points, distances, case["threshold"])
    assert np.flatnonzero(kept).tolist() == case["kept"]
    size = tuple(case["shape"])
    boxes, crops = rasterise(vertices(points[kept], distances[kept]), size)
    painted = np.zeros(size, int)
    for row in range(len(crops))[::-1]:  # the surest last
        x0, y0, x1, y1 = boxes[row]
        painted[y0:y1, x0:x1][crops[row]] = row + 1
    assert painted.tolist() == case["labels"]


def test_few_or_no_polygons():
    none = np.zeros((0, 2)), np.zeros((0, 8), np.float32)
    assert suppress(*none, 0.5).tolist() == []
    assert suppress(np.zeros((1, 2)), np.ones((1, 8), np.float32), 0.5).tolist() == [True]
    boxes, crops = rasterise(vertices(*none), (5, 5))
    assert boxes.shape == (0, 4)
    assert crops == []


def test_pixels_of_a_polygon_with_whole_vertices_include_its_edge():
    diamond = np.array([[[2, 4, 2, 0], [4, 2, 0, 2]]], float)
    boxes, (crop,) = rasterise(diamond, (5, 5))
    y, x = np.mgrid[:5, :5]
    assert boxes.tolist() == [[0, 0, 5, 5]]
    assert np.array_equal(crop, np.abs(y - 2) + np.abs(x - 2) <= 2)
    line = np.array([[[1, 1, 1], [0, 3, 1]]], float)
    assert rasterise(line, (4, 5))[1][0].sum() >= 3  # its vertices at least


def test_polygons_beyond_the_image_are_cut_or_empty():
    polygons = vertices(np.array([[0, 0], [50, 50], [-20, 3]]), np.full((3, 16), 4, np.float32))
    boxes, crops = rasterise(polygons, (10, 12))
    assert [crop.any() for crop in crops] == [True, False, False]
    assert boxes[0].tolist() == [0, 0, 5, 5]
    assert all(crop.shape == (b[3] - b[1], b[2] - b[0]) for crop, b in zip(crops, boxes))


@pytest.mark.slow
def test_two_thousand_nuclei():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[10:910:20, 10:910:20]
    centres = np.stack([y.ravel(), x.ravel()], 1)
    points = np.concatenate([centres + rng.integers(-2, 3, centres.shape) for _ in range(25)])
    distances = np.clip(8 + rng.normal(0, 0.5, (len(points), 32)), 1, None).astype(np.float32)
    begin = time.process_time()
    kept = suppress(points, distances, 0.4)
    rasterise(vertices(points[kept], distances[kept]), (920, 920))
    assert len(centres) == 2025
    assert kept.sum() == 2025
    assert time.process_time() - begin < 20
