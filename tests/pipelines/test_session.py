"""The event loop: every frame once, in order, on time, in bounded memory, whatever the settings."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from threer.config import StreamingConfig
from threer.errors import CheckpointError, ReconstructionError, ThreerError
from threer.models.slam3r import SLAM3R
from threer.pipelines.cameras import CameraTracker
from threer.pipelines.streaming import StreamingSession
from threer.pipelines.streaming.bootstrap import window
from threer.types import Frame, Update

BASE = StreamingConfig(stride=2, radius=2, init_frames=3, init_min_conf=0, scene_frames=3, buffer_size=5)


@pytest.fixture
def frames(frames: list[Frame]) -> list[Frame]:
    """As many as the buffer needs to be full for a while."""
    return frames[:40]


def stream(model: SLAM3R, frames: list[Frame], config: StreamingConfig, **options: Any) -> list[Update]:
    session = StreamingSession(model, config, **options)
    updates = [u for frame in frames for u in session.push(frame)]
    return updates + session.finish()


@pytest.mark.parametrize("stride", [1, 2, 5, "auto"])
def test_every_frame_is_final_once_and_in_order(model: SLAM3R, frames: list[Frame], stride: Any) -> None:
    updates = stream(model, frames, dataclasses.replace(BASE, stride=stride, stride_frames=20))
    assert [u.frame.index for u in updates] == list(range(len(frames)))
    assert all(u.kind == "final" and u.points is not None for u in updates)


@pytest.mark.parametrize("stride", [1, 3])
def test_latency_is_radius_times_stride_plus_the_round(model: SLAM3R, frames: list[Frame], stride: int) -> None:
    config = dataclasses.replace(BASE, stride=stride)
    session = StreamingSession(model, config)
    round_size = max(1, (stride + 1) // 2)
    waited = []
    for now, frame in enumerate(frames):
        waited += [now - u.frame.index for u in session.push(frame)]
    steady = waited[(config.init_frames - 1) * stride + 1 :]
    assert max(steady) == config.radius * stride + round_size - 1
    assert min(steady) == config.radius * stride


def test_result_does_not_depend_on_how_frames_arrive(model: SLAM3R, frames: list[Frame]) -> None:
    """A frame's result is fixed once the frames in its reach have come: a longer video changes nothing before."""
    long = stream(model, frames, BASE)
    session = StreamingSession(model, BASE)
    early = [u for frame in frames[:30] for u in session.push(frame)]
    assert len(early) > 20
    for a, b in zip(early, long, strict=False):
        assert a.points is not None
        assert b.points is not None
        assert torch.equal(a.points.xyz, b.points.xyz)
        assert torch.equal(a.points.conf, b.points.conf)


def test_only_reach_segments_and_buffer_are_kept(model: SLAM3R, frames: list[Frame]) -> None:
    session = StreamingSession(model, BASE)
    alive = []
    for frame in frames:
        session.push(frame)
        alive.append(session.alive)
    reach = 2 * BASE.radius * 2 + 1 + 2
    assert max(alive[20:]) <= reach + BASE.buffer_size + 2 * 2


def test_images_and_maps_of_emitted_frames_are_let_go(model: SLAM3R, frames: list[Frame]) -> None:
    session = StreamingSession(model, BASE)
    for frame in frames:
        session.push(frame)
    kept = session._buffer.keyframes  # type: ignore[union-attr]
    done = [k for k in session._keyframes.values() if k.index < session._next]
    assert done
    assert all(k.frame is None and k.local is None for k in done)
    open_from = session._buffer.milestone  # type: ignore[union-attr]
    assert all(k.world is None for k in done if k not in kept and k.index < open_from)


def test_same_seed_same_result_other_seed_other_buffer(model: SLAM3R, frames: list[Frame]) -> None:
    def buffers(seed: int) -> list[list[int]]:
        seen: list[list[int]] = []
        stream(
            model,
            frames,
            dataclasses.replace(BASE, seed=seed),
            trace=lambda e: seen.append(e["buffer_frames"]) if e["kind"] == "retrieve" else None,
        )
        return seen

    assert buffers(1) == buffers(1)
    assert buffers(1) != buffers(2)


def test_points_of_unsure_frames_are_marked_failed(model: SLAM3R, frames: list[Frame]) -> None:
    session = StreamingSession(model, dataclasses.replace(BASE, point_conf=1e9), tracker=CameraTracker())
    updates = [u for f in frames[:20] for u in session.push(f)] + session.finish()
    failed = [u for u in updates if u.kind == "failed"]
    assert failed, "nothing can be above such a threshold"
    for update in failed:
        assert update.points is not None
        assert update.c2w is not None
        assert float(update.points.conf.max()) == 0
        assert not torch.isfinite(torch.as_tensor(update.c2w)).any()
        assert "confident" in update.message


