"""Fused depth maps and the triangles between them, against planes, balls and counted blocks."""

import numpy as np
import pytest

from threer.geometry.surface import Mesh, drop_small, extract, fill_holes
from threer.geometry.tsdf import BLOCK, TRUNCATION, Volume, block_coordinates, block_keys, blocks_near

K = np.array([[60.0, 0, 31.5], [0, 60, 23.5], [0, 0, 1]])
SIZE = (48, 64)
VOXEL = 0.04


def ball(radius=1.0, distance=3.0):
    """Depth of a ball in front of the camera; NaN beside it."""
    v, u = np.indices(SIZE)
    ray = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones(SIZE)], axis=-1)
    a, b, c = (ray**2).sum(-1), -distance * ray[..., 2], distance**2 - radius**2
    with np.errstate(invalid="ignore"):
        return (-b - np.sqrt(b * b - a * c)) / a


def fuse(*maps, voxel=VOXEL, views=1):
    """Of (depth, colour, c2w)."""
    points = []
    for depth, _, c2w in maps:
        v, u = np.nonzero(np.isfinite(depth))
        z = depth[v, u]
        local = np.stack([(u - K[0, 2]) / K[0, 0] * z, (v - K[1, 2]) / K[1, 1] * z, z], axis=-1)
        points.append(local @ c2w[:3, :3].T + c2w[:3, 3])
    volume = Volume(voxel, blocks_near(np.concatenate(points), voxel))
    for depth, colour, c2w in maps:
        volume.integrate(depth, np.ones(SIZE), np.full((*SIZE, 3), colour, np.uint8), K, c2w)
    return extract(volume, views)


def test_keys_are_ordered_like_the_blocks_and_lead_back():
    blocks = np.random.default_rng(0).integers(-(2**20), 2**20, (1000, 3))
    keys = block_keys(blocks)
    np.testing.assert_array_equal(block_coordinates(keys), blocks)
    np.testing.assert_array_equal(np.argsort(keys), np.lexsort(blocks.T[::-1]))


def test_blocks_near_are_those_within_the_truncation_and_their_neighbours():
    rng = np.random.default_rng(1)
    points = rng.uniform(-2, 2, (300, 3))
    found = set(blocks_near(points, VOXEL).tolist())
    reach = TRUNCATION * VOXEL
    for corner in rng.uniform(-reach, reach, (50, 3)):
        needed = block_keys(np.floor((points + corner) / (BLOCK * VOXEL)).astype(np.int64))
        assert found.issuperset(needed.tolist())
    far = np.array([[np.nan, 0, 0], [1e30, 0, 0], [0, np.inf, 0]])
    assert len(blocks_near(far, VOXEL)) == 0
    one = block_coordinates(blocks_near(np.full((1, 3), 0.5 * VOXEL), VOXEL))
    np.testing.assert_array_equal(one.min(0), [-1] * 3)
    np.testing.assert_array_equal(one.max(0), [0] * 3)


def test_a_ball_has_its_radius_its_colour_and_faces_the_camera():
    mesh = fuse((ball(), (200, 100, 50), np.eye(4)))
    distance = np.linalg.norm(mesh.vertices - (0, 0, 3), axis=1)
    assert np.quantile(np.abs(distance - 1), 0.95) < VOXEL / 2
    np.testing.assert_array_equal(np.unique(mesh.rgb, axis=0), [[200, 100, 50]])
    a, b, c = mesh.vertices[mesh.faces].swapaxes(0, 1)
    normal = np.cross(b - a, c - a)
    towards = (normal * -a).sum(axis=1) > 0
    assert towards.mean() > 0.95  # at the rim some stand across the line of sight


def test_bricks_meet_without_a_seam():
    depth = 2 + np.arange(SIZE[1]) / SIZE[1] * np.ones(SIZE)
    mesh = fuse((depth, (9, 9, 9), np.eye(4)))
    assert len(np.unique(np.floor(mesh.vertices / (VOXEL * BLOCK * 4)), axis=0)) > 1  # more than one brick
    assert mesh.components.max() == 0
    assert len(np.unique(np.round(mesh.vertices / VOXEL, 3), axis=0)) == len(mesh.vertices)


