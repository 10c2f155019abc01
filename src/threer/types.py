"""The types every layer shares. Frozen, and checked when made.

B batch, V views, N frames, H×W pixels. Cameras are OpenCV (x right, y down, z forward), camera-to-world, with
pixel centres at integers. A camera that was not found is NaN; identity is never passed off as a result.
Data is torch up to `Prediction`, NumPy from `Cameras` on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

FloatArray = npt.NDArray[np.floating[Any]]
CoordinateFrame = Literal["reference", "first", "world"]
UpdateKind = Literal["provisional", "final", "correction", "dropped", "failed"]


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _shape(name: str, value: Tensor | FloatArray, *pattern: int | None) -> None:
    """Check the trailing dimensions of ``value`` against ``pattern`` (None = any size)."""
    got = tuple(value.shape)
    tail = got[len(got) - len(pattern) :] if len(got) >= len(pattern) else ()
    good = len(tail) == len(pattern) and all(p is None or p == s for p, s in zip(pattern, tail, strict=True))
    want = ", ".join("?" if p is None else str(p) for p in pattern)
    _expect(good, f"{name} must have shape [..., {want}], got {list(got)}")


@dataclass(frozen=True, eq=False)
class Frame:
    """One prepared input image.

    image          [3, H, W] float32, RGB 0..1, already at the model's input size
    index          position in the frames taken, from 0
    timestamp      seconds from the start of the source
    name           file name, or the video's name and time
    original_size  (W, H) of the upright original image
    to_original    [2, 3] affine: network pixel (x, y, 1) -> original pixel, pixel centres at integers
    """

    image: Tensor
    index: int
    timestamp: float
    name: str
    original_size: tuple[int, int]
    to_original: FloatArray

    def __post_init__(self) -> None:
        _expect(self.image.ndim == 3, f"Frame.image must be [3, H, W], got {list(self.image.shape)}")
        _shape("Frame.image", self.image, 3, None, None)
        _expect(self.to_original.shape == (2, 3), "Frame.to_original must be [2, 3]")

    @property
    def size(self) -> tuple[int, int]:
        """(W, H) of the network image."""
        return self.image.shape[2], self.image.shape[1]


@dataclass(frozen=True, eq=False)
class View:
    """One network input for a batch of B samples: an image or its cached tokens, or the rays of a camera, or both.

    image       [B, 3, H, W] in [-1, 1], or None when ``tokens`` are given
    true_shape  [B, 2] int: real (height, width) of each sample
    tokens      [B, N, C] encoder output before the encoder's final norm, or None
    points      [B, H, W, 3] known points for SLAM3R's Local-to-World (world frame for scene frames, camera frame
                for key frames), or None
    void        [B, H/16, W/16] bool: patches whose points are unknown, or None
    ray_map     [B, H, W, 6] camera rays for CUT3R, seen from the first camera, or None
    image_mask  [B] bool: samples whose image (or tokens) counts, or None for all; the others may hold anything
    ray_mask    [B] bool: samples whose rays count, or None for all; the others may hold anything
    """

    image: Tensor | None = None
    true_shape: Tensor | None = None
    tokens: Tensor | None = None
    points: Tensor | None = None
    void: Tensor | None = None
    ray_map: Tensor | None = None
    image_mask: Tensor | None = None
    ray_mask: Tensor | None = None

    def __post_init__(self) -> None:
        pictured = self.image is not None or self.tokens is not None
        _expect(pictured or self.ray_map is not None, "View needs an image, tokens or a ray map")
        if self.image is not None:
            _expect(self.image.ndim == 4, f"View.image must be [B, 3, H, W], got {list(self.image.shape)}")
            _shape("View.image", self.image, 3, None, None)
        if self.tokens is not None:
            _expect(self.tokens.ndim == 3, f"View.tokens must be [B, N, C], got {list(self.tokens.shape)}")
        if self.ray_map is not None:
            _expect(self.ray_map.ndim == 4, f"View.ray_map must be [B, H, W, 6], got {list(self.ray_map.shape)}")
            _shape("View.ray_map", self.ray_map, None, None, 6)
            _expect(
                self.image is None or self.image.shape[-2:] == self.ray_map.shape[1:3],
                f"View.ray_map {list(self.ray_map.shape)} does not fit the image",
            )
        if self.true_shape is None:
            sized = self.image.shape[-2:] if self.image is not None else None
            sized = self.ray_map.shape[1:3] if sized is None and self.ray_map is not None else sized
            _expect(sized is not None, "View with tokens only needs true_shape")
            assert sized is not None
            object.__setattr__(self, "true_shape", torch.tensor([list(sized)]).repeat(self.batch, 1))
        if self.points is not None:
            _shape("View.points", self.points, None, None, 3)
        for name, mask, masked in (
            ("image_mask", self.image_mask, pictured),
            ("ray_mask", self.ray_mask, self.ray_map is not None),
        ):
            if mask is not None:
                _expect(masked, f"View.{name} has nothing to mask")
                _expect(
                    mask.dtype == torch.bool and list(mask.shape) == [self.batch],
                    f"View.{name} must be bool [{self.batch}], got {mask.dtype} {list(mask.shape)}",
                )

    @property
    def batch(self) -> int:
        known = next(t for t in (self.image, self.tokens, self.ray_map) if t is not None)
        return int(known.shape[0])

    @property
    def has_image(self) -> Tensor:
        """[B] bool, on the CPU: samples with an image, or its tokens."""
        return self._present(self.image is not None or self.tokens is not None, self.image_mask)

    @property
    def has_rays(self) -> Tensor:
        """[B] bool, on the CPU: samples with a ray map."""
        return self._present(self.ray_map is not None, self.ray_mask)

    def _present(self, given: bool, mask: Tensor | None) -> Tensor:
        return torch.full((self.batch,), given) if mask is None else mask.cpu()

    @property
    def shape(self) -> Tensor:
        """[B, 2] real (height, width)."""
        assert self.true_shape is not None
        return self.true_shape


@dataclass(frozen=True, eq=False)
class Pointmap:
    """A 3D point and a confidence for every pixel.

    xyz   [..., H, W, 3]
    conf  [..., H, W] finite, at least 0 (networks give 1 + exp; masks may set 0)
    """

    xyz: Tensor
    conf: Tensor

    def __post_init__(self) -> None:
        _shape("Pointmap.xyz", self.xyz, None, None, 3)
        _expect(
            self.conf.shape == self.xyz.shape[:-1],
            f"Pointmap.conf {list(self.conf.shape)} does not fit xyz {list(self.xyz.shape)}",
        )

    @property
    def depth(self) -> Tensor:
        """[..., H, W] z, which is depth where the frame is the camera's own."""
        return self.xyz[..., 2]


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a network says about one view.

    points  in the coordinate frame named by ``frame``
    logits  [B, N] raw retrieval score per patch (SLAM3R source views), or None
    local   the same pixels in the view's own camera frame, or None
    c2w     [B, 4, 4] camera-to-world, or None
    rgb     [B, H, W, 3] colours in (-1, 1), or None
    """

    points: Pointmap
    frame: CoordinateFrame
    logits: Tensor | None = None
    local: Pointmap | None = None
    c2w: Tensor | None = None
    rgb: Tensor | None = None

    def __post_init__(self) -> None:
        maps = self.points.xyz.shape
        if self.local is not None:
            _expect(
                self.local.xyz.shape == maps,
                f"Prediction.local {list(self.local.xyz.shape)} does not fit points {list(maps)}",
            )
        if self.c2w is not None:
            _shape("Prediction.c2w", self.c2w, 4, 4)
        if self.rgb is not None:
            _expect(self.rgb.shape == maps, f"Prediction.rgb must be {list(maps)}, got {list(self.rgb.shape)}")


@dataclass(frozen=True, eq=False)
class Sim3:
    """Similarity X' = scale · R X + t.   R [3, 3], t [3]."""

    scale: float
    R: FloatArray
    t: FloatArray

    def __post_init__(self) -> None:
        _expect(self.R.shape == (3, 3) and self.t.shape == (3,), "Sim3 needs R [3, 3] and t [3]")
        # The last bits of a product depend on the layout, and one that was saved comes back in the usual one.
        object.__setattr__(self, "R", np.ascontiguousarray(self.R))
        object.__setattr__(self, "t", np.ascontiguousarray(self.t))

    def apply(self, points: FloatArray) -> FloatArray:
        """[..., 3] -> [..., 3]."""
        moved: FloatArray = self.scale * points @ self.R.T + self.t
        return moved

    def apply_to_cameras(self, c2w: FloatArray) -> FloatArray:
        """[N, 4, 4] camera-to-world; rotations stay orthonormal."""
        out = np.array(c2w, dtype=np.float64)
        out[..., :3, :3] = self.R @ out[..., :3, :3]
        out[..., :3, 3] = self.apply(out[..., :3, 3])
        return out

    def after(self, first: Sim3) -> Sim3:
        """The similarity that applies ``first``, then this one."""
        return Sim3(self.scale * first.scale, self.R @ first.R, self.apply(first.t))

    def inverse(self) -> Sim3:
        return Sim3(1.0 / self.scale, self.R.T, -(self.R.T @ self.t) / self.scale)


