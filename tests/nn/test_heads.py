"""Activations and heads."""

import math

import pytest
import torch

from threer.nn.dpt import DPTDims, DPTHead, dpt_taps
from threer.nn.heads import (
    LinearHead,
    camera_rays,
    from_points,
    to_colour,
    to_confidence,
    to_points,
    to_pose,
    turn_to_front,
)


def test_published_activation_vector() -> None:
    xyz = to_points(torch.tensor([0.3, -0.4, 1.2]))
    assert torch.allclose(xyz, torch.tensor([0.6159916, -0.8213221, 2.4639664]), atol=1e-6)
    assert to_confidence(torch.tensor(0.5)).item() == pytest.approx(2.6487211, abs=1e-6)
    assert to_confidence(torch.tensor([-50.0, 5.0]), 1.0, 3.0).tolist() == [1.0, 3.0]


def test_published_vector_turned_to_the_front() -> None:
    xyz = to_points(turn_to_front(torch.tensor([0.3, -0.4, -1.2])))
    assert torch.allclose(xyz, torch.tensor([-0.6159916, 0.8213221, 2.4639664]), atol=1e-6)
    assert torch.equal(turn_to_front(torch.tensor([0.3, -0.4, 1.2])), torch.tensor([0.3, -0.4, 1.2]))
    assert torch.equal(turn_to_front(torch.tensor([0.3, -0.4, 0.0])), torch.zeros(3))


def test_published_pose_vector() -> None:
    translation, quaternion = to_pose(torch.tensor([0.3, 0, 0.4, -2, 0, 0, 1]))
    assert torch.allclose(translation, torch.tensor([0.3892328, 0, 0.5189770]), atol=1e-6)
    assert torch.allclose(quaternion, torch.tensor([0.8944272, 0, 0, -0.4472136]), atol=1e-6)


def test_colours_stay_open() -> None:
    colours = to_colour(torch.tensor([-100.0, 0.0, 100.0]))
    assert colours.tolist() == pytest.approx([-1 + 2e-6, 0, 1 - 2e-6], abs=1e-7)


@pytest.mark.parametrize("mode", ["exp", "linear", "square"])
def test_from_points_undoes_to_points(mode: str) -> None:
    points = torch.tensor([[1.0, -2.0, 3.0], [0.01, 0.0, 0.02]])
    assert torch.allclose(to_points(from_points(points, mode), mode), points, atol=1e-5)


def test_zero_vector_is_safe_to_train_on() -> None:
    raw = torch.zeros(3, requires_grad=True)
    to_points(raw).sum().backward()
    assert torch.isfinite(raw.grad).all()


def test_linear_head_puts_channel_outermost() -> None:
    head = LinearHead(2)
    with torch.no_grad():
        head.linear.weight.zero_()
        head.linear.bias.copy_(torch.arange(1024.0))
    raw = head([torch.zeros(1, 6, 2)], (32, 48))
    assert raw.shape == (1, 4, 32, 48)
    assert raw[0, 3, 16 + 5, 32 + 7].item() == 3 * 256 + 5 * 16 + 7


def test_hidden_layer_and_other_channels() -> None:
    head = LinearHead(2, hidden=8, channels=3)
    assert head.linear.up.weight.shape == (8, 2)
    assert head([torch.zeros(1, 6, 2)], (32, 48)).shape == (1, 3, 32, 48)


def test_ray_prior_predicts_a_frustum_before_any_training() -> None:
    head = LinearHead(2, ray_prior=0.5)
    with torch.no_grad():
        head.linear.weight.zero_()
        head.linear.bias.zero_()
    xyz = to_points(head([torch.zeros(1, 4, 2)], (32, 32))[0, :3].permute(1, 2, 0))
    assert (xyz[..., 2] > 0).all()
    slope = xyz[16, :, 0] / xyz[16, :, 2]
    assert slope[-1].item() == pytest.approx(0.5 * 31 / 32, abs=1e-5)
    assert slope[0].item() == pytest.approx(-slope[-1].item(), abs=1e-6)
    assert torch.equal(camera_rays((16, 32), 1.0)[2], torch.ones(16, 32))


@pytest.mark.parametrize(("depth", "taps"), [(12, (0, 6, 9, 12)), (24, (0, 12, 18, 24)), (10, (0, 5, 7, 10))])
def test_dpt_reads_these_layers(depth: int, taps: tuple[int, ...]) -> None:
    assert dpt_taps(depth) == taps


@pytest.mark.parametrize("size", [(48, 80), (16, 16), (32, 64)])
def test_dpt_fits_every_grid(size: tuple[int, int]) -> None:
    head = DPTHead((8, 4, 4, 4), dims=DPTDims(8, 4, (4, 4, 4, 4)))
    tokens = size[0] * size[1] // 256
    raw = head([torch.randn(2, tokens, c) for c in (8, 4, 4, 4)], size)
    assert raw.shape == (2, 4, *size)
    assert math.isfinite(raw.sum().item())
