"""Settings of everything a user can set. Plain dataclasses: no torch here, so ``threer --help`` is instant."""

from __future__ import annotations

import dataclasses
import math
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
        for name, value in (("fps", self.fps), ("start", self.start), ("end", self.end)):
            if value is not None and not math.isfinite(value):
                raise ThreerError(f"{name} must be a finite number, got {value}")
        if self.fps is not None and self.fps <= 0:
            raise ThreerError(f"fps must be positive, got {self.fps}")
        if self.start is not None and self.start < 0:
            raise ThreerError(f"start must not be negative, got {self.start}")
        if self.end is not None and self.end <= 0:
            raise ThreerError(f"end must be positive, got {self.end}")
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
        for name, least in (
            ("radius", 1),
            ("init_frames", 2),
            ("scene_frames", 1),
            ("round_frames", 1),
            ("interval", 1),
            ("stride_max", 1),
            ("encode_batch", 1),
            ("lost_after", 1),
            ("anchors", 0),
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
        for name, known in (("poses", ("head", "alignment")), ("points", ("local", "world"))):
            if getattr(self, name) not in known:
                raise ThreerError(f"{name} must be {' or '.join(known)}, got {getattr(self, name)!r}")


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
        if not 0 <= self.align_quantile < 1:
            raise ThreerError(f"align_quantile must be at least 0 and below 1, got {self.align_quantile}")
        for name in ("encode_at_once", "heads_at_once"):
            if getattr(self, name) < 1:
                raise ThreerError(f"{name} must be at least 1, got {getattr(self, name)}")


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
        for name, least in (
            ("feature_size", 64),
            ("most_features", 100),
            ("all_pairs_up_to", 2),
            ("similar", 1),
            ("mapping_seed", 0),
            ("depth_size", 32),
            ("depth_planes", 8),
            ("depth_partners", 1),
        ):
            if getattr(self, name) < least:
                raise ThreerError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.depth_size % 2:
            raise ThreerError(f"depth_size must be even, got {self.depth_size}")


@dataclass(frozen=True)
class AlignmentConfig:
    """Settings of DUSt3R on three photos or more. ``AlignmentConfig.parity()`` gives the official behaviour."""

    published_alignment: bool = False
    """Align by the original's own schedule and with its quirks; `--preset parity` sets it."""
    pair_graph: Literal["auto", "complete", "sliding", "log", "one-reference", "retrieval"] = "auto"
    """Which photos are looked at in pairs: all; each with the next ones; each with those 1, 2, 4 … away; one with
    all; each with those it resembles. `auto`: all pairs of up to 16 photos, of more those that are alike."""
    pair_window: int = 3
    """Of `sliding` the photos ahead, of `log` the steps to each side."""
    pair_cycle: bool = False
    """The first photo follows the last one again, in windows and in `pair_distance`."""
    pair_reference: int = 0
    """The photo of `one-reference` that goes with all others, counted from 0."""
    pair_neighbours: int = 8
    """Photos each one goes with in `retrieval`."""
    pair_distance: int | None = None
    """Leave out pairs of photos further apart in order than this."""
    both_orders: bool = True
    """Look at each pair in both orders."""
    pairs_at_once: int = 8
    """Pairs in one batch of the decoder. Bounds the memory, does not change results."""
    pair_storage: Literal["float32", "float16"] = "float32"
    """Precision in which the pairs' points are kept; half of it halves the memory."""
    weakest_pair: float = 0.1
    """Pairs with less confidence than this share of the usual, in the mean logarithm, join nothing; 0 takes all."""
    pair_weighting: Literal["log", "sqrt", "minus-one", "identity"] = "log"
    """How much a point counts by its confidence."""
    shared_focal: bool = False
    """One focal length for all photos instead of one for each."""
    find_principal_points: bool = False
    """Find the principal points as well; else they stay at the image centres."""
    alignment_pixels: int = 2000
    """Pixels of each photo that decide about its camera; the depth of all follows."""
    hide_floaters: bool = True
    """Take the confidence from points that hide what other photos see more surely."""
    alignment_seed: int = 0
    """Draws the pixels that decide."""
    alignment_steps: int = 300
    """Steps of the official schedule, with `published_alignment` only; the next two as well."""
    alignment_rate: float = 0.01
    alignment_schedule: Literal["cosine", "linear"] = "cosine"

    def __post_init__(self) -> None:
        for name, least in (
            ("pair_window", 1),
            ("pair_reference", 0),
            ("pair_neighbours", 1),
            ("pairs_at_once", 1),
            ("alignment_pixels", 50),
            ("alignment_steps", 1),
        ):
            if getattr(self, name) < least:
                raise ThreerError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name, valid in (
            ("pair_graph", ("auto", "complete", "sliding", "log", "one-reference", "retrieval")),
            ("pair_storage", ("float32", "float16")),
            ("pair_weighting", ("log", "sqrt", "minus-one", "identity")),
            ("alignment_schedule", ("cosine", "linear")),
        ):
            if getattr(self, name) not in valid:
                raise ThreerError(f"{name} must be one of {', '.join(valid)}, got {getattr(self, name)!r}")
        if self.pair_distance is not None and self.pair_distance < 1:
            raise ThreerError(f"pair_distance must be None or at least 1, got {self.pair_distance}")
        if not 0 <= self.weakest_pair < 1:
            raise ThreerError(f"weakest_pair must be at least 0 and below 1, got {self.weakest_pair}")
        if not self.alignment_rate > 0:
            raise ThreerError(f"alignment_rate must be positive, got {self.alignment_rate}")

    @classmethod
    def parity(cls, **changes: object) -> AlignmentConfig:
        """The official program's behaviour, quirks included (pipelines.md section 2)."""
        official = cls(published_alignment=True, pair_graph="complete", pair_cycle=True, weakest_pair=0.0)
        return dataclasses.replace(official, **changes)  # type: ignore[arg-type]


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
        if self.voxel is not None and not 0 < self.voxel < math.inf:
            raise ThreerError(f"voxel must be positive, got {self.voxel}")
        if not 0 < self.keep <= 1:
            raise ThreerError(f"keep must be above 0 and at most 1, got {self.keep}")
        if not 0 <= self.smallest < 1:
            raise ThreerError(f"smallest is a share of the faces, at least 0 and below 1; got {self.smallest}")
        if not 0 < self.memory < math.inf:
            raise ThreerError(f"memory must be positive, got {self.memory}")
        for name, least, most in (("views", 1, 255), ("fill_holes", 0, 10**6)):
            if not least <= getattr(self, name) <= most:
                raise ThreerError(f"{name} must be {least} to {most}, got {getattr(self, name)}")
        if self.faces is not None and self.faces < 4:
            raise ThreerError(f"faces must be None or at least 4, got {self.faces}")


@dataclass(frozen=True)
class LocalizeConfig(SourceConfig):
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
    source: Path | None = None
    """Where the source of the run is, if it has moved."""
    pictures: Literal["source", "run"] = "source"
    """Which pictures of the run are matched: those of its source, or the small ones that are kept in the run."""
    seed: int = 0
    """Draws the samples of robust estimates."""
    device: str = "cpu"
    """`cpu`, `cuda`, `mps` or `auto`: where the network computes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.retrieved < 1:
            raise ThreerError(f"retrieved must be at least 1 frame, got {self.retrieved}")
        if self.threshold is not None and not 0 < self.threshold < math.inf:
            raise ThreerError(f"threshold must be a positive number of pixels, got {self.threshold}")
        if self.seed < 0:
            raise ThreerError(f"seed must not be negative, got {self.seed}")
        if self.weights is not None and self.matcher != "dust3r":
            raise ThreerError("weights are for a network that matches: give --matcher dust3r as well")
        for name, known in (
            ("camera", ("auto", "run", "unknown")),
            ("matcher", ("sift", "dust3r")),
            ("pictures", ("source", "run")),
        ):
            if getattr(self, name) not in known:
                raise ThreerError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")


@dataclass(frozen=True)
class RefineConfig:
    """Settings of `refine`."""

    source: Path | None = None
    """Where the source of the run is, if it has moved."""
    pictures: Literal["source", "run"] = "source"
    """Which pictures are matched: those of the source, or the small ones that are kept in the run, which is less
    exact."""
    all_pairs_up_to: int = 200
    """So many pictures are all compared with each other; of more, each with some in time and `similar` ones."""
    similar: int = 20
    """Pictures that each one is compared with because they look alike, where not all pairs are."""
    overwrite: bool = False
    """Replace an earlier refined run."""
    seed: int = 0
    """Draws the samples of robust estimates, and the points that are held back for the verdict."""

    def __post_init__(self) -> None:
        for name, least in (("all_pairs_up_to", 2), ("similar", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ThreerError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.pictures not in ("source", "run"):
            raise ThreerError(f"pictures must be source or run, got {self.pictures!r}")


@dataclass(frozen=True)
class LoopConfig:
    """Settings of `close_loops`."""

    source: Path | None = None
    """Where the source of the run is, if it has moved."""
    pictures: Literal["source", "run"] = "source"
    """Which pictures are matched: those of the source, or the small ones that are kept in the run, which is less
    exact."""
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
    seed: int = 0
    """Draws the samples of robust estimates."""

    def __post_init__(self) -> None:
        for name, least in (("gap", 2), ("similar", 1), ("inliers", 8), ("support", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise ThreerError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not 0 <= self.agreement <= 1:
            raise ThreerError(f"agreement is a share from 0 to 1, got {self.agreement}")
        if self.pictures not in ("source", "run"):
            raise ThreerError(f"pictures must be source or run, got {self.pictures!r}")


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
        if not 0 < self.keep <= 1:
            raise ThreerError(f"keep must be above 0 and at most 1, got {self.keep}")
        if self.focal not in ("auto", "shared", "per-image"):
            raise ThreerError(f"focal must be auto, shared or per-image, got {self.focal!r}")
        if self.resume and self.overwrite:
            raise ThreerError("resume goes on with a run and overwrite throws it away: give one of them")
        if self.save_every is not None and not self.save_every >= 0:
            raise ThreerError(f"save_every must be at least 0 seconds, or None, got {self.save_every}")

    def frames(self) -> SourceConfig:
        return SourceConfig(**{field.name: getattr(self, field.name) for field in dataclasses.fields(SourceConfig)})
