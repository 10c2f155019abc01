"""Closing loops in a graph of similarities."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from threer.geometry.procrustes import align_points
from threer.geometry.sim3_paths import interpolate
from threer.pipelines.refine.pose_graph import Edge, between, close
from threer.types import FloatArray, Sim3

COVARIANCE = np.diag([np.radians(0.5)] * 3 + [0.01] * 3 + [0.01]) ** 2


def circle(count: int = 120) -> list[Sim3]:
    """Once round and a little further, looking outwards, at radius 2."""
    poses = []
    for angle in np.linspace(0, 2.2 * np.pi, count):
        R = Rotation.from_euler("y", np.degrees(angle), degrees=True).as_matrix()
        poses.append(Sim3(1.0, R, R @ [0.0, 0.0, 2.0]))
    return poses


def drifting(truth: list[Sim3], seed: int = 0) -> list[Sim3]:
    """The same steps, each off by a bias and some noise; the map grows, which rigid cameras do not tell."""
    generator = np.random.default_rng(seed)
    at, out = truth[0], [Sim3(1.0, truth[0].R, truth[0].t)]
    for k in range(len(truth) - 1):
        step = between(truth[k], truth[k + 1])
        turn = Rotation.from_rotvec(generator.normal([0.0004, 0.001, 0], 0.0004)).as_matrix()
        wrong = Sim3(1.0025, turn, generator.normal(0, 0.001, 3))
        at = at.after(step).after(wrong)
        out.append(Sim3(1.0, at.R, at.t))
    return out


def error(poses: list[Sim3], truth: list[Sim3]) -> float:
    """Root mean square distance of the centres after the best similarity."""
    found, wanted = np.array([p.t for p in poses]), np.array([p.t for p in truth])
    sim3 = align_points(found, wanted)
    assert sim3 is not None
    return float(np.sqrt(np.square(sim3.apply(found) - wanted).sum(axis=1).mean()))


def true_loops(truth: list[Sim3], scales: FloatArray, seed: int = 1) -> list[Edge]:
    """Between the beginning and the end, each in the scale its frame has in the run."""
    generator = np.random.default_rng(seed)
    made = []
    for first in range(10):
        second = first + 109
        exact = between(
            truth[first].after(Sim3(1 / scales[first], np.eye(3), np.zeros(3))),
            truth[second].after(Sim3(1 / scales[second], np.eye(3), np.zeros(3))),
        )
        noise = Sim3(
            float(np.exp(generator.normal(0, 0.005))),
            Rotation.from_rotvec(generator.normal(0, 0.004, 3)).as_matrix(),
            generator.normal(0, 0.005, 3),
        )
        made.append(Edge(first, second, exact.after(noise), COVARIANCE))
    return made


def drifted_scales(count: int) -> FloatArray:
    """Of the map at each frame, as `drifting` lets it grow."""
    return 1.0025 ** np.arange(count)


def test_a_drifted_circle_closes_and_its_scale_comes_back() -> None:
    truth = circle()
    start = drifting(truth)
    scales = drifted_scales(len(truth))
    closed = close(start, true_loops(truth, scales))
    assert closed.trusted.all()
    assert error(closed.poses, truth) < error(start, truth) / 5
    # A map that grew by 1.0025 a step must shrink by as much.
    grown = np.array([pose.scale for pose in closed.poses]) * scales
    assert np.abs(np.log(grown / grown[0])).max() < 0.03


def test_the_first_frame_stays_and_the_answer_is_the_same_every_time() -> None:
    truth = circle()
    start = drifting(truth)
    loops = true_loops(truth, drifted_scales(len(truth)))
    one, two = close(start, loops), close(start, loops)
    np.testing.assert_allclose(one.poses[0].t, start[0].t, atol=1e-4)
    for a, b in zip(one.poses, two.poses, strict=True):
        assert a.scale == b.scale
        np.testing.assert_array_equal(a.t, b.t)


@pytest.mark.parametrize("seed", range(3))
def test_one_wrong_loop_in_five_does_no_harm(seed: int) -> None:
    truth = circle()
    start = drifting(truth)
    good = true_loops(truth, drifted_scales(len(truth)))[:8]
    generator = np.random.default_rng(seed)
    wrong = [
        Edge(
            int(generator.integers(20, 40)),
            int(generator.integers(60, 90)),
            Sim3(1.1, Rotation.from_rotvec(generator.normal(0, 0.5, 3)).as_matrix(), generator.normal(0, 0.8, 3)),
            COVARIANCE,
        )
        for _ in range(2)
    ]
    alone, disturbed = close(start, good), close(start, [*good, *wrong])
    assert disturbed.trusted[:8].all()
    assert not disturbed.trusted[8:].any()
    assert error(disturbed.poses, truth) < 1.2 * error(alone.poses, truth) + 0.01


def test_without_loops_nothing_changes() -> None:
    start = drifting(circle())
    closed = close(start, [])
    assert all(a is b for a, b in zip(closed.poses, start, strict=True))
    assert not len(closed.trusted)


def test_between_known_corrections_the_geodesic_is_taken() -> None:
    turn = Rotation.from_rotvec([0, 0, 0.4]).as_matrix()
    known = [Sim3(1.0, np.eye(3), np.zeros(3)), Sim3(4.0, turn, np.zeros(3))]
    found = interpolate([1, 3], known, range(5))
    assert found[0] is known[0]
    assert found[4] is known[1]
    assert found[2].scale == pytest.approx(2.0)
    np.testing.assert_allclose(Rotation.from_matrix(found[2].R).as_rotvec(), [0, 0, 0.2], atol=1e-9)


def test_places_alone_may_be_wrong() -> None:
    truth = circle()
    generator = np.random.default_rng(0)
    start, at = [truth[0]], truth[0]
    for k in range(len(truth) - 1):
        at = at.after(between(truth[k], truth[k + 1])).after(
            Sim3(1.0, np.eye(3), generator.normal([0.01, 0.005, 0], 0.01))
        )
        start.append(at)
    closed = close(start, true_loops(truth, np.ones(len(truth))))
    assert closed.trusted.mean() > 0.6
    assert error(closed.poses, truth) < error(start, truth) / 2
