"""Settings of `reconstruct`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from threer.config.alignment import AlignmentConfig
from threer.config.checks import at_least, check_choices, share
from threer.config.inputs import SourceConfig
from threer.config.methods import ClassicalConfig, JointConfig, RecurrentConfig
from threer.config.streaming import StreamingConfig
from threer.errors import ThreerError


@dataclass(frozen=True)
class ReconstructConfig(SourceConfig):
    """Settings of `reconstruct`: which frames to take, and what to do with them."""

    fps: float | None = 5.0
    """Frames per second to take from a video, camera or stream; None takes every frame. Of image files every one
    is taken."""
    method: Literal["auto", "slam3r", "cut3r", "fast3r", "dust3r", "dust3r-stream", "sfm"] = "auto"
    """Which system reconstructs; `auto` goes by the weights if they are given, else by the source, and says why.
    `dust3r-stream` puts DUSt3R's pairs together frame by frame, which takes any number of frames.
    `sfm` is the classical baseline, which needs no weights but `pip install 'threer[refine]'`."""
    weights: str | None = None
    """Which weights: a name of `threer models list`, `NAME@hub` (downloads), a file or a folder. None takes those
    named like the method: the published ones if they are on disk, else the packaged ones."""
    focal: Literal["auto", "shared", "per-image"] = "auto"
    """Where the focal length is estimated: one for all frames, or one for each. `auto` takes one for all of a video
    and of Fast3R's photos, one for each photo of DUSt3R's."""
    device: str = "auto"
    """`cpu`, `cuda`, `mps` or `auto`."""
    precision: Literal["float16", "float32"] = "float16"
    """Precision of the points kept on disk."""
    keep: float = 0.7
    """Share of each frame's points, by confidence, that goes into the cloud."""
    normals: bool = False
    """Give the points of the cloud normals."""
    close_loops: bool = False
    """While streaming (slam3r, dust3r-stream), recognise places where the camera was before, and correct earlier
    frames so that the scene meets itself there; needs `pip install 'threer[refine]'`."""
    refine: bool = False
    """Refine the finished run, as `threer refine` does; the result is in its folder `refined`."""
    overwrite: bool = False
    """Replace a finished run in the output folder."""
    resume: bool = False
    """Go on with an unfinished run in the output folder, as if it had never stopped; begin if there is none."""
    save_every: float | None = 5.0
    """Seconds between two saves of what `resume` needs; None saves nothing, and a resumed run begins anew."""
    streaming: StreamingConfig = field(default_factory=StreamingConfig)
    recurrent: RecurrentConfig = field(default_factory=RecurrentConfig)
    joint: JointConfig = field(default_factory=JointConfig)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    classical: ClassicalConfig = field(default_factory=ClassicalConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        share(self, "keep")
        check_choices(self)
        at_least(self, save_every=0)
        if self.resume and self.overwrite:
            raise ThreerError("resume goes on with a run and overwrite throws it away: give one of them")

    def frames(self) -> SourceConfig:
        return SourceConfig(**{field.name: getattr(self, field.name) for field in dataclasses.fields(SourceConfig)})
