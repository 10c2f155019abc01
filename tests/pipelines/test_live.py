"""Back-pressure: a source that does not wait is thinned evenly, and every frame left out is told."""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
import threading
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest

import threer
from threer.config import ReconstructConfig, SourceConfig, StreamingConfig
from threer.errors import SourceError
from threer.io.frames import FrameSource, RawFrame, to_frame
from threer.io.runs import Scene
from threer.models.checkpoints import save_checkpoint
from threer.models.slam3r import SLAM3R
from threer.pipelines.live import CAPACITY, Backlog, LiveFeed
from threer.types import Checkpoint, Update


def raw(index: int) -> RawFrame:
    return RawFrame(np.zeros((2, 3, 3), np.uint8), index, index / 30, str(index))


def picture(index: int) -> np.ndarray:
    x, y = np.meshgrid(np.arange(60), np.arange(40))
    return np.stack([x * 4, y * 6, (x + y + 5 * index) % 256], axis=-1).astype(np.uint8)


def simulate(work: list[float], round_frames: int = 1) -> tuple[list[int], list[int], Backlog, int]:
    """A frame comes in at every tick, reconstructing one takes ``work[tick]`` ticks, in rounds.

    Gives the frames reconstructed, those dropped, the backlog and the most that ever waited.
    """
    backlog, taken, dropped, most = Backlog(), [], [], 0
    free, pending = 0.0, 0
    for now in range(len(work)):
        backlog.put(raw(now))
        most = max(most, len(backlog))
        while len(backlog) and free <= now:
            frame = backlog.take()
            dropped += [f.index for f in backlog.dropped(frame.index)]
            taken.append(frame.index)
            pending += 1
            if pending == round_frames:
                free = max(free, frame.index) + work[now] * round_frames
                pending = 0
    while len(backlog):
        taken.append(backlog.take().index)
    dropped += [f.index for f in backlog.dropped()]
    return taken, dropped, backlog, most


@pytest.mark.parametrize("round_frames", [1, 10])
def test_nothing_is_dropped_while_the_pace_is_held(round_frames: int) -> None:
    taken, dropped, backlog, _ = simulate([0.8] * 2000, round_frames)
    assert taken == list(range(2000))
    assert dropped == []
    assert backlog.step == 1


