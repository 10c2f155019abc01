"""Settings of SLAM3R on a stream."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from threer.config.checks import at_least, check_choices
from threer.errors import ThreerError

Policy = Literal["reservoir", "fifo"]
Preset = Literal["default", "parity"]


@dataclass(frozen=True)
class StreamingConfig:
    """Settings of the streaming SLAM3R pipeline. ``StreamingConfig.parity()`` gives the official behaviour."""

    preset: Preset = "default"
    stride: int | Literal["auto"] = "auto"
    """Keyframe stride: spacing of windows, initial frames and buffer segments (official: keyframe_stride)."""
    stride_max: int = 20
    """Largest stride that the search tries."""
    stride_frames: int | None = 130
    """Frames the stride search waits for; None waits for the whole input."""
    stride_radius: int | None = None
    """Window radius used by the stride search; None uses `radius`."""
    stride_margin: float = 0.02
    """The largest stride whose score is within this share of the best is taken; 0 takes the best."""
    radius: int = 5
    """Neighbours on each side of a frame in its Image-to-Points window (official: win_r)."""
    init_frames: int = 5
    """Frames of the initial window (official: initial_winsize)."""
    init_min_conf: float = 5.0
    """Below this mean confidence the initial window is shrunk by one frame, down to 3."""
    point_conf: float = 1.5
    """Local points at or below this confidence are masked (official: conf_thres_i2p)."""
    scene_frames: int = 10
    """Retrieved scene frames each round is registered against (official: num_scene_frame)."""
    round_frames: int = 10
    """At most so many frames are registered together (official: max_num_register)."""
    normalize_references: bool = True
    """Divide scene frames by their joint mean distance, as in training (quirk S4; official: norm_input)."""
    mask_references: bool = True
    """Zero unsure points of every scene frame on input, never in what is stored (quirk S5)."""
    init_confidence: Literal["register", "ratio"] = "register"
    """How initial frames get confidences on the registration scale (quirk S6)."""
    buffer_size: int = 100
    """Scene frames kept for retrieval."""
    policy: Policy = "reservoir"
    """Which frame leaves a full buffer: a random one, or the oldest."""
    interval: int = 1
    """Segments collected before the buffer is updated (official: update_buffer_intv)."""
    buffer_min_conf: float = 0.5
    """A segment's best frame enters the buffer only if its mean registered confidence is at least this share
    of the running median (quirk S18); 0 accepts all."""
    anchors: int = 0
    """Scene frames, spread over the whole stream from the first frame on, that never leave the buffer."""
    track_min_conf: float = 0.3
    """A frame whose normalised registered confidence is below this share of the usual is reported as failed and
    becomes no reference (quirk S18); 0 accepts all."""
    lost_after: int = 5
    """Tracking is lost when so many frames in a row failed; the whole buffer is searched then."""
    duplicate_tolerance: float = 0.02
    """A picture of which no 8×8 block's mean colour (0..1) differs by more from the last new one takes over its
    result; 0 treats every frame as new."""
    retrieval_queries: Literal["one", "every_second"] = "every_second"
    """Frames of a round that vote in retrieval: `one` is cheaper, and mostly chooses the same scene frames."""
    encode_batch: int = 10
    """Frames encoded together."""
    deadline: int | None = None
    """Low latency: give provisional points of a frame at most this many frames (and a round) after it came in, and
    replace them when its window is complete; None gives final points only."""
    storage: Literal["float32", "float16"] = "float32"
    """Precision of what is kept between rounds: tokens, and registered maps of open segments and the buffer."""
    seed: int = 42

    def __post_init__(self) -> None:
        if self.stride != "auto" and (not isinstance(self.stride, int) or self.stride < 1):
            raise ThreerError(f"stride must be 'auto' or at least 1, got {self.stride!r}")
        at_least(
            self,
            radius=1,
            init_frames=2,
            scene_frames=1,
            round_frames=1,
            interval=1,
            stride_max=1,
            encode_batch=1,
            lost_after=1,
            anchors=0,
            deadline=0,
        )
        check_choices(self)
        if 0 < self.buffer_size < self.init_frames:
            raise ThreerError(
                f"buffer_size {self.buffer_size} is smaller than init_frames {self.init_frames}; "
                "give a larger buffer, or 0 for no limit"
            )
        if 0 < self.buffer_size <= self.anchors:
            raise ThreerError(
                f"anchors ({self.anchors}) must be fewer than buffer_size ({self.buffer_size}): something must be "
                "able to leave the buffer"
            )

    @classmethod
    def parity(cls, **changes: object) -> StreamingConfig:
        """The official program's behaviour, quirks included (pipelines.md section 1)."""
        official = cls(
            preset="parity",
            stride_frames=None,
            stride_radius=3,
            stride_margin=0.0,
            radius=3,
            normalize_references=False,
            mask_references=False,
            init_confidence="ratio",
            buffer_min_conf=0.0,
            track_min_conf=0.0,
            duplicate_tolerance=0.0,
        )
        return dataclasses.replace(official, **changes)  # type: ignore[arg-type]
