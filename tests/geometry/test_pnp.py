import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from threer.geometry.pnp import camera_from_pointmap, solve_pnp
from threer.geometry.projection import centred_intrinsics, unproject

SIZE = 112
K = centred_intrinsics(100.0, SIZE, SIZE)


def camera(seed: int = 0) -> np.ndarray:
    c2w = np.eye(4)
    c2w[:3, :3] = Rotation.random(random_state=seed).as_matrix()
    c2w[:3, 3] = np.random.default_rng(seed).normal(size=3)
    return c2w


def pointmap(c2w: np.ndarray, *, flat: bool = False, unit: float = 1.0) -> torch.Tensor:
    """[H, W, 3] world points seen by a camera, 1 to 4 units away, or on a slanted plane."""
    if flat:
        slopes = unproject(torch.ones(1, SIZE, SIZE, dtype=torch.float64), torch.from_numpy(K)[None])[0]
        depth = 2.0 / (slopes @ torch.tensor([0.3, 0.2, 1.0], dtype=torch.float64))
    else:
        depth = 1 + 3 * torch.rand(SIZE, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    local = unproject(depth, torch.from_numpy(K))
    world = local @ torch.from_numpy(c2w[:3, :3]).T + torch.from_numpy(c2w[:3, 3])
    return unit * world


def pose_error(got: np.ndarray, want: np.ndarray) -> tuple[float, float]:
    """Degrees, distance."""
    turn = Rotation.from_matrix(got[:3, :3].T @ want[:3, :3]).magnitude()
    return float(np.degrees(turn)), float(np.linalg.norm(got[:3, 3] - want[:3, 3]))


@pytest.mark.parametrize("unit", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("flat", [False, True])
def test_exact_pointmap_gives_the_exact_camera_in_any_unit(unit: float, flat: bool) -> None:
    c2w = camera()
    result = camera_from_pointmap(pointmap(c2w, flat=flat, unit=unit), torch.ones(SIZE, SIZE), K, max_points=4000)
    assert result is not None
    want = c2w.copy()
    want[:3, 3] *= unit
    degrees, distance = pose_error(result.c2w, want)
    assert degrees < 1e-3
    assert distance < 1e-5 * unit
    assert result.count == result.inliers.sum() == SIZE * SIZE
    assert result.reprojection_error_px < 1e-3


def test_confidence_keeps_wrong_points_out() -> None:
    c2w = camera(1)
    xyz = pointmap(c2w)
    noise = torch.Generator().manual_seed(1)
    xyz[:60] += torch.randn(60, SIZE, 3, dtype=torch.float64, generator=noise)
    conf = torch.ones(SIZE, SIZE)
    conf[60:] = 5.0
    result = camera_from_pointmap(xyz, conf, K, keep=52 / 112)
    assert result is not None
    assert pose_error(result.c2w, c2w)[0] < 1e-3
    assert not result.inliers.reshape(SIZE, SIZE)[:60].any()
    by_value = camera_from_pointmap(xyz, conf, K, keep=1.0, min_conf=1.5)
    assert by_value is not None
    assert by_value.count == 52 * SIZE
    assert camera_from_pointmap(xyz, conf, K, min_conf=9.0) is None


def test_outliers_and_noise_are_survived() -> None:
    c2w = camera(2)
    xyz = pointmap(c2w)
    generator = torch.Generator().manual_seed(2)
    xyz += 0.02 * torch.randn(xyz.shape, dtype=torch.float64, generator=generator)
    wild = torch.rand(SIZE, SIZE, generator=generator) < 0.4
    xyz[wild] += torch.randn(int(wild.sum()), 3, dtype=torch.float64, generator=generator)
    xyz[5] = torch.nan
    result = camera_from_pointmap(xyz, torch.ones(SIZE, SIZE), K)
    assert result is not None
    degrees, distance = pose_error(result.c2w, c2w)
    assert degrees < 0.2
    assert distance < 0.01
    assert 0.4 < result.count / SIZE**2 < 0.75


@pytest.mark.parametrize("what", ["random", "point", "line", "behind", "nan", "unsure"])
def test_what_shows_no_camera_gives_none(what: str) -> None:
    xyz, conf = pointmap(camera(3)), torch.ones(SIZE, SIZE)
    if what == "random":
        xyz = torch.randn(SIZE, SIZE, 3, generator=torch.Generator().manual_seed(0))
    elif what == "point":
        xyz = torch.ones(SIZE, SIZE, 3)
    elif what == "line":
        xyz = torch.rand(SIZE, SIZE, 1) * torch.tensor([1.0, 2.0, 3.0])
    elif what == "behind":  # a mirrored view fits only a camera that has every point at its back
        xyz = pointmap(np.diag([1.0, 1.0, 1.0, 1.0])) * torch.tensor([1.0, 1.0, -1.0])
    elif what == "nan":
        xyz = torch.full((SIZE, SIZE, 3), torch.nan)
    else:
        conf = torch.zeros(SIZE, SIZE)
    assert camera_from_pointmap(xyz, conf, K) is None


def test_points_behind_the_camera_agree_with_nothing() -> None:
    c2w = camera(8)
    front = pointmap(c2w)[::8, ::8].reshape(-1, 3).numpy()
    pixels = np.stack(np.meshgrid(np.arange(0, SIZE, 8), np.arange(0, SIZE, 8)), axis=-1).reshape(-1, 2)
    behind = 2 * c2w[:3, 3] - front[:40]  # through the camera's centre: the same pixels
    result = solve_pnp(np.concatenate([front, behind]), np.concatenate([pixels, pixels[:40]]), K)
    assert result is not None
    assert pose_error(result.c2w, c2w)[0] < 1e-3
    assert result.inliers[: len(front)].all()
    assert not result.inliers[len(front) :].any()
    assert result.count == len(front)


def test_equal_seeds_give_equal_results_and_leave_other_generators_alone() -> None:
    xyz = pointmap(camera(4)) + 0.02 * torch.randn(SIZE, SIZE, 3, generator=torch.Generator().manual_seed(4))
    np.random.seed(7)
    before = np.random.get_state()[1].copy()
    results = [camera_from_pointmap(xyz, torch.ones(SIZE, SIZE), K, seed=s, max_points=500) for s in (0, 0, 1)]
    assert np.array_equal(before, np.random.get_state()[1])
    assert all(r is not None for r in results)
    first, again, other = (r.c2w for r in results)
    assert np.array_equal(first, again)
    assert np.allclose(first, other, atol=1e-2)


def test_all_inliers_refine_what_a_few_points_found() -> None:
    c2w = camera(5)
    xyz = pointmap(c2w) + 0.02 * torch.randn(SIZE, SIZE, 3, generator=torch.Generator().manual_seed(5))
    result = camera_from_pointmap(xyz, torch.ones(SIZE, SIZE), K, keep=1.0, max_points=100)
    assert result is not None
    assert result.count > 10_000
    assert pose_error(result.c2w, c2w)[0] < 0.1


@pytest.mark.parametrize("count", [4, 5, 6, 200])
def test_few_points_are_enough_but_not_fewer_than_four(count: int) -> None:
    c2w = camera(6)
    points = pointmap(c2w)[::11, ::11].reshape(-1, 3).numpy()
    pixels = np.stack(np.meshgrid(np.arange(0, SIZE, 11), np.arange(0, SIZE, 11)), axis=-1).reshape(-1, 2)
    rows = np.random.default_rng(1).permutation(len(points))[:count]
    result = solve_pnp(points[rows], pixels[rows], K)
    assert result is not None
    assert pose_error(result.c2w, c2w)[0] < 0.1
    assert solve_pnp(points[rows[:3]], pixels[rows[:3]], K) is None


def test_lens_distortion_is_modelled() -> None:
    c2w, distortion = camera(7), np.array([-0.3, 0.1, 0.0, 0.0])
    points = pointmap(c2w).reshape(-1, 3).numpy()[::7]
    world_to_camera = np.linalg.inv(c2w)
    turn = cv2.Rodrigues(world_to_camera[:3, :3])[0]
    seen, _ = cv2.projectPoints(np.ascontiguousarray(points), turn, world_to_camera[:3, 3], K, distortion)
    pixels = seen.reshape(-1, 2)
    result = solve_pnp(points, pixels, K, threshold=1.0, distortion=distortion)
    assert result is not None
    assert result.count == len(points)
    assert pose_error(result.c2w, c2w)[0] < 1e-3
    without = solve_pnp(points, pixels, K, threshold=1.0)
    assert without is None or without.count < len(points)


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="need points"):
        solve_pnp(np.zeros((5, 3)), np.zeros((4, 2)), K)
    with pytest.raises(ValueError, match="does not fit"):
        camera_from_pointmap(torch.zeros(4, 5, 3), torch.zeros(4, 4), K)
