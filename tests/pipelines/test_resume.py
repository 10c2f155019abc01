"""A session that is saved and restored goes on bit for bit, wherever it was and whatever it does."""

from __future__ import annotations

import dataclasses
import gc
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from threer.config import StreamingConfig
from threer.errors import RunError
from threer.io.runs.snapshot import Snapshots
from threer.models.slam3r import SLAM3R
from threer.pipelines.cameras import CameraTracker
from threer.pipelines.streaming import StreamingSession
from threer.pipelines.streaming.resume import CLASSES, restore_session, save_session
from threer.types import Frame, Update

BASE = StreamingConfig(stride=2, radius=2, init_frames=3, init_min_conf=0, scene_frames=3, buffer_size=5)
SETTINGS = {
    "plain": BASE,
    "stride search": dataclasses.replace(BASE, stride="auto", stride_frames=20),
    "parity": StreamingConfig.parity(
        stride="auto", init_frames=3, init_min_conf=0, scene_frames=3, buffer_size=5, stride_frames=20
    ),
    "low latency": dataclasses.replace(BASE, deadline=1),
    "half precision": dataclasses.replace(BASE, storage="float16"),
    "losing track": dataclasses.replace(BASE, track_min_conf=1.0, lost_after=2, anchors=2),
}
SAVED_AT = (3, 18, 24, 31)
"""Before the first window is whole, in the stride search, at the picture that came twice, and near the end."""


def new_session(model: SLAM3R, config: StreamingConfig) -> StreamingSession:
    return StreamingSession(model, config, tracker=CameraTracker())


def assert_same(got: Sequence[Update], expected: Sequence[Update]) -> None:
    assert [(u.kind, u.frame.index, u.version, u.message) for u in got] == [
        (u.kind, u.frame.index, u.version, u.message) for u in expected
    ]
    for a, b in zip(got, expected, strict=True):
        for name in ("points", "local"):
            left, right = getattr(a, name), getattr(b, name)
            assert (left is None) == (right is None)
            if left is not None:
                assert torch.equal(left.xyz, right.xyz), (name, a.frame.index)
                assert torch.equal(left.conf, right.conf)
        np.testing.assert_array_equal(a.c2w, b.c2w)
        np.testing.assert_array_equal(a.K, b.K)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_restored_session_goes_on_bit_for_bit(
    model: SLAM3R, frames: list[Frame], tmp_path: Path, name: str
) -> None:
    config = SETTINGS[name]
    clip = [*frames[:24], dataclasses.replace(frames[23], index=24), *frames[25:34]]  # one picture comes twice
    session = new_session(model, config)
    ahead: list[list[Update]] = []
    snapshots = Snapshots(tmp_path)
    restored: list[tuple[int, StreamingSession]] = []
    for k, frame in enumerate(clip):
        if k in SAVED_AT:
            snapshots.write(*save_session(session))
            found = Snapshots(tmp_path).read()
            assert found is not None
            again = new_session(model, config)
            restore_session(again, *found)
            restored.append((k, again))
        ahead.append(session.push(frame))
    rest = session.finish()
    for k, again in restored:
        got = [u for frame in clip[k:] for u in again.push(frame)] + again.finish()
        assert_same(got, [u for updates in ahead[k:] for u in updates] + rest)
        assert again.report == session.report


def test_what_was_shared_is_shared_again(model: SLAM3R, frames: list[Frame]) -> None:
    session = new_session(model, BASE)
    for frame in frames[:30]:
        session.push(frame)
    again = new_session(model, BASE)
    state, tensors = save_session(session)
    restore_session(again, json.loads(json.dumps(state)), tensors)
    assert again._buffer is not None
    assert again.alive == session.alive
    for keyframe in again._buffer.keyframes:
        assert again._keyframes[keyframe.index] is keyframe
    assert again._buffer._draws is again._draws


def test_saving_keeps_nothing_alive_and_changes_nothing(model: SLAM3R, frames: list[Frame], tmp_path: Path) -> None:
    def alive() -> int:
        gc.collect()
        return sum(type(o) is torch.Tensor for o in gc.get_objects())

    session, watched = new_session(model, BASE), new_session(model, BASE)
    plain = [u for f in frames[:40] for u in session.push(f)]
    snapshots = Snapshots(tmp_path)
    saved = []
    for frame in frames[:40]:
        saved += watched.push(frame)
        snapshots.write(*save_session(watched))
    assert_same(saved, plain)
    saved.clear()
    before = alive()
    del watched
    assert alive() < before - 10, "the snapshots know what they wrote, but do not hold it"


def test_a_value_of_an_unknown_kind_is_named(model: SLAM3R) -> None:
    session = new_session(model, BASE)
    session._later = open  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match=r"session\._later is a builtin_function_or_method"):
        save_session(session)


@pytest.mark.parametrize("change", ["less", "more", "class", "field"])
def test_a_session_of_another_version_is_refused(model: SLAM3R, frames: list[Frame], change: str) -> None:
    session = new_session(model, BASE)
    session.push(frames[0])
    state, tensors = save_session(session)
    root, *others = state["objects"]
    keyframe = next(o for o in others if o["class"] == "Keyframe")
    if change == "less":
        del root["fields"]["_count"]
    elif change == "more":
        root["fields"]["_new"] = 1
    elif change == "class":
        keyframe["class"] = "Popen"
    else:
        keyframe["fields"].pop("tokens")
    with pytest.raises(RunError, match="another version"):
        restore_session(new_session(model, BASE), state, tensors)


def test_every_part_of_a_session_can_be_saved(model: SLAM3R, frames: list[Frame]) -> None:
    """All classes are met in some session, so none is listed for nothing and none is missing.

    Those of loops are met in `test_stream_loops`.
    """
    met: set[str] = set()
    for config in SETTINGS.values():
        session = new_session(model, config)
        for frame in [*frames[:30], frames[29]]:
            session.push(frame)
            met |= {entry["class"] for entry in save_session(session)[0]["objects"]}
    assert met == set(CLASSES) - {"LoopCloser", "Place", "Found", "Loop", "Edge", "Sim3"}
