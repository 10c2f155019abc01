"""Live frames kept without loss, and played again: the same pictures, names and times.

A session is a folder. The first line of its ``recording.jsonl`` says what was recorded; then a line for each frame
gives its exact time, its name and the file of its picture: ``pictures0.nut``, and one more whenever the pictures
change their size. All grow frame by frame, so that whatever ends the session, it can be played.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from fractions import Fraction
from itertools import count, groupby
from pathlib import Path
from typing import NamedTuple, TextIO, cast

import av
from av.video.frame import VideoFrame

from threer.config import SourceConfig
from threer.errors import SourceError
from threer.io.atomic import os_errors_as_run_errors
from threer.io.frames import FrameSource, SkippedFrame, SourceKind, digest
from threer.io.images import RGBImage
from threer.io.live.timing import Pace

INDEX = "recording.jsonl"
VERSION = 1
TIME_BASE = Fraction(1, 1000)  # of the video, for other players; the exact times are in the index


class Recorder:
    """Writes frames into a new session inside ``folder``; none is made before the first frame.

    session  the session's folder, once there is one
    """

    def __init__(self, folder: Path, source: str, kind: SourceKind) -> None:
        self._folder = folder
        self._header = {"threer_recording": VERSION, "source": source, "kind": kind}
        self._files = ExitStack()
        self._index: TextIO | None = None
        self._video: _LosslessVideo | None = None
        self._videos = 0
        self.session: Path | None = None

    def add(self, seconds: float, name: str, image: RGBImage) -> None:
        """Write one frame through to the disk's queue. Raises `RunError` when the disk is full or the like."""
        with os_errors_as_run_errors(self.session or self._folder):
            if self.session is None or self._index is None:
                self.session = _new_session(self._folder)
                index = open(self.session / INDEX, "x", encoding="utf-8", buffering=1)  # noqa: SIM115, kept open
                self._index = self._files.enter_context(index)
                self._index.write(json.dumps(self._header) + "\n")
            if self._video is None or self._video.shape != image.shape:
                if self._video:
                    self._video.close()
                self._video = _LosslessVideo(self.session / f"pictures{self._videos}.nut", image.shape)
                self._videos += 1
            self._video.add(seconds, image)
            self._index.write(json.dumps([seconds, name, self._video.name]) + "\n")

    def close(self) -> None:
        with os_errors_as_run_errors(self.session or self._folder), self._files:
            if self._video:
                self._video.close()


class _LosslessVideo:
    """Pictures of one size in a file. Ut Video takes a fifth of FFV1's time for a fifth more space."""

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self.name = path.name
        self.shape = shape
        self._latest = -1
        with ExitStack() as undo:
            file = undo.enter_context(open(path, "xb", buffering=0))
            # NUT is written frame by frame; Matroska and MP4 hold back what a crash would lose.
            self._container = undo.enter_context(av.open(file, "w", format="nut"))
            self._stream = self._container.add_stream("utvideo", rate=1 / TIME_BASE)
            self._stream.height, self._stream.width = self.shape[:2]
            self._stream.pix_fmt = "gbrp"
            self._files = undo.pop_all()

    def add(self, seconds: float, image: RGBImage) -> None:
        frame = VideoFrame.from_ndarray(image, format="rgb24")
        frame.time_base = TIME_BASE
        frame.pts = self._latest = max(round(seconds / TIME_BASE), self._latest + 1)
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        self._files.close()


class _Entry(NamedTuple):
    seconds: float
    name: str
    video: str


class Recording(FrameSource):
    """A recorded session, played as fast as it is read: pictures, names and times are those of the live frames.

    ``fps`` takes frames as it does live: the rate of the recording takes all of them, a lower one fewer.
    """

    is_sequence = True

    def __init__(
        self, folder: Path, config: SourceConfig, on_skip: Callable[[SkippedFrame], None] | None = None
    ) -> None:
        super().__init__(config, on_skip)
        self.folder = folder
        self.name = str(folder)
        self.kind, entries = _read_index(folder / INDEX)
        start, end = self.span
        pace = Pace(config.fps if self.kind == "video" else None)
        self._entries = [(e, start <= e.seconds < end and pace.takes(e.seconds)) for e in entries]
        taken = sum(take for _, take in self._entries)
        self.expected = min(taken, config.max_frames or taken)

    def fingerprint(self) -> str:
        return digest(self._entries)

    def _pictures(self) -> Generator[tuple[float, str, RGBImage], None, None]:
        for video, entries in groupby(self._entries, key=lambda entry: entry[0].video):
            with closing(_read_video(self.folder / video)) as frames:
                for entry, take in entries:
                    frame = next(frames, None)
                    if frame is None:
                        self._note(f"{video} of {self.folder} lacks pictures from {entry.seconds:.3f} s on")
                        break
                    if take:
                        yield entry.seconds, entry.name, cast(RGBImage, frame.to_ndarray(format="rgb24"))

    def _why_nothing(self) -> str:
        return f"the recording {self.folder} holds no frame" + (" in the time asked for" if self._entries else "")


def find_recording(folder: Path) -> Path | None:
    """The session in ``folder``: itself, or the only one inside. Raises `SourceError` if there are several."""
    if (folder / INDEX).exists():
        return folder
    sessions = sorted(index.parent for index in folder.glob(f"*/{INDEX}"))
    if len(sessions) > 1:
        raise SourceError(
            f"{folder} holds {len(sessions)} recordings; give one of them, the last is {sessions[-1]}"
        )
    return sessions[0] if sessions else None


def _new_session(folder: Path) -> Path:
    """A new folder, named by the local time."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = time.strftime("%Y-%m-%d_%H-%M-%S")
    for number in count(1):
        session = folder / (stem if number == 1 else f"{stem}_{number}")
        try:
            session.mkdir()
        except FileExistsError:
            continue
        return session
    raise AssertionError("unreachable")


def _read_index(path: Path) -> tuple[SourceKind, list[_Entry]]:
    """What was recorded, and every frame whose line is whole."""
    try:
        header, *lines = path.read_text(encoding="utf-8").split("\n")[:-1]  # a crash may leave half a line
        described = json.loads(header)
        if described["threer_recording"] != VERSION:
            raise SourceError(
                f"{path} is a recording of version {described['threer_recording']}; this program reads {VERSION}"
            )
        kind: SourceKind = "images" if described["kind"] == "images" else "video"
        return kind, [
            _Entry(float(seconds), str(name), str(video)) for seconds, name, video in map(json.loads, lines)
        ]
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{path} is not the index of a recording, or is damaged ({error})") from error


def _read_video(path: Path) -> Generator[VideoFrame, None, None]:
    try:
        with av.open(str(path)) as container:
            yield from container.decode(video=0)
    except (av.FFmpegError, OSError):
        return  # the caller notes which pictures are missing
