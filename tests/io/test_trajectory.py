"""TUM trajectories."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from evo.tools import file_interface
from scipy.spatial.transform import Rotation

from threer.errors import SourceError
from threer.io.trajectory import read_tum, write_tum
from threer.types import Trajectory


def some_trajectory(count: int = 9) -> Trajectory:
    c2w = np.tile(np.eye(4), (count, 1, 1))
    c2w[:, :3, :3] = Rotation.random(count, rng=np.random.default_rng(0)).as_matrix()
    c2w[:, :3, 3] = np.random.default_rng(1).normal(size=(count, 3))
    return Trajectory(np.arange(count) / 7 + 1.7e9, c2w)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    trajectory = some_trajectory()
    assert write_tum(tmp_path / "t.tum", trajectory) == 0
    again = read_tum(tmp_path / "t.tum")
    np.testing.assert_allclose(again.timestamps, trajectory.timestamps, atol=1e-6, rtol=0)
    np.testing.assert_allclose(again.c2w, trajectory.c2w, atol=1e-8)


def test_evo_reads_the_same_poses(tmp_path: Path) -> None:
    trajectory = some_trajectory()
    write_tum(tmp_path / "t.tum", trajectory)
    theirs = file_interface.read_tum_trajectory_file(str(tmp_path / "t.tum"))
    np.testing.assert_allclose(np.array(theirs.poses_se3), trajectory.c2w, atol=1e-8)


def test_missing_cameras_are_left_out_and_counted(tmp_path: Path) -> None:
    trajectory = some_trajectory()
    trajectory.c2w[[2, 5]] = np.nan
    assert write_tum(tmp_path / "t.tum", trajectory) == 2
    again = read_tum(tmp_path / "t.tum")
    np.testing.assert_allclose(again.timestamps, np.delete(trajectory.timestamps, [2, 5]), atol=1e-6, rtol=0)
    trajectory.c2w[:] = np.nan
    assert write_tum(tmp_path / "t.tum", trajectory) == 9
    assert read_tum(tmp_path / "t.tum").c2w.shape == (0, 4, 4)


@pytest.mark.parametrize(
    "line", ["1 2 3", "a b c d e f g h", "0 0 0 0 0 0 0 0", "0 nan 0 0 0 0 0 1", "0 0 0 0 0 0 0 1 9"]
)
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "t.tum").write_text(f"# comment\n0 0 0 0 0 0 0 1 # and here\n\n{line}\n")
    with pytest.raises(SourceError, match="line 4"):
        read_tum(tmp_path / "t.tum")


def test_no_file_or_no_text(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name in ("none.tum", "binary"):
        with pytest.raises(SourceError, match=f"cannot read .*{name}"):
            read_tum(tmp_path / name)
