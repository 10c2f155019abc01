"""Memory: only the frames in reach, the open segments and the buffer are alive, in every mode, and never more."""

from __future__ import annotations

import dataclasses
import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from threer.config import StreamingConfig
from threer.io.runs import RunWriter
from threer.models.slam3r import SLAM3R
from threer.pipelines.cameras import CameraTracker
from threer.pipelines.streaming import StreamingSession
from threer.types import Frame, Update

BASE = StreamingConfig(stride=2, radius=2, init_frames=3, init_min_conf=0, scene_frames=3, buffer_size=5)

MODES: dict[str, dict[str, Any]] = {
    "exact": {},
    "half precision": {"storage": "float16"},
    "low latency": {"deadline": 1},
    "pause": {"policy": "fifo", "anchors": 2},
    "lost": {"track_min_conf": 10.0, "buffer_min_conf": 0},
    "rounds": {"stride": 6, "radius": 1, "interval": 2},
}


@pytest.fixture
def frames(frames: list[Frame]) -> list[Frame]:
    """As many as it takes until no more is kept, and half as many again."""
    return frames[:45]


def clip(frames: list[Frame], mode: str) -> Iterator[Frame]:
    """The frames one by one, each with pixels of its own; in a pause one picture stays for a third of them."""
    for i, frame in enumerate(frames):
        shown = frames[20] if mode == "pause" and 20 < i < 35 else frame
        yield dataclasses.replace(frame, image=shown.image.clone())


def law(config: StreamingConfig, model: SLAM3R) -> int:
    """Bytes that docs/streaming.md allows a session after its beginning."""
    assert config.stride != "auto"
    size = model.input.size
    kept = 2 if config.storage == "float16" else 4
    tokens = (size // 16) ** 2 * model.i2p.config.enc_dim * kept
    points = 4 * size * size * kept
    image = 3 * size * size * 4
    reach, round_frames = config.radius * config.stride, max(1, min((config.stride + 1) // 2, config.round_frames))
    ring = 2 * reach + round_frames
    waiting = reach + round_frames
    segments = config.interval * config.stride + round_frames
    return ring * tokens + waiting * image + segments * (tokens + points) + config.buffer_size * (tokens + points)


@pytest.fixture
def fresh(model: SLAM3R, frames: list[Frame]) -> Iterator[None]:
    """Whatever lived before the test, model and frames included, is not looked at."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def bytes_alive() -> int:
    """Bytes of all tensors made since the test began, each storage once."""
    gc.collect()
    storages = {
        o.untyped_storage().data_ptr(): o.untyped_storage().nbytes()
        for o in gc.get_objects()
        if type(o) is torch.Tensor
    }
    return sum(storages.values())


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("mode", MODES)
def test_tensors_alive_stay_within_the_memory_law(model: SLAM3R, frames: list[Frame], mode: str) -> None:
    config = dataclasses.replace(BASE, **MODES[mode])
    session = StreamingSession(model, config, tracker=CameraTracker())
    alive = []
    for frame in clip(frames, mode):
        session.push(frame)
        alive.append(bytes_alive())
    assert max(alive[20:]) <= law(config, model)
    assert max(alive[20:]) > law(config, model) / 2, "the law is not tight, so it would not notice a leak"


def arrays_alive() -> int:
    """Bytes of all NumPy arrays that any object made since the test began refers to, each once."""
    gc.collect()
    found: dict[int, Any] = {}
    waiting: list[Any] = gc.get_objects()
    while waiting:
        for value in gc.get_referents(waiting.pop()):
            if id(value) not in found and not gc.is_tracked(value):  # arrays, and dicts of nothing else
                found[id(value)] = value
                waiting.append(value)
    return sum(value.nbytes for value in found.values() if isinstance(value, np.ndarray) and value.base is None)


@pytest.mark.usefixtures("fresh")
def test_the_run_store_adds_one_chunk_and_hardly_a_byte_for_each_frame_before(
    model: SLAM3R, frames: list[Frame], tmp_path: Path
) -> None:
    """Tensors and arrays, and what the writer itself holds, counted whenever a chunk was closed."""
    chunk, size, frames = 4, model.input.size, frames[:30]
    session = StreamingSession(model, BASE, tracker=CameraTracker())
    writer = RunWriter(tmp_path / "run", {}, chunk=chunk)
    tensors, arrays = [], []
    for lap in range(3):
        for i, frame in enumerate(clip(frames, "exact")):
            for update in session.push(dataclasses.replace(frame, index=len(frames) * lap + i)):
                writer.on(update)
                del update
            tensors.append(bytes_alive())
            arrays.append(arrays_alive())
    stored = size * size * (3 * 2 + 2 + 3) + 500  # half precision, colours, camera
    later = slice(len(frames), None)
    assert max(tensors[later]) <= law(BASE, model)
    assert chunk * stored / 3 < max(arrays[later]) <= chunk * stored + 4 * 4 * size * size
    assert max(arrays[-len(frames) :]) <= max(arrays[len(frames) : 2 * len(frames)])
    assert len(writer) > 80
    assert len(writer._frames) == len(writer), "a byte each"
    writer.close()


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("mode", MODES)
def test_what_was_emitted_is_gone_once_nobody_holds_it(model: SLAM3R, frames: list[Frame], mode: str) -> None:
    config = dataclasses.replace(BASE, **MODES[mode])
    session = StreamingSession(model, config)
    images, maps = [], []

    def watch(updates: list[Update]) -> None:
        for update in updates:
            assert update.points is not None
            maps.append((update.frame.index, weakref.ref(update.points)))

    for frame in clip(frames, mode):
        images.append(weakref.ref(frame.image))
        watch(session.push(frame))
    del frame
    gc.collect()
    done = session._next - 1
    assert [i for i, image in enumerate(images) if image() is not None and i <= done] == []
    kept = config.buffer_size + config.interval * config.stride + (config.stride + 1) // 2
    assert sum(points() is not None for _, points in maps) <= kept


def test_half_precision_halves_what_is_kept_and_hardly_moves_a_point(model: SLAM3R, frames: list[Frame]) -> None:
    results, alive = {}, {}
    for storage in ("float32", "float16"):
        session = StreamingSession(model, dataclasses.replace(BASE, storage=storage))  # type: ignore[arg-type]
        updates = [u for frame in frames for u in session.push(frame)]
        alive[storage] = session.stored_bytes
        results[storage] = torch.stack([u.points.xyz for u in updates if u.points is not None])
    assert alive["float16"] * 2 == alive["float32"] > 0
    assert results["float16"].dtype == torch.float32, "what is given out is not cut"
    error = (results["float16"] - results["float32"]).norm(dim=-1).mean() / results["float32"].norm(dim=-1).mean()
    assert 0 < error < 2e-3
