"""Settings of everything a user can set. Plain dataclasses: no torch here, so ``threer --help`` is instant."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from threer.errors import ThreerError

Policy = Literal["reservoir", "fifo"]
Preset = Literal["default", "parity"]


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

    def __post_init__(self) -> None:
        if self.fps is not None and not self.fps > 0:
            raise ThreerError(f"fps must be positive, got {self.fps}")
        if self.max_frames is not None and self.max_frames < 1:
            raise ThreerError(f"max_frames must be at least 1, got {self.max_frames}")
        if self.start is not None and self.end is not None and self.end <= self.start:
            raise ThreerError(f"end ({self.end} s) must be later than start ({self.start} s)")
        for name, seconds in (("idle", self.idle), ("timeout", self.timeout)):
            if seconds is not None and not seconds > 0:
                raise ThreerError(f"{name} must be positive, got {seconds}")
        if self.reconnects < 0:
            raise ThreerError(f"reconnects must not be negative, got {self.reconnects}")


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
    retrieval_queries: Literal["one", "every_second"] = "one"
    """Frames of a round that vote in retrieval."""
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
        for name, least in (
            ("radius", 1),
            ("init_frames", 2),
            ("scene_frames", 1),
            ("round_frames", 1),
            ("interval", 1),
            ("stride_max", 1),
            ("encode_batch", 1),
        ):
            if getattr(self, name) < least:
                raise ThreerError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.deadline is not None and self.deadline < 0:
            raise ThreerError(f"deadline must be None or at least 0 frames, got {self.deadline}")
        if self.storage not in ("float32", "float16"):
            raise ThreerError(f"storage must be float32 or float16, got {self.storage!r}")
        if 0 < self.buffer_size < self.init_frames:
            raise ThreerError(
                f"buffer_size {self.buffer_size} is smaller than init_frames {self.init_frames}; "
                "give a larger buffer, or 0 for no limit"
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
            retrieval_queries="every_second",
        )
        return dataclasses.replace(official, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True)
class ReconstructConfig(SourceConfig):
    """Settings of `reconstruct`: which frames to take, and what to do with them."""

    fps: float | None = 5.0
    """Frames per second to take from a video, camera or stream; None takes every frame. Of image files every one
    is taken."""
    method: Literal["auto", "slam3r"] = "auto"
    """Which system reconstructs; `auto` chooses by the source and says why."""
    weights: str = "slam3r"
    """Which weights: `slam3r` (the published ones if they are on disk, else the packaged `slam3r-mini`),
    `slam3r-mini`, `slam3r@hub` (downloads), a file or a folder."""
    intrinsics: tuple[float, float, float, float] | None = None
    """Known fx, fy, cx, cy in original pixels (pixel centres at integers); estimated when not given."""
    device: str = "auto"
    """`cpu`, `cuda`, `mps` or `auto`."""
    precision: Literal["float16", "float32"] = "float16"
    """Precision of the points kept on disk."""
    keep: float = 0.7
    """Share of each frame's points, by confidence, that goes into the cloud."""
    overwrite: bool = False
    """Replace a finished run in the output folder."""
    streaming: StreamingConfig = field(default_factory=StreamingConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.keep <= 1:
            raise ThreerError(f"keep must be above 0 and at most 1, got {self.keep}")

    def frames(self) -> SourceConfig:
        return SourceConfig(**{field.name: getattr(self, field.name) for field in dataclasses.fields(SourceConfig)})
