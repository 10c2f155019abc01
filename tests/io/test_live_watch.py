"""A folder that grows while it is read."""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import threer.io.live.watch
from threer.config import SourceConfig
from threer.errors import SourceError
from threer.io.frames import RawFrame
from threer.io.live import WatchedFolder
from threer.io.sources import open_source

SIZE = (24, 16)


def png(level: int) -> bytes:
    """A picture that does not compress, of a known mean: cut anywhere, it is not whole."""
    noise = np.random.default_rng(level).integers(-5, 6, (SIZE[1], SIZE[0], 3))
    out = io.BytesIO()
    Image.fromarray((noise + level).astype(np.uint8)).save(out, "png")
    return out.getvalue()


def write(path: Path, content: bytes, modified: float) -> None:
    """Put a whole file in place, as if it was written at that time."""
    part = path.with_suffix(".part")
    part.write_bytes(content)
    os.utime(part, (modified, modified))
    part.rename(path)


def levels(frames: list[RawFrame]) -> list[int]:
    return [round(float(frame.image.mean()) / 10) for frame in frames]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threer.io.live.watch, "POLL", 0.02)
    monkeypatch.setattr(threer.io.live.watch, "PATIENCE", 0.3)


class Reading:
    """Reads a source in a thread; lets a test wait for what has been read."""

    def __init__(self, source: WatchedFolder) -> None:
        self.source = source
        self.frames: list[RawFrame] = []
        self.error: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            for frame in self.source:
                with self._changed:
                    self.frames.append(frame)
                    self._changed.notify_all()
        except BaseException as error:
            self.error = error

    def wait_for(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.frames) >= count, timeout=10), levels(self.frames)

    def end(self) -> list[RawFrame]:
        self._thread.join(10)
        assert not self._thread.is_alive()
        if self.error:
            raise self.error
        return self.frames


def watch(folder: Path, **settings: object) -> WatchedFolder:
    source = open_source(f"watch:{folder}", SourceConfig(**settings))  # type: ignore[arg-type]
    assert isinstance(source, WatchedFolder)
    return source


@pytest.fixture
def reading(tmp_path: Path) -> Iterator[Reading]:
    reading = Reading(watch(tmp_path, fps=0.1))
    yield reading
    reading.source.stop()
    reading.end()


def test_images_are_taken_as_they_come(tmp_path: Path) -> None:
    for k in (10, 2, 1):
        write(tmp_path / f"f{k}.png", png(10 * k), 5000 + k)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".f0.png").write_bytes(png(50))
    reading = Reading(watch(tmp_path, fps=0.1))  # fps takes nothing away
    reading.wait_for(3)
    for k in (12, 11):  # in order of appearance, whatever their names
        write(tmp_path / f"f{k}.png", png(10 * k), 5000 + k)
        reading.wait_for(len(reading.frames) + 1)
    write(tmp_path / "f13.png", png(130), 5013.25)
    (tmp_path / ".end").touch()
    frames = reading.end()
    assert levels(frames) == [1, 2, 10, 12, 11, 13]
    assert [frame.name for frame in frames] == [f"f{k}.png" for k in (1, 2, 10, 12, 11, 13)]
    assert [frame.index for frame in frames] == list(range(6))
    # By the time of writing, in the order taken: 11 was written before 12 but came after it.
    assert [frame.timestamp for frame in frames] == pytest.approx([0, 1, 9, 11, 11.001, 12.25])
    source = reading.source
    assert not source.live, "nothing is lost that is not read in time"
    assert source.kind == "images"
    assert source.is_sequence
    assert source.skipped == []
    assert source.notes == []


def test_a_file_is_not_taken_before_it_is_whole(tmp_path: Path, reading: Reading) -> None:
    whole = png(30)
    with open(tmp_path / "a.png", "wb") as file:
        for start in range(0, len(whole), len(whole) // 5):
            file.write(whole[start : start + len(whole) // 5])
            file.flush()
            time.sleep(0.06)  # longer than two looks: size alone would say it is done
            if start == 0:
                (tmp_path / "b.png").write_bytes(png(40))
    reading.wait_for(2)
    (tmp_path / ".end").touch()
    assert levels(reading.end()) == [3, 4], "the later file waits for the one that is being written"
    assert reading.source.skipped == []


def test_a_broken_file_does_not_hold_up_the_others_for_long(tmp_path: Path, reading: Reading) -> None:
    (tmp_path / "a.png").write_bytes(png(30)[:60])
    (tmp_path / "b.png").write_bytes(png(40))
    reading.wait_for(1)
    assert levels(reading.frames) == [4]
    (tmp_path / "a.png").write_bytes(png(30))  # it was only slow
    reading.wait_for(2)
    (tmp_path / "c.png").write_bytes(png(50)[:60])
    (tmp_path / ".end").touch()
    assert levels(reading.end()) == [4, 3]
    assert [skipped.name for skipped in reading.source.skipped] == ["c.png"]
    assert "damaged" in reading.source.skipped[0].reason


def test_idle_ends_it(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(30))
    begun = time.monotonic()
    assert levels(list(watch(tmp_path, idle=0.2))) == [3]
    assert 0.2 <= time.monotonic() - begun < 5


def test_news_puts_off_the_end(tmp_path: Path) -> None:
    reading = Reading(watch(tmp_path, idle=0.5))
    for k in range(4):
        time.sleep(0.25)
        (tmp_path / f"{k}.png").write_bytes(png(10 * k + 10))
    assert levels(reading.end()) == [1, 2, 3, 4]


def test_stop_from_another_thread_and_max_frames(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(30))
    reading = Reading(watch(tmp_path, idle=None))
    reading.wait_for(1)
    reading.source.stop()
    assert len(reading.end()) == 1
    (tmp_path / "b.png").write_bytes(png(30))
    assert len(list(watch(tmp_path, idle=None, max_frames=2))) == 2


def test_nothing_came(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no image came into .*\.png"):
        list(watch(tmp_path, idle=0.05))
    (tmp_path / "a.png").write_text("not an image")
    with pytest.raises(SourceError, match=r"none of the images .*a\.png is not an image"):
        list(watch(tmp_path, idle=0.1))


def test_files_and_folders_that_go_away(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.png").write_bytes(png(30))
    reading = Reading(watch(folder))
    reading.wait_for(1)
    (folder / "b.png").write_bytes(png(30)[:60])
    while not any(path.name == "b.png" for path in (file.path for file in reading.source._waiting)):
        time.sleep(0.005)
    (folder / "a.png").unlink()
    (folder / "b.png").unlink()
    folder.rmdir()
    assert len(reading.end()) == 1
    assert [skipped.reason for skipped in reading.source.skipped] == ["it was gone before it could be read"]
    assert "can no longer be read" in reading.source.notes[0]
    with pytest.raises(SourceError, match="no such folder"):
        watch(folder)
