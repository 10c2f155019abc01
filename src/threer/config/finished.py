"""What is done with a finished run: settings of `mesh`, `localize`, `refine` and `loops`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from threer.config.checks import at_least, check_choices, finite, positive, share, share_below_one
from threer.config.inputs import SourceConfig
from threer.errors import ThreerError


@dataclass(frozen=True)
class MeshConfig:
    """Settings of `mesh`."""

    voxel: float | None = None
    """Side of a voxel in the unit of the run; None takes one and a half pixels at the usual depth, or as much as
    `memory` asks for."""
    keep: float = 0.7
    """Share of each frame's points, by confidence, that takes part."""
    views: int = 1
    """Frames that must have measured a place; 2 or 3 leave out what only one frame believes in."""
    smallest: float = 0.001
    """Drop connected pieces with less than this share of all faces; 0 keeps every one."""
    fill_holes: int = 0
    """Close holes with at most so many edges around them; 0 leaves all open."""
    faces: int | None = None
    """Simplify to about so many faces."""
    memory: float = 1.0
    """GiB for the voxels."""

    def __post_init__(self) -> None:
        finite(self, "voxel", "memory")
        positive(self, "voxel", "memory")
        share(self, "keep")
        share_below_one(self, "smallest")
        for name, least, most in (("views", 1, 255), ("fill_holes", 0, 10**6)):
            if not least <= getattr(self, name) <= most:
                raise ThreerError(f"{name} must be {least} to {most}, got {getattr(self, name)}")
        at_least(self, faces=4)


@dataclass(frozen=True)
class RevisitConfig:
    """What looks again at the pictures of a finished run has these settings."""

    source: Path | None = None
    """Where the source of the run is, if it has moved."""
    pictures: Literal["source", "run"] = "source"
    """Which pictures of the run are matched: those of its source, or the small ones that are kept in the run, which
    is less exact."""
    seed: int = 0
    """Draws the samples of robust estimates, and what is held back for a verdict."""

    def __post_init__(self) -> None:
        at_least(self, seed=0)
        check_choices(self)


@dataclass(frozen=True)
class LocalizeConfig(SourceConfig, RevisitConfig):
    """Settings of `threer localize`. What is said about the lens is about the pictures to be found."""

    camera: Literal["auto", "run", "unknown"] = "auto"
    """Whose lens took the pictures, if no `intrinsics` are given: the run's, or one of unknown focal length. `auto`
    takes the run's for pictures of the same size, and an unknown one where that does not fit."""
    matcher: Literal["sift", "dust3r"] = "sift"
    """What finds the same points in two pictures: SIFT features (`pip install 'threer[refine]'`), or a network of
    DUSt3R's kind, which needs its weights."""
    weights: str | None = None
    """Weights of the network that matches, as for `reconstruct`."""
    retrieved: int = 20
    """So many frames of the run, those that look most alike, are matched with a picture."""
    threshold: float | None = None
    """Pixels within which a match agrees with a camera; None takes 0.8 % of the picture's diagonal."""
    device: str = "cpu"
    """`cpu`, `cuda`, `mps` or `auto`: where the network computes."""

    def __post_init__(self) -> None:
        SourceConfig.__post_init__(self)
        RevisitConfig.__post_init__(self)
        at_least(self, retrieved=1)
        finite(self, "threshold")
        positive(self, "threshold")
        if self.weights is not None and self.matcher != "dust3r":
            raise ThreerError("weights are for a network that matches: give --matcher dust3r as well")


@dataclass(frozen=True)
class RefineConfig(RevisitConfig):
    """Settings of `refine`."""

    all_pairs_up_to: int = 200
    """So many pictures are all compared with each other; of more, each with some in time and `similar` ones."""
    similar: int = 20
    """Pictures that each one is compared with because they look alike, where not all pairs are."""
    overwrite: bool = False
    """Replace an earlier refined run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, all_pairs_up_to=2, similar=1)


@dataclass(frozen=True)
class LoopConfig(RevisitConfig):
    """Settings of `close_loops`."""

    gap: int = 20
    """Frames that lie closer in time are no loop."""
    similar: int = 4
    """Later frames that each one is compared with because they look alike."""
    inliers: int = 25
    """Matched points of two frames that must agree on where one camera is seen from the other."""
    agreement: float = 0.6
    """Share of the pixels that both frames see, whose depths must agree."""
    support: int = 1
    """Neighbouring pairs of frames that must confirm a loop."""
    overwrite: bool = False
    """Replace an earlier run with closed loops."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, gap=2, similar=1, inliers=8, support=0)
        if not 0 <= self.agreement <= 1:
            raise ThreerError(f"agreement is a share from 0 to 1, got {self.agreement}")
