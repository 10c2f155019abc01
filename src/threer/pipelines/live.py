"""Keep up with a source that does not wait: when frames come faster than they are reconstructed, take fewer.

Frames are left out evenly, so the stream sees what a camera with fewer frames per second would have given; windows
and rounds stay as they are (pipelines.md section 1.15, back-pressure).
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Iterator

import numpy as np
import torch

from threer.io.frames import FrameSource, RawFrame
from threer.types import Frame

CAPACITY = 32
"""Frames that may wait: more than a round, or its burst of work would look like falling behind."""


class Backlog:
    """Frames waiting to be reconstructed: every ``step``-th that came in.

    The step rises by one while more than half the places are taken and no fewer than before, and falls by one when
    few were taken for as many frames as there are places. Should all places fill up, as they do during one long
    pause, every second frame that waits is dropped and the step doubles: frames stay evenly spaced through the
    pause, too. Once that has been worked off, the step is what the work itself showed to be needed.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.step = 1
        self._capacity = capacity
        self._waiting: deque[RawFrame] = deque()
        self._dropped: list[Frame] = []
        self._skipped = 0  # since the last frame that was kept
        self._kept = 0
        self._before = 0  # how many waited when the step was last looked at
        self._taken = 0  # since then
        self._busy = 0  # the frame after which more than a quarter of the places were last taken
        self._overrun: list[int] | None = None  # [frames that came in, frames taken] since all places were full

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, frame: RawFrame) -> None:
        """A frame came in: keep or drop it."""
        if self._overrun and self._overrun[1]:
            self._overrun[0] += 1
        if self._skipped + 1 < self.step:
            self._skipped += 1
            self._drop(frame)
            return
        self._skipped = 0
        self._kept += 1
        self._adapt()
        if len(self._waiting) == self._capacity:
            self._halve()
        self._waiting.append(frame)

    def take(self) -> RawFrame:
        """The frame that waits longest."""
        self._taken += 1
        if self._overrun:
            self._overrun[1] += 1
            came_in, taken = self._overrun
            # Long enough to hold several rounds, which are taken in one go.
            if taken >= self._capacity // 2 and (taken >= self._capacity or not self._crowded):
                self.step = max(1, min(self.step, math.ceil(came_in / taken)))
                self._overrun = None
        return self._waiting.popleft()

    def dropped(self, before: int | None = None) -> list[Frame]:
        """What was dropped since this was last asked, in order, without pixels; only up to frame ``before``."""
        told = [f for f in self._dropped if before is None or f.index < before]
        self._dropped = [f for f in self._dropped if before is not None and f.index >= before]
        return sorted(told, key=lambda frame: frame.index)

    @property
    def _crowded(self) -> bool:
        return len(self._waiting) > self._capacity // 4

    def _adapt(self) -> None:
        waiting = len(self._waiting)
        if self._crowded:
            self._busy = self._kept
        if self._kept - self._busy >= self._capacity:
            self.step = max(1, self.step - 1)
            self._busy = self._kept
        if self._kept % (self._capacity // 4) == 0:
            if waiting > self._capacity // 2 and waiting >= self._before and self._taken:
                self.step += 1
            self._before, self._taken = waiting, 0

    def give_up(self) -> None:
        """Drop everything that waits."""
        for frame in self._waiting:
            self._drop(frame)
        self._waiting.clear()

    def _halve(self) -> None:
        everything = list(self._waiting)
        self._waiting = deque(everything[::2])
        for frame in everything[1::2]:
            self._drop(frame)
        self.step *= 2
        self._overrun = [0, 0]

    def _drop(self, frame: RawFrame) -> None:
        size = frame.image.shape[1], frame.image.shape[0]
        self._dropped.append(
            Frame(torch.empty(3, 0, 0), frame.index, frame.timestamp, frame.name, size, np.eye(2, 3))
        )


class LiveFeed:
    """Reads a live ``source`` in a thread of its own; iterating gives the frames to reconstruct.

    ``dropped`` tells which frames were left out before the latest one. Iterating raises what reading raised before
    it was stopped.
    """

    def __init__(self, source: FrameSource, capacity: int = CAPACITY) -> None:
        self._source = source
        self._backlog = Backlog(capacity)
        self._latest: int | None = -1
        self._ended = False
        self._error: BaseException | None = None
        self._change = threading.Condition()

    def __iter__(self) -> Iterator[RawFrame]:
        # A daemon: a source that waits for a frame for ever must not keep the process alive.
        threading.Thread(target=self._read, name="live source", daemon=True).start()
        while True:
            with self._change:
                while not self._backlog and not self._ended:
                    self._change.wait(timeout=1)  # lets Ctrl-C through on every system
                if not self._backlog:
                    self._latest = None
                    if self._error:
                        raise self._error
                    return
                frame = self._backlog.take()
                self._latest = frame.index
            yield frame

    def dropped(self) -> list[Frame]:
        """Frames dropped before the latest frame that was given out, each told once; all at the end."""
        with self._change:
            return self._backlog.dropped(self._latest)

    def stop(self) -> None:
        """Read no more; what waits is still given out. May be called from any thread."""
        with self._change:
            self._ended = True
            self._change.notify()
        self._source.stop()

    def close(self) -> None:
        """Read no more and give out nothing: what waits counts as dropped."""
        self.stop()
        with self._change:
            self._backlog.give_up()
            self._latest = None

    def _read(self) -> None:
        try:
            for frame in self._source:
                with self._change:
                    if self._ended:
                        return
                    self._backlog.put(frame)
                    self._change.notify()
        except BaseException as error:  # whatever it is, the one who iterates is to hear of it
            with self._change:
                if not self._ended:  # what was stopped may break in any way: nothing more is wanted of it
                    self._error = error
        finally:
            with self._change:
                self._ended = True
                self._change.notify()
