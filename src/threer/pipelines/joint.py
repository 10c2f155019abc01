"""All photos at once: one forward of Fast3R, then a place and a camera for each (Fast3R 3.4, pipelines.md 4)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from threer.config import InputSpec, JointConfig
from threer.errors import ReconstructionError
from threer.geometry.procrustes import align_points
from threer.nn.fusion import VIEW_CODES
from threer.pipelines.cameras import CameraTracker
from threer.pipelines.sessions import as_view, check_finite, first_sample
from threer.types import FloatArray, Frame, Pointmap, Prediction, Sim3, Update, View

FOCAL_KEEP = 0.9
FOCAL_ITERATIONS = 100
MOST_UNEVEN = 8
"""The network mixes sizes, but not any: a photo with so many times fewer pixels than another one is a strip."""


class JointModel(Protocol):
    """What a model must offer to see all photos at once: Fast3R does.

    It returns one prediction for each view, in the camera frame of the first, at best with `local` points as well.
    What it cannot use of the numbers it may ignore.
    """

    @property
    def input(self) -> InputSpec: ...

    def parameters(self) -> Iterator[Tensor]: ...

    def __call__(
        self, views: Sequence[View], *, seed: int, encode_at_once: int, heads_at_once: int
    ) -> list[Prediction]: ...


class JointSession:
    """Reconstructs a set of photos in one forward pass, in the camera frame of the first.

    Frames may differ in size and orientation. Nothing comes out before `finish`, and memory grows with the photos.
    The lens is taken to be the same for all of them, in network pixels.

    intrinsics  [3, 3] known K in original pixels, or None to estimate the focal length from the first photo
    shared_focal  all photos have it; otherwise each its own, from its own points
    """

    def __init__(
        self,
        model: JointModel,
        config: JointConfig | None = None,
        *,
        intrinsics: FloatArray | None = None,
        shared_focal: bool = True,
    ) -> None:
        self.config = config or JointConfig()
        self._model = model
        self._tracker = CameraTracker(intrinsics, seed=self.config.id_seed, shared=shared_focal)
        self._frames: list[Frame] = []
        self._unaligned: list[str] = []
        self._ended = False

    @property
    def report(self) -> dict[str, Any]:
        """How many photos there were, and those whose own points did not fit the common ones."""
        return {"views": len(self._frames), "unaligned": self._unaligned}

    def push(self, frame: Frame) -> list[Update]:
        """Take the next photo. Raises ReconstructionError for one that is too many."""
        if self._ended:
            raise ReconstructionError("this session has ended; start a new one for more frames")
        if len(self._frames) == VIEW_CODES:
            raise ReconstructionError(
                f"at most {VIEW_CODES} frames can be told apart, and {frame.name} is one more: take fewer with "
                "max_frames, or use slam3r or cut3r, which have no limit"
            )
        self._frames.append(frame)
        return []

    def finish(self) -> list[Update]:
        """Reconstruct all photos. Raises ReconstructionError for none, or for sizes that do not go together."""
        if self._ended:
            return []
        self._ended = True
        if not self._frames:
            raise ReconstructionError("no frame to reconstruct from")
        _check_sizes(self._frames)
        with torch.inference_mode():
            return self._reconstruct()

    def _reconstruct(self) -> list[Update]:
        device = next(iter(self._model.parameters())).device
        predictions = deque(
            self._model(
                [as_view(frame, device) for frame in self._frames],
                seed=self.config.id_seed,
                encode_at_once=self.config.encode_at_once,
                heads_at_once=self.config.heads_at_once,
            )
        )
        updates: list[Update] = []
        for frame in self._frames:
            prediction = predictions.popleft()  # let go of it, map by map
            world = first_sample(prediction.points)
            check_finite(frame, world)
            if not updates:  # the frame of the points is this one's own camera
                self._tracker.observe(world, keep=FOCAL_KEEP, iterations=FOCAL_ITERATIONS)
            local = None if prediction.local is None else first_sample(prediction.local)
            if local is not None:
                check_finite(frame, local)
            c2w, K = self._tracker.track(frame, world, local)
            updates.append(
                Update("final", frame, points=self._placed(frame, local, world), local=local, c2w=c2w, K=K)
            )
        return updates

    def _placed(self, frame: Frame, local: Pointmap | None, world: Pointmap) -> Pointmap:
        """The points of a photo in the frame of all: its own ones, which are sharper, moved there if they fit."""
        if local is None:
            return world
        similarity = align_local(local, world, self.config.align_quantile)
        if similarity is None:
            self._unaligned.append(frame.name)
            return world
        return moved(local, similarity)


def align_local(local: Pointmap, world: Pointmap, quantile: float) -> Sim3 | None:
    """The similarity that moves a view's own points [H, W] onto its points in the frame of all.

    Only pixels count whose confidence in the frame of all reaches its ``quantile``; where these determine nothing,
    all pixels. None where even those do not.
    """
    source, target = local.xyz.reshape(-1, 3).numpy(), world.xyz.reshape(-1, 3).numpy()
    conf = world.conf.flatten().numpy()
    confident = conf >= np.quantile(conf, quantile)
    similarity = align_points(source[confident], target[confident])
    return similarity or align_points(source, target)


def moved(points: Pointmap, similarity: Sim3) -> Pointmap:
    """``points`` after a similarity; the confidence stays."""
    xyz = similarity.apply(points.xyz.double().numpy())
    return Pointmap(torch.from_numpy(xyz).to(points.xyz.dtype), points.conf)


def _check_sizes(frames: Sequence[Frame]) -> None:
    def pixels(frame: Frame) -> int:
        return frame.size[0] * frame.size[1]

    least, most = min(frames, key=pixels), max(frames, key=pixels)
    if pixels(least) * MOST_UNEVEN < pixels(most):
        raise ReconstructionError(
            f"{least.name} is {least.size[0]}×{least.size[1]} after preparation and {most.name} "
            f"{most.size[0]}×{most.size[1]}: so narrow a strip does not go with the others; crop it or leave it out"
        )
