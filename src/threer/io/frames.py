"""What every source of frames has in common: lazy reading, counting, and skipping what cannot be read."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from threading import Event
from typing import ClassVar, Literal

from threer.config import InputSpec, SourceConfig
from threer.errors import SourceError
from threer.io.exif import PhotoFocal
from threer.io.images import RGBImage, prepare_image
from threer.io.intrinsics import Undistortion, with_known_lens
from threer.types import Frame

SourceKind = Literal["video", "images"]


@dataclass(frozen=True, eq=False)
class RawFrame:
    """One decoded picture, before it is prepared for a network.

    image      [H, W, 3] uint8 RGB, upright, without distortion where that is known
    index      position in the frames taken, from 0
    timestamp  seconds from the start of the source
    name       file name, or the video's name and time
    """

    image: RGBImage
    index: int
    timestamp: float
    name: str


@dataclass(frozen=True)
class SkippedFrame:
    """A frame that could not be read, and why."""

    name: str
    reason: str


def digest(*parts: object) -> str:
    """A short text that differs when ``parts`` do."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def to_frame(raw: RawFrame, spec: InputSpec) -> Frame:
    """Prepare a decoded picture for a network with the input ``spec``. Raises SourceError for a strip."""
    try:
        image, to_original = prepare_image(raw.image, spec)
    except SourceError as error:
        raise SourceError(f"{raw.name}: {error}") from None
    height, width = raw.image.shape[:2]
    return Frame(image, raw.index, raw.timestamp, raw.name, (width, height), to_original)


class FrameSource(ABC):
    """Frames of a video or of image files. Iterating decodes one picture at a time; each iteration starts anew.

    live         whether frames are still coming into being: iterating waits for them, and what is not read in time
                 may be lost
    kind         "video" or "images"
    name         what was opened, for messages
    expected     how many frames to expect (an estimate for videos), or None
    is_sequence  whether the frames follow each other in time: a video, or images numbered like one
    notes        what the user should know about this source, one line each; may grow while reading
    skipped      frames of the latest iteration that could not be read
    undistortion what is undone on every picture, or None

    A frame that cannot be read is skipped, recorded and told to ``on_skip``; if nothing at all can be read,
    iterating raises `SourceError`.
    """

    live: ClassVar[bool] = False
    kind: SourceKind
    name: str
    expected: int | None
    is_sequence: bool

    def __init__(self, config: SourceConfig, on_skip: Callable[[SkippedFrame], None] | None = None) -> None:
        self.config = with_known_lens(config)
        self.undistortion = Undistortion.of(self.config)
        self.notes: list[str] = []
        self.skipped: list[SkippedFrame] = []
        self._on_skip = on_skip
        self._stopped = Event()

    @property
    def span(self) -> tuple[float, float]:
        """(start, end) in seconds of what is asked for: everything, where nothing is said."""
        start, end = self.config.start, self.config.end
        return 0.0 if start is None else start, math.inf if end is None else end

    def stop(self) -> None:
        """End the frames, now and for good; may be called from any thread. Who waits for a frame is let go."""
        self._stopped.set()

    def __iter__(self) -> Iterator[RawFrame]:
        self.skipped.clear()
        taken = 0
        with closing(self._pictures()) as pictures:
            for timestamp, name, image in pictures:
                if self._stopped.is_set():
                    return
                self._check_size(image, name)
                if self.undistortion:
                    image = self.undistortion(image)
                yield RawFrame(image, taken, timestamp, name)
                taken += 1
                if taken == self.config.max_frames:
                    return
        if not taken and not self._stopped.is_set():
            raise SourceError(self._why_nothing())

    def _check_size(self, image: RGBImage, name: str) -> None:
        expected, (height, width) = self.config.intrinsics_size, image.shape[:2]
        if expected is not None and (width, height) != tuple(expected):
            raise SourceError(
                f"the intrinsics hold for pictures of {expected[0]}×{expected[1]}, and {name} is {width}×{height}: "
                "give those of this size, or pictures of that one"
            )

    def fingerprint(self) -> str | None:
        """The same for the same frames, read again later; None if they cannot be read again."""
        return None

    def focal_of(self, raw: RawFrame) -> PhotoFocal:
        """What the file of a frame says about its focal length; nothing, where frames are not photos."""
        return PhotoFocal()

    @abstractmethod
    def _pictures(self) -> Generator[tuple[float, str, RGBImage], None, None]:
        """(seconds, name, upright picture) of each frame asked for, but for ``max_frames``."""

    @abstractmethod
    def _why_nothing(self) -> str:
        """The error for a source of which not one frame could be read."""

    def _skip(self, name: str, reason: str) -> None:
        skipped = SkippedFrame(name, reason)
        self.skipped.append(skipped)
        if self._on_skip:
            self._on_skip(skipped)

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)