@pytest.mark.parametrize(("number", "words"), [(0, "no frame"), (1, "one frame")])
def test_too_few_frames_is_said_plainly(model: SLAM3R, frames: list[Frame], number: int, words: str) -> None:
    session = StreamingSession(model, BASE)
    for frame in frames[:number]:
        session.push(frame)
    with pytest.raises(ReconstructionError, match=words):
        session.finish()


def test_stride_larger_than_the_clip_is_said_plainly(model: SLAM3R, frames: list[Frame]) -> None:
    with pytest.raises(ReconstructionError, match="at least 20 frames"):
        stream(model, frames[:15], dataclasses.replace(BASE, stride=10))


@pytest.mark.parametrize("number", [2, 3, 4, 7])
def test_short_clips_work(model: SLAM3R, frames: list[Frame], number: int) -> None:
    updates = stream(model, frames[:number], dataclasses.replace(BASE, stride="auto", init_frames=5))
    assert [u.frame.index for u in updates] == list(range(number))


def test_frames_of_another_size_are_refused(model: SLAM3R, frames: list[Frame]) -> None:
    session = StreamingSession(model, BASE)
    session.push(frames[0])
    odd = dataclasses.replace(frames[1], image=torch.zeros(3, 48, 32), name="odd.png")
    with pytest.raises(ReconstructionError, match=r"odd\.png"):
        session.push(odd)


def test_push_after_the_end_is_refused(model: SLAM3R, frames: list[Frame]) -> None:
    session = StreamingSession(model, BASE)
    for frame in frames[:10]:
        session.push(frame)
    session.finish()
    assert session.finish() == []
    with pytest.raises(ReconstructionError, match="ended"):
        session.push(frames[10])


def test_broken_weights_are_named_not_passed_on(frames: list[Frame], model: SLAM3R) -> None:
    import copy

    broken = copy.deepcopy(model)
    broken.l2w.decoder_norm.weight.data.fill_(float("nan"))
    with pytest.raises(CheckpointError, match="non-finite"):
        stream(broken, frames[:20], BASE)


def test_windows_are_clipped_at_the_ends() -> None:
    assert window(10, 2, 2, 100) == [10, 8, 12, 6, 14]
    assert window(1, 2, 2, 100) == [1, 3, 5]
    assert window(99, 3, 2, 100) == [99, 96, 93]


@pytest.mark.parametrize(
    ("stride", "frames", "rounds", "size"), [(20, 2000, 192, 10), (5, 500, 160, 3), (1, 300, 295, 1)]
)
def test_round_arithmetic(stride: int, frames: int, rounds: int, size: int) -> None:
    """pipelines.md section 6, point 1, on a model that costs nothing."""
    sizes: list[int] = []

    def count(event: dict[str, Any]) -> None:
        if event["kind"] == "retrieve":
            sizes.append(0)
        elif event["kind"] == "l2w" and sizes:
            sizes[-1] = len(event["keys"])

    config = StreamingConfig(stride=stride, init_min_conf=0, duplicate_tolerance=0)  # all pictures are the same
    session = StreamingSession(Nothing(), config, trace=count)
    image = torch.zeros(3, 16, 16)
    import numpy as np

    for i in range(frames):
        session.push(Frame(image, i, float(i), str(i), (16, 16), np.eye(2, 3)))
    session.finish()
    assert len(sizes) == rounds
    assert max(sizes) == size
    unconsidered = frames - session._buffer.milestone  # type: ignore[union-attr]
    assert unconsidered == (frames - (4 * stride + 1)) % stride
    if stride == 20:
        assert unconsidered == 19


class Nothing(torch.nn.Module):
    """A streaming model that answers at once with the same points."""

    def __init__(self) -> None:
        super().__init__()
        from threer.config import InputSpec

        self.input = InputSpec(16)
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(images), 1, 1)

    def _answer(self, views: Any) -> list[Any]:
        from threer.types import Pointmap, Prediction

        batch = views[0].batch
        points = Pointmap(torch.ones(batch, 2, 2, 3), torch.full((batch, 2, 2), 6.0))
        return [Prediction(points, "reference") for _ in views]

    def local(self, views: Any, ref: int = 0, reference_only: bool = False) -> list[Any]:
        return self._answer(views[:1] if reference_only else views)

    def register(self, scene: Any, keys: Any, keys_only: bool = False) -> list[Any]:
        return self._answer(keys if keys_only else [*scene, *keys])

    def affinity(self, key: Any, candidates: Any) -> torch.Tensor:
        return torch.full((len(candidates), key.batch, 1), 2.0)


def test_settings_out_of_range_are_refused() -> None:
    for bad in ({"stride": 0}, {"radius": 0}, {"buffer_size": 3}, {"scene_frames": 0}):
        with pytest.raises(ThreerError, match=next(iter(bad))):
            StreamingConfig(**bad)  # type: ignore[arg-type]
