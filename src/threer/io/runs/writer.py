"""Write a run while it happens."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import torch

from threer.errors import RunError
from threer.io.atomic import os_errors_as_run_errors, remove_parts, write_json
from threer.io.cameras import FrameCameras, write_cameras
from threer.io.ply import write_ply
from threer.io.runs import layout
from threer.io.runs.corrections import read_corrections, write_corrections
from threer.io.runs.folder import lock_folder, make_room
from threer.io.runs.layout import Precision, Row, State, StoredFrame
from threer.io.runs.lock import RunLock, this_process
from threer.io.runs.scene import Scene, read_table
from threer.io.trajectory import write_tum
from threer.types import Moves, Update

CAMERAS_GROWTH = 1.25
"""While a run goes on, its files of cameras are written anew when so many times the frames are there: rewriting
them at every chunk would take longer and longer. The chunks hold every camera at any time."""
_BEFORE, _FINAL, _FAILED, _FINAL_AHEAD, _FAILED_AHEAD = 1, 2, 3, 4, 5
"""What is known of a frame; 0 is nothing. Before are those that `resume` counts as written; ahead those that are on
disk from then, too, but did not come again so far."""
_CHUNK_BYTES = 64 << 20  # a chunk of large frames is closed early, so that it stays this small in memory


@dataclass(frozen=True)
class Progress:
    """How far a run was written at one moment.

    chunks  complete chunk files
    open    frames in the chunk after them
    counts  updates of each kind
    """

    chunks: int = 0
    open: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def corrections(self) -> int:
        return self.counts.get("correction", 0)


@dataclass(frozen=True, eq=False)
class _OpenChunk:
    """The chunk that is being filled: its number and its frames are one value, so an interrupt cannot part them."""

    number: int = 0
    rows: list[Row] = field(default_factory=list)

    @property
    def indices(self) -> list[int]:
        return [int(row["index"]) for row in self.rows]


class RunWriter:
    """An `Observer` that keeps every final frame on disk; in memory are one chunk of frames, and a byte of each.

    The folder can be read at any time (`Scene.open`). After a crash all frames up to the latest full chunk or
    `sync` are there; after `finish`, everything. The folder is locked until `finish` or `close`.

    settings      what the run is made with, for ``run.json``
    weights       name, hash and licence of the checkpoint, for ``run.json``
    metric        whether coordinates are metres
    precision     of stored points and confidence; see `layout.pack_points` for what float16 costs
    chunk         frames per file
    cloud_budget  points in ``points.ply``
    keep          share of each frame's points that enters it
    normals       whether its points have normals
    overwrite     replace the run in ``out``, if there is one
    resume        go on with the unfinished run in ``out`` from there. Frames on disk beyond it have to come
                  again, and to come the same; until then they stay where they are.
    lock          of `lock_folder`, if the folder is locked already

    Raises `RunError` if ``out`` holds a run (unless ``overwrite`` or ``resume``) or files of someone else under the
    names of a run, is no folder, cannot be written, or is being written by another process. Files that no run wrote
    are never touched.
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
        normals: bool = False,
        overwrite: bool = False,
        resume: Progress | None = None,
        lock: RunLock | None = None,
    ) -> None:
        if precision not in get_args(Precision):
            raise RunError(f"precision must be one of {', '.join(get_args(Precision))}; got {precision!r}")
        if chunk < 1:
            raise RunError(f"chunk must be at least 1, got {chunk}")
        self.out = out = Path(out)
        self.precision: Precision = precision
        self._settings = settings
        self.chunk, self.cloud_budget, self.keep, self.normals = chunk, cloud_budget, keep, normals
        self._open = _OpenChunk()
        self._frames = bytearray()  # what is known of each, by index
        self._latest = -1
        self._in_order = True
        self._ahead = 0  # the first chunk number that is not on disk from before `resume`
        self._on_disk: tuple[int, list[int]] = 0, []  # the latest chunk that was looked at there, and its frames
        self._cameras_written = 0
        self._before: Mapping[str, int] = {}  # updates of each kind that `resume` counts as written
        self._dropped = 0
        self._corrections: list[Moves] = []  # all that are on disk
        self._corrections_came = 0
        self._corrections_written = True
        self._run = {
            "format": layout.FORMAT,
            "state": "running",
            "process": this_process(),
            "versions": {
                "threer": version("threer"),
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
            "weights": weights,
            "metric": metric,
            "settings": settings,
            "store": {
                "precision": precision,
                "chunk": chunk,
                "cloud_budget": cloud_budget,
                "keep": keep,
                "normals": normals,
            },
        }
        self._lock = lock or lock_folder(out)
        self._owns_lock = lock is None
        try:
            with os_errors_as_run_errors(out):
                if resume is None:
                    make_room(out, overwrite)
                (out / layout.FRAMES).mkdir(exist_ok=True)
            remove_parts(out)
            remove_parts(out / layout.FRAMES)
            if resume is not None:
                self._reopen(resume)
            write_json(out / layout.RUN, self._run)
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        """Frames that came so far, those of before `resume` included."""
        return sum(self._frames.count(state) for state in (_BEFORE, _FINAL, _FAILED))

    def close(self) -> None:
        """Let others write the folder. What was not flushed by `finish` or `sync` is lost."""
        if self._owns_lock:  # whoever gave it may have more to do in the folder
            self._lock.release()

    def on(self, update: Update) -> None:
        """Keep a final frame, a correction, or the fact that a frame failed or was dropped; nothing provisional.

        Raises `RunError` if the disk refuses; `ValueError` if a frame or correction comes twice.
        """
        if update.kind == "correction":
            self._correct(update)
            return
        if update.kind == "provisional":
            return
        if update.kind == "dropped":
            self._dropped += 1
            return
        frame = StoredFrame.from_update(update)
        if self._state(frame.index) in (_BEFORE, _FINAL, _FAILED):
            raise ValueError(f"frame {frame.index} ({frame.name}) was final before")
        size = frame.points.nbytes + frame.conf.nbytes + frame.colours.nbytes
        # Full already: closing it was interrupted. A chunk that grew would hold frames twice after `resume`.
        rows = self._open.rows
        if rows and rows[-1]["index"] == frame.index:  # interrupted right after this, and told again
            rows.pop()
        if rows and (rows[0]["conf"].shape != frame.conf.shape or self._is_full(size)):
            self._close_chunk()
        self._open.rows.append(layout.pack(frame, self.precision))
        self._remember(frame.index, _FINAL if update.kind == "final" else _FAILED)
        if self._is_full(size):
            self._close_chunk()

    def _correct(self, update: Update) -> None:
        """On disk at once, or else before any frame that comes later: who reads those must not miss it."""
        if update.moves is None or update.version != self._corrections_came + 1:
            raise ValueError(f"correction {update.version} is not the next after {self._corrections_came}")
        ahead = self._corrections[update.version :]  # of before `resume`, about frames that are still on disk
        self._corrections_written = False
        self._corrections = [*self._corrections[: update.version - 1], update.moves, *ahead]
        self._corrections_came = update.version
        self._cameras_written = 0  # they are written anew with the next chunk
        self._write_corrections()

    def _write_corrections(self) -> None:
        if not self._corrections_written:
            write_corrections(self.out, self._corrections)
            self._corrections_written = True

    def sync(self) -> Progress:
        """Bring every frame that came so far to disk; returns from where a later writer can `resume`."""
        self._write_open_chunk()
        return Progress(self._open.number, len(self._open.rows), self._counts)

    def finish(self, state: State, report: Mapping[str, Any]) -> Scene:
        """Write what is left: the last chunk, cameras, cloud and report. Gives the scene back.

        Raises `RunError` if the disk refuses; the chunks that are there stay as they are.
        """
        self._write_open_chunk()
        self._write_cameras()
        scene = Scene.open(self.out)
        cloud = scene.cloud(self.keep, self.cloud_budget, normals=self.normals)
        write_ply(self.out / layout.POINTS, cloud)
        found = int(scene.cameras.found.sum())
        counts = self._counts
        counts = {
            **counts,
            "final": counts["final"] + self._frames.count(_FINAL_AHEAD),
            "failed": counts["failed"] + self._frames.count(_FAILED_AHEAD),
            "cameras_found": found,
            "cameras_missing": len(scene) - found,
            "points": len(cloud),
        }
        write_json(self.out / layout.REPORT, {**report, "state": state, "counts": counts})
        self._run["state"] = state
        self._run.pop("process", None)  # gone if an error cut `finish` off, and it is called once more
        write_json(self.out / layout.RUN, self._run)
        self.close()
        return Scene.open(self.out)

    @property
    def _counts(self) -> dict[str, int]:
        """Updates of each kind that came so far; of frames, as they are known, so that none counts twice."""
        came = {
            "final": self._frames.count(_FINAL),
            "failed": self._frames.count(_FAILED),
            "dropped": self._dropped,
        }
        counts = {kind: count + self._before.get(kind, 0) for kind, count in came.items()}
        return {**counts, "correction": self._corrections_came}

    def _is_full(self, size: int) -> bool:
        return len(self._open.rows) >= self.chunk or (len(self._open.rows) + 1) * size > _CHUNK_BYTES

    def _close_chunk(self) -> None:
        self._write_corrections()
        if self._indices_on_disk() != self._open.indices:
            self._write_rows()
        self._open = _OpenChunk(self._open.number + 1)
        if len(self) >= CAMERAS_GROWTH * self._cameras_written:
            self._write_cameras()

    def _write_open_chunk(self) -> None:
        """Unless all its frames are on disk, be it with others from before `resume` that will come again."""
        self._write_corrections()
        indices = self._open.indices
        if self._indices_on_disk()[: len(indices)] != indices:
            self._write_rows()

    def _indices_on_disk(self) -> list[int]:
        """Frames that the file of the open chunk holds."""
        number = self._open.number
        if self._on_disk[0] != number:
            ahead = number < self._ahead
            found = layout.read_chunk(self._chunk_path(number), "index")["index"].tolist() if ahead else []
            self._on_disk = number, found
        return self._on_disk[1]

    def _write_rows(self) -> None:
        layout.write_chunk(self._chunk_path(self._open.number), self._open.rows)
        self._on_disk = self._open.number, self._open.indices

    def _chunk_path(self, number: int) -> Path:
        return self.out / layout.FRAMES / f"{number:06d}.npz"

    def _reopen(self, progress: Progress) -> None:
        """Take up the frames that count as written; remember which more there are."""
        self._open = _OpenChunk(progress.chunks)
        self._before = dict(progress.counts)
        self._corrections, self._corrections_came = read_corrections(self.out), progress.corrections
        if len(self._corrections) < progress.corrections:
            raise RunError(f"{self.out / layout.CORRECTIONS} has lost corrections: overwrite the run to start anew")
        for number in range(progress.chunks):
            for index in layout.read_chunk(self._chunk_path(number), "index")["index"]:
                self._remember(int(index), _BEFORE)
        number = progress.chunks
        while self._chunk_path(number).exists() or (number == progress.chunks and progress.open):
            needed = () if number == progress.chunks else ("index", "conf")
            rows = layout.read_rows(self._chunk_path(number), *needed)
            come = progress.open if number == progress.chunks else 0
            if len(rows) < come:
                raise RunError(
                    f"{self._chunk_path(number)} has lost frames: the run cannot go on, overwrite it to start anew"
                )
            self._open.rows.extend(rows[:come])
            for k, row in enumerate(rows):
                ahead = _FINAL_AHEAD if row["conf"].any() else _FAILED_AHEAD  # failed: kept without a single point
                self._remember(int(row["index"]), _BEFORE if k < come else ahead)
            number += 1
        self._ahead, self._on_disk = number, (-1, [])

    def _state(self, index: int) -> int:
        return self._frames[index] if index < len(self._frames) else 0

    def _remember(self, index: int, state: int) -> None:
        self._frames.extend(bytes(max(0, index + 1 - len(self._frames))))
        self._in_order &= index > self._latest or bool(self._frames[index])
        self._latest = max(self._latest, index)
        self._frames[index] = state

    def _write_cameras(self) -> None:
        """Of all frames on disk, chunk by chunk; all at once if they came in another order than the source has."""
        chunks = sorted((self.out / layout.FRAMES).glob(layout.CHUNK_PATTERN))
        groups = [[chunk] for chunk in chunks] if self._in_order else [chunks]

        def tables() -> Iterator[FrameCameras]:
            return (read_table(group, self._settings, self._corrections) for group in groups)

        write_cameras(self.out / layout.CAMERAS, tables())
        write_tum(self.out / layout.TRAJECTORY, (table.trajectory for table in tables()))
        self._cameras_written = len(self._frames) - self._frames.count(0)
