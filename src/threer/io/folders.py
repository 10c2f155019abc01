"""Image files as a source of frames: which files, in which order."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path, PurePath

import numpy as np

from threer.config import SourceConfig
from threer.errors import SourceError
from threer.io.exif import PhotoFocal, read_focal
from threer.io.frames import FrameSource, RawFrame, SkippedFrame, digest
from threer.io.images import IMAGE_SUFFIXES, RGBImage, load_image

IMAGES_LOOKED_FOR = "images are files that end in " + ", ".join(sorted(IMAGE_SUFFIXES))

# Only for hints: content decides.
VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm"})
_MEDIA_SUFFIXES = VIDEO_SUFFIXES | {".gif", ".avif", ".jp2", ".jxl", ".exr", ".dng", ".cr2", ".cr3", ".nef", ".arw"}

_NUMBERED = re.compile(r"(?P<text>.*?)(?P<number>\d+(?:\.\d+)?)")


class ImageFiles(FrameSource):
    """Image files in the given order, decoded one at a time.

    Files carry no time: the timestamp is the position in the list, as if one was taken every second. Every
    file is taken, whatever ``fps`` says, and ``start`` and ``end`` are refused.
    """

    kind = "images"

    def __init__(
        self,
        paths: Sequence[Path],
        name: str,
        config: SourceConfig,
        on_skip: Callable[[SkippedFrame], None] | None = None,
    ) -> None:
        super().__init__(config, on_skip)
        if config.start is not None or config.end is not None:
            raise SourceError(
                f"{name}: image files have no time, so start and end cannot be used; give the files themselves "
                "(a list or a pattern), or limit them with max_frames"
            )
        self.name = name
        self.paths = tuple(paths)
        self.names = relative_names(paths)
        self._files = dict(zip(self.names, self.paths, strict=True))
        self.expected = min(len(paths), config.max_frames or len(paths))
        self.is_sequence = numbered_like_a_sequence(self.names)

    def _pictures(self) -> Generator[tuple[float, str, RGBImage], None, None]:
        for position, (path, name) in enumerate(zip(self.paths, self.names, strict=True)):
            try:
                image = load_image(path)
            except SourceError as error:
                self._skip(name, str(error))
                continue
            yield float(position), name, image

    def fingerprint(self) -> str:
        return digest(self.names, [_size(path) for path in self.paths])

    def focal_of(self, raw: RawFrame) -> PhotoFocal:
        return read_focal(self._files[raw.name])

    def _why_nothing(self) -> str:
        first = self.skipped[0].reason
        return (
            first
            if len(self.paths) == 1
            else f"none of {len(self.paths)} images in {self.name} can be read: {first}"
        )


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None  # it will be skipped


def visible_in(folder: Path) -> list[Path]:
    """What lies directly in a folder, without hidden files, in natural order."""
    return natural_order(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def left_out(paths: Iterable[Path]) -> str | None:
    """A note about files that their owner may expect to be used, and whose suffix keeps them out."""
    suffixes = Counter(suffix for path in paths if (suffix := path.suffix.lower()) in _MEDIA_SUFFIXES)
    if not suffixes:
        return None
    files = "1 file is" if suffixes.total() == 1 else f"{suffixes.total()} files are"
    return f"{files} left out ({', '.join(sorted(suffixes))}); {IMAGES_LOOKED_FOR}"


def where_else(entries: Iterable[Path]) -> str:
    """What a folder without images holds that its owner may have meant."""
    for entry in entries:
        if entry.suffix.lower() in VIDEO_SUFFIXES:
            return f"to read the video in it, give {entry}"
        if entry.is_dir() and os.access(entry, os.R_OK | os.X_OK) and any(map(is_image_name, entry.iterdir())):
            return f"there are some in its subfolder: give {entry}"
    return IMAGES_LOOKED_FOR


def is_image_name(path: PurePath) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def natural_order(paths: Iterable[Path]) -> list[Path]:
    """Numbers in names count as numbers: frame2 before frame10."""
    return sorted(paths, key=lambda path: ([_natural_key(part) for part in path.parts], path.as_posix()))


def _natural_key(text: str) -> list[tuple[int, int | str]]:
    return [
        (0, int(part)) if part.isdecimal() else (1, part.casefold()) for part in re.split(r"(\d+)", text) if part
    ]


def relative_names(paths: Sequence[Path]) -> tuple[str, ...]:
    """Short names: each path from the folder that all have in common."""
    root = os.path.commonpath([path.absolute().parent for path in paths])
    return tuple(path.absolute().relative_to(root).as_posix() for path in paths)


def numbered_like_a_sequence(names: Sequence[str]) -> bool:
    """Whether names count upwards behind one common text in (nearly) equal steps, as the frames of a video do."""
    matches = [_NUMBERED.fullmatch(PurePath(name).with_suffix("").as_posix()) for name in names]
    if len(names) < 3 or not all(matches) or len({match["text"] for match in matches if match}) > 1:
        return False
    steps = np.diff([float(match["number"]) for match in matches if match])
    usual = np.median(steps)
    regular = (steps >= usual / 2) & (steps <= usual * 2)
    return bool((steps > 0).all() and regular.mean() >= 0.9)
