"""Which pairs of frames are the same place."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from threer.io.runs.layout import StoredFrame
from threer.pipelines.refine.loops import (
    Limits,
    Loop,
    as_similarity,
    left_meanwhile,
    misfit,
    split,
    verify,
    without_support,
)
from threer.pipelines.refine.pose_graph import Edge, between
from threer.types import FloatArray, Sim3

W, H = 64, 48
K = np.array([[50.0, 0, 31.5], [0, 50.0, 23.5], [0, 0, 1]])
LIMITS = Limits()
RNG = np.random.default_rng(0)
PATTERN = RNG.uniform(0, 255, (40, 40))
"""Brightness of squares of 0.2 m on the wall."""


def pose(x: float = 0.0, turn: float = 0.0) -> FloatArray:
    out = np.eye(4)
    out[:3, :3] = Rotation.from_euler("y", turn, degrees=True).as_matrix()
    out[0, 3] = x
    return out


def seen(
    c2w: FloatArray, *, corner: float = 3.0, told: FloatArray | None = None, scale: float = 1.0
) -> StoredFrame:
    """What a camera sees of two walls that meet at a right angle, ``corner`` in front of the origin.

    told, scale  pose and scale that the run gives the frame instead of the true ones
    """
    x, y = np.meshgrid(np.arange(W), np.arange(H))
    rays = np.stack([(x - 31.5) / 50, (y - 23.5) / 50, np.ones_like(x, float)], axis=-1) @ c2w[:3, :3].T
    left, right = np.array([-0.7, 0, 0.7]), np.array([0.7, 0, 0.7])  # outward normals of either wall
    away = [(corner * 0.7 - c2w[:3, 3] @ n) / (rays @ n) for n in (left, right)]
    depth = np.min([np.where(a > 0, a, np.inf) for a in away], axis=0)
    points = c2w[:3, 3] + rays * depth[..., None]
    cell = np.floor(points / 0.2).astype(np.int64)
    grey = PATTERN[cell[..., 0] % 40, (cell[..., 1] + 7 * cell[..., 2]) % 40].astype(np.uint8)
    told = c2w if told is None else told
    local = scale * depth[..., None] * np.stack([(x - 31.5) / 50, (y - 23.5) / 50, np.ones_like(x, float)], -1)
    return StoredFrame(
        "f", 0, 0.0, (local @ told[:3, :3].T + told[:3, 3]).astype(np.float32), np.full((H, W), 2, np.float32),
        np.repeat(grey[..., None], 3, axis=-1), told, K, np.array([W, H]), np.eye(2, 3),
    )  # fmt: skip


def matched(one: StoredFrame, other: StoredFrame, true: tuple[FloatArray, FloatArray], count: int = 150) -> tuple:
    """World points of either run frame at ``count`` random pixels of the first that the second sees as well."""
    plain = seen(true[0])
    pixels = RNG.integers(0, [W, H], (2000, 2))
    there = (plain.points[pixels[:, 1], pixels[:, 0]] - true[1][:3, 3]) @ true[1][:3, :3]
    uv = np.round(there[:, :2] / there[:, 2:] * 50 + K[:2, 2]).astype(np.int64)
    good = (uv >= 0).all(axis=1) & (uv < (W, H)).all(axis=1) & (there[:, 2] > 0)
    pixels, uv = pixels[good][:count], uv[good][:count]
    return one.points[pixels[:, 1], pixels[:, 0]].astype(float), other.points[uv[:, 1], uv[:, 0]].astype(float)


TRUE = pose(0.0), pose(0.3, 5.0)
DRIFTED = pose(2.0, 30.0)


def test_a_return_is_measured_in_the_runs_own_coordinates() -> None:
    one, other = seen(TRUE[0]), seen(TRUE[1], told=DRIFTED, scale=1.5)
    loop = verify((3, 80), (one, other), matched(one, other, TRUE), LIMITS)
    assert isinstance(loop, Loop)
    exact = between(as_similarity(TRUE[0]), as_similarity(TRUE[1]).after(Sim3(1 / 1.5, np.eye(3), np.zeros(3))))
    error = exact.inverse().after(loop.edge.relative)
    assert error.scale == pytest.approx(1, abs=0.02)
    assert np.degrees(Rotation.from_matrix(error.R).magnitude()) < 1.0
    sigmas = np.sqrt(np.diag(loop.edge.covariance))
    assert (np.abs(error.t) < 4 * sigmas[3:6]).all()
    assert misfit([loop], {3: as_similarity(TRUE[0]), 80: as_similarity(DRIFTED)}) > 0.1
    assert misfit([loop], {3: as_similarity(TRUE[0]), 80: as_similarity(TRUE[0]).after(loop.edge.relative)}) < 0.02
    kept, held = split(loop)
    assert len(kept.points) + len(held.points) == len(loop.points)
    assert not np.isin(held.points[:, 0, 0], kept.points[:, 0, 0]).all()


def test_a_look_alike_is_refused() -> None:
    """The same poster in another room: the matches agree, but what surrounds them does not."""
    one = seen(TRUE[0])
    points = matched(one, one, (TRUE[0], TRUE[0]))
    other = seen(TRUE[0])
    poster = np.zeros((H, W), bool)
    poster[12:36, 16:48] = True
    elsewhere = seen(TRUE[0], corner=5.0)
    mixed = np.where(poster[..., None], other.points, elsewhere.points)
    room = StoredFrame(**{**vars(other), "points": mixed})
    found = verify((0, 50), (one, room), points, LIMITS)
    assert isinstance(found, str)
    assert "same depth" in found


def test_the_same_shape_in_other_colours_is_refused() -> None:
    one = seen(TRUE[0])
    other = StoredFrame(**{**vars(one), "colours": RNG.integers(0, 255, (H, W, 3)).astype(np.uint8)})
    found = verify((0, 50), (one, other), matched(one, one, (TRUE[0], TRUE[0])), LIMITS)
    assert isinstance(found, str)
    assert "looks different" in found


def test_what_does_not_determine_an_answer_is_refused_with_its_reason() -> None:
    one, other = seen(TRUE[0]), seen(TRUE[1])
    here, there = matched(one, other, TRUE)
    spot = 0.01 * RNG.normal(size=(60, 3))
    cases = [
        ("10 matches with known points are too few", here[:10], there[:10]),
        ("0 matches with known points are too few", np.full_like(here, np.nan), there),
        ("matched points agree", here, RNG.permutation(there)),
        ("too close together", here[:1] + spot, there[:1] + spot),
        ("on a line", np.tile(here[:1], (60, 1)), np.tile(there[:1], (60, 1))),
    ]
    for words, a, b in cases:
        found = verify((0, 50), (one, other), (a, b), LIMITS)
        assert isinstance(found, str), words
        assert words in found


def test_two_answers_are_none() -> None:
    one, other = seen(TRUE[0]), seen(TRUE[1])
    here, there = matched(one, other, TRUE)
    shifted = there.copy()
    shifted[::5] += [0.0, 1.0, 0.0]
    shifted[1::5] += [0.0, 1.0, 0.0]
    found = verify((0, 50), (one, other), (here, shifted), LIMITS)
    assert isinstance(found, str)
    assert "ambiguous" in found


def test_a_lone_loop_is_not_believed_and_a_confirmed_one_is() -> None:
    cameras = np.stack([pose(0.1 * k) for k in range(60)])

    def loop(a: int, b: int, off: float = 0.0) -> Loop:
        drift = Sim3(1.1, np.eye(3), np.array([0.0, 0.0, 1.0 + off]))
        poses = [as_similarity(cameras[k]) for k in (a, b)]
        relative = poses[0].inverse().after(drift).after(poses[1])
        return Loop(Edge(a, b, relative, np.eye(7)), (3.0, 3.0), np.zeros((4, 2, 3)))

    loops = [loop(0, 40), loop(2, 43), loop(20, 59), loop(3, 41, off=2.0)]
    poses = {k: as_similarity(camera) for k, camera in enumerate(cameras)}
    assert without_support(loops, poses, 1) == [2, 3]
    assert without_support(loops, poses, 0) == []


def test_a_camera_that_never_looked_away_has_not_come_back() -> None:
    first = seen(TRUE[0])
    near = np.stack([pose(0.02 * k) for k in range(10)])
    around = np.stack([pose(0.0, 36.0 * k) for k in range(10)])
    lens, size = np.tile(K, (10, 1, 1)), np.tile([W, H], (10, 1))
    assert not left_meanwhile(first, near, lens, size)
    assert left_meanwhile(first, around, lens, size)
    assert not left_meanwhile(first, np.full((10, 4, 4), np.nan), lens, size)
