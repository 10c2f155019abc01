"""Low latency: provisional points on time, replaced by the very same finals as without a deadline."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import pytest
import torch

from threer.config import StreamingConfig
from threer.errors import ThreerError
from threer.models.slam3r import SLAM3R
from threer.pipelines.cameras import CameraTracker
from threer.pipelines.streaming import StreamingSession
from threer.pipelines.streaming.schedule import Schedule
from threer.types import Frame, Update

BASE = StreamingConfig(
    stride=2, radius=2, init_frames=3, init_min_conf=0, scene_frames=3, buffer_size=5, encode_batch=1
)
RHYTHMS = [
    {"stride": 1, "radius": 3, "deadline": 0},
    {"stride": 2, "deadline": 1},
    {"stride": 5, "radius": 2, "deadline": 0},
    {"stride": 5, "radius": 2, "deadline": 4, "round_frames": 2},
    {"stride": 4, "radius": 1, "deadline": 4},  # the whole reach: nothing to preview
]


def run(model: SLAM3R, frames: list[Frame], config: StreamingConfig, **options: Any) -> list[tuple[int, Update]]:
    """(frames that had come in before, update)."""
    session = StreamingSession(model, config, **options)
    heard = [(now, update) for now, frame in enumerate(frames) for update in session.push(frame)]
    return heard + [(len(frames), update) for update in session.finish()]


@pytest.mark.parametrize("changes", RHYTHMS, ids=str)
def test_every_frame_is_final_once_in_order_within_its_latency(
    model: SLAM3R, frames: list[Frame], changes: dict[str, Any]
) -> None:
    config = dataclasses.replace(BASE, **changes)
    assert config.stride != "auto"
    assert config.deadline is not None
    schedule = Schedule.of(config, config.stride)
    heard = run(model, frames, config)
    for kind, wait in (("final", schedule.reach), ("provisional", config.deadline)):
        timed = [(now, u) for now, u in heard if u.kind == kind]
        indices = [u.frame.index for _, u in timed]
        assert indices == sorted(set(indices)), kind
        # Frames that came in during the initial wait are late by what they waited.
        begun = (config.init_frames - 1 + (config.radius if config.stride > 1 else 0)) * config.stride
        for now, update in timed:
            assert now <= max(update.frame.index + wait + schedule.round_frames - 1, begun), kind
    assert [u.frame.index for _, u in heard if u.kind == "final"] == list(range(len(frames)))
    assert {u.kind for _, u in heard} <= {"final", "provisional"}


@pytest.mark.parametrize("changes", RHYTHMS, ids=str)
def test_steady_frames_have_a_preview_and_then_the_next_version(
    model: SLAM3R, frames: list[Frame], changes: dict[str, Any]
) -> None:
    config = dataclasses.replace(BASE, **changes)
    assert config.stride != "auto"
    heard = run(model, frames, config)
    count = Counter(u.frame.index for _, u in heard)
    steady = range(40, 45)
    previewed = config.deadline != config.radius * config.stride
    assert {count[i] for i in steady} == {2 if previewed else 1}
    for i in range(len(frames)):
        versions = [u.version for _, u in heard if u.frame.index == i]
        kinds = [u.kind for _, u in heard if u.frame.index == i]
        assert versions == list(range(len(versions)))
        assert kinds == ["provisional"] * (len(kinds) - 1) + ["final"]


@pytest.mark.parametrize("changes", RHYTHMS, ids=str)
def test_finals_do_not_know_of_previews(model: SLAM3R, frames: list[Frame], changes: dict[str, Any]) -> None:
    """Bit for bit: points, confidence, cameras and every decision."""
    results = []
    for deadline in (None, changes["deadline"]):
        config = dataclasses.replace(BASE, **{**changes, "deadline": deadline})
        decisions: list[dict[str, Any]] = []
        heard = run(model, frames[:40], config, tracker=CameraTracker(), trace=decisions.append)
        results.append(([u for _, u in heard if u.kind == "final"], decisions))
    (exact, decided), (quick, decided_too) = results
    assert decided == decided_too
    for a, b in zip(exact, quick, strict=True):
        assert a.points is not None
        assert b.points is not None
        assert torch.equal(a.points.xyz, b.points.xyz)
        assert torch.equal(a.points.conf, b.points.conf)
        torch.testing.assert_close(torch.tensor(a.c2w), torch.tensor(b.c2w), rtol=0, atol=0, equal_nan=True)


def test_previews_are_of_the_frame_and_have_a_camera(model: SLAM3R, frames: list[Frame]) -> None:
    heard = run(model, frames, dataclasses.replace(BASE, deadline=1), tracker=CameraTracker())
    finals = {u.frame.index: u for _, u in heard if u.kind == "final"}
    previews = [u for _, u in heard if u.kind == "provisional"]
    assert len(previews) > 40
    for preview in previews:
        final = finals[preview.frame.index]
        assert preview.points is not None
        assert final.points is not None
        assert preview.frame is final.frame
        assert preview.c2w is not None
        assert not torch.equal(preview.points.xyz, final.points.xyz), "made from other neighbours"


def test_the_past_stands_in_for_the_missing_future() -> None:
    schedule = Schedule(stride=3, radius=2, round_frames=2)
    assert schedule.neighbours(30, 100) == [27, 33, 24, 36]
    assert schedule.neighbours(30, 34) == [27, 33, 24, 21]
    assert schedule.neighbours(30, 31) == [27, 24, 21, 18]
    assert schedule.neighbours(3, 4) == [0]


def test_a_negative_deadline_is_refused() -> None:
    with pytest.raises(ThreerError, match="deadline"):
        StreamingConfig(deadline=-1)