@dataclass(frozen=True, eq=False)
class Moves:
    """A similarity for each frame up to a last one: X' = scale · R X + t of its points, and its camera with them.

    indices  [K] ascending indices of frames in the source, of which the last is the last that moves
    sim3     K similarities. Frames between two of these go along the geodesic between theirs, those before the
             first with the first, and those after the last stay.
    """

    indices: npt.NDArray[np.integer[Any]]
    sim3: tuple[Sim3, ...]

    def __post_init__(self) -> None:
        good = self.indices.ndim == 1 and len(self.indices) == len(self.sim3) > 0
        _expect(good, f"Moves needs a similarity for each index, got {len(self.sim3)} for {self.indices.shape}")
        _expect(bool((np.diff(self.indices) > 0).all()), "Moves.indices must be ascending")

    @property
    def last(self) -> int:
        return int(self.indices[-1])


@dataclass(frozen=True, eq=False)
class Cameras:
    """A camera for each of N frames.

    c2w         [N, 4, 4] camera-to-world, NaN where not found
    K           [N, 3, 3] intrinsics in original pixels, centres at integers; NaN where not found
    size        [N, 2] (W, H) of the original images
    distortion  [N, k] OpenCV coefficients that were undone on input, or None
    fisheye     whether they are those of OpenCV's fisheye model

    Points, depth and colours belong to the picture without distortion, a pinhole camera with ``K``; the original
    picture, of the same size, is taken by ``K`` with ``distortion``.
    """

    c2w: FloatArray
    K: FloatArray
    size: npt.NDArray[np.integer[Any]]
    distortion: FloatArray | None = None
    fisheye: bool = False

    def __post_init__(self) -> None:
        n = len(self.c2w)
        _expect(self.c2w.shape == (n, 4, 4), f"Cameras.c2w must be [N, 4, 4], got {self.c2w.shape}")
        _expect(self.K.shape == (n, 3, 3), f"Cameras.K must be [{n}, 3, 3], got {self.K.shape}")
        _expect(self.size.shape == (n, 2), f"Cameras.size must be [{n}, 2], got {self.size.shape}")

    def __len__(self) -> int:
        return len(self.c2w)

    @property
    def found(self) -> npt.NDArray[np.bool_]:
        """[N] which cameras are known."""
        return np.asarray(np.isfinite(self.c2w).all(axis=(1, 2)))


