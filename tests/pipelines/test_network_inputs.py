"""What the networks are fed: the scale of a scene never matters, and unsure points never mislead."""

from __future__ import annotations

import pytest
import torch

from threer.config import StreamingConfig
from threer.models.slam3r import SLAM3R
from threer.pipelines.streaming.networks import Networks
from threer.pipelines.streaming.state import Keyframe
from threer.types import Pointmap

SIZE = 16


def keyframe(index: int, scale: float = 1.0, conf: float | None = None) -> Keyframe:
    generator = torch.Generator().manual_seed(index)
    xyz = scale * (torch.rand(SIZE, SIZE, 3, generator=generator) + 0.5)
    confidence = torch.linspace(1.0, 6.0, SIZE * SIZE).view(SIZE, SIZE)
    if conf is not None:
        confidence = torch.full((SIZE, SIZE), conf)
    frame = Keyframe(index, None, (SIZE, SIZE))
    frame.localize(Pointmap(xyz, confidence))
    frame.register(Pointmap(xyz, confidence))
    return frame


@pytest.fixture
def networks(model: SLAM3R) -> Networks:
    return Networks(model, StreamingConfig())


@pytest.mark.parametrize("scale", [1e-4, 3.0, 1e5])
def test_key_points_do_not_depend_on_scale(networks: Networks, scale: float) -> None:
    plain, scaled = networks._key_points(keyframe(1)), networks._key_points(keyframe(1, scale))
    torch.testing.assert_close(scaled, plain)
    sure = plain.norm(dim=-1) > 0
    assert 0 < int(sure.sum()) < SIZE * SIZE, "some points are unsure, and zero"
    assert float(plain[sure].norm(dim=-1).mean()) == pytest.approx(1)


@pytest.mark.parametrize("scale", [1e-4, 3.0, 1e5])
def test_scene_points_do_not_depend_on_scale_but_their_factor_does(networks: Networks, scale: float) -> None:
    plain, factor = networks._scene_points([keyframe(1), keyframe(2)])
    scaled, other = networks._scene_points([keyframe(1, scale), keyframe(2, scale)])
    torch.testing.assert_close(scaled, plain)
    assert float(other / factor) == pytest.approx(scale, rel=1e-5)


def test_a_frame_without_a_sure_point_gives_zeros_not_nan(networks: Networks) -> None:
    assert torch.equal(networks._key_points(keyframe(1, conf=1.2)), torch.zeros(SIZE, SIZE, 3))


def test_a_scene_without_a_sure_point_keeps_its_size(networks: Networks) -> None:
    points, factor = networks._scene_points([keyframe(1, 5.0, conf=1.2)])
    assert float(points.norm(dim=-1).mean()) == pytest.approx(1, rel=1e-5)
    assert float(factor) == pytest.approx(float((points * factor).norm(dim=-1).mean()), rel=1e-5)
    assert float(factor) > 1
