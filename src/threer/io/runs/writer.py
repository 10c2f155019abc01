"""Write a run while it happens."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from threer.errors import RunError
from threer.io.atomic import os_errors_as_run_errors, write_json
from threer.io.cameras import FrameCameras, write_cameras
from threer.io.ply import write_ply
from threer.io.runs import layout
from threer.io.runs.layout import Precision, State, StoredFrame
from threer.io.runs.scene import Scene, read_run
from threer.io.trajectory import write_tum
from threer.types import Cameras, Update

_CHUNK_BYTES = 64 << 20  # a chunk of large frames is closed early, so that it stays this small in memory
_PRODUCTS = (layout.RUN, layout.REPORT, layout.CAMERAS, layout.TRAJECTORY, layout.POINTS, layout.PREVIEW)


class RunWriter:
    """An `Observer` that keeps every final frame on disk; at most one chunk of frames is in memory.

    The folder can be read at any time (`Scene.open`). After a crash all complete chunks are there; after
    `finish`, everything.

    settings      what the run is made with, for ``run.json``
    weights       name, hash and licence of the checkpoint, for ``run.json``
    metric        whether coordinates are metres
    precision     of stored points and confidence; see `layout.pack_points` for what float16 costs
    chunk         frames per file
    cloud_budget  points in ``points.ply``
    keep          share of each frame's points that enters it
    overwrite     replace the run in ``out``, if there is one

    Raises `RunError` if ``out`` holds a run (unless ``overwrite``) or files of someone else under the names of a
    run, is no folder, or cannot be written. Files that no run wrote are never touched.
    """

    def __init__(
        self,
        out: Path,
        settings: Mapping[str, Any],
        *,
        weights: Mapping[str, Any] | None = None,
        metric: bool = False,
        precision: Precision = "float16",
        chunk: int = 64,
        cloud_budget: int = 2_000_000,
        keep: float = 0.7,
        overwrite: bool = False,
    ) -> None:
        if precision not in get_args(Precision):
            raise RunError(f"precision must be one of {', '.join(get_args(Precision))}; got {precision!r}")
        if chunk < 1:
            raise RunError(f"chunk must be at least 1, got {chunk}")
        self.out = out = Path(out)
        self.precision: Precision = precision
        self.chunk, self.cloud_budget, self.keep = chunk, cloud_budget, keep
        self._waiting: list[StoredFrame] = []
        self._known: dict[int, StoredFrame] = {}  # by index, without pixels
        self._chunks = 0
        self._counts = Counter(dict.fromkeys(("final", "failed", "dropped"), 0))
        self._run = {
            "format": layout.FORMAT,
            "state": "running",
            "versions": {
                "threer": version("threer"),
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
            "weights": weights,
            "metric": metric,
            "settings": settings,
            "store": {"precision": precision, "chunk": chunk, "cloud_budget": cloud_budget, "keep": keep},
        }
        with os_errors_as_run_errors(out):
            out.mkdir(parents=True, exist_ok=True)
            _make_room(out, overwrite)
        write_json(out / layout.RUN, self._run)
        with os_errors_as_run_errors(out):
            (out / layout.FRAMES).mkdir(exist_ok=True)

    def on(self, update: Update) -> None:
        """Keep a final frame, or the fact that a frame failed or was dropped. Provisional points are not kept.

        Raises `RunError` if the disk refuses; `ValueError` if a frame comes twice, and for corrections of frames
        that are on disk already.
        """
        if update.kind == "correction":
            raise ValueError("a run on disk cannot be corrected: send frames when they are final")
        if update.kind == "provisional":
            return
        self._counts[update.kind] += 1
        if update.kind == "dropped":
            return
        frame = StoredFrame.from_update(update)
        if frame.index in self._known:
            raise ValueError(f"frame {frame.index} ({frame.name}) was final before")
        if self._waiting and self._waiting[0].conf.shape != frame.conf.shape:
            self._flush()
        self._waiting.append(frame)
        self._known[frame.index] = _without_pixels(frame)
        size = frame.points.nbytes + frame.conf.nbytes + frame.colours.nbytes
        if len(self._waiting) >= self.chunk or (len(self._waiting) + 1) * size > _CHUNK_BYTES:
            self._flush()

    def finish(self, state: State, report: Mapping[str, Any]) -> Scene:
        """Write what is left: the last chunk, cameras, cloud and report. Gives the scene back.

        Raises `RunError` if the disk refuses; the chunks that are there stay as they are.
        """
        self._flush()
        scene = Scene.open(self.out)
        cloud = scene.cloud(self.keep, self.cloud_budget)
        write_ply(self.out / layout.POINTS, cloud)
        found = int(scene.cameras.found.sum())
        counts = {
            **self._counts,
            "cameras_found": found,
            "cameras_missing": len(scene) - found,
            "points": len(cloud),
        }
        write_json(self.out / layout.REPORT, {**report, "state": state, "counts": counts})
        self._run["state"] = state
        write_json(self.out / layout.RUN, self._run)
        return Scene.open(self.out)

    def _flush(self) -> None:
        if self._waiting:
            path = self.out / layout.FRAMES / f"{self._chunks:06d}.npz"
            layout.write_chunk(path, self._waiting, self.precision)
            self._chunks += 1
            self._waiting.clear()
        self._write_cameras()

    def _write_cameras(self) -> None:
        frames = [self._known[index] for index in sorted(self._known)]
        table = FrameCameras(
            Cameras(
                np.array([frame.c2w for frame in frames]).reshape(-1, 4, 4),
                np.array([frame.K for frame in frames]).reshape(-1, 3, 3),
                np.array([frame.size for frame in frames], np.int64).reshape(-1, 2),
            ),
            tuple(frame.name for frame in frames),
            np.array([frame.index for frame in frames], np.int64),
            np.array([frame.timestamp for frame in frames]),
        )
        write_cameras(self.out / layout.CAMERAS, table)
        write_tum(self.out / layout.TRAJECTORY, table.trajectory)


def _without_pixels(frame: StoredFrame) -> StoredFrame:
    no_pixels = np.empty((0, 0), np.float32)  # not a slice, which would keep the pixels alive
    return replace(frame, points=no_pixels[..., None], conf=no_pixels, colours=np.empty((0, 0, 3), np.uint8))


def _make_room(out: Path, overwrite: bool) -> None:
    """Make sure that a new run harms nothing; remove the old one if that is wanted."""
    run = read_run(out)
    chunks = sorted((out / layout.FRAMES).glob(layout.CHUNK_PATTERN))
    present = [path for path in (*(out / name for name in _PRODUCTS), *chunks) if path.exists()]
    if run is None:
        if present:
            raise RunError(f"{present[0]} is in the way and belongs to no run; choose another folder or move it")
        return
    # A run that ended before its first chunk has nothing to lose.
    if not overwrite and (run["state"] == "complete" or chunks):
        raise RunError(f"{out} holds a run already ({run['state']}); choose another folder, or overwrite it")
    # run.json goes last: if this is cut off, what is left is still known as ours.
    for path in reversed(present):
        path.unlink()
