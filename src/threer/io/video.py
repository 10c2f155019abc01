"""Video files, by PyAV: real timestamps, rotation as the camera meant it, damaged and cut files; and writing."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TypeVar, cast

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from threer.config import SourceConfig
from threer.errors import RunError, SourceError
from threer.io.atomic import replacing
from threer.io.folders import IMAGES_LOOKED_FOR, VIDEO_SUFFIXES
from threer.io.frames import FrameSource, SkippedFrame, digest
from threer.io.images import RGBImage

T = TypeVar("T")

_WRITABLE_SUFFIXES = frozenset({".mp4", ".mov", ".mkv", ".avi"})
_END_BYTES = 1 << 20  # of each end of a file, to know it again
_CLOCK_SLACK = 1e-4  # seconds: timestamps are multiples of the container's own tick, so sums are off by less


class NotAVideoError(SourceError):
    """The file holds no video. ``still_image``: what it holds is one image."""

    def __init__(self, message: str, still_image: bool = False) -> None:
        super().__init__(message)
        self.still_image = still_image


class VideoFile(FrameSource):
    """A video file. Frames keep the time at which they are shown, so a variable frame rate is no problem.

    With ``fps`` the frame nearest to each tick is taken, none twice; a rate above the video's own takes all.
    ``start`` <= t < ``end`` in seconds from the video's first frame.
    """

    kind = "video"
    is_sequence = True

    def __init__(
        self,
        path: Path,
        config: SourceConfig,
        on_skip: Callable[[SkippedFrame], None] | None = None,
    ) -> None:
        super().__init__(config, on_skip)
        self.path = path
        self.name = str(path)
        with _open(path) as container:
            stream = container.streams.video[0]
            self.rate = float(stream.average_rate or stream.guessed_rate or 0) or None
            self.duration = _duration(container, stream)
            pixel_shape = stream.sample_aspect_ratio
        if pixel_shape and pixel_shape != 1:
            self.notes.append(f"the video's pixels are not square ({pixel_shape}); they are used as they are")
        if config.fps and self.rate and config.fps > self.rate * 1.01:
            self.notes.append(f"the video has {self.rate:.4g} frames per second, so every frame is taken")
        start, _ = self.span
        if self.duration and start >= self.duration:
            raise SourceError(f"start ({start:g} s) is after the end of {path} ({self.duration:.2f} s)")
        self.expected = self._expect()

    def _expect(self) -> int | None:
        if self.duration is None or self.rate is None:
            return self.config.max_frames
        start, end = self.span
        rate = self.rate if self.config.fps is None else min(self.config.fps, self.rate)
        count = max(1, math.ceil(round((min(end, self.duration) - start) * rate, 3)))
        return min(count, self.config.max_frames or count)

    def _pictures(self) -> Generator[tuple[float, str, RGBImage], None, None]:
        start, end = self.span
        timed = self._frames(start, end)
        for time, frame in nearest_to_ticks(timed, self.config.fps, start) if self.config.fps else timed:
            yield time, self._frame_name(time), upright_picture(frame)

    def _frames(self, start: float, end: float) -> Iterator[tuple[float, VideoFrame]]:
        """(seconds, frame) of the sound frames with start <= seconds < end."""
        with _open(self.path) as container:
            _seek(container, start)
            timed = self._decode(container)
            first = next(timed, None)
            if not start or (first is not None and first[0] <= start + _CLOCK_SLACK):
                yield from self._between(chain([first] if first else [], timed), start, end)
                return
        # The file cannot seek, or its index is wrong: read up to the start instead.
        self.skipped.clear()
        with _open(self.path) as container:
            yield from self._between(self._decode(container), start, end)

    def _between(
        self, timed: Iterable[tuple[float, VideoFrame]], start: float, end: float
    ) -> Iterator[tuple[float, VideoFrame]]:
        latest = 0.0
        for time, frame in timed:
            if time >= end - _CLOCK_SLACK:
                return
            latest = time
            if time < start - _CLOCK_SLACK:
                continue
            if frame.is_corrupt:
                self._skip(self._frame_name(time), "damaged")
                continue
            yield time, frame
        # The last frame may be shown for long, so a few of them have to be missing before it counts as cut.
        if (
            self.duration
            and self.rate
            and min(end, self.duration) - latest > max(5 / self.rate, 0.02 * self.duration)
        ):
            self._note(f"{self.path.name} ends early: only {latest:.2f} of {self.duration:.2f} s could be read")

    def _decode(self, container: InputContainer) -> Iterator[tuple[float, VideoFrame]]:
        """(seconds from the video's first frame, frame) of all that can be decoded, in the order shown."""
        stream = container.streams.video[0]
        stream.thread_type = "SLICE"  # threads by frame now and then lose the mark of a damaged frame
        base = stream.time_base or Fraction(1, 1000)
        origin = float((stream.start_time or 0) * base)
        interval = 1 / (self.rate or 25)  # only for frames without a timestamp
        time = -interval

        def timed(frames: Iterable[VideoFrame]) -> Iterator[tuple[float, VideoFrame]]:
            nonlocal time
            for frame in frames:
                stamp = frame.pts if frame.pts is not None else frame.dts
                time = float(stamp * base) - origin if stamp is not None else time + interval
                yield time, frame

        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError as error:
                self._note(f"{self.path.name} cannot be read to its end: {error.strerror}")
                yield from timed(stream.decode(None))  # frames that the decoder still holds
                return
            if packet is None:
                return
            try:
                yield from timed(packet.decode())
            except av.FFmpegError as error:
                self._skip(self._frame_name(time + interval), str(error.strerror))

    def _frame_name(self, time: float) -> str:
        return f"{self.path.name}@{time:.3f}s"

    def fingerprint(self) -> str:
        """Of the file's size and both its ends, so that a copy is known as the same."""
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                ends = []
                for start in (0, max(0, size - _END_BYTES)):
                    file.seek(start)
                    ends.append(file.read(_END_BYTES))
        except OSError as error:
            raise SourceError(f"cannot read {self.path}: {error.strerror}") from None
        return digest(size, ends)

    def _why_nothing(self) -> str:
        if self.skipped:
            return f"no frame of {self.path} can be decoded: {self.skipped[0].reason}; re-encode the video"
        if self.config.start is not None or self.config.end is not None:
            start, end = self.span
            until = "its end" if self.config.end is None else f"{end:g} s"
            return f"{self.path} has no frame between {start:g} s and {until}"
        return f"no frame of {self.path} can be decoded; re-encode the video"


def _open(path: Path) -> InputContainer:
    try:
        container = av.open(str(path))
    except (PermissionError, FileNotFoundError) as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from None
    except (av.FFmpegError, OSError) as error:
        if path.suffix.lower() in VIDEO_SUFFIXES:
            raise NotAVideoError(
                f"{path} cannot be opened as a video ({error.strerror}): it is damaged or was cut off; "
                "copy it again or re-encode it"
            ) from None
        raise NotAVideoError(
            f"{path} is neither a video nor an image ({error.strerror}; {IMAGES_LOOKED_FOR})"
        ) from None
    still = container.format.name.endswith("_pipe") or container.format.name == "image2"
    if still or not container.streams.video:
        container.close()
        raise NotAVideoError(f"{path} holds no video ({container.format.long_name})", still_image=still)
    return container


def _duration(container: InputContainer, stream: VideoStream) -> float | None:
    """Seconds, as the file declares them."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration else None


def _seek(container: InputContainer, start: float) -> None:
    """Go to the keyframe before ``start`` (seconds from the first frame), if the file can."""
    stream = container.streams.video[0]
    if start <= 0 or stream.time_base is None:
        return
    # Where a file cannot seek, the caller notices that the first frame comes too late, or reads from the beginning.
    with suppress(av.FFmpegError):
        container.seek(round(start / stream.time_base) + (stream.start_time or 0), stream=stream)


def nearest_to_ticks(timed: Iterable[tuple[float, T]], fps: float, start: float = 0.0) -> Iterator[tuple[float, T]]:
    """Of items with rising times, those nearest to the ticks start + k/fps; none is given twice.

    Looks one item ahead. Between two items half-way to a tick the earlier one is taken.
    """
    tick = 0
    previous: tuple[float, T] | None = None
    for time, item in timed:
        if previous is not None:
            if time <= previous[0]:  # a clock that runs backwards
                continue
            half_way = (previous[0] + time) / 2 + _CLOCK_SLACK
            if start + tick / fps <= half_way:
                yield previous
                tick = math.floor((half_way - start) * fps) + 1
        previous = time, item
    if previous is not None and start + tick / fps <= previous[0] + _CLOCK_SLACK:
        yield previous


def upright_picture(frame: VideoFrame) -> RGBImage:
    """RGB [H, W, 3] of a decoded frame, turned and mirrored as its display matrix says."""
    picture = cast(RGBImage, frame.to_ndarray(format="rgb24"))
    matrix = cast(bytes | None, frame.side_data.get("DISPLAYMATRIX"))
    return picture if matrix is None else displayed(picture, np.frombuffer(matrix, np.int32))


def displayed(picture: RGBImage, matrix: npt.NDArray[np.int32]) -> RGBImage:
    """Apply a display matrix, 9 fixed-point numbers (a b u, c d v, x y w), to a picture [H, W, 3].

    A pixel (x, y) is shown at (a x + c y, b x + d y), y down. Turns are multiples of 90°, as cameras write them.
    """
    a, b, _, c, d = matrix[:5].tolist()
    if abs(b) > abs(a):
        picture, right, down = picture.swapaxes(0, 1), c, b
    else:
        right, down = a, d
    return np.ascontiguousarray(picture[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1])


def write_video(path: Path, images: Iterable[RGBImage], fps: float) -> None:
    """Write uint8 RGB pictures [H, W, 3] of one size as H.264 (MPEG-4 where there is no encoder), atomically.

    The suffix (.mp4, .mov, .mkv, .avi) chooses the container. Odd sides grow by one pixel for the
    colour format's sake.
    Raises `RunError` if the file cannot be written and `ValueError` if there are no images or sizes differ.
    """
    if path.suffix.lower() not in _WRITABLE_SUFFIXES:
        raise RunError(f"cannot write {path}: give a name that ends in {', '.join(sorted(_WRITABLE_SUFFIXES))}")
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    size: tuple[int, ...] | None = None
    with replacing(path) as part, av.open(str(part), "w") as container:
        stream = cast(VideoStream, container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001)))
        stream.pix_fmt = "yuv420p"
        if codec == "libx264":
            stream.options = {"crf": "18"}  # visually lossless
        else:
            stream.bit_rate = 8_000_000
        for image in images:
            if size is None:
                size = image.shape
                stream.height, stream.width = size[0] + size[0] % 2, size[1] + size[1] % 2
            if image.shape != size:
                raise ValueError(f"all pictures of a video must have one size, got {size} and {image.shape}")
            even = np.pad(image, ((0, size[0] % 2), (0, size[1] % 2), (0, 0)), mode="edge")
            container.mux(stream.encode(VideoFrame.from_ndarray(even, format="rgb24")))
        if size is None:
            raise ValueError("a video needs at least one picture")
        container.mux(stream.encode())