@pytest.mark.parametrize("round_frames", [1, 10])
@pytest.mark.parametrize("slowness", [1.3, 2.0, 3.4, 7.5])
def test_frames_are_left_out_evenly(slowness: float, round_frames: int) -> None:
    count = 6000
    taken, dropped, _, most = simulate([slowness] * count, round_frames)
    assert sorted(taken + dropped) == list(range(count)), "each frame is taken or told as dropped, once"
    assert most <= CAPACITY
    assert taken == sorted(taken)
    assert dropped == sorted(dropped)
    steady = [b - a for a, b in itertools.pairwise(taken) if a > count // 3]
    assert max(steady) <= 2 * math.ceil(slowness)
    assert min(steady) >= slowness // 2
    changes = sum(a != b for a, b in itertools.pairwise(steady))
    assert changes < len(steady) / 8, "the spacing is kept for long stretches"
    # As many are taken as can be reconstructed: thinning is no stronger than it must be.
    assert len(taken) * slowness > 0.9 * count


def test_a_single_long_pause_is_thinned_evenly_and_the_full_rate_comes_back() -> None:
    """One frame that takes as long as 150 come in: the beginning of a stream, or a machine that was busy."""
    taken, dropped, backlog, most = simulate([0.5] * 100 + [150] + [0.5] * 2500)
    assert most <= CAPACITY
    gaps = [b - a for a, b in itertools.pairwise(taken)]
    assert max(gaps) <= 8
    assert gaps[:100] == [1] * 100
    assert gaps[-1000:] == [1] * 1000
    assert backlog.step == 1
    assert dropped
    assert len(dropped) < 600


class Lockstep(FrameSource):
    """A live source whose time passes only when told: `let` so many frames come in, and see them arrive."""

    kind = "video"
    live = True
    is_sequence = True
    name = "lockstep"

    def __init__(self, count: int, broken: str = "") -> None:
        super().__init__(SourceConfig())
        self.expected = None
        self.count, self.broken = count, broken
        self._allowed, self._delivered = 1, 0
        self._change = threading.Condition()

    def let(self, number: int) -> None:
        with self._change:
            self._allowed += number
            self._change.notify_all()
            # A frame has been taken in when the next one is asked for.
            self._change.wait_for(lambda: self._delivered >= min(self._allowed, self.count))

    def stop(self) -> None:
        super().stop()
        with self._change:
            self._allowed = self._delivered = self.count
            self._change.notify_all()

    def _pictures(self) -> Generator[tuple[float, str, np.ndarray], None, None]:
        for i in range(self.count):
            with self._change:
                self._change.wait_for(lambda due=i: due < self._allowed)
            yield i / 30, str(i), picture(i)
            with self._change:
                self._delivered = max(self._delivered, i + 1)
                self._change.notify_all()
        if self.broken:
            raise SourceError(self.broken)

    def _why_nothing(self) -> str:
        return "nothing"


def test_a_feed_gives_every_frame_of_a_source_that_is_slower() -> None:
    source = Lockstep(50)
    feed = LiveFeed(source)
    seen = []
    for frame in feed:
        seen.append(frame.index)
        source.let(1)
    assert seen == list(range(50))
    assert feed.dropped() == []


def test_a_feed_passes_on_what_reading_raised() -> None:
    source = Lockstep(5, broken="the camera was pulled out")
    seen = []

    def read() -> None:
        for frame in LiveFeed(source):
            seen.append(frame.index)
            source.let(1)

    with pytest.raises(SourceError, match="pulled out"):
        read()
    assert seen == list(range(5))


def test_what_breaks_after_a_feed_was_stopped_is_nobodys_trouble() -> None:
    source = Lockstep(5, broken="the camera is gone")
    feed, seen = LiveFeed(source), []
    for frame in feed:
        seen.append(frame.index)
        feed.stop()  # which lets the source come to its end, and break
        until_read()
    assert seen == [0]


def until_read() -> None:
    for thread in threading.enumerate():
        if thread.name == "live source":
            thread.join(timeout=10)


def test_a_camera_that_breaks_when_it_is_ended_makes_a_complete_run(
    config: ReconstructConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Lockstep(1000, broken="the camera was switched off")

    def prepared(frame: RawFrame, spec: object) -> object:
        source.let(1)
        if frame.index == 12:
            os.kill(os.getpid(), signal.SIGINT)  # once: it ends the source
            until_read()
        return to_frame(frame, spec)  # type: ignore[arg-type]

    monkeypatch.setattr("threer.pipelines.reconstruct.open_source", lambda *_: source)
    monkeypatch.setattr("threer.pipelines.reconstruct.to_frame", prepared)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        scene = threer.reconstruct("camera", tmp_path / "out", config)
    finally:
        signal.signal(signal.SIGINT, before)
    assert scene.state == "complete"
    assert len(scene) > 12


@pytest.fixture
def config(model: SLAM3R, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ReconstructConfig:
    save_checkpoint(model, tmp_path / "tiny", Checkpoint("tiny", "slam3r", (), "Apache-2.0"))
    monkeypatch.setattr("threer.pipelines.reconstruct.draw_preview", lambda scene: None)
    streaming = StreamingConfig(stride=1, radius=2, init_frames=3, init_min_conf=0, scene_frames=3)
    return ReconstructConfig(weights=str(tmp_path / "tiny"), streaming=streaming, device="cpu")


def test_reconstruction_of_a_camera_that_is_three_times_too_fast(
    config: ReconstructConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Lockstep(240)

    def slow(frame: RawFrame, spec: object) -> object:
        source.let(3)  # while this frame is prepared, three come in
        return to_frame(frame, spec)  # type: ignore[arg-type]

    monkeypatch.setattr("threer.pipelines.reconstruct.open_source", lambda *_: source)
    monkeypatch.setattr("threer.pipelines.reconstruct.to_frame", slow)
    heard: list[Update] = []

    class Listener:
        def on(self, update: Update) -> None:
            heard.append(update)

    scene = threer.reconstruct("camera", tmp_path / "out", config, observers=[Listener()])
    final = [u.frame.index for u in heard if u.kind == "final"]
    dropped = [u.frame.index for u in heard if u.kind == "dropped"]
    assert sorted(final + dropped) == list(range(240))
    assert final == sorted(final)
    assert 240 / 3 <= len(final) <= 240 / 3 + 2 * CAPACITY
    assert all(u.points is None and "faster" in u.message for u in heard if u.kind == "dropped")
    assert heard[-1].frame.original_size == (60, 40)
    assert len(scene) == len(final)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["counts"]["dropped"] == len(dropped)
    assert report["counts"]["final"] == len(final)


def test_a_live_run_that_breaks_keeps_what_was_final_and_stops_reading(
    config: ReconstructConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Lockstep(1000)

    def prepared(frame: RawFrame, spec: object) -> object:
        if frame.index == 12:
            raise KeyboardInterrupt
        source.let(1)
        return to_frame(frame, spec)  # type: ignore[arg-type]

    monkeypatch.setattr("threer.pipelines.reconstruct.open_source", lambda *_: source)
    monkeypatch.setattr("threer.pipelines.reconstruct.to_frame", prepared)
    with pytest.raises(KeyboardInterrupt):
        threer.reconstruct("camera", tmp_path / "out", config)
    scene = Scene.open(tmp_path / "out")
    assert scene.state == "interrupted"
    assert len(scene) == 10
    (note,) = scene.report["notes"]
    assert note.startswith("2 frames of those from 10 to 11 were taken, but not final")
    for thread in threading.enumerate():
        if thread.name == "live source":
            thread.join(timeout=10)
            assert not thread.is_alive()
