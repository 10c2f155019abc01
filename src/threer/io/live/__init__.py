"""Sources whose frames are still coming into being (a growing folder, a camera, a stream), and their recordings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from threer.config import SourceConfig
from threer.errors import SourceError
from threer.io.frames import FrameSource, SkippedFrame
from threer.io.live.camera import CameraSource
from threer.io.live.stream import STREAM_SCHEMES, StreamSource
from threer.io.live.watch import WatchedFolder

__all__ = ["CameraSource", "StreamSource", "WatchedFolder", "open_live"]


def open_live(
    source: str, config: SourceConfig, on_skip: Callable[[SkippedFrame], None] | None = None
) -> FrameSource | None:
    """The live source that ``source`` names, or None if it names none: a file, a folder, a pattern.

    watch:FOLDER                             images as they appear in a folder
    camera:0                                 a camera of this machine
    http:// https:// rtsp:// rtmp:// udp://  a stream

    Nothing is connected before the source is iterated. Raises `SourceError` for a name that cannot be meant.
    """
    scheme, colon, rest = source.partition(":")
    if not colon or len(scheme) < 2:  # one letter is a drive
        return None
    if scheme == "watch":
        if not rest:
            raise SourceError("'watch:' names no folder; give one, as in watch:photos")
        return WatchedFolder(Path(rest).expanduser(), config, on_skip)
    if scheme == "camera":
        if not rest.isdecimal():
            raise SourceError(f"{source!r} names no camera; give its number, as in camera:0")
        return CameraSource(int(rest), config, on_skip)
    if rest.startswith("//"):
        if scheme not in STREAM_SCHEMES:
            raise SourceError(f"cannot read {scheme}:// addresses; streams are {', '.join(STREAM_SCHEMES)}")
        return StreamSource(source, config, on_skip)
    return None
