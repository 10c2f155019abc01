"""A camera from matches: found, ambiguous or failed, and never by chance."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from threer.pipelines.classical.matching import mutual_matches
from threer.pipelines.localization.pose import Correspondences, Judgement, find_camera

pytest.importorskip("pycolmap", reason="localisation needs pycolmap: pip install 'threer[refine]'")

SIZE = (640, 480)
K = np.array([[520.0, 0, 319.5], [0, 520.0, 239.5], [0, 0, 1]])
THRESHOLD = 5.0


def seen(local: np.ndarray, rng: np.random.Generator, noise: float = 0.5) -> np.ndarray:
    pixels = local @ K.T
    return pixels[:, :2] / pixels[:, 2:] + rng.normal(size=(len(local), 2)) * noise


def pose(turn: tuple[float, float, float], position: tuple[float, float, float]) -> np.ndarray:
    c2w = np.eye(4)
    c2w[:3, :3], c2w[:3, 3] = Rotation.from_rotvec(turn).as_matrix(), position
    return c2w


def view(
    c2w: np.ndarray, count: int, *, seed: int = 0, frame: int = 0, flat: bool = False, slope: float = 0.0
) -> Correspondences:
    """Matches of pixels all over the picture with true points."""
    rng = np.random.default_rng(seed)
    x, y = (rng.uniform((0, 0), SIZE, (count, 2)) - K[:2, 2]).T / 520
    z = 4 / (1 - slope * x) if flat else rng.uniform(2, 6, count)
    local = np.stack([x * z, y * z, z], axis=1)
    points = local @ c2w[:3, :3].T + c2w[:3, 3]
    return Correspondences(seen(local, rng), points, np.full(count, frame), points - [0, 0, 1] @ c2w[:3, :3].T)


def together(*parts: Correspondences) -> Correspondences:
    return Correspondences(
        *(np.concatenate([getattr(p, n) for p in parts]) for n in ("pixels", "points", "frames", "seen_from"))
    )


def chance(count: int, seed: int = 0, frame: int = 9) -> Correspondences:
    rng = np.random.default_rng(seed)
    points = rng.uniform((-4, -4, 1), (4, 4, 9), (count, 3))
    return Correspondences(rng.uniform((0, 0), SIZE, (count, 2)), points, np.full(count, frame), 0 * points)


def judge(matches: Correspondences, K: np.ndarray | None = K, **settings: float) -> Judgement:
    return find_camera(matches, SIZE, K, threshold=THRESHOLD, **settings)


HERE, THERE = pose((0.2, 0.5, -0.1), (1.0, 0.0, 2.0)), pose((0.0, -1.5, 0.0), (8.0, 1.0, 0.0))


def test_a_camera_is_found_among_many_wrong_matches() -> None:
    told = judge(together(view(HERE, 60), chance(400)))
    assert told.status == "found"
    np.testing.assert_allclose(told.camera.c2w, HERE, atol=0.01)
    assert told.camera.inliers[:60].all()
    assert told.camera.count < 65
    assert 0 < told.uncertainty.position_sigma < 0.01


@pytest.mark.parametrize("unit", [1e-3, 1e3])
def test_the_unit_of_the_world_does_not_matter(unit: float) -> None:
    matches = together(view(HERE, 60), chance(100))
    scaled = Correspondences(matches.pixels, unit * matches.points, matches.frames, unit * matches.seen_from)
    one, other = judge(matches), judge(scaled)
    np.testing.assert_allclose(other.camera.c2w[:3, 3], unit * one.camera.c2w[:3, 3], rtol=1e-5)
    assert other.uncertainty.position_sigma == pytest.approx(unit * one.uncertainty.position_sigma, rel=1e-3)


@pytest.mark.parametrize("lens", [K, None], ids=["known", "unknown"])
def test_chance_is_never_a_camera(lens: np.ndarray | None) -> None:
    for seed in range(4):
        told = judge(chance(500, seed), lens)
        assert told.status == "failed"
        assert "agree" in told.why


def test_two_places_that_fit_are_ambiguous() -> None:
    told = judge(together(view(HERE, 60), view(THERE, 55, seed=1, frame=1)))
    assert told.status == "ambiguous"
    assert "two places fit, with 60 and 55" in told.why
    # A smaller part that is the same thing somewhat elsewhere, or a weaker second place, is none.
    bent = HERE.copy()
    bent[:3, 3] += 0.1
    assert judge(together(view(HERE, 60), view(bent, 55, seed=1))).status == "found"
    assert judge(together(view(HERE, 60), view(THERE, 25, seed=1))).status == "found"


def test_what_hardly_determines_a_camera_is_ambiguous() -> None:
    # Seen straight on, a plane is as far away as the focal length is long.
    plane = view(pose((0, 0, 0), (0, 0, 0)), 80, flat=True)
    assert judge(plane).status == "found"
    told = judge(plane, None)
    assert told.status == "ambiguous"
    assert "hardly determine the camera" in told.why
    assert "--intrinsics" in told.why
    # Seen aslant it is not so.
    aslant = judge(view(pose((0, 0, 0), (0, 0, 0)), 80, flat=True, slope=0.5), None)
    assert aslant.status == "found"
    assert aslant.camera.K[0, 0] == pytest.approx(520, rel=0.05)


def test_matches_in_one_spot_or_with_one_point_do_not_count() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (40, 3))
    told = judge(Correspondences(rng.normal((300, 200), 1.0, (40, 2)), points, np.zeros(40, int), points))
    assert told.status == "failed"
    good = view(HERE, 30)
    same = good[np.zeros(30, int)]
    assert judge(together(same, view(HERE, 8))).status == "failed"


def test_a_few_that_agree_among_many_that_do_not_are_ambiguous() -> None:
    told = judge(together(view(HERE, 20), chance(90)))
    assert told.status == "ambiguous"
    assert "things that match agree" in told.why
    assert judge(together(view(HERE, 20), chance(20))).status == "found"


def test_a_mirrored_picture_of_a_wall_is_not_one_taken_through_it() -> None:
    wall = view(HERE, 80, flat=True)
    mirrored = dataclasses.replace(wall, pixels=np.array([SIZE[0] - 1, 0]) + [-1, 1] * wall.pixels)
    told = judge(mirrored)
    assert told.status == "failed"
    assert "mirrored" in told.why


def test_too_few_matches_say_how_many() -> None:
    assert judge(view(HERE, 7)).why == "7 of its pixels match points of the run, 12 are needed"
    assert judge(view(HERE, 0)).status == "failed"
    told = judge(together(view(HERE, 20), chance(180, frame=0)), least_share=0.25)
    assert told.status == "failed"
    assert "of the matches with one frame agree" in told.why


def test_features_match_where_both_agree_and_the_second_is_worse() -> None:
    rng = np.random.default_rng(0)
    features = rng.gamma(0.5, size=(50, 128))
    features = (512 * features / np.linalg.norm(features, axis=1, keepdims=True)).clip(0, 255).astype(np.uint8)
    order = rng.permutation(50)
    mine, theirs = mutual_matches(features, features[order])
    np.testing.assert_array_equal(order[theirs], mine)
    assert len(mine) == 50
    twice = np.concatenate([features, features[:10]])  # what is there twice is matched with neither
    mine, _ = mutual_matches(features, twice)
    np.testing.assert_array_equal(mine, np.arange(10, 50))
    assert len(mutual_matches(features[:1], features)[0]) == 0
    assert len(mutual_matches(features, features[:0])[0]) == 0
