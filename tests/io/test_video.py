"""Videos: real times, resampling, rotation, damage; and writing them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

import threer.io.video
from threer.config import SourceConfig
from threer.errors import RunError, SourceError
from threer.io.images import RGBImage
from threer.io.sources import open_source
from threer.io.video import VideoFile, displayed, nearest_to_ticks, write_video

TIME_BASE = Fraction(1, 90_000)
HEIGHT, WIDTH = 32, 48


def level_image(value: int) -> RGBImage:
    return np.full((HEIGHT, WIDTH, 3), value, np.uint8)


def make_video(
    path: Path,
    times: Sequence[float],
    *,
    turn: tuple[int, bool] | None = None,
    images: Sequence[RGBImage] | None = None,
    faststart: bool = False,
) -> Path:
    """Frame k is grey of level 10 k, shown at times[k]; a keyframe every tenth. ``turn``: degrees, mirrored."""
    with av.open(str(path), "w", container_options={"movflags": "faststart"} if faststart else {}) as container:
        stream = container.add_stream("libx264", rate=30, options={"g": "10"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.time_base = stream.codec_context.time_base = TIME_BASE
        if turn:
            stream.set_display_rotation(turn[0], hflip=turn[1])
        for k, time in enumerate(times):
            image = images[k] if images else level_image(10 * k % 250)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = round(time / TIME_BASE), TIME_BASE
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def noise(count: int) -> list[RGBImage]:
    """Pictures that do not compress, so that cutting a file in half loses half of them."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8) for _ in range(count)]


def levels(frames: Sequence[object]) -> list[int]:
    return [round(frame.image.mean() / 10) for frame in frames]  # type: ignore[attr-defined]


