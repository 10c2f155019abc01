"""A folder into which images are being written: each is taken once it is whole."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

from threer.config import SourceConfig
from threer.errors import SourceError
from threer.io.exif import PhotoFocal, read_focal
from threer.io.folders import IMAGES_LOOKED_FOR, is_image_name, natural_order
from threer.io.frames import RawFrame, SkippedFrame
from threer.io.images import RGBImage, load_image
from threer.io.live.source import Arrival, LiveSource
from threer.io.live.timing import TICK

END_MARK = ".end"
POLL = 0.2  # seconds between two looks into the folder
PATIENCE = 2.0  # seconds for which a file that has stopped growing but cannot be read holds up those after it


@dataclass
class _Pending:
    """A file that is not taken yet.

    state   size and time of change (ns) as last seen
    since   when it became so
    reason  why it cannot be read as it is
    """

    path: Path
    state: tuple[int, int] = (-1, -1)
    since: float = 0.0
    reason: str = ""

    def settled(self, now: float) -> bool:
        """Look at it: whether it is as it was at the last look. Raises `OSError` if it is gone."""
        stat = self.path.stat()
        if (stat.st_size, stat.st_mtime_ns) == self.state:
            return True
        self.state, self.since, self.reason = (stat.st_size, stat.st_mtime_ns), now, ""
        return False


class WatchedFolder(LiveSource):
    """Images of a folder as they appear, those already there first; among those found together in natural order.

    A file is taken when it has stopped changing and can be decoded; until then it holds up those behind it, but not
    for long. Its timestamp is the moment at which it was last written, in seconds after the first. Every file is
    taken, whatever ``fps`` says. The folder has ended when a file named ``.end`` is in it, or when nothing came for
    ``idle`` seconds.
    """

    live = False  # files wait until they are read

    kind = "images"

    def __init__(
        self,
        folder: Path,
        config: SourceConfig,
        on_skip: Callable[[SkippedFrame], None] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(str(folder), config, on_skip)
        if not folder.is_dir():
            raise SourceError(f"cannot watch {folder}: there is no such folder; make it first")
        self.folder = folder
        self._now = now
        self._waiting: list[_Pending] = []

    def focal_of(self, raw: RawFrame) -> PhotoFocal:
        return read_focal(self.folder / raw.name)

    def _arrivals(self) -> Generator[Arrival, None, None]:
        self._waiting.clear()
        seen: set[str] = set()
        begun, latest = 0, -TICK
        news = self._now()
        while not self._stopped.is_set():
            ending = (self.folder / END_MARK).exists()  # asked first: what was written before it is found below
            try:
                self._waiting += self._appeared(seen)
            except OSError as error:
                self._tell("end", f"{self.folder} can no longer be read ({error.strerror}); it counts as ended")
                ending = True
            for file in list(self._waiting):
                if (picture := self._whole(file)) is not None:
                    written = file.state[1]
                    begun = written if latest < 0 else begun
                    latest = max((written - begun) / 1e9, latest + TICK)
                    yield latest, file.path.name, picture
                    news = self._now()
                news = max(news, file.since)
                if file in self._waiting and not ending and self._now() - file.since < PATIENCE:
                    break  # those that came later wait for it
            idle = self.config.idle is not None and self._now() - news >= self.config.idle
            if idle or (ending and all(file.reason for file in self._waiting)):
                for file in self._waiting:
                    self._skip(file.path.name, file.reason or "it was still being written")
                return
            self._stopped.wait(POLL)

    def _appeared(self, seen: set[str]) -> list[_Pending]:
        """The image files that were not seen before, in natural order."""
        with os.scandir(self.folder) as entries:
            names = [e.name for e in entries if e.name not in seen and is_image_name(Path(e.name)) and e.is_file()]
        seen.update(names)
        return [_Pending(path) for path in natural_order(self.folder / name for name in names)]

    def _whole(self, file: _Pending) -> Callable[[], RGBImage] | None:
        """The picture of a file that is complete; it then waits no longer."""
        try:
            if not file.settled(self._now()) or file.reason:
                return None
            image = load_image(file.path)
        except OSError:
            self._waiting.remove(file)
            self._skip(file.path.name, "it was gone before it could be read")
            return None
        except SourceError as error:
            file.reason = str(error)
            return None
        self._waiting.remove(file)
        return lambda: image

    def _why_nothing(self) -> str:
        if self.skipped:
            return f"none of the images in {self.folder} can be read: {self.skipped[0].reason}"
        return f"no image came into {self.folder}; {IMAGES_LOOKED_FOR}"
