"""Streams with known pictures and times."""

from __future__ import annotations

import io
import socket
from fractions import Fraction

import av
import numpy as np

from threer.config import SourceConfig
from threer.io.frames import RawFrame
from threer.io.live import StreamSource
from threer.io.sources import open_source

WIDTH, HEIGHT = 48, 32
RATE = 25


def transport_stream(levels: range, first: float = 0.0) -> bytes:
    """MPEG-TS: for each k a grey frame of level 10 k, shown at ``first`` + k / RATE; all of them are keyframes."""
    out = io.BytesIO()
    with av.open(out, "w", format="mpegts") as container:
        stream = container.add_stream("mpeg2video", rate=RATE, options={"g": "1"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, RATE)
        for k in levels:
            frame = av.VideoFrame.from_ndarray(np.full((HEIGHT, WIDTH, 3), 10 * k % 250, np.uint8), format="rgb24")
            frame.pts, frame.time_base = k + round(first * RATE), Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return out.getvalue()


def levels(frames: list[RawFrame]) -> list[int]:
    return [round(float(frame.image.mean()) / 10) for frame in frames]


def stamps(frames: list[RawFrame]) -> list[float]:
    return [frame.timestamp for frame in frames]


def stream(url: str, **settings: object) -> StreamSource:
    source = open_source(url, SourceConfig(**{"timeout": 5.0, **settings}))  # type: ignore[arg-type]
    assert isinstance(source, StreamSource)
    return source


def free_port(kind: socket.SocketKind) -> int:
    with socket.socket(type=kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
