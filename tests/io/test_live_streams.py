"""Streams over the loopback: HTTP, RTSP and UDP, served by a few lines of Python and by ffmpeg."""

from __future__ import annotations

import io
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

import threer.io.live.reconnecting
from threer.config import SourceConfig
from threer.errors import SourceError
from threer.io.frames import RawFrame
from threer.io.live import StreamSource
from threer.io.live.stream import without_secrets
from threer.io.sources import open_source

WIDTH, HEIGHT = 48, 32
RATE = 25


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threer.io.live.reconnecting, "FIRST_PAUSE", 0.05)


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


Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def http_server(*answers: Answer) -> Iterator[str]:
    """The k-th connection gets the k-th answer; further ones are told 404."""
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not left:
                self.send_error(404)
                return
            with suppress(ConnectionError):
                left.pop(0)(self)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/live.ts"
        finally:
            server.shutdown()
            thread.join()


def sends(content: bytes, length: int | None = None, kind: str = "video/mp2t", wait: float = 0.0) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        time.sleep(wait)
        request.send_response(200)
        request.send_header("Content-Type", kind)
        if length is not None:
            request.send_header("Content-Length", str(length))
        request.end_headers()
        request.wfile.write(content)

    return answer


def stream(url: str, **settings: object) -> StreamSource:
    source = open_source(url, SourceConfig(**{"timeout": 5.0, **settings}))  # type: ignore[arg-type]
    assert isinstance(source, StreamSource)
    return source


def test_a_stream_with_the_senders_times() -> None:
    with http_server(sends(transport_stream(range(20), first=1000))) as url:
        source = stream(url, reconnects=0)
        frames = list(source)
    assert levels(frames) == list(range(20))
    np.testing.assert_allclose(stamps(frames), np.arange(20) / RATE, atol=1e-4)
    assert [frame.index for frame in frames] == list(range(20))
    assert frames[3].name == f"{url}@0.120s"
    assert (source.live, source.kind, source.is_sequence, source.expected) == (True, "video", True, None)
    assert source.notes[0].startswith(f"{url} ended at 0.8 s: ")
    assert source.skipped == []


def test_fps_and_max_frames() -> None:
    content = transport_stream(range(25))
    with http_server(sends(content), sends(content)) as url:
        assert levels(list(stream(url, fps=5, reconnects=0))) == [0, 4, 9, 14, 19, 24]
        assert levels(list(stream(url, max_frames=3))) == [0, 1, 2]


def test_a_broken_stream_that_goes_on_keeps_its_clock() -> None:
    """The sender's clock goes on while we are away: what is missing shows in the times."""
    with http_server(
        sends(transport_stream(range(10), first=50)),
        lambda request: request.send_error(503),
        sends(transport_stream(range(18, 24), first=50)),
    ) as url:
        source = stream(url, max_frames=14)
        frames = list(source)
    assert levels(frames) == [*range(10), *range(18, 22)]
    np.testing.assert_allclose(stamps(frames), np.array([*range(10), *range(18, 22)]) / RATE, atol=1e-4)
    assert source.breaks == 1
    assert source.notes == [f"{url} broke off and came back, 1 times in all; the gaps add up to 0.4 s"]


def test_a_sender_that_starts_anew_leaves_a_gap() -> None:
    """Its clock starts anew as well: the gap is as long as it was by the wall clock."""
    wait = 0.9
    begun = time.monotonic()
    with http_server(sends(transport_stream(range(10))), sends(transport_stream(range(6)), wait=wait)) as url:
        frames = list(stream(url, max_frames=15))
    took = time.monotonic() - begun
    assert levels(frames) == [*range(10), *range(5)]
    steps = np.diff(stamps(frames))
    np.testing.assert_allclose(np.delete(steps, 9), 1 / RATE, atol=1e-4)
    assert wait < stamps(frames)[10] < took


def test_a_cut_in_the_middle_of_a_frame() -> None:
    content = transport_stream(range(10))
    with http_server(sends(content[: len(content) - 800]), sends(transport_stream(range(10, 20)))) as url:
        frames = list(stream(url, max_frames=12))
    assert len(frames) == 12
    assert set(levels(frames)) <= set(range(20)), "no picture that was not sent"
    assert all(a < b for a, b in zip(stamps(frames), stamps(frames)[1:], strict=False))


