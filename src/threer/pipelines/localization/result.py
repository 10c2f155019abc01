"""What is said about a picture that was to be found in a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from threer.geometry.epipolar import Status
from threer.types import FloatArray

Lens = Literal["given", "run", "estimated", "unknown"]


def _unknown(*shape: int) -> FloatArray:
    return np.full(shape, np.nan)


@dataclass(frozen=True, eq=False)
class LocalizedCamera:
    """A picture's camera in the world of a run.

    name        of the picture
    status      found · ambiguous: more than one answer fits, or the matches hardly determine it · failed
    why         in a line, unless it is found
    c2w, K      [4, 4] camera-to-world and [3, 3] in the picture's own pixels; NaN unless found
    size        (W, H) of the picture, (0, 0) if it could not be read
    lens        where K is from: given by the user, the run's own camera, estimated with the pose; else unknown
    matches     of its pixels with points of the run
    inliers     of these, those that agree with the camera
    reprojection_error_px  root mean square over the inliers; NaN unless found
    position_sigma, rotation_sigma_deg, covariance  `geometry.uncertainty`: what the noise of the pixels does to the
                camera, in the run's unit and degrees
    frames      of the source, by index, that it shares most inliers with, the best first
    """

    name: str
    status: Status
    why: str = ""
    c2w: FloatArray = field(default_factory=lambda: _unknown(4, 4))
    K: FloatArray = field(default_factory=lambda: _unknown(3, 3))
    size: tuple[int, int] = (0, 0)
    lens: Lens = "unknown"
    matches: int = 0
    inliers: int = 0
    reprojection_error_px: float = float("nan")
    position_sigma: float = float("nan")
    rotation_sigma_deg: float = float("nan")
    covariance: FloatArray = field(default_factory=lambda: _unknown(6, 6))
    frames: tuple[int, ...] = ()

    @property
    def found(self) -> bool:
        return self.status == "found"
