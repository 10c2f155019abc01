"""Settings of CUT3R, of Fast3R, and of the classical baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from threer.config.checks import at_least, check_choices, share_below_one
from threer.errors import ThreerError


@dataclass(frozen=True)
class RecurrentConfig:
    """Settings of CUT3R on a stream."""

    reset_every: int | None = None
    """Frames after which the state begins anew, its poses going on from the last one; None keeps one state for all.
    CUT3R was trained on up to 64 frames and drifts and forgets beyond: 50 to 100 suit long videos."""
    second_pass: bool = False
    """Show all frames again to the state that has seen them all: better points, for twice the time. Until then they
    are provisional. The source must be one that can be read twice."""
    poses: Literal["head", "alignment"] = "head"
    """Poses from the pose head, or from fitting each frame's own points to its world points."""
    points: Literal["local", "world"] = "local"
    """Points of a frame: its own ones, moved by its pose (sharper), or those of the world head."""

    def __post_init__(self) -> None:
        if self.reset_every is not None and self.reset_every < 2:
            raise ThreerError(
                f"reset_every must be None or at least 2 frames (one is shared), got {self.reset_every}"
            )
        if self.second_pass and self.reset_every is not None:
            raise ThreerError(
                "second_pass needs one state that has seen all frames, and reset_every begins new ones: "
                "give one of them"
            )
        check_choices(self)


@dataclass(frozen=True)
class JointConfig:
    """Settings of Fast3R: all photos in one forward pass."""

    id_seed: int = 42
    """Draws the ids by which the network tells photos apart; with equal ones the result is the same."""
    align_quantile: float = 0.85
    """Each photo's own points are fitted to its points in the first photo's frame where these are most confident:
    above this quantile."""
    encode_at_once: int = 8
    """Photos in one batch of the encoder. Bounds the memory, does not change results."""
    heads_at_once: int = 1
    """Photos in one batch of the heads. Bounds the memory, does not change results; more than one is a few percent
    faster, and takes up to 370 MiB each."""

    def __post_init__(self) -> None:
        share_below_one(self, "align_quantile")
        at_least(self, encode_at_once=1, heads_at_once=1)


@dataclass(frozen=True)
class ClassicalConfig:
    """Settings of the classical baseline, `--method sfm`."""

    feature_size: int = 1600
    """Larger pictures are shrunk to so many pixels, on their longer side, for the search of features."""
    most_features: int = 4096
    """Features of a picture."""
    all_pairs_up_to: int = 200
    """So many pictures are all compared with each other; of more, each with some in time and `similar` ones."""
    similar: int = 20
    """Pictures that each one is compared with because they look alike, where not all pairs are."""
    mapping_seed: int = 0
    """Draws the samples of robust estimates; equal ones give equal results on one thread."""
    depth_size: int = 288
    """Longer side of the depth maps, in pixels: even."""
    depth_planes: int = 64
    """Depths that are tried at each pixel; the result lies between them."""
    depth_partners: int = 8
    """Pictures that each one is compared with for its depth."""

    def __post_init__(self) -> None:
        at_least(
            self,
            feature_size=64,
            most_features=100,
            all_pairs_up_to=2,
            similar=1,
            mapping_seed=0,
            depth_size=32,
            depth_planes=8,
            depth_partners=1,
        )
        if self.depth_size % 2:
            raise ThreerError(f"depth_size must be even, got {self.depth_size}")
