import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from threer.geometry import transforms


def random_poses(*shape: int) -> torch.Tensor:
    count = int(np.prod(shape))
    poses = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    poses[:, :3, :3] = torch.from_numpy(Rotation.random(count, random_state=1).as_matrix())
    poses[:, :3, 3] = torch.randn(count, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return poses.reshape(*shape, 4, 4)


def test_inverse_and_relative_pose() -> None:
    poses = random_poses(2, 3)
    assert torch.allclose(transforms.invert(poses) @ poses, torch.eye(4, dtype=torch.float64).expand(2, 3, 4, 4))
    relative = transforms.relative_pose(poses[:, 1], poses[:, 0])
    assert torch.allclose(poses[:, 0] @ relative, poses[:, 1])


@pytest.mark.parametrize("between", [(), (7,), (4, 5)])
def test_points_move_whatever_lies_between_batch_and_coordinates(between: tuple[int, ...]) -> None:
    poses = random_poses(2, 3)
    points = torch.randn(2, 3, *between, 3, dtype=torch.float64)
    moved = transforms.apply(poses, points)
    assert moved.shape == points.shape
    want = poses[1, 2, :3, :3] @ points[1, 2].reshape(-1, 3)[0] + poses[1, 2, :3, 3]
    assert torch.allclose(moved[1, 2].reshape(-1, 3)[0], want)


def test_points_without_the_batch_are_refused() -> None:
    with pytest.raises(ValueError, match="points must be"):
        transforms.apply(random_poses(2, 3), torch.zeros(4, 3)[0])


def test_quaternions_agree_with_scipy() -> None:
    rotations = Rotation.random(50, random_state=2)
    matrices = torch.from_numpy(rotations.as_matrix())
    quaternions = transforms.quaternion_from_matrix(matrices)
    want = rotations.as_quat(canonical=True, scalar_first=True)
    assert np.allclose(quaternions.numpy(), want, atol=1e-12)
    assert torch.allclose(transforms.matrix_from_quaternion(3 * quaternions), matrices)


@pytest.mark.parametrize("axis", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 2, -3)])
@pytest.mark.parametrize("angle", [math.pi, math.pi - 1e-6, 1e-6, 0.0])
def test_half_turns_and_tiny_turns_survive(axis: tuple[int, ...], angle: float) -> None:
    direction = np.array(axis) / np.linalg.norm(axis)
    matrix = torch.from_numpy(Rotation.from_rotvec(direction * angle).as_matrix()).float()
    quaternion = transforms.quaternion_from_matrix(matrix)
    assert float(quaternion.norm()) == pytest.approx(1.0, abs=1e-6)
    assert torch.allclose(transforms.matrix_from_quaternion(quaternion), matrix, atol=1e-6)


@pytest.mark.parametrize("angle", [0.0, 1e-7, 1e-3, 1.0, math.pi - 1e-7, math.pi])
def test_rotation_angle_is_exact_at_both_ends(angle: float) -> None:
    start = torch.from_numpy(Rotation.random(random_state=3).as_matrix())
    turn = torch.from_numpy(Rotation.from_rotvec([0.6 * angle, 0.0, 0.8 * angle]).as_matrix())
    assert float(transforms.rotation_angle(start, start @ turn)) == pytest.approx(angle, abs=1e-12)
