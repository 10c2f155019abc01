"""What came in live can be played again: the same pictures, names and times."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import threer.io.live.recording
from threer.config import SourceConfig
from threer.errors import RunError, SourceError
from threer.io.frames import RawFrame
from threer.io.images import RGBImage
from threer.io.live import CameraSource, WatchedFolder
from threer.io.live.recording import Recording
from threer.io.sources import open_source
from threer.io.video import write_video


class NoisyCamera:
    """Gives pictures of random noise, of the sizes asked for."""

    def __init__(self, shapes: Sequence[tuple[int, int]]) -> None:
        self._shapes = iter(shapes)
        self._random = np.random.default_rng(5)

    def read(self) -> RGBImage | None:
        shape = next(self._shapes, None)
        return None if shape is None else self._random.integers(0, 256, (*shape, 3), dtype=np.uint8)

    def close(self) -> None:
        pass


def film(record: Path, shapes: Sequence[tuple[int, int]], **settings: object) -> CameraSource:
    clock = iter(np.cumsum(np.random.default_rng(1).uniform(0.01, 0.1, 1000)).tolist())
    return CameraSource(
        0,
        SourceConfig(record=record, reconnects=0, **settings),  # type: ignore[arg-type]
        open_device=lambda _: NoisyCamera(shapes),
        now=lambda: next(clock),
    )


def assert_same(played: Sequence[RawFrame], live: Sequence[RawFrame]) -> None:
    assert [frame.timestamp for frame in played] == [frame.timestamp for frame in live], "exactly"
    assert [frame.name for frame in played] == [frame.name for frame in live]
    assert [frame.index for frame in played] == [frame.index for frame in live]
    for one, other in zip(played, live, strict=True):
        np.testing.assert_array_equal(one.image, other.image)


@pytest.mark.parametrize("settings", [{}, {"fps": 4.0}, {"fps": 3.0, "start": 0.5, "end": 2.0}, {"max_frames": 5}])
def test_played_again_it_is_the_same(tmp_path: Path, settings: dict[str, float]) -> None:
    live = film(tmp_path, [(31, 45)] * 60, **settings)
    frames = list(live)
    assert len(frames) > 3
    (session,) = tmp_path.iterdir()
    assert f"recorded in {session}; give that folder to replay it" in live.notes
    replay = open_source(session, SourceConfig(**settings))  # type: ignore[arg-type]
    assert_same(list(replay), frames)
    assert_same(list(replay), frames)  # a second time
    assert_same(list(open_source(session)), frames)
    assert (replay.live, replay.kind, replay.is_sequence) == (False, "video", True)
    assert replay.expected == len(frames)
    assert replay.notes == []


def test_a_recording_at_full_rate_can_be_thinned_later(tmp_path: Path) -> None:
    list(film(tmp_path / "all", [(16, 16)] * 60))
    thin = list(film(tmp_path / "thin", [(16, 16)] * 60, fps=4))
    replay = open_source(tmp_path / "all", SourceConfig(fps=4))
    assert_same(list(replay), thin)
    assert replay.expected == len(thin)
    part = open_source(tmp_path / "all", SourceConfig(start=0.5, end=1.0))
    assert all(0.5 <= frame.timestamp < 1.0 for frame in part)
    with pytest.raises(SourceError, match="holds no frame in the time asked for"):
        list(open_source(tmp_path / "all", SourceConfig(start=1000)))


def test_pictures_may_change_their_size(tmp_path: Path) -> None:
    frames = list(film(tmp_path, [(16, 20)] * 3 + [(20, 16)] * 2 + [(16, 20)]))
    assert_same(list(open_source(tmp_path)), frames)


def test_a_watched_folder_with_names_and_times(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for k in range(4):
        picture = np.full((9, 7, 3), 10 * k, np.uint8)
        Image.fromarray(picture).save(folder / f'a "{k}", ü.png')
    (folder / ".end").touch()
    frames = list(WatchedFolder(folder, SourceConfig(record=tmp_path / "rec")))
    assert len(frames) == 4
    replay = open_source(tmp_path / "rec", SourceConfig(fps=1))  # of images every one is taken
    assert replay.kind == "images"
    assert_same(list(replay), frames)


def copy(session: Path, to: Path) -> Path:
    shutil.copytree(session, to)
    return to


def test_whatever_ends_the_session_all_frames_are_there(tmp_path: Path) -> None:
    source = film(tmp_path / "rec", [(31, 45)] * 60)
    seen = []
    for frame in source:
        seen.append(frame)
        if len(seen) == 7:
            (session,) = (tmp_path / "rec").iterdir()
            killed = copy(session, tmp_path / "killed")  # what a kill would leave behind
            break
    assert_same(list(open_source(killed)), seen)
    with open(killed / "recording.jsonl", "a") as index:
        index.write('[17.25, "camera')  # half a line
    assert_same(list(open_source(killed)), seen)


def test_a_cut_video_gives_what_it_holds_and_says_so(tmp_path: Path) -> None:
    seen = list(film(tmp_path / "rec", [(31, 45)] * 9))
    (session,) = (tmp_path / "rec").iterdir()
    video = session / "pictures0.nut"
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    replay = open_source(session)
    played = list(replay)
    assert 0 < len(played) < len(seen)
    assert_same(played, seen[: len(played)])
    assert f"pictures0.nut of {session} lacks pictures from" in replay.notes[0]
    video.unlink()
    with pytest.raises(SourceError, match="holds no frame"):
        list(open_source(session))


def test_sessions_stand_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threer.io.live.recording.time, "strftime", lambda _: "2020-01-01_00-00-00")
    source = film(tmp_path, [(16, 16)] * 3)
    first, second = list(source), list(source)
    sessions = sorted(tmp_path.iterdir())
    assert [session.name for session in sessions] == ["2020-01-01_00-00-00", "2020-01-01_00-00-00_2"]
    for session, frames in zip(sessions, (first, second), strict=True):
        assert_same(list(open_source(session)), frames)
    with pytest.raises(SourceError, match=r"holds 2 recordings; give one of them, the last is .*_2"):
        open_source(tmp_path)


def test_without_record_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = CameraSource(0, SourceConfig(reconnects=0), open_device=lambda _: NoisyCamera([(8, 8)]))
    assert len(list(source)) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, mode: str, **settings: object) -> object:
        return open("/dev/full", "wb", buffering=0) if path.suffix == ".nut" else open(path, mode, **settings)  # type: ignore[call-overload]

    monkeypatch.setattr(threer.io.live.recording, "open", full, raising=False)
    with pytest.raises(RunError, match="the disk is full"):
        list(film(tmp_path, [(31, 45)] * 3))


def test_no_permission_to_record(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="is a file"):
        list(film(tmp_path / "file", [(8, 8)]))


def test_what_is_no_recording(tmp_path: Path) -> None:
    def refused(first_line: str) -> str:
        (tmp_path / "recording.jsonl").write_text(first_line + '\n[0, "a", "b"]\n')
        with pytest.raises(SourceError) as caught:
            open_source(tmp_path)
        return str(caught.value)

    assert "not the index of a recording" in refused("{}")
    assert "not the index of a recording" in refused("what?")
    assert "version 9" in refused(json.dumps({"threer_recording": 9}))
    (tmp_path / "recording.jsonl").write_text("")
    with pytest.raises(SourceError, match="not the index"):
        Recording(tmp_path, SourceConfig())


def test_a_folder_of_images_stays_one(tmp_path: Path) -> None:
    """A recording below a folder of images, or below one with other things, is not mistaken for its content."""
    list(film(tmp_path / "rec", [(16, 16)] * 3))
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert [frame.name for frame in open_source(tmp_path)] == ["a.png"]
    (tmp_path / "clips").mkdir()
    write_video(tmp_path / "clips" / "v.mp4", [np.zeros((16, 16, 3), np.uint8)], fps=10)
    with pytest.raises(SourceError, match=r"v\.mp4"):
        open_source(tmp_path / "clips")
