"""A lazy handle on a run folder."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from threer.errors import RunError, ThreerError
from threer.io.cameras import FrameCameras
from threer.io.ply import Cloud
from threer.io.runs import layout
from threer.io.runs.cloud import confident_points, within_budget
from threer.io.runs.corrections import moved_cameras, moves_of, read_corrections
from threer.io.runs.layout import PackedPoints, State, StoredFrame
from threer.types import Cameras, FloatArray, Moves, Sim3, Trajectory

PLACEMENT = "placement"
"""Entry of `run.json`: the similarity by which stored coordinates are moved when they are read."""
_CHUNKS_IN_MEMORY = 2
_PIXELS = ("points", "offset", "scale", "conf", "colours")

_EMPTY: dict[str, npt.NDArray[Any]] = {
    "index": np.empty(0, np.int64),
    "timestamps": np.empty(0),
    "names": np.empty(0, np.str_),
    "c2w": np.empty((0, 4, 4)),
    "K": np.empty((0, 3, 3)),
    "size": np.empty((0, 2), np.int64),
    "to_original": np.empty((0, 2, 3)),
}


class Scene:
    """A reconstruction on disk; frames are read when they are asked for, in the order of the source.

    It shows the run as it was when opened, finished or not: open it again to see what came since.

    path      the run folder
    settings  what the run was made with
    table     names, indices, timestamps and cameras of all frames
    corrections what moved earlier frames while the run went on, in order; frames are given out where it left them
    placement moves the coordinates of the reconstruction into those that are given out; None leaves them
    """

    def __init__(self, path: Path, run: Mapping[str, Any], chunks: list[Path], corrected: bool) -> None:
        self.path = path
        self._run = run
        self._chunks = chunks
        self._loaded: OrderedDict[int, dict[str, npt.NDArray[Any]]] = OrderedDict()

        columns, self._places = _read_listed(chunks)  # position -> (chunk, row)
        self._to_original = columns["to_original"]
        # After the frames: those that a later correction does not move may not be seen without it.
        self.corrections = read_corrections(path) if corrected else []
        self._moves = moves_of(self.corrections, columns["index"])
        if self.corrections:
            columns["c2w"] = moved_cameras(columns["c2w"], self._moves)
        said = run.get(PLACEMENT)
        self.placement = None if said is None else Sim3(said["scale"], np.array(said["R"]), np.array(said["t"]))
        if self.placement is not None:
            columns["c2w"] = self.placement.apply_to_cameras(columns["c2w"])
        self.table = _table(columns, self.settings)

    @classmethod
    def open(cls, path: str | Path, *, corrected: bool = True) -> Scene:
        """Open a run folder, whatever state it is in. Raises `RunError` if it is none.

        corrected  False: frames are where they were when they became final, before loops were closed
        """
        path = Path(path)
        run = read_run(path)
        if run is None:
            raise RunError(f"{path} is not a run folder: it has no {layout.RUN}")
        return cls(path, run, sorted((path / layout.FRAMES).glob(layout.CHUNK_PATTERN)), corrected)

    def __len__(self) -> int:
        return len(self._places)

    @property
    def state(self) -> State:
        state: State = self._run["state"]
        return state

    @property
    def settings(self) -> Mapping[str, Any]:
        settings: Mapping[str, Any] = self._run["settings"]
        return settings

    @property
    def metric(self) -> bool:
        """Whether coordinates are metres; otherwise the scale is arbitrary."""
        return bool(self._run["metric"])

    @property
    def report(self) -> Mapping[str, Any]:
        """Timings, memory and counts of a run that has ended; empty before that."""
        path = self.path / layout.REPORT
        return _read_json(path) if path.is_file() else {}

    @property
    def cameras(self) -> Cameras:
        return self.table.cameras

    @property
    def trajectory(self) -> Trajectory:
        return self.table.trajectory

    def frame(self, position: int) -> StoredFrame:
        """The frame at ``position`` in 0..len-1. Only its chunk is read, and the last few chunks are kept."""
        position = range(len(self))[position]
        k, row = self._places[position]
        pixels = self._chunk(k)
        stored = layout.unpack_points(
            PackedPoints(pixels["points"][row], pixels["offset"][row], float(pixels["scale"][row]))
        )
        move = self._moves[position]
        if self.placement is not None:
            move = self.placement if move is None else self.placement.after(move)
        points = stored if move is None else move.apply(stored).astype(np.float32)
        return StoredFrame(
            name=self.table.names[position],
            index=int(self.table.indices[position]),
            timestamp=float(self.table.timestamps[position]),
            points=points,
            conf=pixels["conf"][row].astype(np.float32),
            colours=pixels["colours"][row].copy(),
            c2w=self.cameras.c2w[position],
            K=self.cameras.K[position],
            size=self.cameras.size[position],
            to_original=self._to_original[position],
        )

    def _chunk(self, k: int) -> dict[str, npt.NDArray[Any]]:
        if k in self._loaded:
            self._loaded.move_to_end(k)
        else:
            while len(self._loaded) >= _CHUNKS_IN_MEMORY:
                self._loaded.popitem(last=False)
            self._loaded[k] = layout.read_chunk(self._chunks[k], *_PIXELS)
        return self._loaded[k]

    def depth(self, position: int) -> FloatArray:
        """[H, W] z in the frame's own camera, in network pixels; NaN where point or camera is not known."""
        frame = self.frame(position)
        forward, centre = frame.c2w[:3, 2], frame.c2w[:3, 3]
        depth: FloatArray = ((frame.points - centre) @ forward).astype(np.float32)
        return depth

    def cloud(
        self,
        keep: float = 0.7,
        max_points: int = 2_000_000,
        min_conf: float | None = None,
        *,
        normals: bool = False,
    ) -> Cloud:
        """The coloured cloud of all frames.

        keep        share of each frame's points that is kept, the most confident first: confidence is not
                    calibrated, so a share means the same for every model
        max_points  beyond this, the most confident point of each voxel is taken
        min_conf    additionally, an absolute threshold
        normals     give points the normals of their pointmaps, towards their cameras

        Unknown points (not finite, at the origin, confidence 0) never enter. Memory depends on ``max_points``,
        not on the number of frames.
        """
        if not 0 < keep <= 1:
            raise ThreerError(f"keep is a share of the points, above 0 and at most 1; got {keep}")
        if max_points < 1:
            raise ThreerError(f"max_points must be at least 1, got {max_points}")
        # In the order of the files, so that each is read once.
        positions = sorted(range(len(self)), key=self._places.__getitem__)
        return within_budget(
            (confident_points(self.frame(k), keep, min_conf, normals) for k in positions), max_points
        )

    def save(self, path: str | Path) -> None:
        """Write the cloud (.ply), the trajectory (.tum) or the cameras (.json). Raises `RunError`."""
        from threer.io.export import write

        write(self, path)


