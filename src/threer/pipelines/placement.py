"""The run folder must lie where the source does not look: what comes out would be taken for what goes in."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from threer.errors import RunError
from threer.io.folders import ImageFiles
from threer.io.frames import FrameSource
from threer.io.live import WatchedFolder
from threer.io.runs.layout import PREVIEW


def check_apart(source: str | Path | Sequence[str | Path], frames: FrameSource, out: Path) -> None:
    """Make sure that no picture of a run in ``out`` is, or lies among, those of ``source``, opened as ``frames``.

    Raises `RunError`.
    """
    why = _why_not_apart(source, frames, out.resolve())
    if why:
        raise RunError(f"{out} {why}; what comes out would lie among the images: choose another folder")


def _why_not_apart(source: str | Path | Sequence[str | Path], frames: FrameSource, out: Path) -> str:
    if isinstance(frames, WatchedFolder):  # it looks into no subfolder
        return "is the folder that is watched" if frames.folder.resolve() == out else ""
    if isinstance(source, str | Path):
        path = Path(source).expanduser()
        if path.is_dir():
            return "is the source itself" if path.resolve() == out else ""
        if path.exists() or not glob.has_magic(str(path)):
            return ""
        fixed, changing = _split(path)
        pattern = (*fixed.resolve().parts, *changing)
        if _matches((out / PREVIEW).parts, pattern):
            return f"is where {path} looks for images"
    if isinstance(frames, ImageFiles) and any(image.parent.resolve() == out for image in frames.paths):
        return "is the folder of source images"
    return ""


def _split(pattern: Path) -> tuple[Path, tuple[str, ...]]:
    """The folder in which a pattern begins to vary, and the parts from there on."""
    parts = pattern.absolute().parts
    first = next(k for k, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:first]), parts[first:]


def _matches(path: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether `glob` finds ``path`` by ``pattern``, both given as their parts."""
    if not pattern:
        return not path
    if pattern[0] == "**":
        return _matches(path, pattern[1:]) or (bool(path) and _matches(path[1:], pattern))
    return bool(path) and fnmatch(path[0], pattern[0]) and _matches(path[1:], pattern[1:])
