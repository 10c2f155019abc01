"""Pictures, depth and cameras from the file formats that data sets use."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from threer.data.samples import SKY
from threer.errors import SourceError
from threer.types import FloatArray

MILLIMETRES = 1000.0
POSE_KEYS = ("pose", "cam2world", "camera_pose", "c2w")
INTRINSICS_KEYS = ("intrinsics", "camera_intrinsics", "intrinsic", "K")
_PICKLED = {
    ("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar"),
    ("numpy", "ndarray"), ("numpy", "dtype"), ("collections", "OrderedDict"),
}  # fmt: skip


def read_depth(path: Path, unit: float = MILLIMETRES) -> npt.NDArray[np.float32]:
    """Depth [H, W]: PNG of 16 bits in 1/``unit``, NPY, NPZ ("depth") or EXR as they are.

    Whatever is not finite becomes 0 (unknown), and everything below 0 becomes -1 (sky).
    Raises `SourceError` for a missing or damaged file.
    """
    _must_exist(path)
    suffix = path.suffix.lower()
    if suffix == ".png":
        depth = read_png(path).astype(np.float32) / unit
    elif suffix in (".npy", ".npz"):
        loaded = read_arrays(path)
        depth = np.asarray(loaded["depth" if suffix == ".npz" else "array"], np.float32)
    elif suffix == ".exr":
        depth = _read_exr(path)
    else:
        raise SourceError(f"{path}: depth must be PNG, NPY, NPZ or EXR")
    depth = np.squeeze(depth)
    if depth.ndim != 2:
        raise SourceError(f"{path}: depth must be [H, W], got {list(depth.shape)}")
    return np.where(np.isfinite(depth), np.where(depth < 0, np.float32(SKY), depth), 0).astype(np.float32)


def read_png(path: Path) -> npt.NDArray[Any]:
    """One channel, 8 or 16 bits, as stored: [H, W]."""
    _must_exist(path)
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if picture is None:
        raise SourceError(f"{path} is damaged or no picture; write it again")
    return picture if picture.ndim == 2 else picture[..., 0]


def _read_exr(path: Path) -> npt.NDArray[np.float32]:
    try:
        import OpenEXR
    except ImportError:
        raise SourceError(f"{path}: EXR needs one more package: pip install 'threer[data]'") from None
    try:
        channels = OpenEXR.File(str(path)).channels()
    except Exception as error:  # the library raises whatever its C++ side does
        raise SourceError(f"{path} is damaged or no EXR ({error})") from None
    name = next((n for n in ("Y", "Z", "V", "R", "RGB") if n in channels), next(iter(channels)))
    pixels = channels[name].pixels
    return np.asarray(pixels if pixels.ndim == 2 else pixels[..., 0], np.float32)


def read_camera(path: Path) -> tuple[FloatArray, FloatArray]:
    """Camera-to-world [4, 4] and K [3, 3] of an NPZ or a JSON file under any of the names that data sets use."""
    _must_exist(path)
    if path.suffix == ".json":
        try:
            fields: Mapping[str, Any] = json.loads(path.read_text())
        except ValueError as error:
            raise SourceError(f"{path} is no JSON ({error})") from None
    else:
        fields = read_arrays(path)
    return camera_of(fields, str(path))


def camera_of(fields: Mapping[str, Any], where: str) -> tuple[FloatArray, FloatArray]:
    """The same from named values. The pose may be absent for single pictures: NaN."""
    K = next((fields[name] for name in INTRINSICS_KEYS if name in fields), None)
    if K is None:
        raise SourceError(f"{where} has no intrinsics, expected one of {', '.join(INTRINSICS_KEYS)}")
    pose = next((fields[name] for name in POSE_KEYS if name in fields), None)
    if pose is None and "R_cam2world" in fields:
        try:
            pose = np.column_stack([np.asarray(fields["R_cam2world"]), np.asarray(fields["t_cam2world"]).ravel()])
        except (KeyError, ValueError):
            raise SourceError(f"{where}: R_cam2world and t_cam2world do not fit together") from None
    c2w = np.full((4, 4), np.nan) if pose is None else pose_of(pose, where)
    return c2w, intrinsics_of(K, where)


def pose_of(value: Any, where: str) -> FloatArray:
    """[4, 4] float64 from [4, 4] or [3, 4]."""
    pose = np.asarray(value, np.float64)
    if pose.shape == (3, 4):
        pose = np.vstack([pose, [0, 0, 0, 1]])
    if pose.shape != (4, 4):
        raise SourceError(f"{where}: a pose must be [4, 4] or [3, 4], got {list(pose.shape)}")
    return pose


def intrinsics_of(value: Any, where: str) -> FloatArray:
    """[3, 3] float64 from a matrix, (fx, fy, cx, cy) or (W, H, fx, fy, cx, cy)."""
    K = np.asarray(value, np.float64)
    if K.shape in ((4,), (6,)):
        fx, fy, cx, cy = K[-4:]
        K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    if K.shape not in ((3, 3), (3, 4), (4, 4)):
        raise SourceError(f"{where}: intrinsics must be [3, 3], got {list(K.shape)}")
    return K[:3, :3].copy()


def read_arrays(path: Path) -> dict[str, Any]:
    """Arrays of an NPZ by name, or of an NPY as "array".

    Arrays of Python objects are unpickled with an allow-list: containers and numbers, no code.
    """
    _must_exist(path)
    try:
        if path.suffix == ".npy":
            with path.open("rb") as file:
                return {"array": _read_array(file)}
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy"): _read_array(archive.open(name)) for name in archive.namelist()}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        raise SourceError(f"{path} is damaged or not what it should be ({error})") from None


def _read_array(file: IO[bytes]) -> Any:
    start = file.tell()
    version = npy.read_magic(file)
    header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    dtype = header(file)[2]
    if dtype.hasobject:
        array = _Containers(file).load()
        return array.item() if array.shape == () else array
    file.seek(start)
    array = npy.read_array(file, allow_pickle=False)
    return array


class _Containers(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _PICKLED:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is refused")


def _must_exist(path: Path) -> None:
    if not path.is_file():
        raise SourceError(f"no such file: {path}")
