"""Focal lengths from EXIF: right in pixels of any picture of a photo, and nothing where nothing can be believed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from threer.io.exif import PhotoFocal, focal_of, read_focal
from threer.io.sources import open_source

NAMES = ExifTags.Base
FOCAL, FILM = NAMES.FocalLength, NAMES.FocalLengthIn35mmFilm
ACROSS, UNIT = NAMES.FocalPlaneXResolution, NAMES.FocalPlaneResolutionUnit
WIDTH, HEIGHT = NAMES.ExifImageWidth, NAMES.ExifImageHeight


def photo(path: Path, size: tuple[int, int], tags: dict[int, Any], orientation: int = 1) -> Path:
    exif = Image.Exif()
    exif[NAMES.Orientation] = orientation
    exif.get_ifd(ExifTags.IFD.Exif).update(tags)
    Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8)).save(path, exif=exif)
    return path


@pytest.mark.parametrize(
    ("tags", "px"),
    [
        ({FILM: 36}, 36 * 500 / 43.2666),  # 400×300 has a diagonal of 500
        ({FILM: 36, FOCAL: 5.0, ACROSS: 4000.0}, 36 * 500 / 43.2666),
        ({FOCAL: 8.0, ACROSS: 1016.0}, 320.0),  # 40 pixels a millimetre; inches where no unit is given
        ({FOCAL: 8.0, ACROSS: 400.0, UNIT: 3}, 320.0),
        ({FILM: 0, FOCAL: 8.0, ACROSS: 400.0, UNIT: 3}, 320.0),  # 0 is unknown
        ({FOCAL: 8.0, ACROSS: 4000.0, UNIT: 3, WIDTH: 4000, HEIGHT: 3000}, 320.0),  # made small since then
        ({FILM: 36, WIDTH: 4000, HEIGHT: 3000}, 36 * 500 / 43.2666),
    ],
)
def test_focal_lengths_are_in_pixels_of_the_picture_turned_or_not(
    tmp_path: Path, tags: dict[int, Any], px: float
) -> None:
    for orientation in (1, 3, 6, 8):
        found = read_focal(photo(tmp_path / "a.jpg", (400, 300), tags, orientation))
        assert found.problem is None
        assert found.px == pytest.approx(px, rel=1e-4)
    portrait = {WIDTH: tags.get(HEIGHT), HEIGHT: tags.get(WIDTH)} if WIDTH in tags else {}
    assert read_focal(photo(tmp_path / "b.jpg", (300, 400), {**tags, **portrait})).px == pytest.approx(px, rel=1e-4)


@pytest.mark.parametrize(
    ("tags", "problem"),
    [
        ({FILM: 0}, "a focal length of 0 image sides"),
        ({FOCAL: 0.0, ACROSS: 1016.0}, "a focal length of 0 image sides"),
        ({FILM: 9}, "a focal length of 0.26 image sides"),
        ({FILM: 400}, "a focal length of 11.6 image sides"),
        ({FOCAL: 8.0, ACROSS: 400.0, UNIT: 5}, "image sides"),
        ({FILM: 36, WIDTH: 400, HEIGHT: 225}, "was cut"),
    ],
)
def test_what_nobody_can_believe_is_left_aside_with_the_reason(
    tmp_path: Path, tags: dict[int, Any], problem: str
) -> None:
    found = read_focal(photo(tmp_path / "a.jpg", (400, 300), tags))
    assert found.px is None
    assert problem in (found.problem or "")


@pytest.mark.parametrize("tags", [{}, {FOCAL: 8.0}, {ACROSS: 400.0}, {FOCAL: 8.0, ACROSS: 400.0, UNIT: 1}])
def test_without_a_focal_length_or_a_sensor_nothing_is_said(tmp_path: Path, tags: dict[int, Any]) -> None:
    assert read_focal(photo(tmp_path / "a.jpg", (400, 300), tags)) == PhotoFocal()


def test_damaged_or_odd_exif_says_nothing(tmp_path: Path) -> None:
    whole = photo(tmp_path / "a.jpg", (40, 30), {FILM: 36}).read_bytes()
    for cut in (24, 60, 90):
        (tmp_path / "b.jpg").write_bytes(whole[:cut])
        assert read_focal(tmp_path / "b.jpg").px is None
    (tmp_path / "c.png").write_bytes(b"no picture")
    assert read_focal(tmp_path / "c.png") == PhotoFocal()
    assert focal_of({FILM: "wide"}, (40, 30)) == PhotoFocal()
    assert focal_of({FOCAL: float("nan"), ACROSS: 400.0}, (40, 30)) == PhotoFocal()


@pytest.mark.parametrize("watched", [False, True])
def test_sources_of_photos_know_the_file_of_each_frame(tmp_path: Path, watched: bool) -> None:
    for name, film in (("1.jpg", 28), ("2.jpg", 56)):
        photo(tmp_path / name, (400, 300), {FILM: film})
    (tmp_path / "0.jpg").write_bytes(b"damaged")  # left out: numbers of frames and files differ from here on
    (tmp_path / ".end").touch()
    source = open_source(f"watch:{tmp_path}" if watched else tmp_path)
    first, second = (source.focal_of(raw).px for raw in source)
    assert first is not None
    assert second == pytest.approx(2 * first)
