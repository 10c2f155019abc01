"""A source is known again: the same when copied or touched, another when a frame may differ."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from threer.io.sources import open_source
from threer.io.video import write_video


def picture(value: int, width: int = 32) -> np.ndarray:
    return np.full((32, width, 3), value, np.uint8)


def test_images_are_known_by_names_and_sizes(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    for k in range(4):
        Image.fromarray(picture(k)).save(folder / f"{k}.bmp")
    first = open_source(folder).fingerprint()
    assert first == open_source(str(folder / "*.bmp")).fingerprint()
    shutil.copytree(folder, tmp_path / "b")
    os.utime(tmp_path / "b" / "1.bmp", (0, 0))
    assert open_source(tmp_path / "b").fingerprint() == first
    Image.fromarray(picture(1, 40)).save(folder / "1.bmp")
    assert open_source(folder).fingerprint() != first
    (tmp_path / "b" / "3.bmp").unlink()
    assert open_source(tmp_path / "b").fingerprint() != first


def test_videos_are_known_by_size_and_ends(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", [picture(40 * k) for k in range(5)], fps=5)
    first = open_source(tmp_path / "a.mp4").fingerprint()
    shutil.copy(tmp_path / "a.mp4", tmp_path / "b.mp4")
    assert open_source(tmp_path / "b.mp4").fingerprint() == first
    write_video(tmp_path / "b.mp4", [picture(40 * k + 1) for k in range(5)], fps=5)
    assert open_source(tmp_path / "b.mp4").fingerprint() != first


def test_what_cannot_be_read_again_has_none(tmp_path: Path) -> None:
    assert open_source(f"watch:{tmp_path}").fingerprint() is None