def test_the_number_of_tries_is_bounded() -> None:
    with http_server(sends(transport_stream(range(20)))) as url:
        source = stream(url, reconnects=2)
        assert len(list(source)) == 20
    assert source.breaks == 0
    assert source.notes[-1].endswith("and it did not come back in 2 tries")
    assert "404" in source.notes[-1]


def test_a_silent_stream_counts_as_broken() -> None:
    released = threading.Event()

    def falls_silent(request: BaseHTTPRequestHandler) -> None:
        sends(transport_stream(range(40)))(request)
        released.wait(10)

    begun = time.monotonic()
    with http_server(falls_silent) as url:
        source = stream(url, timeout=0.5, reconnects=0)
        try:
            count = len(list(source))
        finally:
            released.set()
    assert count >= 39
    assert "nothing came for 0.5 s" in source.notes[0]
    assert time.monotonic() - begun < 5


def test_a_file_on_a_server_is_read_once() -> None:
    content = transport_stream(range(10))
    with http_server(*[sends(content, length=len(content))] * 3) as url:
        source = stream(url)
        assert levels(list(source)) == list(range(10))
    assert source.notes == []


def test_motion_jpeg_of_a_web_camera() -> None:
    """It carries no times: those of arrival count."""
    pause = 0.15

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "multipart/x-mixed-replace; boundary=part")
        request.end_headers()
        for k in range(5):
            out = io.BytesIO()
            Image.new("RGB", (WIDTH, HEIGHT), (10 * k + 10,) * 3).save(out, "jpeg")
            jpeg = out.getvalue()
            head = f"--part\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n".encode()
            request.wfile.write(head + jpeg + b"\r\n")
            time.sleep(pause)

    with http_server(answer) as url:
        frames = list(stream(url, reconnects=0))
    assert levels(frames) == [1, 2, 3, 4, 5]
    assert stamps(frames)[-1] > 1.5 * pause, "not the 0.16 s that the demuxer invents"


def test_everything_is_closed_when_the_reader_stops() -> None:
    gone = threading.Event()

    def endless(request: BaseHTTPRequestHandler) -> None:
        try:
            content = transport_stream(range(20))
            sends(content)(request)
            while True:
                request.wfile.write(content)
                time.sleep(0.01)
        except ConnectionError:
            gone.set()

    with http_server(endless) as url:
        frames = iter(stream(url))
        next(frames)
        frames.close()  # type: ignore[attr-defined]
        assert gone.wait(5), "the connection is closed"


def test_recorded_and_played_again(tmp_path: Path) -> None:
    with http_server(
        sends(transport_stream(range(10), first=3)), sends(transport_stream(range(10), first=3), wait=0.2)
    ) as url:
        live = list(stream(url, max_frames=8, fps=10, record=tmp_path))
    played = list(open_source(tmp_path, SourceConfig(fps=10)))
    assert stamps(played) == stamps(live)
    assert [frame.name for frame in played] == [frame.name for frame in live]
    for one, other in zip(played, live, strict=True):
        np.testing.assert_array_equal(one.image, other.image)


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


def free_port(kind: socket.SocketKind) -> int:
    with socket.socket(type=kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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


# What cannot be read ----------------------------------------------------------------------------------------------


def refused(url: str, **settings: object) -> str:
    with pytest.raises(SourceError) as caught:
        list(stream(url, **settings))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_cannot_be_read_is_explained() -> None:
    port = free_port(socket.SOCK_STREAM)
    advice = "; check the address, and that something is sent there"
    secret = f"rtsp://me:pass@127.0.0.1:{port}/cam?key=abc"
    assert refused(secret) == f"cannot read rtsp://127.0.0.1:{port}/cam: Connection refused{advice}"
    assert "nothing came for 0.3 s" in refused(f"udp://127.0.0.1:{free_port(socket.SOCK_DGRAM)}", timeout=0.3)
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "png")
    png, page = out.getvalue(), b"hello, this is a page" * 100
    with http_server(
        sends(page, length=len(page), kind="text/html"), sends(png, length=len(png), kind="image/png")
    ) as url:
        assert "what comes is not a stream that can be read" in refused(url)
        assert "one still image" in refused(url)
        assert "404" in refused(url)
    with pytest.raises(SourceError, match=r"cannot read gopher:// addresses; streams are http, https, rtsp"):
        open_source("gopher://x/y")


def test_addresses_without_secrets() -> None:
    assert without_secrets("rtsp://me:p%40ss@host:554/a/b?key=1") == "rtsp://host:554/a/b"
    assert without_secrets("udp://239.0.0.1:1234") == "udp://239.0.0.1:1234"