def test_every_frame_with_its_time(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", [k / 30 for k in range(20)])
    source = open_source(path)
    frames = list(source)
    assert source.kind == "video"
    assert source.is_sequence
    assert source.expected == 20
    assert levels(frames) == list(range(20))
    assert [frame.index for frame in frames] == list(range(20))
    np.testing.assert_allclose([frame.timestamp for frame in frames], np.arange(20) / 30, atol=1e-4)
    assert len({frame.name for frame in frames}) == 20
    assert all(frame.name.startswith("v.mp4@") for frame in frames)
    assert source.notes == []
    assert source.skipped == []
    assert levels(list(source)) == list(range(20)), "a second pass gives the same"


def test_variable_frame_rate_keeps_real_times(tmp_path: Path) -> None:
    times = [0, 0.1, 0.15, 0.6, 0.61, 1.5, 2.25]
    frames = list(open_source(make_video(tmp_path / "v.mp4", times)))
    np.testing.assert_allclose([frame.timestamp for frame in frames], times, atol=1e-4)


def test_times_count_from_the_first_frame(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.ts", [10 + k / 10 for k in range(5)])
    np.testing.assert_allclose([frame.timestamp for frame in open_source(path)], np.arange(5) / 10, atol=1e-3)


def test_fps_takes_the_nearest_frames(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", [k / 30 for k in range(24)])
    source = open_source(path, SourceConfig(fps=5))
    assert levels(list(source)) == [0, 6, 12, 18]
    assert source.expected == 4
    irregular = make_video(tmp_path / "irregular.mp4", [0, 0.1, 0.45, 0.52, 1.4, 1.45, 2.6])
    # ticks 0, .5, 1 (nearest: 1.4), 1.5, 2 (nearest: 1.45, taken before), 2.5
    assert levels(list(open_source(irregular, SourceConfig(fps=2)))) == [0, 3, 4, 5, 6]


def test_fps_above_the_videos_own_takes_everything_once(tmp_path: Path) -> None:
    source = open_source(make_video(tmp_path / "v.mp4", [k / 30 for k in range(12)]), SourceConfig(fps=100))
    assert levels(list(source)) == list(range(12))
    assert source.expected == 12
    assert any("every frame is taken" in note for note in source.notes)


@pytest.mark.parametrize("container", ["mp4", "mkv", "ts"])
def test_start_end_and_max_frames(tmp_path: Path, container: str) -> None:
    path = make_video(tmp_path / f"v.{container}", [k / 10 for k in range(24)])
    assert levels(list(open_source(path, SourceConfig(start=1.15, end=1.8)))) == [12, 13, 14, 15, 16, 17]
    assert levels(list(open_source(path, SourceConfig(start=1.2, max_frames=2)))) == [12, 13]
    assert levels(list(open_source(path, SourceConfig(end=0.3)))) == [0, 1, 2]
    late = open_source(path, SourceConfig(start=1.0, fps=5, max_frames=3))
    assert [frame.index for frame in late] == [0, 1, 2]
    assert levels(list(late)) == [10, 12, 14]
    assert late.expected == 3


def test_reading_is_lazy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    converted = []
    original = threer.io.video.upright_picture
    monkeypatch.setattr(threer.io.video, "upright_picture", lambda frame: converted.append(0) or original(frame))
    frames = iter(open_source(make_video(tmp_path / "v.mp4", [k / 10 for k in range(20)]), SourceConfig(fps=5)))
    next(frames)
    next(frames)
    assert len(converted) == 2


def corner_image() -> RGBImage:
    """White in the top left quarter, red in the top right one, else black."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[: HEIGHT // 2, : WIDTH // 2] = 255
    image[: HEIGHT // 2, WIDTH // 2 :, 0] = 255
    return image


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_rotation_flag_is_honoured(tmp_path: Path, degrees: int, mirrored: bool) -> None:
    path = make_video(tmp_path / "v.mp4", [0, 0.1], turn=(degrees, mirrored), images=[corner_image()] * 2)
    upright = np.rot90(corner_image(), degrees // 90)  # counter-clockwise, then mirrored
    upright = upright[:, ::-1] if mirrored else upright
    frame = next(iter(open_source(path)))
    assert frame.image.shape == upright.shape
    assert np.abs(frame.image.astype(int) - upright).mean() < 12  # one wrong quarter is 64 or more


def test_display_matrix_by_definition() -> None:
    picture = np.arange(6, dtype=np.uint8).reshape(2, 3, 1).repeat(3, axis=2)
    for a, b, c, d in [(1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0), (-1, 0, 0, 1), (0, 1, 1, 0)]:
        matrix = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 14], np.int32) << 16
        seen = displayed(picture, matrix)
        y, x = np.mgrid[:2, :3]
        shown_x, shown_y = a * x + c * y, b * x + d * y
        shown_x, shown_y = shown_x - shown_x.min(), shown_y - shown_y.min()
        np.testing.assert_array_equal(seen[shown_y, shown_x], picture)


@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_a_cut_file_gives_what_is_left_and_one_note(tmp_path: Path, container: str) -> None:
    path = tmp_path / f"v.{container}"
    make_video(path, [k / 10 for k in range(60)], images=noise(60), faststart=container == "mp4")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = open_source(path)
    frames = list(source)
    assert 20 <= len(frames) <= 40
    assert len([note for note in source.notes if "early" in note or "its end" in note]) == 1, source.notes
    assert len(source.skipped) <= 1
    list(source)
    assert len(source.notes) == 1, "read again, said once"


def test_half_a_frame_is_no_frame(tmp_path: Path) -> None:
    path, images = tmp_path / "v.avi", noise(60)
    make_video(path, [k / 30 for k in range(60)], images=images)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = open_source(path)
    frames = list(source)
    assert [skipped.reason for skipped in source.skipped] == ["damaged"]
    for frame, image in zip(frames, images, strict=False):
        bottom = np.s_[-HEIGHT // 4 :]  # what is missing in half a frame
        assert np.corrcoef(frame.image[bottom].ravel(), image[bottom].ravel())[0, 1] > 0.5


def test_frames_before_a_read_error_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class FailingContainer:
        """A container that breaks after 12 packets, while the decoder still holds some frames."""

        def __init__(self, container: av.container.InputContainer) -> None:
            self.container, self.streams = container, container.streams

        def __enter__(self) -> FailingContainer:
            return self

        def __exit__(self, *_: object) -> None:
            self.container.close()

        def demux(self, stream: av.VideoStream) -> Iterator[av.Packet]:
            yield from islice(self.container.demux(stream), 12)
            raise av.error.InvalidDataError(1, "input/output error")

    path = make_video(tmp_path / "v.mp4", [k / 30 for k in range(30)])
    original = threer.io.video._open
    source = open_source(path)
    monkeypatch.setattr(threer.io.video, "_open", lambda path: FailingContainer(original(path)))
    assert len(list(source)) == 12
    assert any("cannot be read to its end" in note for note in source.notes)


def test_a_late_start_does_not_decode_the_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    original = VideoFile._decode

    def counting(self: VideoFile, container: av.container.InputContainer) -> Iterator[tuple[float, av.VideoFrame]]:
        for item in original(self, container):
            decoded.append(item[0])
            yield item

    monkeypatch.setattr(VideoFile, "_decode", counting)
    path = make_video(tmp_path / "v.mp4", [k / 10 for k in range(40)])
    assert levels(list(open_source(path, SourceConfig(start=3.5)))) == [10, 11, 12, 13, 14]  # 10 k mod 250
    assert min(decoded) > 2


def test_an_mp4_without_its_index_is_an_error(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", [k / 10 for k in range(30)], images=noise(30))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(SourceError, match=r"v\.mp4 cannot be opened as a video.*cut off"):
        open_source(path)


def test_damage_in_the_middle_does_not_end_the_video(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mkv", [k / 10 for k in range(60)], images=noise(60))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = bytes(3000)
    path.write_bytes(content)
    told = []
    source = open_source(path, on_skip=told.append)
    frames = list(source)
    assert 40 <= len(frames) < 60
    assert frames[-1].timestamp > 5.8
    assert told == source.skipped


def test_nothing_between_start_and_end(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", [0, 0.1, 5.0, 5.1])
    with pytest.raises(SourceError, match=r"no frame between 1 s and 2"):
        list(open_source(path, SourceConfig(start=1, end=2)))
    with pytest.raises(SourceError, match=r"start \(60 s\) is after the end"):
        open_source(path, SourceConfig(start=60))


@given(
    gaps=st.lists(st.floats(0.001, 1), min_size=1, max_size=40),
    fps=st.floats(0.2, 50),
)
def test_ticks_by_brute_force(gaps: list[float], fps: float) -> None:
    times = np.cumsum([0.0, *gaps])
    ticks = np.arange(0, times[-1] + 1e-4, 1 / fps)
    distance: npt.NDArray[np.float64] = np.abs(times[None] - ticks[:, None])
    margin = np.sort(distance, axis=1)
    clear = margin[:, 1] - margin[:, 0] > 1e-3  # at a tie either neighbour is right
    taken = [item for _, item in nearest_to_ticks(((time, k) for k, time in enumerate(times)), fps)]
    assert taken == sorted(set(taken))
    assert set(distance.argmin(axis=1)[clear]) <= set(taken)
    for item in taken:
        assert (distance[:, item] <= margin[:, 0] + 1e-3).any(), "taken for no tick"


def test_written_videos_can_be_read(tmp_path: Path) -> None:
    images = [np.full((33, 47, 3), 12 * k, np.uint8) for k in range(20)]
    write_video(tmp_path / "v.mp4", iter(images), fps=12.5)
    frames = list(open_source(tmp_path / "v.mp4"))
    assert [frame.image.shape for frame in frames] == [(34, 48, 3)] * 20  # odd sides grow by one
    np.testing.assert_allclose([frame.image.mean() for frame in frames], [12 * k for k in range(20)], atol=3)
    np.testing.assert_allclose([frame.timestamp for frame in frames], np.arange(20) / 12.5, atol=1e-3)


def test_a_video_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    write_video(path, [level_image(0)] * 3, fps=10)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="at least one"):
        write_video(path, [], fps=10)
    with pytest.raises(ValueError, match="one size"):
        write_video(path, [level_image(0), level_image(0)[:8]], fps=10)
    with pytest.raises(RunError, match=r"ends in .*\.mp4"):
        write_video(tmp_path / "v.xyz", [level_image(0)], fps=10)
    with pytest.raises(RunError, match="nowhere"):
        write_video(tmp_path / "nowhere" / "v.mp4", [level_image(0)], fps=10)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["v.mp4"], "no leftovers"
