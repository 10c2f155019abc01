"""What the ``[objective]`` table of a recipe can say: one dataclass for each objective.

Defaults are ours. Where they differ from the published training, the field says so, and the ``[published]`` table
of a recipe holds the original value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from threer.errors import ThreerError
from threer.training.losses.scale import Normalization


def _at_least(name: str, value: float, least: float, most: float = float("inf")) -> None:
    if not least <= value <= most:
        above = f" and at most {most:g}" if most < float("inf") else ""
        raise ThreerError(f"{name} must be at least {least:g}{above}, got {value:g}")


@dataclass(frozen=True)
class PairSettings:
    """DUSt3R: two views in the frame of the first (Wang et al. 2024, section 3.2)."""

    alpha: float = 0.2
    """Weight of the logarithm in the confidence loss: the best confidence is alpha / error."""
    normalization: Normalization = "avg_dis"
    symmetrized: bool = True
    """Feed every pair in both orders."""
    pixel_step: int = 1
    """Look at one pixel in so many per axis, at a random offset."""

    def __post_init__(self) -> None:
        _at_least("alpha", self.alpha, 0)
        _at_least("pixel_step", self.pixel_step, 1)


@dataclass(frozen=True)
class WindowSettings:
    """SLAM3R Image-to-Points: a window in the frame of its reference (Liu et al. 2025, section 3.2)."""

    alpha: float = 0.2
    normalization: Normalization = "avg_dis"
    mean: bool = False
    """Average over the views instead of adding them up: the same loss for every length of window."""
    pixel_step: int = 1

    def __post_init__(self) -> None:
        _at_least("alpha", self.alpha, 0)
        _at_least("pixel_step", self.pixel_step, 1)


@dataclass(frozen=True)
class RetrievalSettings:
    """SLAM3R's retrieval score, learnt from the confidences of a finished Image-to-Points (section 3.2)."""


@dataclass(frozen=True)
class RegistrationSettings:
    """SLAM3R Local-to-World: scene frames and key frames with points (section 3.3)."""

    alpha: float = 0.2
    mean: bool = False
    """Scene frames and key frames weigh half of the loss each, whatever their numbers, instead of a sum."""
    noise_from: float = 2 / 3
    """Share of the run after which the points fed are disturbed as a network's are. Published: 1 (quirk S8)."""
    point_noise: float = 0.06
    """Smooth relative noise on the points fed."""
    holes: float = 0.15
    """Share of patches of those points that are cleared, in half of the views."""
    pixel_step: int = 1

    def __post_init__(self) -> None:
        _at_least("alpha", self.alpha, 0)
        _at_least("noise_from", self.noise_from, 0, 1)
        _at_least("point_noise", self.point_noise, 0)
        _at_least("holes", self.holes, 0, 1)
        _at_least("pixel_step", self.pixel_step, 1)


@dataclass(frozen=True)
class JointSettings:
    """Both halves of SLAM3R at once on the same window, sharing the encoder; not published."""

    alpha: float = 1.0
    """The best confidence is alpha / error: the published 0.2 would keep a network whose error is 0.15 below every
    threshold that the pipeline shares with the published ones."""
    keys: int = 2
    """Key frames for Local-to-World among the views, the reference first."""
    retrieval_weight: float = 0.1
    own_points: float = 0.4
    """Share of samples whose first key frame carries Image-to-Points' own prediction instead of noisy truth."""
    point_noise: float = 0.06
    holes: float = 0.15
    pixel_step: int = 2

    def __post_init__(self) -> None:
        _at_least("alpha", self.alpha, 0)
        _at_least("keys", self.keys, 1)
        _at_least("own_points", self.own_points, 0, 1)
        _at_least("holes", self.holes, 0, 1)
        _at_least("pixel_step", self.pixel_step, 1)


@dataclass(frozen=True)
class RecurrentSettings:
    """CUT3R: own and world points, cameras and colours of a sequence (Wang et al. 2025, section 3.4)."""

    alpha: float = 0.2
    metric_scale: bool = True
    """Compare metric samples in the scale of the truth, so that metres are learnt."""
    weighted_scale: bool = False
    """Measure scales with weights from the predicted confidence. Published: true (quirk C10)."""
    sample_types: bool = False
    """Treat depth-only, camera-only and unrelated views by their own rules (stages 2, 3 and after)."""
    sky_error: float = 2.0
    """Constant error of sky pixels, which pushes their confidence down; 0 leaves them out."""
    pose_weight: float = 1.0
    either_sign: bool = True
    """A quaternion and its negative are one rotation. Published: false (quirk C11)."""
    pose_mask: Literal["view", "last"] = "view"
    """Which image decides whether a view's camera counts, with ``sample_types``. Published: the last (quirk C9)."""
    colour_weight: float = 1.0
    colour_views: Literal["queried", "all"] = "queried"
    """Colours of views that were given as rays alone. Published: all (quirk C4)."""
    chunk: int = 0
    """Views of a chunk of truncated back-propagation; 0 sends gradients through the whole sequence."""
    gradient_chunks: int = 4
    """Chunks that gradients come from."""
    gradient_window: Literal["random", "last"] = "random"
    """Where those chunks lie. Published: at the end (quirk C12)."""
    step_each_chunk: bool = False
    """Whether the optimiser steps after each of those chunks. Published: true (quirk C12)."""
    pixel_step: int = 1

    def __post_init__(self) -> None:
        for name in ("alpha", "sky_error", "pose_weight", "colour_weight", "chunk"):
            _at_least(name, getattr(self, name), 0)
        for name in ("gradient_chunks", "pixel_step"):
            _at_least(name, getattr(self, name), 1)


@dataclass(frozen=True)
class FusionSettings:
    """Fast3R: all views in the frame of the first, and each in its own (Yang et al. 2025, section 3.2)."""

    alpha: float = 0.2
    normalization: Normalization = "avg_dis"
    local_scale_consistent: bool = False
    """Local maps in the scale of the global ones, instead of each view in its own."""
    pixel_step: int = 1

    def __post_init__(self) -> None:
        _at_least("alpha", self.alpha, 0)
        _at_least("pixel_step", self.pixel_step, 1)


ObjectiveSettings = (
    PairSettings
    | WindowSettings
    | RetrievalSettings
    | RegistrationSettings
    | JointSettings
    | RecurrentSettings
    | FusionSettings
)

OBJECTIVES: dict[str, type[ObjectiveSettings]] = {
    "dust3r": PairSettings,
    "slam3r-i2p": WindowSettings,
    "slam3r-retrieval": RetrievalSettings,
    "slam3r-l2w": RegistrationSettings,
    "slam3r": JointSettings,
    "cut3r": RecurrentSettings,
    "fast3r": FusionSettings,
}
"""Settings by the name that a recipe calls an objective."""
