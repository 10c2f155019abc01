"""The methods: which there are, which one suits a source, and the session that runs it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from threer.config import ReconstructConfig
from threer.errors import CheckpointError, ThreerError
from threer.io.frames import FrameSource
from threer.io.intrinsics import intrinsic_matrix
from threer.models.checkpoints import FAMILIES, Model, Role, family_of
from threer.models.registry import entries, load_model, resolve
from threer.nn.fusion import VIEW_CODES
from threer.pipelines.alignment.session import AlignmentSession
from threer.pipelines.cameras import CameraTracker
from threer.pipelines.classical.colmap import pycolmap
from threer.pipelines.classical.session import FEWEST as LEAST_CLASSICAL
from threer.pipelines.classical.session import NAME as CLASSICAL_NAME
from threer.pipelines.classical.session import ClassicalSession, NoNetwork
from threer.pipelines.joint import JointSession
from threer.pipelines.pairwise import MOST_PHOTOS
from threer.pipelines.recurrent import RecurrentSession
from threer.pipelines.sessions import Progress, Session
from threer.pipelines.streaming import StreamingSession
from threer.pipelines.streaming.closing import LoopCloser
from threer.pipelines.streaming.fallback import PairStreaming
from threer.types import FloatArray

FEW_PHOTOS = 30
"""Up to so many photos pairs give the better scene; beyond, there are too many pairs."""
LEAST_FRAMES = {"streaming": 2}
MOST_FRAMES = {"joint": VIEW_CODES}
PAIRS_STREAMED = "dust3r-stream"
"""DUSt3R on more frames than it takes at once: not its own method, so it has a name of its own."""
CLOSES_LOOPS = ("slam3r", PAIRS_STREAMED)
CLASSICAL = "sfm"
"""The classical baseline: no network, so no weights either."""
AS_VIDEO = "the images are taken as a video in the order of their names; unordered photos will not fit"


@dataclass(frozen=True)
class Choice:
    """The method for a source, and why."""

    method: str
    why: str


def choose_method(source: FrameSource, has_weights: Callable[[str], bool] | None = None) -> Choice:
    """The method that suits ``source`` best among those whose weights are at hand.

    A video, a stream and images numbered like one are streamed; up to 30 photos go to DUSt3R, more to Fast3R.
    Where a method cannot take so many frames, or has no weights on this disk, the next one is taken and the reason
    says so. If no method has weights, the best one is given all the same: loading it tells what to do.
    """
    has_weights = has_weights or _has_weights
    count = source.expected
    order: tuple[str, ...]
    if source.live:
        order, why = ("slam3r", "cut3r"), "a live source is reconstructed frame by frame as it comes"
    elif source.kind == "video":
        order, why = ("slam3r", "cut3r"), "a video is reconstructed frame by frame as it plays"
    elif source.is_sequence:
        order, why = ("slam3r", "cut3r"), "numbered images are taken as the frames of a video"
    elif count is not None and count <= FEW_PHOTOS:
        order = ("dust3r", "fast3r", "cut3r", "slam3r")
        why = "one photo" if count == 1 else f"{count} photos, few enough to look at all pairs"
    else:
        order, why = ("fast3r", "cut3r", "slam3r"), f"{count or 'many'} photos are looked at together"
    passed: list[str] = []
    for method in order:
        obstacle = _obstacle(method, count, has_weights)
        if obstacle is None:
            instead = f"; not {', '.join(passed)}" if passed else ""
            as_video = f"; {AS_VIDEO}" if method == "slam3r" and order[0] != "slam3r" else ""
            return Choice(method, why + instead + as_video)
        passed.append(f"{method} ({obstacle})")
    return Choice(order[0], why)


def load_method(source: FrameSource, config: ReconstructConfig, device: str) -> tuple[Choice, Model | NoNetwork]:
    """The method that ``config`` asks for, or that suits ``source``, and its network on ``device``.

    Raises CheckpointError, and ThreerError for weights that belong to another method.
    """
    wanted, weights = config.method, config.weights
    if wanted == CLASSICAL:
        if weights is not None:
            raise ThreerError(
                f"{CLASSICAL} is the classical baseline and has no network: leave out --weights {weights}"
            )
        pycolmap()  # that it is missing should be known before the first frame
        return Choice(CLASSICAL, f"{CLASSICAL_NAME}, as asked for"), NoNetwork(config.classical, device)
    if weights is None:
        choice = choose_method(source) if wanted == "auto" else Choice(wanted, "as asked for")
        return choice, load_model("dust3r" if choice.method == PAIRS_STREAMED else choice.method, device=device)
    model = load_model(weights, device=device)
    family = family_of(model)
    if wanted == "auto" and family == "dust3r" and not _few_photos(source):
        why = (
            f"the weights {weights!r} are dust3r's: its pairs of frames are put together one frame after the other"
        )
        return Choice(PAIRS_STREAMED, why), model
    if wanted not in ("auto", family) and (wanted, family) != (PAIRS_STREAMED, "dust3r"):
        raise ThreerError(f"the weights {weights!r} are of another system: {family}'s, and {wanted} needs its own")
    if wanted != "auto":
        return Choice(wanted, "as asked for"), model
    return Choice(family, f"the weights {weights!r} are {family}'s"), model


def advice(method: str, source: FrameSource, weights: str) -> str | None:
    """What may give better geometry than ``weights``, in a line; None where they are as good as it gets."""
    entry = entries().get(weights)
    single = source.expected is not None and source.expected < LEAST_CLASSICAL
    if method == CLASSICAL or entry is None or not entry.packaged or source.live or single:
        return None
    return (
        f"{weights} is small; with no published weights at hand, --method {CLASSICAL} (classical geometry, no "
        "weights) is more exact where pictures have texture"
    )


def make_session(
    method: str,
    model: Model | NoNetwork,
    config: ReconstructConfig,
    *,
    in_order: bool = True,
    progress: Progress | None = None,
) -> Session:
    """A new session of ``method`` with its ``model``. Raises ThreerError for impossible intrinsics.

    in_order  whether the frames follow each other in time
    progress  is told about stages in which no frame becomes final
    """
    intrinsics = intrinsic_matrix(config)
    if config.close_loops and method not in CLOSES_LOOPS:
        raise ThreerError(
            f"--close-loops works while {' and '.join(CLOSES_LOOPS)} stream, and the method is {method}: leave it "
            "out, and see `threer loops` for what can be done with the finished run"
        )
    if method == "sfm" and config.focal == "per-image":
        raise ThreerError("sfm finds one focal length for all pictures of one size: leave out --focal per-image")
    if isinstance(model, NoNetwork):
        return ClassicalSession(
            config.classical, intrinsics=intrinsics, in_order=in_order, device=model.device, progress=progress
        )
    if method == PAIRS_STREAMED:
        return _stream(PairStreaming(model), config, intrinsics)
    role = FAMILIES[family_of(model)].role
    if role == "pairwise":
        return _pair(model, config, intrinsics, progress)
    return _SESSIONS[role](model, config, intrinsics)


def _stream(model: Any, config: ReconstructConfig, intrinsics: FloatArray | None) -> Session:
    tracker = CameraTracker(intrinsics, seed=config.streaming.seed, shared=config.focal != "per-image")
    loops = LoopCloser() if config.close_loops else None
    return StreamingSession(model, config.streaming, tracker=tracker, loops=loops)


def _recur(model: Any, config: ReconstructConfig, intrinsics: FloatArray | None) -> Session:
    shared = config.focal != "per-image"
    return RecurrentSession(model, config.recurrent, intrinsics=intrinsics, shared_focal=shared)


def _join(model: Any, config: ReconstructConfig, intrinsics: FloatArray | None) -> Session:
    return JointSession(model, config.joint, intrinsics=intrinsics, shared_focal=config.focal != "per-image")


def _pair(
    model: Any, config: ReconstructConfig, intrinsics: FloatArray | None, progress: Progress | None
) -> Session:
    settings = config.alignment
    if config.focal != "auto":
        settings = dataclasses.replace(settings, shared_focal=config.focal == "shared")
    return AlignmentSession(model, settings, intrinsics=intrinsics, progress=progress)


_SESSIONS: dict[Role, Callable[[Any, ReconstructConfig, FloatArray | None], Session]] = {
    "streaming": _stream,
    "recurrent": _recur,
    "joint": _join,
}


def _few_photos(source: FrameSource) -> bool:
    """Whether ``source`` is what global alignment is best at: a pair, or some photos in no order."""
    count = source.expected
    if count is None or source.live or source.kind == "video":
        return False
    return count <= MOST_PHOTOS or (count <= FEW_PHOTOS and not source.is_sequence)


def _obstacle(method: str, count: int | None, has_weights: Callable[[str], bool]) -> str | None:
    """Why ``method`` cannot reconstruct ``count`` frames here; None if it can."""
    role = FAMILIES[method].role
    least, most = LEAST_FRAMES.get(role, 1), MOST_FRAMES.get(role)
    if count is not None and count < least:
        return f"it needs {least} frames"
    if most is not None and (count is None or count > most):
        return f"at most {most} frames"
    return None if has_weights(method) else "its weights are not on this disk"


def _has_weights(method: str) -> bool:
    try:
        resolve(method)
    except CheckpointError:
        return False
    return True
