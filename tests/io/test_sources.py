"""What can be opened as a source of frames, and what is said when it cannot."""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from threer.config import InputSpec, ReconstructConfig, SourceConfig
from threer.errors import SourceError, ThreerError
from threer.io.folders import numbered_like_a_sequence
from threer.io.sources import open_source, to_frame
from threer.io.video import write_video


def save_grey(path: Path, level: int = 0, size: tuple[int, int] = (8, 6)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level,) * 3).save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """frame1 … frame12.png of level 10, 20, …, and things that are not photos."""
    for k in range(1, 13):
        save_grey(tmp_path / f"frame{k}.png", 10 * k)
    save_grey(tmp_path / ".frame0.png")
    save_grey(tmp_path / "inner" / "frame0.png")
    (tmp_path / "notes.txt").write_text("not an image")
    return tmp_path


def test_folder_in_natural_order(photos: Path) -> None:
    source = open_source(photos)
    frames = list(source)
    assert [frame.name for frame in frames] == [f"frame{k}.png" for k in range(1, 13)]
    assert [frame.image[0, 0, 0] for frame in frames] == [10 * k for k in range(1, 13)]
    assert [frame.index for frame in frames] == list(range(12))
    assert [frame.timestamp for frame in frames] == list(range(12))
    assert source.kind == "images"
    assert source.expected == 12
    assert source.is_sequence
    assert source.notes == []


