"""HTTP streams over the loopback, served by a few lines of Python; and what cannot be read."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import threer.io.live.reconnecting
from sent_streams import HEIGHT, RATE, WIDTH, free_port, levels, stamps, stream, transport_stream
from threer.config import SourceConfig
from threer.errors import SourceError
from threer.io.live.stream import without_secrets
from threer.io.sources import open_source


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threer.io.live.reconnecting, "FIRST_PAUSE", 0.05)


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