def read_table(chunks: list[Path], settings: Mapping[str, Any], corrections: Sequence[Moves] = ()) -> FrameCameras:
    """The cameras of all frames in some chunk files of a run, in the order of the source. Raises `RunError`."""
    columns, _ = _read_listed(chunks)
    if corrections:
        columns["c2w"] = moved_cameras(columns["c2w"], moves_of(corrections, columns["index"]))
    return _table(columns, settings)


def _read_listed(chunks: list[Path]) -> tuple[dict[str, npt.NDArray[Any]], list[tuple[int, int]]]:
    """What is said about the frames beside their pixels, by index, and the (chunk, row) of each.

    Of a frame that a writer is about to move from one chunk to another both are there for a moment: one counts.
    """
    listed = [layout.read_chunk(chunk, *layout.LISTED) for chunk in chunks]
    columns: dict[str, npt.NDArray[Any]] = {
        name: np.concatenate([chunk[name] for chunk in listed]) if listed else _EMPTY[name]
        for name in layout.LISTED
    }
    _, order = np.unique(columns["index"], return_index=True)
    places = [(k, row) for k, chunk in enumerate(listed) for row in range(len(chunk["index"]))]
    return {name: column[order] for name, column in columns.items()}, [places[k] for k in order]


def _table(columns: Mapping[str, npt.NDArray[Any]], settings: Mapping[str, Any]) -> FrameCameras:
    coefficients = settings.get("distortion")  # of the one lens that took all frames
    distortion = None if coefficients is None else np.tile(np.array(coefficients, float), (len(columns["c2w"]), 1))
    fisheye = bool(settings.get("fisheye", False))
    return FrameCameras(
        Cameras(columns["c2w"], columns["K"], columns["size"], distortion, fisheye),
        tuple(columns["names"].tolist()),
        columns["index"],
        columns["timestamps"],
    )


def read_run(folder: Path) -> Mapping[str, Any] | None:
    """``run.json`` of a folder, or None if there is none. Raises `RunError` if it is not ours or too new."""
    path = folder / layout.RUN
    try:
        if not path.is_file():
            return None
    except PermissionError:
        raise RunError(f"no permission to look into {folder}") from None
    run = _read_json(path)
    if not {"format", "state", "settings", "metric"} <= run.keys():
        raise RunError(f"{path} was not written by threer")
    if run["format"] > layout.FORMAT:
        raise RunError(
            f"{path} has format {run['format']}, this version reads up to {layout.FORMAT}: update threer"
        )
    return run


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise RunError(f"{path} was not written by threer")
    return content
