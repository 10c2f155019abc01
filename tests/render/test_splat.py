import time

import numpy as np
import pytest

from threer.render import splat
from threer.render.splat import Layer, render_points

K = np.array([[100.0, 0.0, 79.5], [0.0, 100.0, 59.5], [0.0, 0.0, 1.0]])
SIZE = (160, 120)
RED, GREEN, WHITE = (255, 0, 0), (0, 255, 0), (255, 255, 255)


def wall(depth: float, color: tuple[int, int, int], step: float = 0.01) -> tuple[np.ndarray, np.ndarray]:
    """A wall across the whole picture."""
    x, y = np.meshgrid(np.arange(-1, 1, step), np.arange(-0.8, 0.8, step))
    xyz = np.stack([x * depth, y * depth, np.full_like(x, depth)], axis=-1).reshape(-1, 3)
    return xyz, np.tile(np.array(color, dtype=np.uint8), (len(xyz), 1))


def test_a_point_lands_on_its_pixel_and_nowhere_else() -> None:
    xyz, rgb = np.array([[0.2, -0.1, 1.0]]), np.array([RED], dtype=np.uint8)
    picture = render_points(xyz, rgb, K, np.eye(4), SIZE, radius=0.001)
    marked = np.argwhere((picture != WHITE).any(axis=-1))
    assert np.abs(marked - [59.5 - 10, 79.5 + 20]).max() <= 1
    assert len(marked) >= 1


def test_the_nearest_wins_whatever_the_order() -> None:
    near, far = wall(1.0, RED), wall(2.0, GREEN)
    for first, second in ((near, far), (far, near)):
        xyz, rgb = (np.concatenate(pair) for pair in zip(first, second, strict=True))
        picture = render_points(xyz, rgb, K, np.eye(4), SIZE)
        assert (np.abs(picture[20:100, 20:140].astype(int) - RED) <= 3).all()


def test_a_wall_is_closed_and_evenly_lit() -> None:
    xyz, rgb = wall(1.0, (200, 100, 50), step=0.02)  # two pixels between points
    picture = render_points(xyz, rgb, K, np.eye(4), SIZE)
    assert (np.abs(picture[15:105, 15:145].astype(int) - [200, 100, 50]) <= 2).all()


def test_points_behind_the_camera_or_not_finite_are_left_out() -> None:
    xyz, rgb = wall(1.0, RED)
    for wrong in (xyz * [1, 1, -1], xyz * np.nan, xyz[:0]):
        picture = render_points(wrong, rgb[: len(wrong)], K, np.eye(4), SIZE, background=(1, 2, 3))
        assert picture.shape == (120, 160, 3)
        assert (picture == [1, 2, 3]).all()


def test_the_camera_moves_the_picture() -> None:
    xyz, rgb = np.array([[5.0, 0.0, 0.0]]), np.array([RED], dtype=np.uint8)
    c2w = np.eye(4)
    c2w[:3, :3] = [[0, 0, 1], [0, 1, 0], [-1, 0, 0]]  # looks along x
    seen = render_points(xyz, rgb, K, c2w, SIZE, radius=0.1)
    assert np.abs(seen[59, 79].astype(int) - RED).max() <= 3
    assert (render_points(xyz, rgb, K, np.eye(4), SIZE, radius=0.1) == 255).all()


def test_near_points_are_drawn_larger() -> None:
    def area(depth: float) -> int:
        xyz, rgb = np.array([[0.0, 0.0, depth]]), np.array([RED], dtype=np.uint8)
        return int((render_points(xyz, rgb, K, np.eye(4), SIZE, radius=0.03) != 255).any(axis=-1).sum())

    assert area(1.0) > 2 * area(2.0)


def test_edges_are_smooth() -> None:
    xyz, rgb = wall(1.0, (0, 0, 0), step=0.005)
    half = xyz[:, 0] < 0.1 + 0.3 * xyz[:, 1]
    picture = render_points(xyz[half], rgb[half], K, np.eye(4), SIZE)
    assert len(np.unique(picture[30:90, 60:120])) >= 3  # black, white, and something between


def test_a_step_in_depth_darkens_what_lies_behind() -> None:
    depth = np.ones((20, 20), dtype=np.float32)
    depth[:, 10:] = 2.0
    rgb = np.full((20, 20, 3), 200, dtype=np.float32)
    shaded = splat.shade(Layer(depth, rgb))
    assert (shaded[:, :10] == 200).all()
    assert (shaded[:, 10] < 160).all()
    assert (shaded[5:15, 15:] == 200).all()


def test_small_gaps_close_and_outlines_stay() -> None:
    depth = np.full((20, 20), np.inf, dtype=np.float32)
    depth[5:15, 5:15] = 3.0
    depth[9:11, 9] = np.inf
    rgb = np.where(np.isfinite(depth)[..., None], 100.0, 0.0).astype(np.float32).repeat(3, axis=-1)
    closed = splat.close_gaps(Layer(depth, rgb))
    assert np.isfinite(closed.depth[5:15, 5:15]).all()
    assert closed.depth[9, 9] == pytest.approx(3.0)
    assert closed.rgb[9, 9].tolist() == pytest.approx([100.0] * 3)
    assert np.isfinite(closed.depth).sum() == 100


def test_radii_follow_density_and_strays_stay_small() -> None:
    dense, sparse = wall(1.0, RED, step=0.01)[0], wall(1.0, RED, step=0.03)[0] + [3.0, 0.0, 0.0]
    stray = np.array([[1.5, 3.0, 1.0], [np.nan, 0.0, 0.0]])
    radii = splat.point_radii(np.concatenate([dense, sparse, stray]))
    assert 0.005 < np.median(radii[: len(dense)]) < 0.02
    assert np.median(radii[len(dense) : -2]) > 1.8 * np.median(radii[: len(dense)])
    assert radii[-2] < np.median(radii[: len(dense)])


def test_a_million_points_take_seconds() -> None:
    rng = np.random.default_rng(0)
    xyz = rng.normal(loc=(0.0, 0.0, 5.0), size=(1_000_000, 3))
    rgb = rng.integers(0, 255, size=xyz.shape, dtype=np.uint8)
    start = time.perf_counter()
    picture = render_points(xyz, rgb, K * [[8], [8], [1]], np.eye(4), (1280, 720))
    assert time.perf_counter() - start < 30  # about 2 s on an idle core; the bound is for a busy one
    assert (picture != 255).any(axis=-1).mean() > 0.3
