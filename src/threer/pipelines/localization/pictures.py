"""The pictures that a run was made of: read from its source again, or the small ones that it keeps itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from threer.config import SourceConfig
from threer.errors import RunError, SourceError
from threer.io.frames import FrameSource
from threer.io.images import RGBImage
from threer.io.runs import Scene
from threer.io.sources import open_source

SMALL = "--pictures run takes the small ones that are in the run, which is less exact"


def run_pictures(scene: Scene, source: Path | None = None) -> Iterator[tuple[int, RGBImage]]:
    """(position in the scene, picture [H, W, 3]) of every frame, in order, without distortion.

    source  where the source of the run is now, if it has moved

    Raises `RunError`, in one line, where the source is gone, cannot be read again or is another one.
    """
    frames = _open(scene, source)
    positions = {int(index): position for position, index in enumerate(scene.table.indices)}
    seen = 0
    for raw in frames:
        position = positions.get(raw.index)
        if position is None:
            continue
        size = scene.cameras.size[position]
        height, width = raw.image.shape[:2]
        if (width, height) != tuple(size):
            raise RunError(
                f"{raw.name} of {frames.name} is {width}×{height}, and frame {raw.index} of {scene.path} was "
                f"{size[0]}×{size[1]}: name the run's own source with --source; {SMALL}"
            )
        seen += 1
        yield position, raw.image
    if seen < len(positions):
        raise RunError(
            f"{frames.name} has {seen} of the {len(positions)} frames of {scene.path}: name the run's own source "
            f"with --source; {SMALL}"
        )


def small_pictures(scene: Scene) -> Iterator[tuple[int, RGBImage]]:
    """(position, picture [h, w, 3] as the network saw it) of every frame; `StoredFrame.to_original` places it."""
    for position in range(len(scene)):
        yield position, scene.frame(position).colours


def _open(scene: Scene, source: Path | None) -> FrameSource:
    settings = scene.settings
    named = settings.get("source") if source is None else source
    if named is None or (source is None and settings.get("fingerprint") is None):
        raise RunError(
            f"{scene.path} was made of something that cannot be read again: name a recording of it with --source; "
            f"{SMALL}"
        )
    try:
        frames = open_source(named, source_settings(settings))
        fingerprint = frames.fingerprint()
    except SourceError as error:
        raise RunError(
            f"the pictures of {scene.path} are needed and cannot be read ({error}): name their place with "
            f"--source; {SMALL}"
        ) from None
    if settings.get("fingerprint") not in (None, fingerprint):
        raise RunError(
            f"{frames.name} is not what {scene.path} was made of, or has changed since: name the run's own source "
            f"with --source; {SMALL}"
        )
    return frames


def source_settings(settings: Mapping[str, Any]) -> SourceConfig:
    """Which frames a run took from its source, and what was undone on them."""
    known: dict[str, Any] = {}
    for field in dataclasses.fields(SourceConfig):
        value = settings.get(field.name)
        if value is None or field.name == "record":
            continue
        known[field.name] = tuple(value) if isinstance(value, list) else value
    return SourceConfig(**known)
