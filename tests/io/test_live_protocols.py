"""Streams over the loopback by RTSP and UDP, and from ffmpeg and GStreamer."""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

import threer.io.live.reconnecting
from sent_streams import HEIGHT, RATE, WIDTH, free_port, levels, stamps, stream, transport_stream
from threer.errors import SourceError
from threer.io.sources import open_source


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threer.io.live.reconnecting, "FIRST_PAUSE", 0.05)


# RTSP -------------------------------------------------------------------------------------------------------------


@contextmanager
def rtsp_server(*contents: bytes) -> Iterator[str]:
    """The k-th session plays the k-th transport stream, as RTP inside the RTSP connection (RFC 2326 and 2250)."""
    left = list(contents)

    def serve(connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            while request := lines.readline().decode():
                fields = {}
                while line := lines.readline().strip().decode():
                    name, _, value = line.partition(":")
                    fields[name.lower()] = value.strip()
                verb, body, more = request.split()[0], "", ""
                if verb == "OPTIONS":
                    more = "Public: DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
                elif verb == "DESCRIBE":
                    body = (
                        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\na=control:0\r\n"
                    )
                    more = f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n"
                elif verb == "SETUP":
                    assert "RTP/AVP/TCP" in fields["transport"], "asked for over TCP"
                    more = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n"
                elif verb == "PLAY":
                    more = "Session: 1\r\n"
                connection.sendall(f"RTSP/1.0 200 OK\r\nCSeq: {fields['cseq']}\r\n{more}\r\n{body}".encode())
                if verb == "PLAY":
                    content, size = left.pop(0), 7 * 188
                    for number, start in enumerate(range(0, len(content), size)):
                        packet = struct.pack("!BBHII", 0x80, 33, number, 0, 1) + content[start : start + size]
                        connection.sendall(struct.pack("!cBH", b"$", 0, len(packet)) + packet)
                    return

    def accept() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with suppress(OSError):
                serve(connection)

    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield f"rtsp://user:secret@127.0.0.1:{server.getsockname()[1]}/live"
        finally:
            server.shutdown(socket.SHUT_RDWR)
    thread.join(5)
    assert not thread.is_alive()


def test_rtsp_breaks_off_and_comes_back() -> None:
    with rtsp_server(transport_stream(range(12), first=9), transport_stream(range(15, 22), first=9)) as url:
        source = stream(url, max_frames=16)
        frames = list(source)
    seen = levels(frames)
    assert seen == [*range(11), *range(15, 20)], "a frame in MPEG-TS is whole when the next one begins"
    np.testing.assert_allclose(stamps(frames), np.array(seen) / RATE, atol=1e-4)
    assert source.breaks == 1
    assert "secret" not in source.name + source.notes[0] + frames[0].name


# UDP --------------------------------------------------------------------------------------------------------------


def test_udp() -> None:
    port = free_port(socket.SOCK_DGRAM)
    done = threading.Event()

    def send() -> None:
        """Goes on, as a sender does that does not know who listens."""
        content, size = transport_stream(range(2500)), 7 * 188
        with socket.socket(type=socket.SOCK_DGRAM) as out:
            for start in range(0, len(content), size):
                out.sendto(content[start : start + size], ("127.0.0.1", port))
                if done.wait(0.001):
                    return

    sender = threading.Thread(target=send)
    sender.start()
    try:
        frames = list(stream(f"udp://127.0.0.1:{port}", max_frames=40))
    finally:
        done.set()
        sender.join()
    assert len(frames) == 40
    np.testing.assert_allclose(np.diff(stamps(frames)), 1 / RATE, atol=1e-4)
    assert set(np.diff(levels(frames))) <= {1, -24}


# ffmpeg as the sender ---------------------------------------------------------------------------------------------

needs_ffmpeg = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg, the program, is not installed")


@contextmanager
def ffmpeg(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Sends a moving test picture in real time."""
    source = ["-re", "-f", "lavfi", "-i", f"testsrc2=size={WIDTH}x{HEIGHT}:rate={RATE}"]
    command = ["ffmpeg", "-nostdin", "-v", "error", *source, *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


@needs_ffmpeg
@pytest.mark.parametrize("codec", ["mpeg2video", "libx264"])
def test_http_from_ffmpeg(codec: str, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port(socket.SOCK_STREAM)}/"
    with ffmpeg("-t", "1.6", "-c:v", codec, "-g", "10", "-f", "mpegts", "-listen", "1", url) as process:
        for _ in range(200):  # until it listens; to try costs nothing, as it serves one connection only
            try:
                frames = list(stream(url, reconnects=0, fps=5, record=tmp_path))
                break
            except SourceError:
                assert process.poll() is None, process.stderr and process.stderr.read()
                time.sleep(0.05)
    np.testing.assert_allclose(stamps(frames)[1:], 0.2 * np.arange(1, 9) - 0.04, atol=0.011)
    assert len({frame.image.tobytes() for frame in frames}) == len(frames)
    assert stamps(list(open_source(tmp_path))) == stamps(frames)


@needs_ffmpeg
def test_udp_from_ffmpeg_joined_in_the_middle() -> None:
    url = f"udp://127.0.0.1:{free_port(socket.SOCK_DGRAM)}"
    with ffmpeg("-c:v", "libx264", "-g", "10", "-f", "mpegts", f"{url}?pkt_size=1316"):
        frames = list(stream(url, max_frames=30, timeout=8.0))
    assert stamps(frames)[0] == 0
    np.testing.assert_allclose(np.diff(stamps(frames)), 1 / RATE, atol=1e-3)


# gst-rtsp-server as the sender ------------------------------------------------------------------------------------

GST_SERVER = """
import gi
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
server = GstRtspServer.RTSPServer(address="127.0.0.1", service="0")
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch("( videotestsrc is-live=true ! video/x-raw,width=64,height=48,framerate=25/1 ! "
                   "vp8enc deadline=1 ! rtpvp8pay name=pay0 )")
server.get_mount_points().add_factory("/live", factory)
server.attach(None)
print(server.get_bound_port(), flush=True)
GLib.MainLoop().run()
"""


@pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="no Python of the system")
def test_rtsp_from_gstreamer() -> None:
    """In Debian: python3-gi, gir1.2-gst-rtsp-server-1.0 and gstreamer1.0-plugins-good."""
    with subprocess.Popen(
        ["/usr/bin/python3", "-c", GST_SERVER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        try:
            assert server.stdout
            port = server.stdout.readline().strip()
            if not port:
                pytest.skip("gst-rtsp-server is not installed")
            frames = list(stream(f"rtsp://127.0.0.1:{port}/live", max_frames=10))
        finally:
            server.kill()
    np.testing.assert_allclose(np.diff(stamps(frames)), 1 / RATE, atol=2e-3)
