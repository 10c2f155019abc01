"""What lies between a data set and a batch: one view as it was read, and one sample of several views."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from threer.types import FloatArray

SKY = -1.0
"""Depth of the sky in files and in `RawView`; 0 is unknown."""

Modality = tuple[float, float, float]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Traits:
    """What is true of every view of a data set, and how its views are drawn unless a recipe says otherwise.

    metric, camera_only, depth_only, single_view   as in a training batch
    interval     windows: frames from one view to the next; clips: the most frames between two views
    ordered      clips: probability of keeping the order of time;  steady: then, of one constant gap
    modality     probabilities of image alone, rays alone, both, for the views after the first of metric sets
    window       sets: members are drawn from so many times as many neighbours
    background   probability of masking the background, where there are masks for it
    crop_jitter  up to so many pixels more, less one, are kept before the centre crop: a random zoom
    far          depths beyond count as unknown;  sky_from: depths from here on are sky;  both in the set's unit
    far_share    probability that depths beyond ``far`` are dropped
    percentile   depths beyond this percentile of a picture count as unknown
    """

    metric: bool = False
    camera_only: bool = False
    depth_only: bool = False
    single_view: bool = False
    interval: int = 25
    ordered: float = 0.5
    steady: float = 0.5
    modality: Modality = (0.8, 0.15, 0.05)
    window: float = 2.0
    background: float = 0.0
    crop_jitter: int = 16
    far: float | None = None
    far_share: float = 1.0
    sky_from: float | None = None
    percentile: float | None = None


@dataclass(frozen=True, eq=False)
class RawView:
    """One view at the size it has on disk.

    image       [H, W, 3] uint8 RGB
    depth       [H, W] float32 z-depth in the set's unit; 0 unknown, -1 sky
    c2w         [4, 4] float64 OpenCV camera-to-world
    K           [3, 3] float64 pixels, pixel centres at integers
    foreground  [H, W] bool, or None where the set has no such mask
    name        for messages
    """

    image: npt.NDArray[np.uint8]
    depth: npt.NDArray[np.float32]
    c2w: FloatArray
    K: FloatArray
    foreground: BoolArray | None = None
    name: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """(W, H)."""
        return self.image.shape[1], self.image.shape[0]


@dataclass(frozen=True, eq=False)
class Sample:
    """V views of one stored size H×W with their truth; several make a training batch.

    images      [V, 3, H, W] float32 in [-1, 1]
    depth       [V, H, W] float32 z-depth, 0 where unknown
    valid, sky  [V, H, W] bool, never both
    c2w         [V, 4, 4] float32, in the frame of the first view
    K           [V, 3, 3] float32 of the *upright* image
    true_shape  [V, 2] (height, width) of the upright image; portrait pictures may be stored transposed
    seen, rays  [V] bool: the image, the camera's rays are fed to the network
    traits      flags of the data set
    source      data set, scene and views, for messages
    seed        what the random generator of this sample was seeded with; the same seed gives the same sample
    """

    images: Tensor
    depth: Tensor
    valid: Tensor
    sky: Tensor
    c2w: Tensor
    K: Tensor
    true_shape: Tensor
    seen: Tensor
    rays: Tensor
    traits: Traits
    source: str
    seed: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.images)


def normalised(image: npt.NDArray[np.uint8]) -> Tensor:
    """[H, W, 3] uint8 -> [3, H, W] float32 in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float() / 127.5 - 1
