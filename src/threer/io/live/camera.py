"""Cameras of this machine, by OpenCV."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol, cast

import cv2

from threer.config import SourceConfig
from threer.io.frames import SkippedFrame
from threer.io.images import RGBImage
from threer.io.live.reconnecting import BrokenOffError, Connection, ReconnectingSource


class Camera(Protocol):
    """A device that gives one picture after the other."""

    def read(self) -> RGBImage | None:
        """The next picture, as soon as there is one; None when the device gives no more."""

    def close(self) -> None:
        """Let the device go."""


class OpenCVCamera:
    """A camera by its number. Raises `BrokenOffError` if there is none, or it is in use."""

    def __init__(self, index: int) -> None:
        with _without_warnings():
            self._device = cv2.VideoCapture(index)
        if not self._device.isOpened():
            raise BrokenOffError("it is not there, or in use by another program")

    def read(self) -> RGBImage | None:
        good, picture = self._device.read()
        return cast(RGBImage, cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)) if good else None

    def close(self) -> None:
        self._device.release()


class CameraSource(ReconnectingSource):
    """A camera of this machine. A frame's time is the moment at which it was read."""

    def __init__(
        self,
        index: int,
        config: SourceConfig,
        on_skip: Callable[[SkippedFrame], None] | None = None,
        open_device: Callable[[int], Camera] = OpenCVCamera,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(f"camera:{index}", config, on_skip, now)
        self.index = index
        self._open_device = open_device

    @property
    def help(self) -> str:  # type: ignore[override]
        present = sorted(int(path.name[5:]) for path in Path("/dev").glob("video*") if path.name[5:].isdecimal())
        there = ", ".join(f"camera:{index}" for index in present)
        return f"this machine has {there}" if there else "check that it is plugged in, and its number"

    def _connect(self) -> Connection:
        with closing(self._open_device(self.index)) as device:
            while not self._stopped.is_set():
                picture = device.read()
                if picture is None:
                    raise BrokenOffError("it gives no more pictures")
                yield None, partial(_same, picture)


def _same(picture: RGBImage) -> RGBImage:
    return picture


@contextmanager
def _without_warnings() -> Iterator[None]:
    """OpenCV prints what it tried on the way; the one line that counts is ours."""
    logging = cv2.utils.logging
    level = logging.getLogLevel()
    logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(level)
