"""From registered frames to updates: cameras, versions, and repeated pictures, which get what the first one got."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import torch

from threer.geometry.sim3_paths import interpolate
from threer.pipelines.cameras import CameraTracker
from threer.pipelines.streaming.state import Keyframe, moved
from threer.types import Frame, Moves, Pointmap, Update, UpdateKind

NOTHING_TO_SEE = "it shows nothing: all parts of the picture have one colour, and no scene has begun"


class Emitter:
    """Makes the updates of one stream.

    duplicates  frames so far that took over the result of an earlier one
    """

    def __init__(self, tracker: CameraTracker | None) -> None:
        self._tracker = tracker
        # The latest of a new picture, with its frame number; a final one only while it is repeated.
        self._final: tuple[int, Update] | None = None
        self._preview: tuple[int, Update] | None = None
        self.duplicates = 0

    def hopeless(self, frame: Frame) -> Update:
        """The update of a ``frame`` that was never processed, because it shows nothing to begin with."""
        c2w, K = self._tracker.missing() if self._tracker else (None, None)
        return Update("failed", frame, c2w=c2w, K=K, message=NOTHING_TO_SEE)

    def finals(self, keyframes: Sequence[Keyframe], following: Keyframe | None) -> Iterator[Update]:
        """Final (or failed) updates of the next ``keyframes``, which are left without image and local map.

        following  the frame after them, if it is there already
        """
        if self._tracker:
            for keyframe in keyframes:
                if keyframe.local is not None and not keyframe.failure:
                    self._tracker.observe(keyframe.local)
        for keyframe in keyframes:
            yield self._finish(keyframe)
        if following is not None and following.twin is None:
            self._final = None

    def preview(self, keyframe: Keyframe, draft: Keyframe | None) -> Update | None:
        """A provisional update of ``keyframe``: of its ``draft``, or of the picture that it repeats; or none."""
        if draft is not None:
            self._preview = keyframe.index, self._update(draft, "provisional")
        known = [first for first in (self._final, self._preview) if first and first[0] == keyframe.origin]
        if not known or known[0][1].kind == "failed":
            return None
        update = dataclasses.replace(_again(known[0][1], keyframe), kind="provisional")
        keyframe.version += 1
        return update

    def move(self, moves: Moves) -> None:
        """Earlier frames have moved: so does what is kept of them for those that repeat their pictures."""
        kept = [
            None if first is None else (first[0], _moved(first[1], moves)) for first in (self._final, self._preview)
        ]
        self._final, self._preview = kept

    def _finish(self, keyframe: Keyframe) -> Update:
        if keyframe.twin is None:
            update = self._update(keyframe, "failed" if keyframe.failure else "final")
            self._final = keyframe.index, update
        else:
            assert self._final is not None
            update = _again(self._final[1], keyframe)
            self.duplicates += 1
        keyframe.frame = keyframe.local = None
        return update

    def _update(self, keyframe: Keyframe, kind: UpdateKind) -> Update:
        frame, world, local = keyframe.frame, keyframe.world, keyframe.local
        assert frame is not None
        assert world is not None
        if keyframe.failure:
            world = Pointmap(world.xyz, torch.zeros_like(world.conf))
        c2w = K = None
        if self._tracker:
            c2w, K = self._tracker.missing() if keyframe.failure else self._tracker.track(frame, world, local)
        return Update(
            kind=kind,
            frame=frame,
            version=keyframe.version,
            points=_to_cpu(world),
            local=None if local is None else _to_cpu(local),
            c2w=c2w,
            K=K,
            message=keyframe.failure or keyframe.note,
        )


def _again(update: Update, keyframe: Keyframe) -> Update:
    assert keyframe.frame is not None
    # What was noted then does not happen again; why it failed, tracking has told this frame, too.
    return dataclasses.replace(update, frame=keyframe.frame, version=keyframe.version, message=keyframe.failure)


def _moved(update: Update, moves: Moves) -> Update:
    if update.frame.index > moves.last or update.points is None:
        return update
    (way,) = interpolate(moves.indices, moves.sim3, [update.frame.index])
    xyz = moved(update.points.xyz, way).to(update.points.xyz.dtype)
    c2w = None if update.c2w is None else way.apply_to_cameras(update.c2w)
    return dataclasses.replace(update, points=Pointmap(xyz, update.points.conf), c2w=c2w)


def _to_cpu(points: Pointmap) -> Pointmap:
    return Pointmap(points.xyz.cpu(), points.conf.cpu())