def test_all_the_ways_to_name_images(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [f.name for f in open_source(f"{photos}/frame?.png")] == [f"frame{k}.png" for k in range(1, 10)]
    assert [f.name for f in open_source(f"{photos}/**/frame[01].png")] == ["frame1.png", "inner/frame0.png"]
    listed = open_source([photos / "frame3.png", str(photos / "frame1.png")])
    assert [f.image[0, 0, 0] for f in listed] == [30, 10], "the order of a list is kept"
    assert [f.name for f in open_source(photos / "frame2.png")] == ["frame2.png"]
    monkeypatch.chdir(photos)
    assert [f.name for f in open_source("frame1?.png")] == ["frame10.png", "frame11.png", "frame12.png"]
    assert len(list(open_source("."))) == 12


def test_magic_characters_in_a_real_name(tmp_path: Path) -> None:
    save_grey(tmp_path / "room [1]" / "a.png")
    assert len(list(open_source(tmp_path / "room [1]"))) == 1


def test_same_names_in_two_folders_stay_apart(tmp_path: Path) -> None:
    paths = [save_grey(tmp_path / folder / "a.png") for folder in ("left", "right")]
    assert [frame.name for frame in open_source(paths)] == ["left/a.png", "right/a.png"]


def test_content_decides_where_the_suffix_says_nothing(tmp_path: Path) -> None:
    save_grey(tmp_path / "a.png", 70).rename(tmp_path / "photo")
    write_video(tmp_path / "v.mp4", [np.zeros((16, 16, 3), np.uint8)] * 3, fps=10)
    (tmp_path / "v.mp4").rename(tmp_path / "clip")
    photo, clip = open_source(tmp_path / "photo"), open_source(tmp_path / "clip")
    assert (photo.kind, clip.kind) == ("images", "video")
    assert next(iter(photo)).image[0, 0, 0] == 70
    assert len(list(clip)) == 3
    assert open_source(f"{tmp_path}/cli*").kind == "video"


def test_max_frames_and_fps_on_images(photos: Path) -> None:
    source = open_source(photos, SourceConfig(fps=5, max_frames=3))
    assert [f.name for f in source] == ["frame1.png", "frame2.png", "frame3.png"]
    assert source.expected == 3
    assert len(list(open_source(photos, SourceConfig(fps=0.1)))) > 3


@pytest.mark.parametrize("config", [SourceConfig(start=1), SourceConfig(end=1)])
def test_start_and_end_on_images_are_refused(photos: Path, config: SourceConfig) -> None:
    with pytest.raises(SourceError, match="image files have no time"):
        open_source(photos, config)


def test_a_corrupt_image_in_the_middle_is_skipped(photos: Path) -> None:
    (photos / "frame5.png").write_bytes((photos / "frame4.png").read_bytes()[:50])
    (photos / "frame7.png").write_text("nothing like an image")
    told = []
    source = open_source(photos, on_skip=told.append)
    for _ in range(2):  # every pass counts anew
        frames = list(source)
        assert [frame.name for frame in frames] == [f"frame{k}.png" for k in range(1, 13) if k not in (5, 7)]
        assert [frame.index for frame in frames] == list(range(10))
        assert frames[4].timestamp == 5, "the place in the folder, not among the good ones"
        assert [skipped.name for skipped in source.skipped] == ["frame5.png", "frame7.png"]
        assert "damaged" in source.skipped[0].reason
    assert told == source.skipped * 2


def test_nothing_but_corrupt_images(tmp_path: Path) -> None:
    for k in range(3):
        (tmp_path / f"{k}.jpg").write_text("no")
    with pytest.raises(SourceError, match=r"none of 3 images.*0\.jpg is not an image"):
        list(open_source(tmp_path))
    with pytest.raises(SourceError, match=r"1\.jpg is not an image"):
        list(open_source(tmp_path / "1.jpg"))


def error(source: object) -> str:
    with pytest.raises(SourceError) as caught:
        open_source(source)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_what_cannot_be_opened_is_explained(tmp_path: Path) -> None:
    assert f"no such file or folder: {tmp_path / 'none.mp4'}" in error(tmp_path / "none.mp4")
    assert ".jpg" in error(tmp_path)
    assert "no file matches the pattern" in error(f"{tmp_path}/*.png")
    assert "empty" in error([])
    assert "the source is empty" in error("")
    assert "names no folder" in error("watch:")
    (tmp_path / "a.txt").write_text("hello")
    (tmp_path / "b.txt").write_text("hello")
    assert "neither a video nor an image" in error(tmp_path / "a.txt")
    assert "none of the 2 files" in error(f"{tmp_path}/*.txt")
    assert "1 of 2 files do not exist" in error([tmp_path / "a.txt", tmp_path / "c.txt"])
    assert "is a folder" in error([tmp_path, tmp_path / "a.txt"])
    (tmp_path / "broken.mp4").write_bytes(b"\0" * 100)
    assert "cannot be opened as a video" in error(tmp_path / "broken.mp4")
    assert "no such file" in error("x" * 5000)
    assert "no such file" in error("a\0b")


def test_a_folder_without_images_points_to_where_they_are(tmp_path: Path) -> None:
    save_grey(tmp_path / "scene" / "color" / "0.jpg")
    assert str(tmp_path / "scene" / "color") in error(tmp_path / "scene")
    (tmp_path / "clips").mkdir()
    write_video(tmp_path / "clips" / "v.mp4", [np.zeros((16, 16, 3), np.uint8)], fps=10)
    assert str(tmp_path / "clips" / "v.mp4") in error(tmp_path / "clips")


def test_no_permission(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: False)
        assert "no permission to read" in error(photos / "frame1.png")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", lambda self: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
        assert "no permission to list" in error(photos)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "exists", lambda self: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
        assert "no permission to look into" in error(photos)


@pytest.mark.parametrize("refused", ["image", "recording"])
def test_a_folder_that_may_not_be_entered(tmp_path: Path, refused: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its names can be listed, but nothing in it can be looked at: not an image, not a recording."""
    if refused == "image":
        save_grey(tmp_path / "a.png")
    inside = Path.stat

    def stat(path: Path, **options: object) -> os.stat_result:
        if path.parent == tmp_path:
            raise PermissionError(13, "Permission denied")
        return inside(path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "stat", stat)
    assert f"no permission to list or enter the folder {tmp_path}" in error(tmp_path)


def test_media_left_out_of_a_folder_are_noted_once(photos: Path) -> None:
    for name in ("a.gif", "b.GIF", "c.mp4"):
        (photos / name).write_bytes(b"")
    for source in (open_source(photos), open_source(f"{photos}/*")):
        assert len(list(source)) == 12
        assert len(source.notes) == 1
        assert source.notes[0].startswith("3 files are left out (.gif, .mp4); images are files that end in .bmp")


def test_a_list_of_videos_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / name, [np.zeros((16, 16, 3), np.uint8)] * 3, fps=10)
    assert "give one video" in error([tmp_path / "a.mp4", tmp_path / "b.mp4"])
    assert open_source([tmp_path / "a.mp4"]).kind == "video"


def test_only_one_picture_is_decoded_at_a_time(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threer.io.folders

    read = []
    original = threer.io.folders.load_image
    monkeypatch.setattr(threer.io.folders, "load_image", lambda path: read.append(path) or original(path))
    frames = iter(open_source(photos))
    next(frames)
    next(frames)
    assert len(read) == 2


@pytest.mark.parametrize(
    ("names", "sequence"),
    [
        (["000000.jpg", "000001.jpg", "000002.jpg"], True),
        (["f-8.png", "f-9.png", "f-10.png", "f-11.png"], True),
        (["frame.0010.exr.png", "frame.0020.exr.png", "frame.0030.exr.png"], False),
        (["1305031102.175304.png", "1305031102.211214.png", "1305031102.243211.png"], True),
        ([*(f"{k}.png" for k in range(20)), *(f"{k}.png" for k in range(25, 40))], True),
        (["IMG_0012.jpg", "IMG_0013.jpg", "IMG_0107.jpg", "IMG_0108.jpg"], False),
        (["kitchen.jpg", "sofa.jpg", "window.jpg"], False),
        (["a1.jpg", "b2.jpg", "c3.jpg"], False),
        (["3.jpg", "2.jpg", "1.jpg"], False),
        (["1.jpg", "2.jpg"], False),
    ],
)
def test_what_counts_as_a_sequence(names: list[str], sequence: bool) -> None:
    assert numbered_like_a_sequence(names) is sequence


def test_to_frame_keeps_what_the_picture_knows(tmp_path: Path) -> None:
    save_grey(tmp_path / "a.png", 51, size=(64, 40))
    raw = next(iter(open_source(tmp_path / "a.png")))
    frame = to_frame(raw, InputSpec(32))
    assert frame.image.shape == (3, 32, 32)
    assert frame.image.unique().tolist() == pytest.approx([0.2])
    assert (frame.index, frame.timestamp, frame.name) == (0, 0.0, "a.png")
    assert frame.original_size == (64, 40)
    np.testing.assert_allclose(frame.to_original @ [15.5, 15.5, 1], [31.5, 19.5], atol=1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"idle": 0},
        {"timeout": -1},
        {"reconnects": -1},
        {"fps": 0},
        {"fps": math.inf},
        {"start": -1},
        {"start": math.nan},
        {"end": 0},
        {"end": math.nan},
        {"max_frames": 0},
    ],
)
def test_settings_that_cannot_be_meant(wrong: dict[str, float]) -> None:
    with pytest.raises(ThreerError, match=f"^{next(iter(wrong))} must "):
        SourceConfig(**wrong)  # type: ignore[arg-type]


def test_the_settings_of_a_run_hold_those_of_its_source(tmp_path: Path) -> None:
    wanted = SourceConfig(fps=3, start=1, end=9, max_frames=7, idle=5, timeout=2, reconnects=1, record=tmp_path)
    assert ReconstructConfig(**dataclasses.asdict(wanted)).frames() == wanted
