"""Devices and streams that break off and come back: try again, wait longer each time, and tell what is missing."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Generator
from contextlib import closing

from threer.config import SourceConfig
from threer.errors import SourceError
from threer.io.frames import SkippedFrame
from threer.io.images import RGBImage
from threer.io.live.source import Arrival, LiveSource
from threer.io.live.timing import StreamClock

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0  # seconds

Connection = Generator[tuple[float | None, Callable[[], RGBImage]], None, None]
"""(stamp in seconds of any origin or None, gives the upright picture) of each frame; ends where the source ends."""


class BrokenOffError(Exception):
    """A connection could not be made, or ended before its time."""


class ReconnectingSource(LiveSource):
    """A live source that is connected to. After a break it is tried again, ``reconnects`` times in a row at most.

    breaks  how often it broke off and came back in the latest iteration
    """

    kind = "video"
    help: str  # what to do when it cannot be opened at all

    def __init__(
        self,
        name: str,
        config: SourceConfig,
        on_skip: Callable[[SkippedFrame], None] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(name, config, on_skip)
        self.breaks = 0
        self._now = now

    @abstractmethod
    def _connect(self) -> Connection:
        """Open the device or stream, give its frames, and close it. Raises `BrokenOffError`."""

    def _arrivals(self) -> Generator[Arrival, None, None]:
        clock = StreamClock(self._now)
        self.breaks, missing, failures = 0, 0.0, 0
        while True:
            broke_at = clock.latest
            try:
                with closing(self._connect()) as connection:
                    for stamp, picture in connection:
                        seconds = clock.time(stamp)
                        if failures:
                            self.breaks += 1
                            missing += seconds - broke_at
                            failures = 0
                            self._tell(
                                "breaks",
                                f"{self.name} broke off and came back, {self.breaks} times in all; the gaps add up "
                                f"to {missing:.1f} s",
                            )
                        yield seconds, f"{self.name}@{seconds:.3f}s", picture
                return
            except BrokenOffError as error:
                if clock.latest < 0:
                    raise SourceError(f"cannot read {self.name}: {error}; {self.help}") from error
                if failures == self.config.reconnects:
                    self._tell(
                        "end",
                        f"{self.name} ended at {clock.latest:.1f} s: {error}"
                        + (f", and it did not come back in {failures} tries" if failures else ""),
                    )
                    return
                pause = min(FIRST_PAUSE * 2**failures, LONGEST_PAUSE)
                failures += 1
                if self._stopped.wait(pause):
                    return

    def _why_nothing(self) -> str:
        first = f": {self.skipped[0].reason}" if self.skipped else ""
        return f"{self.name} ended before one frame could be taken{first}"
