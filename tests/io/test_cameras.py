"""cameras.json."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from threer.errors import SourceError
from threer.io.cameras import FrameCameras, read_cameras, write_cameras
from threer.types import Cameras


def some_table(distortion: bool = False) -> FrameCameras:
    rng = np.random.default_rng(0)
    c2w, K = rng.normal(size=(3, 4, 4)), rng.normal(size=(3, 3, 3))
    c2w[1] = K[1] = np.nan
    size = np.array([[640, 480], [480, 640], [1, 1]])
    cameras = Cameras(c2w, K, size, rng.normal(size=(3, 5)) if distortion else None)
    return FrameCameras(cameras, ("a.jpg", "grün/b.jpg", "c"), np.array([0, 1, 5]), np.array([0, 0.1, 1 / 3]))


@pytest.mark.parametrize("distortion", [False, True])
def test_what_is_written_is_read_exactly(tmp_path: Path, distortion: bool) -> None:
    table = some_table(distortion)
    write_cameras(tmp_path / "cameras.json", table)
    again = read_cameras(tmp_path / "cameras.json")
    assert again.names == table.names
    for ours, theirs in (
        (again.cameras.c2w, table.cameras.c2w),
        (again.cameras.K, table.cameras.K),
        (again.cameras.size, table.cameras.size),
        (again.indices, table.indices),
        (again.timestamps, table.timestamps),
    ):
        np.testing.assert_array_equal(ours, theirs)
    if distortion:
        np.testing.assert_array_equal(again.cameras.distortion, table.cameras.distortion)
    else:
        assert again.cameras.distortion is None


def test_it_is_valid_json_with_null_for_missing_cameras(tmp_path: Path) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    write_cameras(tmp_path / "cameras.json", some_table())
    content = json.loads((tmp_path / "cameras.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert content["frames"][1]["c2w"] is None
    assert content["frames"][1]["K"] is None
    assert "camera-to-world" in content["conventions"]["c2w"]


def test_no_frames(tmp_path: Path) -> None:
    empty = Cameras(np.empty((0, 4, 4)), np.empty((0, 3, 3)), np.empty((0, 2), np.int64))
    write_cameras(tmp_path / "c.json", FrameCameras(empty, (), np.empty(0, np.int64), np.empty(0)))
    assert len(read_cameras(tmp_path / "c.json").cameras) == 0


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"frames": [{"name": "a"}]}', "not json"])
def test_other_files_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(SourceError, match=r"c\.json is not"):
        read_cameras(tmp_path / "c.json")


def test_table_lengths_must_agree() -> None:
    table = some_table()
    with pytest.raises(ValueError, match="one name, index and timestamp"):
        FrameCameras(table.cameras, table.names[:2], table.indices, table.timestamps)