@dataclass(frozen=True, eq=False)
class Trajectory:
    """timestamps [N] seconds, c2w [N, 4, 4] (NaN where not found)."""

    timestamps: FloatArray
    c2w: FloatArray

    def __post_init__(self) -> None:
        _expect(self.c2w.shape == (len(self.timestamps), 4, 4), "Trajectory needs one c2w per timestamp")

    @property
    def positions(self) -> FloatArray:
        """[N, 3] camera centres."""
        return self.c2w[:, :3, 3]


@dataclass(frozen=True, eq=False)
class Update:
    """One thing a running reconstruction says about one frame.

    kind     final: its own points never change again · provisional: will be replaced · correction: `moves` moves
             final frames, each as a whole · dropped: not processed · failed: processed without success (why in
             `message`)
    frame    the frame it is about; of a correction, the latest that came out before it, and so the last it moves
    version  counts up when a frame is replaced; of a correction, its number from 1
    points   world frame, [H, W, 3] and [H, W], on the CPU
    local    the frame's own camera frame, or None
    c2w, K   camera (original pixels), NaN where not found, None when no camera was asked for
    """

    kind: UpdateKind
    frame: Frame
    version: int = 0
    points: Pointmap | None = None
    local: Pointmap | None = None
    c2w: FloatArray | None = None
    K: FloatArray | None = None
    moves: Moves | None = None
    message: str = ""


class Observer(Protocol):
    """Whoever wants to know what a running pipeline does: run store, progress bar, viewer, test."""

    def on(self, update: Update) -> None: ...


@dataclass(frozen=True)
class Checkpoint:
    """A set of weights that can be loaded by name.

    family   which network: "slam3r", "dust3r", "cut3r", "fast3r"
    files    where they are: paths inside the package, or Hub repositories
    licence  SPDX id or the licence's own name; shown to the user
    metric   True when the coordinates are metres
    """

    name: str
    family: str
    files: tuple[str, ...]
    licence: str
    metric: bool = False
    description: str = ""
    sha256: Mapping[str, str] = field(default_factory=dict)
