"""Ray maps: the published quantity, which is no direction, and what is said of wrong shapes."""

from __future__ import annotations

import pytest
import torch

from threer.geometry.raymap import ray_map
from threer.geometry.transforms import pose_from_quaternion


def camera(translation: tuple[float, float, float], quaternion: tuple[float, float, float, float] = (1, 0, 0, 0)):
    return pose_from_quaternion(torch.tensor(translation).double(), torch.tensor(quaternion).double())


K = torch.tensor([[20.0, 0, 4], [0, 10, 2], [0, 0, 1]]).double()


def test_second_half_points_from_the_first_camera() -> None:
    # The example of the specification: the pixel in the middle of a camera 3 to the side looks along (0, 0, 1).
    rays = ray_map(camera((0, 3, 0)), K, (8, 6))
    assert rays.shape == (6, 8, 6)
    assert torch.allclose(rays[2, 4], torch.tensor([0, 3, 0, 0, 0.9487, 0.3162]).double(), atol=1e-4)


def test_at_the_first_camera_it_is_the_direction() -> None:
    rays = ray_map(torch.eye(4).double(), K, (8, 6))
    assert torch.equal(rays[..., :3], torch.zeros(6, 8, 3).double())
    slopes = rays[..., 3:5] / rays[..., 5:]
    assert torch.allclose(slopes[0, 0], torch.tensor([-4 / 20, -2 / 10]).double())
    assert torch.allclose(slopes[5, 7], torch.tensor([3 / 20, 3 / 10]).double())
    assert torch.allclose(rays[..., 3:].norm(dim=-1), torch.ones(6, 8).double())


def test_turning_the_camera_turns_the_rays() -> None:
    quarter = camera((0, 0, 0), (1, 0, 1, 0))  # about y: forward becomes right
    assert torch.allclose(ray_map(quarter, K, (8, 6))[2, 4, 3:], torch.tensor([1.0, 0, 0]).double(), atol=1e-12)


def test_batches_are_taken_one_by_one() -> None:
    cameras = torch.stack([camera((0, 1, 2)), camera((3, 0, 0), (1, 0.1, 0.2, 0))])
    lenses = torch.stack([K, 2 * K])
    together = ray_map(cameras, lenses, (8, 6))
    for i in range(2):
        assert torch.equal(together[i], ray_map(cameras[i], lenses[i], (8, 6)))


@pytest.mark.parametrize(
    ("c2w", "lens"), [(torch.eye(3), K), (torch.eye(4), torch.eye(4)), (torch.eye(4).expand(2, 4, 4), K)]
)
def test_wrong_shapes_are_told(c2w: torch.Tensor, lens: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"c2w and K must be \[..., 4, 4\] and \[..., 3, 3\]"):
        ray_map(c2w.double(), lens.double(), (8, 6))
