"""What is known about the lens: read from files of calibration, and undone where it bends lines."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from threer.config import SourceConfig
from threer.errors import SourceError
from threer.io.images import RGBImage
from threer.types import FloatArray

Config = TypeVar("Config", bound=SourceConfig)
BoolArray = npt.NDArray[np.bool_]

_MATRIX = ("camera_matrix", "cameraMatrix", "K")
_COEFFICIENTS = ("distortion_coefficients", "dist_coeffs", "distCoeffs", "D")
_KINDS = "an OpenCV calibration (YAML or JSON), a 3×3 matrix as text, or a transforms.json of nerfstudio"
_LEAST_SEEN = 0.5
"""A lens that leaves less of the picture than this share was not this one."""


@dataclasses.dataclass(frozen=True)
class KnownLens:
    """What a file says: fx, fy, cx, cy in pixels (centres at integers), coefficients, (W, H) of the pictures."""

    intrinsics: tuple[float, float, float, float]
    distortion: tuple[float, ...] | None = None
    fisheye: bool = False
    size: tuple[int, int] | None = None


def with_known_lens(config: Config) -> Config:
    """The same settings with numbers where ``intrinsics`` names a file. What is given beside the file goes first.

    Raises `SourceError` if the file is none of those that can be read.
    """
    if not isinstance(config.intrinsics, Path):
        return config
    lens = read_lens(config.intrinsics)
    given = config.distortion is not None
    return dataclasses.replace(
        config,
        intrinsics=lens.intrinsics,
        distortion=config.distortion if given else lens.distortion,
        fisheye=config.fisheye or (lens.fisheye and not given),
        intrinsics_size=config.intrinsics_size or lens.size,
    )


def intrinsic_matrix(config: SourceConfig) -> FloatArray | None:
    """[3, 3] K in original pixels, if it is given as numbers. Raises `SourceError` for one that no camera has."""
    if config.intrinsics is None or isinstance(config.intrinsics, Path):
        return None
    fx, fy, cx, cy = config.intrinsics
    if not all(math.isfinite(v) for v in config.intrinsics) or fx <= 0 or fy <= 0:
        raise SourceError(
            f"intrinsics must be fx,fy,cx,cy in original pixels with positive fx and fy, got {fx},{fy},{cx},{cy}"
        )
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=np.float64)


def read_lens(path: Path) -> KnownLens:
    """Intrinsics from a file: OpenCV or ROS calibration, a 3×3 matrix as text, nerfstudio's transforms.json.

    nerfstudio counts pixels from their corners; half a pixel is taken off its principal point.
    Raises `SourceError` in one line for anything else.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"cannot read the intrinsics {path}: {error}; give {_KINDS}") from None
    try:
        if path.suffix.lower() in (".yml", ".yaml", ".xml"):
            return _from_calibration(_opencv_fields(text))
        if text.lstrip().startswith("{"):
            fields = json.loads(text)
            return _from_nerfstudio(fields) if "fl_x" in fields else _from_calibration(fields)
        return _from_matrix(np.array([[float(v) for v in line.replace(",", " ").split()] for line in _lines(text)]))
    except (ValueError, TypeError, KeyError, cv2.error, SystemError) as error:  # the last two from OpenCV
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise SourceError(f"{path} holds no intrinsics that can be read ({reason}); give {_KINDS}") from None


def _lines(text: str) -> list[str]:
    return [line for line in (raw.split("#")[0].strip() for raw in text.splitlines()) if line]


def _from_matrix(matrix: npt.NDArray[Any], **more: Any) -> KnownLens:
    if matrix.shape != (3, 3):
        raise ValueError(f"the matrix is {'×'.join(map(str, matrix.shape))}, not 3×3")
    expected = [[matrix[0, 0], 0, matrix[0, 2]], [0, matrix[1, 1], matrix[1, 2]], [0, 0, 1]]
    if not np.isfinite(matrix).all() or not np.allclose(matrix, expected) or min(matrix[0, 0], matrix[1, 1]) <= 0:
        raise ValueError("the matrix is not fx 0 cx, 0 fy cy, 0 0 1 with positive fx and fy")
    return KnownLens(tuple(float(matrix[k]) for k in ((0, 0), (1, 1), (0, 2), (1, 2))), **more)  # type: ignore[arg-type]


def _from_calibration(fields: Mapping[str, Any]) -> KnownLens:
    name = next((name for name in _MATRIX if name in fields), None)
    if name is None:
        raise KeyError(_MATRIX[0])
    coefficients = next((_numbers(fields[name]).reshape(-1) for name in _COEFFICIENTS if name in fields), None)
    bent = coefficients is not None and bool(np.any(coefficients))
    size = (fields.get("image_width"), fields.get("image_height"))
    model = str(fields.get("distortion_model", ""))
    return _from_matrix(
        _numbers(fields[name]).reshape(3, 3),
        distortion=tuple(coefficients.tolist()) if coefficients is not None and bent else None,
        fisheye=bent and model in ("equidistant", "fisheye"),
        size=(int(size[0]), int(size[1])) if size[0] and size[1] else None,
    )


def _numbers(value: Any) -> npt.NDArray[np.float64]:
    """A matrix as OpenCV and ROS write it (with its ``data``), or as lists."""
    return np.array(value["data"] if isinstance(value, Mapping) else value, dtype=np.float64)


