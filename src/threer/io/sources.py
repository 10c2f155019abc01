"""Open whatever the user points at: images, a video, a camera, a stream, a folder that grows, a recording."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from threer.config import SourceConfig
from threer.errors import SourceError
from threer.io.folders import (
    IMAGES_LOOKED_FOR,
    VIDEO_SUFFIXES,
    ImageFiles,
    is_image_name,
    left_out,
    natural_order,
    visible_in,
    where_else,
)
from threer.io.frames import FrameSource, RawFrame, SkippedFrame, to_frame
from threer.io.live import open_live
from threer.io.live.recording import Recording, find_recording
from threer.io.video import NotAVideoError, VideoFile

__all__ = ["FrameSource", "RawFrame", "SkippedFrame", "open_source", "to_frame"]

Source = str | Path | Sequence[str | Path]


def open_source(
    source: Source,
    config: SourceConfig | None = None,
    on_skip: Callable[[SkippedFrame], None] | None = None,
) -> FrameSource:
    """Find the frames of a source; nothing is decoded before it is iterated.

    source   a folder (its images in natural order; subfolders and hidden files are left out), a pattern with
             ``*``, ``?``, ``[…]`` or ``**``, a list of image files (its order is kept), an image, or a video;
             live: ``watch:FOLDER``, ``camera:0``, or the address of a stream (``http://…``, ``rtsp://…``,
             ``udp://…``); and the folder of a recording
    on_skip  told about every frame that cannot be read

    Raises `SourceError`, one line: what is wrong, where, and what to do.
    """
    config = config or SourceConfig()
    if not isinstance(source, str | Path):
        return _open_list([Path(entry).expanduser() for entry in source], config, on_skip)
    if source == "":
        raise SourceError("the source is empty; give a folder, a pattern, a video or an image")
    if isinstance(source, str) and (live := open_live(source, config, on_skip)):
        return live
    path = Path(source).expanduser()
    if _is_there(path):
        if path.is_dir():
            return _open_folder(path, config, on_skip)
        return _open_file(path, config, on_skip)
    if glob.has_magic(str(path)):
        return _open_pattern(path, config, on_skip)
    raise SourceError(f"no such file or folder: {path}")


def _open_folder(path: Path, config: SourceConfig, on_skip: Callable[[SkippedFrame], None] | None) -> FrameSource:
    try:
        entries = visible_in(path)
        images = [entry for entry in entries if is_image_name(entry) and entry.is_file()]
        if images:
            return _noting_left_out(ImageFiles(images, str(path), config, on_skip), entries)
        if session := find_recording(path):
            return Recording(session, config, on_skip)
        raise SourceError(f"no images in the folder {path}; {where_else(entries)}")
    except PermissionError:
        raise SourceError(f"no permission to list or enter the folder {path}; change its rights") from None


def _noting_left_out(source: ImageFiles, found: list[Path]) -> ImageFiles:
    if note := left_out(found):
        source.notes.append(note)
    return source


def _open_list(
    paths: list[Path], config: SourceConfig, on_skip: Callable[[SkippedFrame], None] | None
) -> FrameSource:
    if not paths:
        raise SourceError("the list of images is empty")
    missing = [path for path in paths if not _is_there(path)]
    if missing:
        raise SourceError(f"{len(missing)} of {len(paths)} files do not exist, the first is {missing[0]}")
    for path in paths:
        if path.is_dir():
            raise SourceError(f"{path} is a folder; a list may hold image files only")
        _check_readable(path)
    if len(paths) == 1:
        return _open_file(paths[0], config, on_skip)
    if video := next((path for path in paths if path.suffix.lower() in VIDEO_SUFFIXES), None):
        raise SourceError(f"{video} is a video; a list may hold image files only, so give one video by itself")
    return ImageFiles(paths, f"a list of {len(paths)} files", config, on_skip)


def _open_pattern(
    pattern: Path, config: SourceConfig, on_skip: Callable[[SkippedFrame], None] | None
) -> FrameSource:
    matches = natural_order(path for path in map(Path, glob.glob(str(pattern), recursive=True)) if path.is_file())
    if not matches:
        raise SourceError(
            f"no file matches the pattern {pattern}; check the folder, and quote the pattern in a shell"
        )
    images = [path for path in matches if is_image_name(path)]
    if images:
        return _noting_left_out(ImageFiles(images, str(pattern), config, on_skip), matches)
    if len(matches) == 1:
        return _open_file(matches[0], config, on_skip)
    raise SourceError(f"none of the {len(matches)} files that match {pattern} is an image ({IMAGES_LOOKED_FOR})")


def _open_file(path: Path, config: SourceConfig, on_skip: Callable[[SkippedFrame], None] | None) -> FrameSource:
    _check_readable(path)
    if is_image_name(path):
        return ImageFiles([path], str(path), config, on_skip)
    try:
        return VideoFile(path, config, on_skip)
    except NotAVideoError as error:
        if error.still_image:
            return ImageFiles([path], str(path), config, on_skip)
        raise


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:
        raise SourceError(f"no permission to look into {path.parent}") from None
    except (OSError, ValueError) as error:  # a name no file can have
        raise SourceError(f"no such file or folder: {path} ({error})") from None


def _check_readable(path: Path) -> None:
    if not os.access(path, os.R_OK):
        raise SourceError(f"no permission to read {path}")
