"""Delayed-exact streaming gives, bit for bit, what a plain offline program gives that keeps everything."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from pipelines.offline_reference import reconstruct_offline
from threer.config import StreamingConfig
from threer.models.slam3r import SLAM3R
from threer.pipelines.streaming import StreamingSession
from threer.types import Frame

BASE = StreamingConfig(
    stride=2, radius=2, init_frames=3, init_min_conf=0, scene_frames=3, buffer_size=5, encode_batch=1
)


@pytest.mark.parametrize(
    "changes",
    [
        {"stride": 1},
        {"stride": 2},
        {"stride": 5, "radius": 3, "round_frames": 2, "retrieval_queries": "every_second"},
        {"stride": 3, "policy": "fifo", "interval": 2},
        {"stride": 4, "init_frames": 5, "init_min_conf": 1e9},  # shrinks to three frames
    ],
    ids=str,
)
def test_online_equals_offline_bit_for_bit(model: SLAM3R, frames: list[Frame], changes: dict[str, object]) -> None:
    config = dataclasses.replace(BASE, **changes)  # type: ignore[arg-type]
    session = StreamingSession(model, config)
    updates = [u for frame in frames for u in session.push(frame)] + session.finish()
    expected = reconstruct_offline(model, frames, config)
    assert len(updates) == len(expected) == len(frames)
    for update, (world, local) in zip(updates, expected, strict=True):
        assert update.points is not None
        assert update.local is not None
        assert torch.equal(update.points.xyz, world.xyz), update.frame.index
        assert torch.equal(update.points.conf, world.conf), update.frame.index
        assert torch.equal(update.local.xyz, local.xyz), update.frame.index
