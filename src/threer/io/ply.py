"""Point clouds as binary PLY."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from threer.errors import SourceError
from threer.io.atomic import replacing

_SLAB = 1 << 20  # points converted at a time, so that writing needs little memory of its own

_NUMPY_TYPES = {
    **dict.fromkeys(("char", "int8"), "<i1"),
    **dict.fromkeys(("uchar", "uint8"), "<u1"),
    **dict.fromkeys(("short", "int16"), "<i2"),
    **dict.fromkeys(("ushort", "uint16"), "<u2"),
    **dict.fromkeys(("int", "int32"), "<i4"),
    **dict.fromkeys(("uint", "uint32"), "<u4"),
    **dict.fromkeys(("float", "float32"), "<f4"),
    **dict.fromkeys(("double", "float64"), "<f8"),
}
_NORMAL = ("nx", "ny", "nz")
_FIELD_TYPES = {"<f4": "float", "u1": "uchar"}


class Cloud(NamedTuple):
    """A coloured point cloud.

    xyz   [M, 3] float32
    rgb   [M, 3] uint8
    conf  [M] float32, or None
    normals [M, 3] float32 of length 1, NaN where not known, or None
    """

    xyz: npt.NDArray[np.float32]
    rgb: npt.NDArray[np.uint8]
    conf: npt.NDArray[np.float32] | None = None
    normals: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.xyz)


def write_ply(path: Path, cloud: Cloud) -> None:
    """Write binary little-endian PLY: float x y z, uchar red green blue and, if given, float confidence, nx ny nz.

    A normal that is not known is written as 0 0 0.
    Raises `RunError` if the file cannot be written.
    """
    fields = [(axis, "<f4") for axis in "xyz"] + [(colour, "u1") for colour in ("red", "green", "blue")]
    if cloud.conf is not None:
        fields.append(("confidence", "<f4"))
    if cloud.normals is not None:
        fields += [(name, "<f4") for name in _NORMAL]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(cloud.xyz)}"]
    header += [f"property {_FIELD_TYPES[kind]} {name}" for name, kind in fields] + ["end_header", ""]
    with replacing(path) as part, open(part, "wb") as file:
        file.write("\n".join(header).encode("ascii"))
        for first in range(0, len(cloud.xyz), _SLAB):
            slab = slice(first, first + _SLAB)
            vertices = np.empty(len(cloud.xyz[slab]), dtype=fields)
            for column, name in enumerate(("x", "y", "z")):
                vertices[name] = cloud.xyz[slab, column]
            for column, name in enumerate(("red", "green", "blue")):
                vertices[name] = cloud.rgb[slab, column]
            if cloud.conf is not None:
                vertices["confidence"] = cloud.conf[slab]
            if cloud.normals is not None:
                for column, name in enumerate(_NORMAL):
                    vertices[name] = np.nan_to_num(cloud.normals[slab, column])
            file.write(vertices.tobytes())


def read_ply(path: Path) -> Cloud:
    """Read the vertices of a binary little-endian PLY; points without colour come out white.

    Raises `SourceError` if the file is not of that kind or shorter than its header says.
    """
    try:
        with open(path, "rb") as file:
            count, dtype = _read_header(path, file)
            vertices = np.fromfile(file, dtype=dtype, count=count)
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from None
    if len(vertices) < count:
        raise SourceError(f"{path} is cut off: {len(vertices)} of {count} points are there")
    assert dtype.names is not None
    if not {"x", "y", "z"} <= set(dtype.names):
        raise SourceError(f"{path} has no x, y, z per vertex")
    xyz = np.stack([vertices[axis] for axis in "xyz"], axis=-1).astype(np.float32)
    rgb = np.full((count, 3), 255, np.uint8)
    if {"red", "green", "blue"} <= set(dtype.names):
        rgb = np.stack([vertices[colour] for colour in ("red", "green", "blue")], axis=-1).astype(np.uint8)
    return Cloud(xyz, rgb, vertices["confidence"].astype(np.float32) if "confidence" in dtype.names else None)


def _read_header(path: Path, file: BinaryIO) -> tuple[int, np.dtype[np.void]]:
    """Number of vertices and the layout of one. Vertices must be the first element, as they nearly always are."""
    if file.readline().strip() != b"ply":
        raise SourceError(f"{path} is not a PLY file")
    count, element, fields = None, "", []
    while words := file.readline(1000).decode("ascii", "replace").split():
        match words:
            case ["end_header"]:
                break
            case ["format", kind, _] if kind != "binary_little_endian":
                raise SourceError(f"{path} is {kind} PLY; only binary_little_endian can be read: convert it")
            case ["element", element, number]:
                if count is None and element != "vertex":
                    raise SourceError(f"{path} does not begin with its vertices; export it as a point cloud")
                count = int(number) if element == "vertex" else count
            case ["property", kind, name] if element == "vertex" and kind in _NUMPY_TYPES:
                fields.append((name, _NUMPY_TYPES[kind]))
            case ["property", *_] if element == "vertex":
                raise SourceError(f"{path} has a vertex property that cannot be read: {' '.join(words)}")
    else:
        raise SourceError(f"{path} is cut off inside its header")
    if count is None:
        raise SourceError(f"{path} has no vertices")
    return count, np.dtype(fields)
