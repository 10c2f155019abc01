"""What live sources have in common: which frames are taken, and that they are recorded before anything else."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing

from threer.config import SourceConfig
from threer.io.frames import FrameSource, SkippedFrame
from threer.io.images import RGBImage
from threer.io.live.recording import Recorder
from threer.io.live.timing import Pace

Arrival = tuple[float, str, Callable[[], RGBImage]]
"""(seconds, name, gives the upright picture) of a frame that came in; pictures nobody takes are never converted."""

SKIPS_LISTED = 100


class LiveSource(FrameSource):
    """Frames that are still coming into being. Iterating waits for them; `stop` ends the wait from any thread.

    Of the frames that come in, those are taken that `Pace` lets pass; with ``record`` they are kept, without
    loss and with their exact times, before anybody sees them.
    """

    live = True
    is_sequence = True

    def __init__(
        self, name: str, config: SourceConfig, on_skip: Callable[[SkippedFrame], None] | None = None
    ) -> None:
        super().__init__(config, on_skip)
        self.name = name
        self.expected = config.max_frames
        self._told: dict[str, int] = {}
        self._skips = 0

    @abstractmethod
    def _arrivals(self) -> Generator[Arrival, None, None]:
        """Every frame that comes in, with rising times from 0."""

    def _pictures(self) -> Generator[tuple[float, str, RGBImage], None, None]:
        start, end = self.span
        pace = Pace(self.config.fps if self.kind == "video" else None)
        self._skips = 0
        with ExitStack() as closed:
            arrivals = closed.enter_context(closing(self._arrivals()))
            recorder = self._recorder()
            if recorder:
                closed.enter_context(closing(recorder))
            for time, name, picture in arrivals:
                if time >= end:
                    return
                if time < start or not pace.takes(time):
                    continue
                image = picture()
                if recorder:
                    recorder.add(time, name, image)
                    self._tell("recording", f"recorded in {recorder.session}; give that folder to replay it")
                yield time, name, image

    def _recorder(self) -> Recorder | None:
        return Recorder(self.config.record, self.name, self.kind) if self.config.record else None

    def _skip(self, name: str, reason: str) -> None:
        super()._skip(name, reason)
        self._skips += 1
        if self._skips > SKIPS_LISTED:
            del self.skipped[:-SKIPS_LISTED]
            self._tell("skips", f"{self._skips} frames could not be read; the last {SKIPS_LISTED} are listed")

    def _tell(self, topic: str, text: str) -> None:
        """Note ``text`` in place of what was said before on ``topic``: what never ends must not fill the notes."""
        if topic in self._told:
            self.notes[self._told[topic]] = text
        else:
            self._told[topic] = len(self.notes)
            self.notes.append(text)
