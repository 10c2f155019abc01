"""Cameras, by a device that is none: opening, reading, breaking off, coming back, closing."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

import threer.io.live.reconnecting
from threer.config import SourceConfig
from threer.errors import SourceError
from threer.io.images import RGBImage
from threer.io.live import CameraSource
from threer.io.live.reconnecting import BrokenOffError
from threer.io.sources import open_source

FRAME = 1 / 16  # seconds, exact in binary


@dataclasses.dataclass
class Bench:
    """A clock, and a socket into which cameras are plugged one after the other.

    cameras  how many pictures each gives before it breaks off; None for a socket that is empty at that time
    """

    cameras: list[int | None]
    now: float = 100.0
    open: int = 0
    read: int = 0

    def plug(self, index: int) -> FakeCamera:
        count = self.cameras.pop(0) if self.cameras else None
        if count is None:
            raise BrokenOffError("it is not there")
        self.open += 1
        return FakeCamera(self, count)


class FakeCamera:
    """Gives a picture every `FRAME` of the bench's clock, each one level brighter than the one before."""

    def __init__(self, bench: Bench, count: int) -> None:
        self._bench, self._left = bench, count

    def read(self) -> RGBImage | None:
        if not self._left:
            return None
        self._left -= 1
        self._bench.now += FRAME
        self._bench.read += 1
        return np.full((6, 8, 3), self._bench.read % 256, np.uint8)

    def close(self) -> None:
        self._bench.open -= 1


def camera(bench: Bench, **settings: object) -> CameraSource:
    source = CameraSource(0, SourceConfig(**settings), open_device=bench.plug, now=lambda: bench.now)  # type: ignore[arg-type]

    def wait(seconds: float) -> bool:
        bench.now += seconds
        return False

    source._stopped.wait = wait  # type: ignore[method-assign, assignment]
    return source


def levels(frames: Sequence[object]) -> list[int]:
    return [int(frame.image[0, 0, 0]) for frame in frames]  # type: ignore[attr-defined]


def test_frames_and_the_moments_they_were_read() -> None:
    bench = Bench([10])
    source = camera(bench, max_frames=4)
    frames = list(source)
    assert levels(frames) == [1, 2, 3, 4]
    assert [frame.timestamp for frame in frames] == [0, FRAME, 2 * FRAME, 3 * FRAME]
    assert frames[1].name == "camera:0@0.062s"
    assert (source.live, source.kind, source.is_sequence, source.expected) == (True, "video", True, 4)
    assert bench.open == 0, "closed when it is done"


def test_closed_when_the_reader_stops() -> None:
    bench = Bench([10])
    frames = iter(camera(bench))
    next(frames)
    assert bench.open == 1
    frames.close()  # type: ignore[attr-defined]
    assert bench.open == 0

    bench = Bench([10])
    source = camera(bench)
    frames = iter(source)
    next(frames)
    source.stop()
    assert list(frames) == []
    assert bench.open == 0


def test_fps_start_and_end() -> None:
    assert levels(list(camera(Bench([33]), fps=4, max_frames=5))) == [1, 4, 8, 12, 16]
    bench = Bench([100])
    frames = list(camera(bench, start=1.0, end=1.5))
    assert [frame.timestamp for frame in frames] == [1 + k * FRAME for k in range(8)]
    assert frames[0].index == 0
    assert bench.read == 25, "the first frame after the end is the last one read"


def test_a_camera_that_comes_back_leaves_a_gap() -> None:
    bench = Bench([3, None, None, 2, 4])
    source = camera(bench, max_frames=6)
    frames = list(source)
    assert levels(frames) == [1, 2, 3, 4, 5, 6]
    # Tries after 0.5, 1 and 2 s; then, after the second break, 0.5 s.
    gaps = np.diff([frame.timestamp for frame in frames])
    np.testing.assert_allclose(gaps, [FRAME, FRAME, 3.5 + FRAME, FRAME, 0.5 + FRAME])
    assert source.breaks == 2
    assert source.notes == ["camera:0 broke off and came back, 2 times in all; the gaps add up to 4.1 s"]
    assert bench.open == 0


def test_it_ends_after_as_many_tries_as_allowed() -> None:
    bench = Bench([3, None, None, 2])
    source = camera(bench, reconnects=2)
    assert levels(list(source)) == [1, 2, 3]
    assert bench.cameras == [2], "two tries, no third"
    assert source.notes == ["camera:0 ended at 0.1 s: it is not there, and it did not come back in 2 tries"]
    source = camera(Bench([3]), reconnects=0)
    assert len(list(source)) == 3
    assert source.notes == ["camera:0 ended at 0.1 s: it gives no more pictures"]


def test_waiting_grows_up_to_a_limit() -> None:
    bench = Bench([1])
    pauses: list[float] = []
    source = camera(bench, reconnects=8)
    source._stopped.wait = lambda seconds: pauses.append(seconds)  # type: ignore[method-assign, assignment]
    list(source)
    assert pauses == [0.5, 1, 2, 4, 8, 10, 10, 10]


def test_notes_do_not_grow_with_the_breaks() -> None:
    source = camera(Bench([1] * 300), reconnects=1)
    assert len(list(source)) == 300
    assert source.breaks == 299
    assert len(source.notes) == 2


def test_stop_ends_the_wait_for_a_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threer.io.live.reconnecting, "FIRST_PAUSE", 60.0)
    bench = Bench([1])
    source = CameraSource(0, SourceConfig(), open_device=bench.plug)
    frames = iter(source)
    next(frames)
    source.stop()
    assert list(frames) == []


def test_no_such_camera() -> None:
    with pytest.raises(SourceError) as caught:
        list(open_source("camera:987"))
    assert str(caught.value).startswith("cannot read camera:987: it is not there, or in use by another program; ")
    assert "\n" not in str(caught.value)


def test_opencv_says_nothing_of_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SourceError):
        list(open_source("camera:987"))
    assert capfd.readouterr() == ("", "")


def test_a_camera_without_pictures() -> None:
    with pytest.raises(SourceError, match="cannot read camera:0: it gives no more pictures"):
        list(camera(Bench([0])))


@pytest.mark.parametrize("name", ["camera:", "camera:x", "camera:-1", "camera:1.5"])
def test_a_camera_has_a_number(name: str) -> None:
    with pytest.raises(SourceError, match="give its number, as in camera:0"):
        open_source(name)