def _opencv_fields(text: str) -> dict[str, Any]:
    if text.lstrip()[:1] != "<" and not text.startswith("%YAML"):
        text = f"%YAML:1.0\n---\n{text.removeprefix('---')}"  # OpenCV wants a heading, ROS writes none
    storage = cv2.FileStorage(text, cv2.FILE_STORAGE_READ | cv2.FILE_STORAGE_MEMORY)
    root = storage.root()
    fields: dict[str, Any] = {}
    for name in root.keys():  # noqa: SIM118 - no dictionary
        node = root.getNode(name)
        if name in (*_MATRIX, *_COEFFICIENTS):
            data = node.getNode("data") if node.isMap() else node
            fields[name] = [data.at(k).real() for k in range(data.size())]
        elif node.isInt() or node.isReal():
            fields[name] = node.real()
        elif node.isString():
            fields[name] = node.string()
    storage.release()
    return fields


def _from_nerfstudio(fields: Mapping[str, Any]) -> KnownLens:
    fx = float(fields["fl_x"])
    matrix = np.array([[fx, 0, fields["cx"] - 0.5], [0, fields.get("fl_y", fx), fields["cy"] - 0.5], [0, 0, 1]])
    fisheye = fields.get("camera_model") in ("OPENCV_FISHEYE", "FISHEYE")
    k1, k2, k3, k4, p1, p2 = (float(fields.get(name, 0)) for name in ("k1", "k2", "k3", "k4", "p1", "p2"))
    if not fisheye and k4:
        raise ValueError("its k4 has no equal in OpenCV's model")
    coefficients = (k1, k2, k3, k4) if fisheye else (k1, k2, p1, p2, k3)
    size = (int(fields["w"]), int(fields["h"])) if fields.get("w") and fields.get("h") else None
    bent = fisheye or any(coefficients)
    return _from_matrix(matrix, distortion=coefficients if bent else None, fisheye=fisheye, size=size)


def without_distortion(pixel: FloatArray, K: FloatArray, coefficients: FloatArray, fisheye: bool) -> FloatArray:
    """Where a pixel [2] of an original picture lies in the picture without distortion."""
    undo = cv2.fisheye.undistortPoints if fisheye else cv2.undistortPoints
    moved = undo(np.array(pixel, float).reshape(1, 1, 2), K, coefficients, P=K)
    return np.asarray(moved, np.float64).reshape(2)


class Undistortion:
    """Makes pictures as a lens without distortion would take them, with the same K and size.

    K            [3, 3] in original pixels
    coefficients OpenCV's k1, k2, p1, p2 and more; with ``fisheye`` k1 to k4 of its fisheye model

    The maps of the last size are kept.
    """

    def __init__(self, K: FloatArray, coefficients: tuple[float, ...], *, fisheye: bool = False) -> None:
        self.K, self.fisheye = K, fisheye
        self.coefficients = np.array(coefficients, dtype=np.float64)
        self._size: tuple[int, int] | None = None
        self._maps: tuple[npt.NDArray[Any], npt.NDArray[Any]]
        self._seen: BoolArray | None

    @classmethod
    def of(cls, config: SourceConfig) -> Undistortion | None:
        """What the settings ask for; None where nothing is to be undone."""
        K = intrinsic_matrix(config)
        if K is None or config.distortion is None:
            return None
        return cls(K, config.distortion, fisheye=config.fisheye)

    def __call__(self, image: RGBImage) -> RGBImage:
        """The picture [H, W, 3] without distortion; black where the original shows nothing.

        Raises `SourceError` if the coefficients leave less than half of it.
        """
        self._prepare(image.shape[1], image.shape[0])
        undone: RGBImage = cv2.remap(image, *self._maps, interpolation=cv2.INTER_CUBIC)  # type: ignore[assignment]
        return undone

    def seen(self, size: tuple[int, int]) -> BoolArray | None:
        """[H, W] which pixels of a picture of ``size`` (W, H) the original shows; None for all."""
        self._prepare(*size)
        return self._seen

    def _prepare(self, width: int, height: int) -> None:
        if self._size == (width, height):
            return
        make = cv2.fisheye.initUndistortRectifyMap if self.fisheye else cv2.initUndistortRectifyMap
        maps = make(self.K, self.coefficients, np.eye(3), self.K, (width, height), cv2.CV_32FC1)
        x, y = (np.asarray(each, np.float32) for each in maps)
        seen = (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5) & _unfolded(x, y, self.K)
        if seen.mean() < _LEAST_SEEN:
            raise SourceError(
                f"the distortion {','.join(f'{c:g}' for c in self.coefficients)} leaves {seen.mean():.0%} of a "
                f"picture of {width}×{height}: check it, the intrinsics, and whether --fisheye is meant"
            )
        x[~seen] = y[~seen] = -10
        self._maps = cv2.convertMaps(x, y, cv2.CV_16SC2)
        self._seen = None if seen.all() else seen
        self._size = width, height


def _unfolded(x: npt.NDArray[np.float32], y: npt.NDArray[np.float32], K: FloatArray) -> BoolArray:
    """Where a map of pixels turns nothing over: beyond some radius polynomials may come back."""
    if min(x.shape) < 2:
        return np.ones(x.shape, dtype=bool)
    (y_down, y_right), (x_down, x_right) = np.gradient(y), np.gradient(x)
    v, u = np.indices(x.shape)
    outwards = (x - K[0, 2]) * (u - K[0, 2]) + (y - K[1, 2]) * (v - K[1, 2])
    return np.asarray((x_right * y_down - x_down * y_right > 0) & (outwards >= -1))
