import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial import KDTree

from threer.errors import SourceError

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from office_data import find_office, load_walk


@pytest.fixture
def walk(tmp_path: Path) -> Path:
    """Two frames of a wall 2 m ahead, the second a metre further back."""
    for part in ("color", "depth", "poses"):
        (tmp_path / part).mkdir()
    for i in range(2):
        Image.new("RGB", (24, 16), (10 * i, 20, 30)).save(tmp_path / "color" / f"{i:06d}.jpg")
        depth = np.full((16, 24), 2000 + 1000 * i, dtype=np.uint16)
        depth[0] = 0
        Image.fromarray(depth).save(tmp_path / "depth" / f"{i:06d}.png")
        c2w = np.eye(4)
        c2w[2, 3] = -float(i)
        np.savetxt(tmp_path / "poses" / f"{i:06d}.txt", c2w)
    np.savetxt(tmp_path / "intrinsics.txt", [[20, 0, 11.5], [0, 20, 7.5], [0, 0, 1]])
    return tmp_path


def test_frames_agree_on_the_world(walk: Path) -> None:
    sequence = load_walk(walk)
    assert len(sequence) == 2
    assert sequence.size == (24, 16)
    first, second = sequence.points(0), sequence.points(1)
    assert np.isnan(first[0]).all()
    assert first[1:, :, 2] == pytest.approx(2.0)
    assert second[1:, :, 2] == pytest.approx(2.0)
    assert first[8, 23, 0] == pytest.approx(2.0 * 11.5 / 20)
    assert sequence.color(1).shape == (16, 24, 3)
    assert sequence.trajectory(10).timestamps.tolist() == [0.0, 0.1]


def test_intrinsics_scale_with_the_image(walk: Path) -> None:
    K = load_walk(walk).intrinsics(48, 32)
    assert K[0, 0] == 40.0
    assert K[:2, 2].tolist() == [23.5, 15.5]


@pytest.mark.parametrize("lost", ["color/000000.jpg", "depth/000001.png", "poses/000000.txt", "intrinsics.txt"])
def test_what_is_missing_is_named(walk: Path, lost: str) -> None:
    (walk / lost).unlink()
    if lost.startswith("color"):
        (walk / "color/000001.jpg").unlink()
    with pytest.raises(SourceError, match=r"no color|lacks 00000|no intrinsics"):
        load_walk(walk)


def test_the_recorded_office_is_one_scene() -> None:
    folder = find_office()
    if folder is None:
        pytest.skip("the recorded office walk is not here: set THREER_OFFICE to its folder")
    sequence = load_walk(folder)
    assert len(sequence) == 150
    depth = sequence.depth(0)
    assert 0.4 < np.isfinite(depth).mean() < 0.95
    assert 1 < np.nanmedian(depth) < 5
    # The same surface seen half a second apart lies in the same place.
    first, later = (sequence.points(i)[::8, ::8].reshape(-1, 3) for i in (0, 3))
    first, later = (points[np.isfinite(points).all(axis=1)] for points in (first, later))
    assert np.median(KDTree(first).query(later)[0]) < 0.05
