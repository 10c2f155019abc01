"""What the classical baseline is made of: the self-checks on fabricated models, tracks, pairs and partners."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from threer.errors import RunError
from threer.pipelines.classical.checks import (
    ModelFacts,
    better,
    broken,
    doubtful,
    incomplete,
    loose,
    median_angle,
)
from threer.pipelines.classical.features import FeatureStore
from threer.pipelines.classical.mapping import attempts
from threer.pipelines.classical.matching import choose_pairs, neighbours_in_time
from threer.pipelines.classical.model import SparseModel
from threer.pipelines.classical.tracks import build_tracks

GOOD = ModelFacts(images=150, points=14000, error_px=0.55, focals=(0.9,), angle_deg=6.8, longest_side=540)


def test_a_good_model_passes() -> None:
    assert broken(GOOD) == []


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"error_px": 0.93}, "points miss their pixels by 0.93 px"),
        ({"error_px": float("nan")}, "points miss their pixels"),
        ({"focals": (0.9, 6.1)}, "focal length of 6.10 image sides"),
        ({"focals": (0.2,)}, "focal length of 0.20 image sides"),
        ({"angle_deg": 0.4}, "the camera hardly moved"),
        ({"angle_deg": float("nan")}, "the camera hardly moved"),
        ({"points": 12}, "only 150 pictures with 12 points"),
        ({"images": 1}, "only 1 pictures"),
    ],
)
def test_a_bad_model_is_told(change: dict[str, object], why: str) -> None:
    (problem,) = broken(dataclasses.replace(GOOD, **change))
    assert why in problem


def test_the_allowed_error_grows_with_large_pictures() -> None:
    assert broken(dataclasses.replace(GOOD, error_px=1.2, longest_side=540))
    assert broken(dataclasses.replace(GOOD, error_px=1.2, longest_side=1600)) == []


def test_a_model_that_may_be_wrong_is_held_against_another() -> None:
    assert doubtful(GOOD)
    assert not doubtful(dataclasses.replace(GOOD, error_px=0.2))
    assert doubtful(dataclasses.replace(GOOD, error_px=float("nan")))
    sharper = dataclasses.replace(GOOD, images=148, error_px=0.3)
    fewer = dataclasses.replace(GOOD, images=90, error_px=0.2)
    assert better(sharper, GOOD)
    assert not better(GOOD, sharper)
    assert better(GOOD, fewer)
    assert not better(fewer, GOOD)


def test_several_models_and_missing_pictures_are_told() -> None:
    assert incomplete(150, [147]) is None
    assert incomplete(150, [80, 40, 20]) == "150 pictures fall into 3 models of 80, 40, 20"
    assert incomplete(150, []) == "150 pictures fall into 0 models of none"


def model(shared: list[tuple[int, int, int]], count: int) -> SparseModel:
    """Cameras a step apart along x; each (a, b, n) are n points that a and b both see, two units ahead."""
    seen, point, points = [], [], []
    for a, b, n in shared:
        for _ in range(n):
            seen += [a, b]
            point += [len(points)] * 2
            points.append([(a + b) / 2, 0.0, 2.0])
    c2w = np.tile(np.eye(4), (count, 1, 1))
    c2w[:, 0, 3] = np.arange(count)
    K = np.tile(np.eye(3), (count, 1, 1))
    return SparseModel(
        tuple(range(10, 10 + count)), c2w, K, np.array(points), np.array(seen, np.int64), np.array(point, np.int64)
    )


def test_pictures_that_hardly_share_a_point_are_loose() -> None:
    chain = model([(0, 1, 40), (1, 2, 25), (2, 3, 19), (3, 4, 50)], 6)
    assert loose(chain) == [13, 14, 15]  # 2 and 3 share 19 points: no common scale; 5 sees nothing
    assert loose(model([(0, 1, 40), (1, 2, 25)], 3)) == []


def test_angles_of_a_known_triangle() -> None:
    assert median_angle(model([(0, 2, 5)], 3)) == pytest.approx(np.degrees(2 * np.arctan(0.5)))
    nobody = np.zeros(0, np.int64)
    nothing = SparseModel((), np.zeros((0, 4, 4)), np.zeros((0, 3, 3)), np.zeros((0, 3)), nobody, nobody)
    assert np.isnan(median_angle(nothing))
    assert loose(nothing) == []


def test_partners_see_the_same_points_from_a_useful_angle() -> None:
    far = model([(0, 1, 30), (0, 2, 30), (0, 3, 30), (1, 2, 5)], 4)
    far = dataclasses.replace(far, points=far.points * [1, 1, 50])  # 100 units ahead
    # Steps of one see them under 0.6°, of two under 1.1°, of three under 1.7°: the widest tells depth best.
    assert far.partners(2)[0].tolist() == [3, 2]
    assert far.partners(8)[3].tolist() == [0]
    assert sorted(far.partners(8)[0].tolist()) == [1, 2, 3]


def test_unknown_focal_lengths_begin_with_the_global_mapper() -> None:
    assert attempts(True, 0)[0].mapper == "incremental"
    assert attempts(True, 0)[0].init_angle_deg < 16
    assert attempts(False, 7)[0].mapper == "global"
    assert all(attempt.seed >= 7 for attempt in attempts(False, 7))
    assert len(set(attempts(False, 0))) == len(attempts(False, 0))  # a retry changes something


def test_tracks_join_and_contradictions_go() -> None:
    pair = np.array
    tracks = build_tracks({
        (1, 2): pair([[0, 5], [1, 6], [3, 3]]),
        (2, 3): pair([[5, 7], [6, 8]]),
        (1, 3): pair([[2, 8]]),  # feature 8 of 3 is then both 1 and 2 of picture 1
        (3, 4): np.empty((0, 2), int),
    })  # fmt: skip
    assert len(tracks) == 2
    rows = list(zip(tracks.track.tolist(), tracks.image.tolist(), tracks.feature.tolist(), strict=True))
    assert rows == [(0, 1, 0), (0, 2, 5), (0, 3, 7), (1, 1, 3), (1, 2, 3)]
    assert len(build_tracks({(1, 2): pair([[0, 5]])}, shortest=3)) == 0
    assert len(build_tracks({})) == 0


def test_neighbours_in_time_reach_far_at_growing_steps() -> None:
    pairs = neighbours_in_time(list(range(100)))
    ahead = sorted(b - a for a, b in pairs if a == 0)
    assert ahead == [*range(1, 11), 16, 32, 64]
    assert len(pairs) == len(set(pairs))


def test_of_many_pictures_those_are_compared_that_look_alike(tmp_path) -> None:
    pytest.importorskip("pycolmap")
    store = FeatureStore(tmp_path)
    generator = np.random.default_rng(3)
    places = [np.kron(generator.integers(0, 255, (24, 32), np.uint8), np.ones((8, 8), np.uint8)) for _ in range(3)]
    ids = []
    for shift in (0, 9, 17):
        ids += [store.add(np.repeat(np.roll(place, shift, 1)[..., None], 3, axis=2)) for place in places]
    all_pairs = choose_pairs(store, ids + ids[:2], in_order=False, all_up_to=9, similar=2)
    assert len(all_pairs) == 9 * 8 // 2
    chosen = choose_pairs(store, ids, in_order=False, all_up_to=8, similar=2)
    place = {image: k % 3 for k, image in enumerate(ids)}
    assert len(chosen) == 9  # three of each place, compared with each other
    assert all(place[a] == place[b] for a, b in chosen)
    ordered = choose_pairs(store, ids, in_order=True, all_up_to=8, similar=2)
    assert set(neighbours_in_time(ids)) <= set(ordered)
    store.close()


def test_features_are_kept_for_the_same_settings_only_and_in_our_pixels(tmp_path) -> None:
    pytest.importorskip("pycolmap")

    def blob(size: int) -> np.ndarray:
        y, x = np.mgrid[: 96 * size, : 128 * size]
        value = 250 * np.exp(-((x - 60) ** 2 + (y - 40) ** 2) / 50)
        return np.repeat(value[..., None].astype(np.uint8), 3, axis=2)

    store = FeatureStore(tmp_path)
    image = store.add(blob(1))
    assert store.add(blob(1)) == image
    at = store.keypoints(image)
    assert np.abs(at - [60, 40]).max(axis=1).min() < 0.1  # not half a pixel off
    assert store.matches(image, image + 1).shape == (0, 2)
    store.close()
    again = FeatureStore(tmp_path)
    assert len(again._ids) == 1
    again.close()
    other = FeatureStore(tmp_path, most=500)
    assert len(other._ids) == 0
    at = other.keypoints(other.add(blob(16)))  # 2048 pixels: searched at 1600
    assert np.abs(at - [60, 40]).max(axis=1).min() < 0.15
    other.close()


def test_damaged_features_are_told_in_a_line_or_begun_anew(tmp_path: Path) -> None:
    black = np.zeros((64, 64, 3), np.uint8)
    store = FeatureStore(tmp_path)
    store.add(black)
    store.close()
    (tmp_path / "features.json").write_bytes(b"\xff\xfe")
    store = FeatureStore(tmp_path)
    assert store.add(black) == 1
    store.close()
    (tmp_path / "features.db").write_bytes(b"no database" * 200)
    with pytest.raises(RunError, match=r"features.db is damaged: remove it"):
        FeatureStore(tmp_path)