def test_what_was_not_seen_stays_open():
    depth = np.full(SIZE, 2.0)
    depth[16:32, 20:44] = np.nan
    holed = fuse((depth, (0, 0, 0), np.eye(4)))
    middle = holed.vertices[holed.faces].mean(axis=1) / 2 * 60 + (31.5, 23.5, 0)  # pixels
    inside = (np.abs(middle[:, 0] - 31.5) < 10) & (np.abs(middle[:, 1] - 23.5) < 6)
    assert not inside.any()
    whole = fuse((np.full(SIZE, 2.0), (0, 0, 0), np.eye(4)))
    assert len(holed.faces) < len(whole.faces)


def test_colours_and_depths_are_weighted_means():
    near, far = np.full(SIZE, 2.0), np.full(SIZE, 2.02)
    volume = Volume(VOXEL, blocks_near(np.array([[0.0, 0, 2]]), VOXEL))
    volume.integrate(near, np.full(SIZE, 3.0), np.zeros((*SIZE, 3), np.uint8), K, np.eye(4))
    volume.integrate(far, np.ones(SIZE), np.full((*SIZE, 3), 200, np.uint8), K, np.eye(4))
    mesh = extract(volume)
    np.testing.assert_allclose(mesh.vertices[:, 2], 2.005, atol=1e-4)
    np.testing.assert_array_equal(np.unique(mesh.rgb), [50])


def test_places_seen_by_too_few_frames_can_be_left_out():
    aside = np.eye(4)
    aside[0, 3] = 1.0
    maps = ((np.full(SIZE, 2.0), (0, 0, 0), np.eye(4)), (np.full(SIZE, 2.0), (0, 0, 0), aside))
    both = fuse(*maps, views=2).vertices[:, 0]
    left, right = -31.5 / 60 * 2, 31.5 / 60 * 2
    assert both.min() > left + 1 - 2 * VOXEL
    assert both.max() < right + 2 * VOXEL
    assert len(fuse(*maps, views=3).faces) == 0


def test_depth_that_is_not_known_is_no_depth():
    depth = np.full(SIZE, 2.0)
    volume = Volume(VOXEL, blocks_near(np.array([[0.0, 0, 2]]), VOXEL))
    for bad in (np.nan, np.inf, -1.0, 0.0):
        volume.integrate(np.full(SIZE, bad), np.ones(SIZE), np.zeros((*SIZE, 3), np.uint8), K, np.eye(4))
    volume.integrate(depth, np.zeros(SIZE), np.zeros((*SIZE, 3), np.uint8), K, np.eye(4))
    assert not volume.weight.any()
    assert len(extract(volume).faces) == 0
    assert len(extract(Volume(VOXEL, np.empty(0, np.int64))).faces) == 0
    with pytest.raises(ValueError, match="positive"):
        Volume(0.0, volume.keys)


def grid(width, height, removed=()):
    """A flat mesh of squares, each two triangles; some are missing."""
    number = np.arange((width + 1) * (height + 1)).reshape(height + 1, width + 1)
    faces = []
    for y in range(height):
        for x in range(width):
            if (x, y) not in removed:
                a, b, c, d = number[y, x], number[y, x + 1], number[y + 1, x], number[y + 1, x + 1]
                faces += [(a, b, d), (a, d, c)]
    y, x = np.divmod(np.arange(number.size), width + 1)
    vertices = np.stack([x, y, np.zeros_like(x)], axis=1).astype(np.float32)
    return Mesh(vertices, np.array(faces, np.int64), np.zeros((len(vertices), 3), np.uint8))


def area(mesh):
    a, b, c = mesh.vertices[mesh.faces].swapaxes(0, 1)
    return np.cross(b - a, c - a)[:, 2].sum() / 2


def test_small_holes_are_closed_large_ones_and_the_rim_stay():
    mesh = grid(8, 8, removed=[(1, 1), (4, 4), (5, 4), (4, 5), (5, 5)])
    assert area(mesh) == 64 - 5
    assert area(fill_holes(mesh, 4)) == 64 - 4  # signed, so new triangles look where the others look
    assert area(fill_holes(mesh, 8)) == 64
    assert area(fill_holes(mesh, 3)) == 64 - 5


def test_holes_that_touch_are_left_alone():
    mesh = grid(6, 6, removed=[(1, 1), (2, 2)])
    assert area(fill_holes(mesh, 10)) == 34


def test_small_pieces_go_with_their_vertices():
    mesh = grid(7, 3, removed=[(5, y) for y in range(3)])
    assert sorted(np.bincount(mesh.components)) == [6, 30]
    large = drop_small(mesh, 7)
    assert len(large.faces) == 30
    assert large.vertices[:, 0].max() == 5
    assert len(drop_small(mesh, 31).faces) == 0
