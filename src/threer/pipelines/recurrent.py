"""CUT3R on a stream: frames in one by one, each answered at once, with nothing kept but the state.

pipelines.md section 3. A reset comes before a segment, whose first frame is the last one of the segment before, and
poses are chained over it (quirks C2 and C14).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from threer.config import RecurrentConfig
from threer.errors import CheckpointError, ReconstructionError
from threer.geometry import transforms
from threer.geometry.procrustes import align_points
from threer.models.cut3r import CUT3R, State
from threer.pipelines.cameras import CameraTracker
from threer.pipelines.sessions import as_view, check_finite, first_sample
from threer.pipelines.state_file import SegmentState, save_state
from threer.types import FloatArray, Frame, Pointmap, Prediction, Update, UpdateKind

NO_POSE = "its own points do not fit its world points, so it has no pose"


@dataclass(frozen=True, eq=False)
class Posed:
    """A frame that a new segment can begin with: c2w [4, 4] is its camera in the world."""

    frame: Frame
    c2w: FloatArray


class RecurrentSession:
    """Reconstructs a stream of frames with CUT3R.

    ``push`` every frame in order, then ``finish``. Each frame is final (or failed) as soon as it was pushed. The
    world is the camera of the first frame; coordinates are metres where the weights are metric. Frames may differ
    in size.

    With `second_pass` what ``push`` returns is provisional: after ``finish`` give the same frames to ``review``,
    each once and in any order, for the final updates. Nothing is kept of the frames meanwhile.

    intrinsics  [3, 3] known K in original pixels; otherwise the focal length is estimated
    shared_focal  one for all frames; otherwise each its own
    """

    def __init__(
        self,
        model: CUT3R,
        config: RecurrentConfig | None = None,
        *,
        intrinsics: FloatArray | None = None,
        shared_focal: bool = True,
    ) -> None:
        self.config = config or RecurrentConfig()
        self._model = model
        self._tracker = CameraTracker(intrinsics, shared=shared_focal)
        self._state: State | None = None
        self._anchor: FloatArray = np.eye(4)  # first camera of the segment, in the world
        self._begun = 0  # index of the segment's first frame
        self._seen = 0  # frames of the segment, the one it shares with the segment before included
        self._segments = 0
        self._latest: Posed | None = None
        self._ended = False

    @property
    def segment(self) -> SegmentState:
        """What is remembered now."""
        if self._state is None:
            raise ReconstructionError("no frame was seen, so nothing is remembered")
        return SegmentState(self._state, self._anchor, self._begun)

    @property
    def report(self) -> dict[str, Any]:
        """How many states it took, one after the other."""
        return {"segments": self._segments}

    def push(self, frame: Frame) -> list[Update]:
        """Take the next frame; returns its update. Raises `CheckpointError` if the network's output is broken."""
        if self._ended:
            raise ReconstructionError("this session has ended; start a new one for more frames")
        with torch.inference_mode():
            if self._state is None:
                self._begin(frame)
            elif self._latest is not None and self._due:
                self._begin_again(self._latest)
            return [self._look(frame, "provisional" if self.config.second_pass else "final")]

    def finish(self) -> list[Update]:
        """No more frames will come."""
        if self._state is None and not self._ended:
            raise ReconstructionError("no frame to reconstruct from")
        self._ended = True
        self._latest = None
        return []

    def review(self, frame: Frame) -> list[Update]:
        """Look at ``frame`` again with the state that has seen all, and that stays as it is; the final update."""
        if not (self.config.second_pass and self._ended):
            raise ReconstructionError("frames are reviewed when second_pass is set and the session has ended")
        with torch.inference_mode():
            return [self._look(frame, "final", again=True)]

    def save_state(self, folder: Path) -> None:
        """Keep what is remembered in a run folder, for `threer.query`. Raises `RunError`."""
        save_state(folder, self.segment, self._model)

    @property
    def _due(self) -> bool:
        return self.config.reset_every is not None and self._seen >= self.config.reset_every

    def _begin(self, frame: Frame) -> State:
        self._state = self._model.start()
        self._begun = frame.index
        self._seen = 0
        self._segments += 1
        return self._state

    def _begin_again(self, latest: Posed) -> None:
        """A new state, of which the latest frame is the first one: all that follow are chained to its pose."""
        state = self._begin(latest.frame)
        self._anchor = _rigid(latest.c2w)
        self._state, _ = self._predict(state, latest.frame, update=True)
        self._seen = 1

    def _look(self, frame: Frame, kind: UpdateKind, *, again: bool = False) -> Update:
        assert self._state is not None
        self._state, prediction = self._predict(self._state, frame, update=not again)
        assert prediction.local is not None
        local, world = first_sample(prediction.local), first_sample(prediction.points)
        if not again:
            self._seen += 1
            self._tracker.observe(local)
        in_segment = self._pose(prediction)
        if in_segment is None:
            unsure = Pointmap(_moved(self._anchor, world.xyz), torch.zeros_like(world.conf))
            c2w, K = self._tracker.missing()
            return Update("failed", frame, int(again), unsure, local, c2w, K, message=NO_POSE)
        c2w = self._anchor @ in_segment
        if self.config.reset_every is not None:
            self._latest = Posed(frame, c2w)
        if self.config.points == "local":
            points = Pointmap(_moved(c2w, local.xyz), local.conf)
        else:
            points = Pointmap(_moved(self._anchor, world.xyz), world.conf)
        lens = self._tracker.lens(frame, local)
        K = self._tracker.missing()[1] if lens is None else lens[1]
        return Update(kind, frame, int(again), points, local, c2w, K)

    def _predict(self, state: State, frame: Frame, *, update: bool) -> tuple[State, Prediction]:
        """One step of the network. Raises `CheckpointError`, naming the frame, for what is not finite."""
        view = as_view(frame, next(iter(self._model.parameters())).device)
        state, prediction = self._model.step(state, view, update=update, colours=False)
        assert prediction.local is not None
        assert prediction.c2w is not None
        for points in (prediction.local, prediction.points):
            check_finite(frame, points)
        if not bool(prediction.c2w.isfinite().all()):
            raise CheckpointError(
                f"the network gave a pose that is not finite for frame {frame.index} ({frame.name}): its "
                "weights are broken; look at them with `threer models check`"
            )
        return state, prediction

    def _pose(self, prediction: Prediction) -> FloatArray | None:
        """Camera [4, 4] in the frame of the segment, or None if it cannot be told."""
        local, world, c2w = prediction.local, prediction.points, prediction.c2w
        assert local is not None
        assert c2w is not None
        if self.config.poses == "head":
            predicted: FloatArray = c2w[0].double().cpu().numpy()
            return predicted
        weights = local.conf.double().log() * world.conf.double().log()
        source, target = (m.xyz.double().reshape(-1, 3).cpu().numpy() for m in (local, world))
        fitted = align_points(source, target, weights.flatten().cpu().numpy(), with_scale=False)
        if fitted is None:
            return None
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = fitted.R, fitted.t
        return pose


def _moved(c2w: FloatArray, points: Tensor) -> Tensor:
    return transforms.apply(torch.from_numpy(c2w), points.double()).float()


def _rigid(pose: FloatArray) -> FloatArray:
    """``pose`` with a rotation that is one to the last digit, so that long chains stay rigid."""
    tensor = torch.from_numpy(pose)
    quaternion = transforms.quaternion_from_matrix(tensor[:3, :3])
    rigid: FloatArray = transforms.pose_from_quaternion(tensor[:3, 3], quaternion).numpy()
    return rigid
