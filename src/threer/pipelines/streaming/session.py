"""The event loop of streaming SLAM3R: frames in one by one, final pointmaps out, bounded memory between.

Delayed-exact mode (pipelines.md section 1.15): a frame is reconstructed as soon as the last frame that can
influence it has arrived, so the result is that of the offline program, while only the frames in reach, the open
buffer segments and the buffer itself are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from threer.config import StreamingConfig
from threer.errors import ReconstructionError
from threer.geometry.sim3_paths import interpolate
from threer.pipelines.cameras import CameraTracker
from threer.pipelines.interrupts import interrupts_wait
from threer.pipelines.streaming.bootstrap import (
    choose_initial,
    initialize_scene,
    rate_by_ratio,
    rate_by_registration,
    search_stride,
    window,
)
from threer.pipelines.streaming.buffer import SceneBuffer
from threer.pipelines.streaming.closing import LoopCloser
from threer.pipelines.streaming.emission import Emitter
from threer.pipelines.streaming.networks import Networks, StreamingModel
from threer.pipelines.streaming.preview import Previewer
from threer.pipelines.streaming.registration import localize, register_round, why_unusable
from threer.pipelines.streaming.schedule import Schedule
from threer.pipelines.streaming.state import Draws, Keyframe, Trace, distinct
from threer.pipelines.streaming.tracking import Tracking
from threer.pipelines.streaming.twins import Twins, is_blank
from threer.types import Frame, Update

PATIENCE = 130
"""Frames for which the beginning waits, longer than it must, for pictures that show something and differ."""


class StreamingSession:
    """Reconstructs a stream of frames with SLAM3R.

    ``push`` every frame in order, then ``finish``; both return the updates that became ready. Each frame is
    final (or failed) exactly once, in order, at most radius × stride + round − 1 frames after it came in,
    after an initial wait for the stride search and the initial window.

    With a `deadline` a frame comes out twice: provisional, from the neighbours that are there so many frames
    after it, and final as above, with the next version number. Finals do not depend on it.

    A frame that repeats the picture before it takes over that one's result. Frames that show nothing known come
    out as failed; so do, at once, those before the first that shows anything.

    When ``push`` or ``finish`` raises, the updates that were ready by then are in ``unreturned``.

    With ``loops`` an update `correction` may follow the finals of a round: it moves frames that came out before,
    and the session has moved all that it keeps of them, so that later frames come out in the corrected world. Until
    the first one, everything is as without.

    tracker  finds a camera for each final frame; None leaves cameras out
    loops    watches for the camera's return; it needs a tracker
    trace    is told every decision as a small dict: random draws, windows, retrievals, registrations
    """

    def __init__(
        self,
        model: StreamingModel,
        config: StreamingConfig | None = None,
        *,
        tracker: CameraTracker | None = None,
        loops: LoopCloser | None = None,
        trace: Trace | None = None,
    ) -> None:
        self.config = config or StreamingConfig()
        self.stride: int | None = None if self.config.stride == "auto" else self.config.stride
        self._model = model
        self._networks = Networks(model, self.config, trace)
        self._emitter = Emitter(tracker)
        self._loops = loops
        self._trace = trace
        self._draws = Draws(self.config, trace)
        self._keyframes: dict[int, Keyframe] = {}
        self._buffer: SceneBuffer | None = None
        self._schedule: Schedule | None = None
        self._previewer: Previewer | None = None
        self._tracking: Tracking | None = None
        self._twins = Twins(self.config.duplicate_tolerance)
        self._count = 0  # frames pushed
        self._next = 0  # first frame that is not final
        self._ended = False
        self._hopeless = 0  # frames before the first that shows anything
        self.unreturned: list[Update] = []

    @property
    def alive(self) -> int:
        """Frames of which anything is kept: those in reach, in open segments and in the buffer."""
        return len(self._keyframes)

    @property
    def stored_bytes(self) -> int:
        """Memory of what is kept of final frames: tokens, and maps of open segments and the buffer."""
        kept = [k for k in self._keyframes.values() if k.index < self._next]
        tensors = [t for k in kept for t in (k.tokens, *((k.world.xyz, k.world.conf) if k.world else ()))]
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)

    @property
    def report(self) -> dict[str, Any]:
        """What happened on the way: stride, repeated frames, how often tracking was lost and found again."""
        return {
            "stride": self.stride,
            "duplicates": self._emitter.duplicates,
            "tracking_lost": self._tracking.losses if self._tracking else 0,
            "tracking_found_again": self._tracking.recoveries if self._tracking else 0,
            **({} if self._loops is None else {"loops": self._loops.report}),
        }

    def push(self, frame: Frame) -> list[Update]:
        """Take the next frame; returns the updates of the frames that became final."""
        if self._ended:
            raise ReconstructionError("this session has ended; start a new one for more frames")
        width, height = frame.size
        first = next(iter(self._keyframes.values()), None)
        if first is not None and first.true_shape != (height, width):
            h, w = first.true_shape
            raise ReconstructionError(
                f"frame {self._count} ({frame.name}) is {width}×{height} after preparation, the first was {w}×{h}; "
                "a stream needs frames of one size"
            )
        blank = self._buffer is None and is_blank(frame, self.config.duplicate_tolerance)
        if blank and not self._count:
            self._hopeless += 1
            return [self._emitter.hopeless(frame)]
        twin = self._twins.of(frame, self._count)
        keyframe = Keyframe(self._count, frame, (height, width), twin=twin, blank=blank, source=frame.index)
        self._keyframes[self._count] = keyframe
        self._count += 1
        return self._run()

    def finish(self) -> list[Update]:
        """No more frames will come: reconstruct what is left."""
        if self._ended:
            return []
        self._ended = True
        if self._count < 2:
            found = "no frame" if self._count == 0 else "one frame"
            raise ReconstructionError(
                f"{found} to reconstruct from; a stream needs at least 2, moving a little "
                f"(fps and max_frames may have left out the others; {self._hopeless} showed one colour only)"
            )
        return self._run()

    def _run(self) -> list[Update]:
        self.unreturned = []
        with torch.inference_mode():
            self._advance()
        ready, self.unreturned = self.unreturned, []
        return ready

    def _advance(self) -> None:
        if self._buffer is None:
            if not self._ready_to_begin():
                return
            self._begin()
            if self._buffer is None:
                return
        while keys := self._next_round():
            self._register_round(keys)
        if self._previewer and not self._ended:
            self._preview(self._previewer)

    # Beginning ------------------------------------------------------------------------------------------------

    def _ready_to_begin(self) -> bool:
        if self._ended:
            return True
        if self.stride is None:
            wait = self.config.stride_frames
            if wait is None or self._count < wait:
                return False
            self._find_stride()
        assert self.stride is not None
        # Frames between the initial ones look `radius` strides ahead of the last of them.
        beyond = (self.config.radius if self.stride > 1 else 0) * self.stride
        most = self.config.init_frames
        chosen = choose_initial(self._keyframes.values(), self.stride, most)
        if len(chosen) == most:
            return self._count > chosen[-1].index + beyond
        return self._count > (most - 1) * self.stride + beyond + PATIENCE

    def _find_stride(self) -> None:
        self._encode(self._keyframes.values())
        self.stride = search_stride(self._keyframes, self._networks, self.config, self._draws)

    def _begin(self) -> None:
        if self.stride is None:
            self._find_stride()
        assert self.stride is not None
        stride = self.stride
        size = min(self.config.init_frames, self._count // stride)
        if size < 2:
            raise ReconstructionError(
                f"{self._count} frames are too few for keyframes {stride} apart; "
                f"give at least {2 * stride} frames or a smaller stride"
            )
        chosen = choose_initial(self._keyframes.values(), stride, size, least=2)
        if len(chosen) < 2:
            self._begin_anew()
            return
        for keyframe in chosen:
            keyframe.twin = None  # nothing is known yet that could be taken over
        self._encode(self._keyframes.values())
        start = initialize_scene(chosen, self._networks, self.config, self._trace)
        last = start.keyframes[-1].index
        beginning = [self._keyframes[i] for i in range(last + 1)]
        between = [k for k in beginning if k not in start.keyframes and k.twin is None]
        if self.config.init_confidence == "register":
            rate_by_registration(start, self._networks)
        self._localize(between)
        step = self.config.round_frames
        for chunk in (between[i : i + step] for i in range(0, len(between), step)):
            maps = self._networks.registered([start.keyframes] * len(chunk), [[k] for k in chunk])
            for keyframe, (world,) in zip(chunk, maps, strict=True):
                keyframe.register(world)
        if self.config.init_confidence == "ratio":
            rate_by_ratio(start, between)
        self._tracking = Tracking(self.config, start.keyframes)
        self._tracking.begin(beginning, start.keyframes)
        self._buffer = SceneBuffer(self.config, self._draws, stride, start.keyframes)
        self._schedule = Schedule.of(self.config, stride)
        if self.config.deadline is not None:
            networks = Networks(self._model, self.config)  # not traced: it decides nothing
            self._previewer = Previewer(networks, self._schedule, self.config.deadline, last + 1)
        self._emit(range(last + 1))

    def _begin_anew(self) -> None:
        """Let go of frames with which no scene can begin. Raises ReconstructionError if no others will come."""
        if self._ended:
            raise ReconstructionError(
                f"{self._count} frames, and no two of them that show something: a scene cannot begin with pictures "
                "of one colour"
            )
        waiting = list(self._keyframes.values())
        with interrupts_wait():
            self._keyframes.clear()
            self._twins = Twins(self.config.duplicate_tolerance)
            self._count, self._hopeless = 0, self._hopeless + len(waiting)
            for keyframe in waiting:
                assert keyframe.frame is not None
                self.unreturned.append(self._emitter.hopeless(keyframe.frame))

    # Rounds ---------------------------------------------------------------------------------------------------

    def _next_round(self) -> list[Keyframe]:
        """The frames to register together next, or none while a frame they depend on is missing."""
        assert self._schedule is not None
        if self._ended:
            frames = self._schedule.last_round(self._next, self._count)
        else:
            frames = self._schedule.round(self._next, self._count, self._schedule.reach)
        return [self._keyframes[i] for i in frames]

    def _register_round(self, keys: list[Keyframe]) -> None:
        assert self._buffer is not None
        assert self._tracking is not None
        self._encode(self._keyframes.values())
        self._localize([k for k in keys if k.twin is None])
        register_round(keys, self._buffer.keyframes, self._networks, self.config, self._tracking)
        for keyframe in keys:
            self._tracking.note(keyframe)
        upto = keys[-1].index + 1
        self._buffer.consider(upto, self._keyframes)
        self._emit(range(keys[0].index, upto))

    def _preview(self, previewer: Previewer) -> None:
        assert self._buffer is not None
        assert self._tracking is not None
        while frames := previewer.due(self._next, self._count):
            self._encode(self._keyframes.values())
            new = [i for i in frames if self._keyframes[i].twin is None]
            drafts = previewer.drafts(new, self._count, self._keyframes, self._buffer.keyframes)
            usable = {
                draft.index: draft
                for draft in drafts
                # What fails may still come out well: only the complete window tells.
                if not why_unusable(draft, self.config) and not self._tracking.doubt(draft)
            }
            for i in frames:
                update = self._emitter.preview(self._keyframes[i], usable.get(i))
                if update is not None:
                    self.unreturned.append(update)

    # Steps ----------------------------------------------------------------------------------------------------

    def _encode(self, keyframes: Iterable[Keyframe]) -> None:
        missing = [k for k in keyframes if k.tokens is None]
        begun = self._buffer is not None
        self._networks.encode([k for k in missing if not (begun and k.twin is not None)])
        for keyframe in missing:
            if keyframe.tokens is None:  # the picture of the frame before, or what that one repeats
                keyframe.tokens = self._keyframes[keyframe.index - 1].tokens

    def _localize(self, keys: list[Keyframe]) -> None:
        assert self.stride is not None
        windows = [window(key.index, self.stride, self.config.radius, self._count) for key in keys]
        localize([distinct([self._keyframes[i] for i in w]) for w in windows], self._networks, self.config)

    def _emit(self, indices: range) -> None:
        """Final updates of registered frames; lets go of everything that is not needed any more.

        What an interrupt cut off here could not be made again, so it waits: for the cameras and loops of one round.
        """
        ready = [self._keyframes[i] for i in indices]
        told = len(self.unreturned)
        with interrupts_wait():
            self._next = indices.stop
            for update in self._emitter.finals(ready, self._keyframes.get(self._next)):
                self.unreturned.append(update)
            self._forget()
            for keyframe in ready:
                keyframe.pack(self._networks.storage)
            if self._loops is not None:
                self._close_loops(self._loops, self.unreturned[told:])

    def _close_loops(self, loops: LoopCloser, finals: Sequence[Update]) -> None:
        assert self.stride is not None
        for update in finals:
            loops.look(update, self.stride)
        moves = loops.moves(ending=self._ended and self._next == self._count)
        if moves is None:
            return
        known = [k for k in self._keyframes.values() if k.world is not None]
        ways = interpolate(moves.indices, moves.sim3, [keyframe.source for keyframe in known])
        for keyframe, way in zip(known, ways, strict=True):
            keyframe.move(way)
        self._emitter.move(moves)
        self.unreturned.append(Update("correction", finals[-1].frame, loops.corrections, moves=moves))

    def _forget(self) -> None:
        """Keep tokens of the frames in reach, everything of open segments and the buffer, nothing else."""
        assert self._buffer is not None
        assert self._schedule is not None
        oldest = self._next - self._schedule.reach
        kept = {k.index for k in self._buffer.keyframes}
        for index in [i for i in self._keyframes if i < self._next]:
            if index in kept or index >= self._buffer.milestone:
                continue
            if index < oldest:
                del self._keyframes[index]
            else:
                self._keyframes[index].world = None
