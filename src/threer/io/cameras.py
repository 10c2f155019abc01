"""Cameras with the frames they belong to, as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from threer.errors import SourceError
from threer.io.atomic import plain, replacing
from threer.types import Cameras, FloatArray, Trajectory

_CONVENTIONS = {
    "axes": "OpenCV: x right, y down, z forward",
    "c2w": "4x4 camera-to-world, null where the camera was not found",
    "K": "3x3 intrinsics in pixels of the upright original image, pixel centres at integers; points and depth "
    "belong to this image without its distortion",
    "distortion": "if there: OpenCV coefficients of the original image, with the same K",
    "size": "width, height of that image",
    "timestamp": "seconds",
}


@dataclass(frozen=True, eq=False)
class FrameCameras:
    """The cameras of N named frames.

    names       N strings
    indices     [N] positions in the frames taken from the source
    timestamps  [N] seconds
    """

    cameras: Cameras
    names: tuple[str, ...]
    indices: npt.NDArray[np.int64]
    timestamps: FloatArray

    def __post_init__(self) -> None:
        if not len(self.cameras) == len(self.names) == len(self.indices) == len(self.timestamps):
            raise ValueError("FrameCameras needs one name, index and timestamp per camera")

    @property
    def trajectory(self) -> Trajectory:
        return Trajectory(self.timestamps, self.cameras.c2w)


def write_cameras(path: Path, table: FrameCameras | Iterable[FrameCameras]) -> None:
    """Write ``cameras.json``: conventions, then a line per frame. Raises `RunError` if that is impossible.

    Of several tables, one after the other, one is in memory at a time.
    """
    tables = [table] if isinstance(table, FrameCameras) else table
    with replacing(path) as part, open(part, "w", encoding="utf-8") as file:
        conventions = json.dumps(_CONVENTIONS, ensure_ascii=False)
        file.write(f'{{"format": 1,\n"conventions": {conventions},\n"frames": [')
        separator = "\n"
        for frame in chain.from_iterable(map(_entries, tables)):
            text = json.dumps(plain(frame), allow_nan=False, ensure_ascii=False)
            file.write(separator + text)
            separator = ",\n"
        file.write("\n]}\n")


def _entries(table: FrameCameras) -> Iterator[dict[str, Any]]:
    cameras = table.cameras
    for k, name in enumerate(table.names):
        entry = {
            "name": name,
            "index": int(table.indices[k]),
            "timestamp": float(table.timestamps[k]),
            "size": cameras.size[k].tolist(),
            "c2w": _matrix_or_none(cameras.c2w[k]),
            "K": _matrix_or_none(cameras.K[k]),
        }
        if cameras.distortion is not None:
            entry["distortion"] = cameras.distortion[k].tolist()
            entry["distortion_model"] = "fisheye" if cameras.fisheye else "opencv"
        yield entry


def read_cameras(path: Path) -> FrameCameras:
    """Read what `write_cameras` wrote. Raises `SourceError` if the file is something else."""
    try:
        frames = json.loads(path.read_text(encoding="utf-8"))["frames"]
        distortion = [frame.get("distortion") for frame in frames]
        cameras = Cameras(
            c2w=_matrices([frame["c2w"] for frame in frames], 4),
            K=_matrices([frame["K"] for frame in frames], 3),
            size=np.array([frame["size"] for frame in frames], np.int64).reshape(-1, 2),
            distortion=np.array(distortion, np.float64) if frames and None not in distortion else None,
            fisheye=bool(frames) and frames[0].get("distortion_model") == "fisheye",
        )
        return FrameCameras(
            cameras,
            tuple(frame["name"] for frame in frames),
            np.array([frame["index"] for frame in frames], np.int64),
            np.array([frame["timestamp"] for frame in frames], np.float64),
        )
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, TypeError, KeyError) as error:
        raise SourceError(f"{path} is not a cameras.json of threer ({error!r})") from None


def _matrix_or_none(matrix: FloatArray) -> list[list[float]] | None:
    return matrix.tolist() if np.isfinite(matrix).all() else None


def _matrices(entries: list[Any], side: int) -> FloatArray:
    """[N, side, side], NaN where there is none."""
    unknown = np.full((side, side), np.nan)
    return np.array([unknown if entry is None else entry for entry in entries], np.float64).reshape(-1, side, side)
