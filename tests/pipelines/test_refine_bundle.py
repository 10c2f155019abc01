"""Bundle adjustment from disturbed cameras, on exact tracks without any picture."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from threer.pipelines.refine.bundle import adjust, same_world
from threer.pipelines.refine.observations import gather, without_doubtful
from threer.pipelines.refine.triangulation import triangulate
from threer.pipelines.refine.verdict import follow, judge, robust_epipolar_error
from threer.types import Sim3
from tracked_scene import tracked_scene

pytest.importorskip("pycolmap")


@pytest.mark.parametrize("wrong", [0.0, 0.3])
def test_disturbed_cameras_come_back_although_matches_are_wrong(wrong: float) -> None:
    scene = tracked_scene(wrong=wrong)
    start = scene.disturbed()
    seen, held = gather(scene.matches, scene.pixels)
    found = adjust(seen, start, scene.K)
    assert scene.error(start) > 0.05
    assert scene.error(found.c2w) < 0.005  # of a path of 4
    assert np.median(found.error) < 0.6
    verdict = judge(found, seen, held, start, scene.K)
    assert verdict.accepted, verdict.why
    assert verdict.held_back_px[1] < 0.2 * verdict.held_back_px[0]


def test_same_input_same_result_in_the_world_of_the_start() -> None:
    scene = tracked_scene(views=8, points=250)
    start = scene.disturbed()
    start[:, :3, 3] = 30 * start[:, :3, 3] + [1000, 0, 0]
    seen, _ = gather(scene.matches, scene.pixels)
    first, second = adjust(seen, start, scene.K), adjust(seen, start, scene.K)
    assert np.array_equal(first.c2w, second.c2w)
    assert np.array_equal(first.points, second.points, equal_nan=True)
    apart = np.linalg.norm(first.c2w[:, :3, 3] - start[:, :3, 3], axis=1)
    assert apart.max() < 0.2 * 30 * 4
    assert scene.error(first.c2w) < 0.01


def test_an_unknown_focal_length_is_found_and_a_known_one_is_kept() -> None:
    scene = tracked_scene()
    seen, _ = gather(scene.matches, scene.pixels)
    wrong = scene.K.copy()
    wrong[:, [0, 1], [0, 1]] = 550
    found = adjust(seen, scene.disturbed(), wrong, lens=np.zeros(len(wrong), np.int64))
    assert np.ptp(found.K[:, 0, 0]) == 0
    assert found.K[0, 0, 0] == pytest.approx(500, rel=0.01)
    assert np.array_equal(adjust(seen, scene.disturbed(), wrong).K, wrong)


def test_matches_that_no_third_picture_confirms_are_left_out() -> None:
    right = {(0, 1): np.array([[0, 0]]), (1, 2): np.array([[0, 0]]), (0, 2): np.array([[0, 0], [1, 1]])}
    wrong = {**right, (0, 1): np.array([[0, 0], [0, 3], [2, 4]])}
    kept = without_doubtful(wrong, [5, 5, 5])
    assert kept[0, 1].tolist() == [[0, 0], [2, 4]]  # [0, 3] joins a confirmed feature; [2, 4] is alone
    assert kept[0, 2].tolist() == [[0, 0], [1, 1]]


def test_points_held_back_take_no_part() -> None:
    scene = tracked_scene(views=6, points=200)
    seen, held = gather(scene.matches, scene.pixels)
    used = {(int(view), *pixel) for view, pixel in zip(seen.view, seen.pixel.tolist(), strict=True)}
    back = {(int(view), *pixel) for view, pixel in zip(held.first, held.pixel_a.tolist(), strict=True)}
    assert len(held) > 30
    assert not used & back


def test_triangulation_drops_the_outlier_and_what_has_no_parallax() -> None:
    scene = tracked_scene(views=8, points=60, noise_px=0.0)
    seen, _ = gather(scene.matches, scene.pixels)
    long = np.bincount(seen.track) >= 5
    victim = int(np.flatnonzero(long)[0])
    row = int(np.flatnonzero(seen.track == victim)[0])
    seen.pixel[row] += [0, 60]
    points, keep = triangulate(seen, scene.c2w, scene.K, most_error_px=4, least_angle_deg=1.5)
    assert not keep[row]
    assert keep[seen.track == victim].sum() >= 4
    nearest = np.linalg.norm(points[long][:, None] - scene.points, axis=-1).min(axis=1)
    assert nearest.max() < 1e-3
    still = np.tile(scene.c2w[:1], (8, 1, 1))
    assert np.isnan(triangulate(seen, still, scene.K, most_error_px=1e4, least_angle_deg=1.5)[0]).all()


def test_good_cameras_are_not_replaced_by_no_better_ones() -> None:
    scene = tracked_scene()
    seen, held = gather(scene.matches, scene.pixels)
    verdict = judge(adjust(seen, scene.c2w, scene.K), seen, held, scene.c2w, scene.K)
    assert not verdict.accepted
    assert "no better" in verdict.why


def test_garbage_is_rejected_with_a_reason() -> None:
    scene = tracked_scene(views=8, points=200)
    start = scene.disturbed()
    rng = np.random.default_rng(0)
    pixels = [rng.uniform(0, [640, 480], p.shape) for p in scene.pixels]
    seen, held = gather(scene.matches, pixels)
    verdict = judge(adjust(seen, start, scene.K), seen, held, start, scene.K)
    assert not verdict.accepted
    assert verdict.why
    seen, held = gather({}, scene.pixels)
    nothing = judge(adjust(seen, start, scene.K), seen, held, start, scene.K)
    assert nothing.why == "no point is seen in two pictures"


def test_the_world_stays_even_along_a_straight_path() -> None:
    scene = tracked_scene(views=8)
    line = scene.c2w.copy()
    line[:, 1:3, 3] = 0
    back = same_world(line, line)
    assert np.allclose(back.R, np.eye(3))
    turned = Sim3(2.0, Rotation.from_rotvec([0.5, 0.2, 0]).as_matrix(), np.array([1.0, 2, 3]))
    found = same_world(turned.apply_to_cameras(line), line)
    assert np.allclose(found.apply_to_cameras(turned.apply_to_cameras(line)), line)


def test_another_path_is_rejected() -> None:
    scene = tracked_scene()
    seen, held = gather(scene.matches, scene.pixels)
    found = adjust(seen, scene.disturbed(), scene.K)
    elsewhere = scene.disturbed(degrees=0, share=1.0)
    verdict = judge(found, seen, held, elsewhere, scene.K)
    assert "another path" in verdict.why


def test_frames_with_few_observations_follow_their_neighbours() -> None:
    scene = tracked_scene(views=7)
    shift = np.eye(4)
    shift[:3, 3] = 0, 0, 1
    after = scene.c2w @ shift
    after[3] = np.nan
    few = np.arange(7) == 3
    out = follow(after, scene.c2w, few)
    assert np.allclose(out[3], scene.c2w[3] @ shift)
    assert np.array_equal(out[~few], after[~few])
    few = np.arange(7) != 2
    assert np.allclose(follow(after, scene.c2w, few), scene.c2w @ shift)


def test_epipolar_error_is_zero_at_the_truth_and_bounded_for_wrong_matches() -> None:
    scene = tracked_scene(noise_px=0.0)
    _, held = gather(scene.matches, scene.pixels)
    assert robust_epipolar_error(held, scene.c2w, scene.K, 4.0).max() < 1e-6
    off = scene.disturbed()
    error = robust_epipolar_error(held, off, scene.K, 4.0)
    assert 1 < np.median(error) < 30
