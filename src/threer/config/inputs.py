"""Which frames, and how a model wants them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from threer.config.checks import at_least, finite, positive
from threer.errors import ThreerError


@dataclass(frozen=True)
class InputSpec:
    """How a model wants its images (networks.md section 2).

    ``square``: shrink the short side to ``size`` and crop the centre square. Otherwise the long side becomes
    ``size`` and both sides are cropped to multiples of ``patch``; a square result is cut to 4:3 unless
    ``allow_square``.
    """

    size: int = 224
    square: bool = True
    patch: int = 16
    allow_square: bool = False

    def __post_init__(self) -> None:
        if self.size < self.patch or self.size % self.patch:
            raise ThreerError(f"input size {self.size} is not a multiple of the patch size {self.patch}")


@dataclass(frozen=True)
class SourceConfig:
    """Which frames to take from a source, and how long to wait for a live one."""

    fps: float | None = None
    """Frames per second to take from a video, camera or stream; None takes every frame. Of image files every one
    is taken."""
    start: float | None = None
    """Start time in seconds."""
    end: float | None = None
    """End time in seconds."""
    max_frames: int | None = None
    """Stop after this many frames."""
    idle: float | None = 60.0
    """A watched folder has ended when nothing came for this many seconds; None waits until it holds `.end`."""
    timeout: float = 10.0
    """A stream has broken off when nothing came for this many seconds."""
    reconnects: int = 5
    """How many times in a row to try again when a camera or stream broke off, before it counts as ended."""
    record: Path | None = None
    """Keep the frames taken from a live source, without loss, in a new folder inside this one; it can be given as a
    source later."""
    intrinsics: tuple[float, float, float, float] | Path | None = None
    """Known fx, fy, cx, cy in original pixels (pixel centres at integers), or a file that holds them: OpenCV's
    camera_matrix and distortion_coefficients (YAML, JSON), a 3×3 matrix as text, or a transforms.json. Estimated
    when not given."""
    distortion: tuple[float, ...] | None = None
    """Known k1,k2,p1,p2[,k3] of OpenCV's lens model, undone on every picture; needs `intrinsics`."""
    fisheye: bool = False
    """`distortion` is k1,k2,k3,k4 of OpenCV's fisheye model."""
    intrinsics_size: tuple[int, int] | None = None
    """Width and height of the pictures that `intrinsics` hold for; others are refused. Files may say it."""

    def __post_init__(self) -> None:
        if self.distortion is not None:
            count, valid = len(self.distortion), (4,) if self.fisheye else (4, 5, 8, 12, 14)
            if count not in valid or not all(map(math.isfinite, self.distortion)):
                names = "k1,k2,k3,k4" if self.fisheye else "k1,k2,p1,p2[,k3…]"
                raise ThreerError(f"distortion must be {names} in finite numbers, got {count}: {self.distortion}")
            if self.intrinsics is None:
                raise ThreerError("distortion bends around a known centre: give --intrinsics fx,fy,cx,cy as well")
        elif self.fisheye and not isinstance(self.intrinsics, Path):
            raise ThreerError("fisheye is a kind of distortion: give --distortion k1,k2,k3,k4 as well")
        finite(self, "fps", "start", "end")
        positive(self, "fps", "end", "idle", "timeout")
        at_least(self, start=0, max_frames=1, reconnects=0)
        if self.start is not None and self.end is not None and self.end <= self.start:
            raise ThreerError(f"end ({self.end} s) must be later than start ({self.start} s)")
