"""The time of live frames: one clock for streams that jump and break, and the rate at which frames are taken."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

TICK = 1e-3  # seconds between frames that claim the same moment
HICCUP = 0.1  # seconds a single stamp may be back behind the frame before without meaning a new start
JUMP = 10.0  # seconds a stream may be ahead of the wall clock from one frame to the next: nothing buffers more
EARLY = 0.25  # of the interval between two frames taken: real cameras are not on time to the millisecond


class StreamClock:
    """Seconds since the first frame, always rising.

    Follows the stamps that frames carry, so that their spacing is the sender's own. Where these jump (the sender
    started anew, its counter ran over) or are missing, the wall clock takes over: a gap is as long as it was.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._start: float | None = None
        self._offset: float | None = None
        self._arrival = 0.0
        self.latest = -math.inf

    def time(self, stamp: float | None) -> float:
        """Time of the frame that arrives now and carries ``stamp`` (seconds, any origin), or carries none."""
        now = self._now()
        if self._start is None:
            self._start = self._arrival = now
            self.latest = -TICK
        step = None if stamp is None or self._offset is None else stamp + self._offset - self.latest
        if step is not None and -HICCUP < step <= now - self._arrival + JUMP:
            self.latest += max(step, TICK)
        else:
            self.latest = max(now - self._start, self.latest + TICK)
            self._offset = self._offset if stamp is None else self.latest - stamp
        self._arrival = now
        return self.latest


class Pace:
    """Lets frames pass at ``fps``: the first one near each tick k/fps or after it; None lets all of them pass.

    It never waits for a later frame, and looks at nothing but their times: what passed once passes again.
    """

    def __init__(self, fps: float | None) -> None:
        self._fps = fps
        self._next = 0

    def takes(self, time: float) -> bool:
        """Whether the frame of that time (seconds, rising) is taken."""
        if self._fps is None:
            return True
        tick = math.floor(time * self._fps + EARLY)
        if tick < self._next:
            return False
        self._next = tick + 1
        return True
