"""What lies where in a run folder, and how frames are packed into chunk files."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from threer.errors import RunError
from threer.io.atomic import replacing
from threer.types import FloatArray, Update

FORMAT = 1  # of run.json and the chunk files

RUN = "run.json"
REPORT = "report.json"
CAMERAS = "cameras.json"
CORRECTIONS = "corrections.json"
TRAJECTORY = "trajectory.tum"
POINTS = "points.ply"
PREVIEW = "preview.png"
MESH = "mesh.ply"  # on demand, of the frames and the scale that were there then
MODEL_STATE = "state.safetensors"  # what a recurrent network remembers of the scene
FRAMES = "frames"
RESUME = "resume"
CHUNK_PATTERN = "[0-9][0-9][0-9][0-9][0-9][0-9].npz"

Precision = Literal["float16", "float32"]
State = Literal["running", "complete", "interrupted", "failed"]

_HALF_MAX = 65504.0
# Deviations are scaled to this, which leaves float16 its full precision over nine orders of magnitude.
_HALF_RANGE = 32768.0


@dataclass(frozen=True, eq=False)
class StoredFrame:
    """A final frame. Points that are not known are NaN, with confidence 0.

    name, index, timestamp (s)  as in `Frame`
    points       [H, W, 3] float32, world frame
    conf         [H, W] float32
    colours      [H, W, 3] uint8
    c2w, K       [4, 4] and [3, 3] (original pixels), NaN where not found
    size         [2] (W, H) of the upright original
    to_original  [2, 3] network pixel -> original pixel
    """

    name: str
    index: int
    timestamp: float
    points: npt.NDArray[np.float32]
    conf: npt.NDArray[np.float32]
    colours: npt.NDArray[np.uint8]
    c2w: FloatArray
    K: FloatArray
    size: npt.NDArray[np.int64]
    to_original: FloatArray

    @classmethod
    def from_update(cls, update: Update) -> StoredFrame:
        """What a final or failed update leaves behind; a failed frame may have neither points nor a camera.

        Points that are not finite or exactly at the origin (how networks' maps mark masked pixels) are unknown.
        """
        frame = update.frame
        height, width = frame.image.shape[1:]
        points = np.full((height, width, 3), np.nan, np.float32)
        conf = np.zeros((height, width), np.float32)
        if update.points is not None:
            if update.points.conf.shape != (height, width):
                raise ValueError(
                    f"points of {frame.name} are {list(update.points.conf.shape)}, not {[height, width]}"
                )
            points[:] = update.points.xyz.detach().cpu().numpy()
            conf[:] = update.points.conf.detach().cpu().numpy()
        unknown = ~np.isfinite(points).all(axis=-1) | (points == 0).all(axis=-1) | ~np.isfinite(conf)
        points[unknown], conf[unknown] = np.nan, 0
        return cls(
            name=frame.name,
            index=frame.index,
            timestamp=frame.timestamp,
            points=points,
            conf=conf,
            colours=(frame.image * 255).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy(),
            c2w=np.full((4, 4), np.nan) if update.c2w is None else np.asarray(update.c2w, np.float64),
            K=np.full((3, 3), np.nan) if update.K is None else np.asarray(update.K, np.float64),
            size=np.array(frame.original_size, np.int64),
            to_original=np.asarray(frame.to_original, np.float64),
        )


@dataclass(frozen=True, eq=False)
class PackedPoints:
    """Points = values · scale + offset.   values [..., 3] float16 or float32, offset [3], scale a number."""

    values: npt.NDArray[np.floating]
    offset: npt.NDArray[np.float64]
    scale: float


def pack_points(points: npt.NDArray[np.float32], precision: Precision) -> PackedPoints:
    """Prepare the points of one frame [H, W, 3] for storage.

    float32 is exact. float16 is relative to the frame's median point m: each coordinate x is off by at most
    2⁻¹¹ |x - m| + 2⁻⁴⁰ max |x - m| (and the rounding of float32 itself), so neither far scenes nor far outliers
    cost precision.
    """
    known = np.isfinite(points).all(axis=-1)
    if precision == "float32" or not known.any():
        return PackedPoints(points.astype(precision), np.zeros(3), 1.0)
    offset = np.median(points[known].astype(np.float64), axis=0)
    deviation = points - offset
    scale = float(np.abs(deviation[known]).max()) / _HALF_RANGE or 1.0
    return PackedPoints((deviation / scale).astype(np.float16), offset, scale)


def unpack_points(packed: PackedPoints) -> npt.NDArray[np.float32]:
    unpacked: npt.NDArray[np.float32] = packed.values.astype(np.float32)
    if packed.scale != 1:
        unpacked *= np.float32(packed.scale)
    if packed.offset.any():
        unpacked += packed.offset.astype(np.float32)
    return unpacked


Row = Mapping[str, npt.NDArray[Any]]
"""A frame as it is stored: one value of each array of its chunk file."""

LISTED = ("index", "timestamps", "names", "c2w", "K", "size", "to_original")
"""What is said about a frame beside its pixels."""


def pack(frame: StoredFrame, precision: Precision) -> Row:
    """Prepare a frame for storage; `pack_points` tells what float16 costs."""
    points = pack_points(frame.points, precision)
    row = {
        "points": points.values,
        "offset": points.offset,
        "scale": points.scale,
        "conf": np.minimum(frame.conf, _HALF_MAX).astype(np.float16) if precision == "float16" else frame.conf,
        "colours": frame.colours,
        "index": frame.index,
        "timestamps": frame.timestamp,
        "names": frame.name,
        "c2w": frame.c2w,
        "K": frame.K,
        "size": frame.size,
        "to_original": frame.to_original,
    }
    return {column: np.asarray(value) for column, value in row.items()}


def write_chunk(path: Path, rows: Sequence[Row]) -> None:
    """Write frames of one size as an uncompressed npz of stacked arrays, atomically. Raises `RunError`."""
    with replacing(path) as part:
        columns = {column: np.stack([row[column] for row in rows]) for column in rows[0]}
        np.savez(part, **columns)  # type: ignore[arg-type]


def read_rows(path: Path, *names: str) -> list[Row]:
    """The frames of a chunk; writing all of them again gives the same file. Raises `RunError` if it is damaged."""
    chunk = read_chunk(path, *names)
    # Copies, so that rows can be let go one by one.
    return [{name: np.array(column[k]) for name, column in chunk.items()} for k in range(len(chunk["index"]))]


def read_chunk(path: Path, *names: str) -> dict[str, npt.NDArray[np.generic]]:
    """Some of a chunk's arrays, or all; the others are not read. Raises `RunError` if the file is damaged."""
    try:
        with np.load(path, allow_pickle=False) as chunk:
            return {name: chunk[name] for name in names or chunk.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise RunError(f"{path} cannot be read ({error}); remove the file to use the rest of the run") from error
