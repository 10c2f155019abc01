"""Network streams, by PyAV: HTTP (MPEG-TS, HLS, MJPEG, …), RTSP, RTMP and UDP, with the sender's own times."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from fractions import Fraction
from functools import partial
from urllib.parse import urlsplit

import av
from av.container import InputContainer
from av.video.frame import VideoFrame

from threer.config import SourceConfig
from threer.io.frames import SkippedFrame
from threer.io.live.reconnecting import BrokenOffError, Connection, ReconnectingSource
from threer.io.video import upright_picture

STREAM_SCHEMES = ("http", "https", "rtsp", "rtmp", "udp")

_NO_TIMESTAMPS = 0x80  # FFmpeg's AVFMT_NOTIMESTAMPS


class StreamSource(ReconnectingSource):
    """A stream at an address. What has an end of its own (a file on a server) is read once, up to there."""

    help = "check the address, and that something is sent there"

    def __init__(
        self, url: str, config: SourceConfig, on_skip: Callable[[SkippedFrame], None] | None = None
    ) -> None:
        self.url = url
        super().__init__(without_secrets(url), config, on_skip)

    def _connect(self) -> Connection:
        with self._open() as container:
            stream = container.streams.video[0]
            stream.thread_type = "SLICE"  # threads by frame would hold frames back
            has_end = container.size > 0 or bool(container.duration) or container.format.name == "hls"
            # Formats without times, such as the MJPEG of web cameras, get invented ones from the demuxer.
            has_times = not container.format.flags & _NO_TIMESTAMPS
            # Seconds per stamp; frames that the decoder gives at the end do not know it themselves.
            tick = (stream.time_base or Fraction(1, 1000)) if has_times else None
            packets = container.demux(stream)
            while True:
                try:
                    packet = next(packets, None)
                except av.FFmpegError as error:
                    yield from self._sound(stream.decode(None), tick)  # what the decoder still holds
                    raise BrokenOffError(self._reason(error)) from error
                if packet is None:
                    break
                try:
                    frames = packet.decode()
                except av.FFmpegError as error:
                    self._skip(self.name, str(error.strerror))
                    continue
                yield from self._sound(frames, tick)
            if not has_end:
                raise BrokenOffError("the sender closed the connection")

    def _sound(self, frames: Iterable[VideoFrame], tick: Fraction | None) -> Connection:
        for frame in frames:
            if frame.is_corrupt:
                self._skip(self.name, "damaged")
                continue
            stamp = None if tick is None or frame.pts is None else float(frame.pts * tick)
            yield stamp, partial(upright_picture, frame)

    def _open(self) -> InputContainer:
        # Over TCP nothing of an RTSP stream is lost, and it passes firewalls.
        options = {"rtsp_transport": "tcp"} if self.url.startswith("rtsp") else {}
        try:
            container = av.open(self.url, options=options, timeout=self.config.timeout)
        except (av.FFmpegError, OSError) as error:
            raise BrokenOffError(self._reason(error)) from error
        still = container.format.name.endswith("_pipe") or container.format.name == "image2"
        if still or not container.streams.video:
            container.close()
            raise BrokenOffError(f"it carries {'one still image' if still else 'no video'}")
        return container

    def _reason(self, error: av.FFmpegError | OSError) -> str:
        if isinstance(error, av.ExitError):  # what PyAV's own timer ends
            return f"nothing came for {self.config.timeout:g} s"
        if isinstance(error, av.InvalidDataError):
            return "what comes is not a stream that can be read"
        if error.errno == errno.EIO:  # FFmpeg's word for an unknown host as well as for a lost one
            return "the connection failed"
        return str(error.strerror)


def without_secrets(url: str) -> str:
    """The address without user, password and query, which may hold a key: for messages and files."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
