"""Point clouds on disk."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import trimesh

from threer.errors import RunError, SourceError
from threer.io import ply
from threer.io.ply import Cloud, read_ply, write_ply


def some_cloud(count: int, with_conf: bool = True) -> Cloud:
    rng = np.random.default_rng(count)
    return Cloud(
        rng.normal(size=(count, 3)).astype(np.float32),
        rng.integers(0, 256, (count, 3), dtype=np.uint8),
        rng.uniform(1, 9, count).astype(np.float32) if with_conf else None,
    )


@pytest.mark.parametrize("with_conf", [True, False])
@pytest.mark.parametrize("count", [0, 1, 1000])
def test_what_is_written_is_read(
    tmp_path: Path, count: int, with_conf: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ply, "_SLAB", 300)
    cloud = some_cloud(count, with_conf)
    write_ply(tmp_path / "c.ply", cloud)
    again = read_ply(tmp_path / "c.ply")
    np.testing.assert_array_equal(again.xyz, cloud.xyz)
    np.testing.assert_array_equal(again.rgb, cloud.rgb)
    if with_conf:
        np.testing.assert_array_equal(again.conf, cloud.conf)
    else:
        assert again.conf is None


def test_trimesh_opens_it(tmp_path: Path) -> None:
    cloud = some_cloud(500)
    write_ply(tmp_path / "c.ply", cloud)
    loaded = trimesh.load(tmp_path / "c.ply")
    assert isinstance(loaded, trimesh.PointCloud)
    np.testing.assert_array_equal(loaded.vertices.astype(np.float32), cloud.xyz)
    np.testing.assert_array_equal(loaded.colors[:, :3], cloud.rgb)


def test_a_cloud_written_by_trimesh_is_read(tmp_path: Path) -> None:
    cloud = some_cloud(50)
    trimesh.PointCloud(cloud.xyz, colors=cloud.rgb).export(tmp_path / "c.ply")
    again = read_ply(tmp_path / "c.ply")
    np.testing.assert_allclose(again.xyz, cloud.xyz, atol=1e-6)
    np.testing.assert_array_equal(again.rgb, cloud.rgb)


def test_other_properties_and_elements_are_stepped_over(tmp_path: Path) -> None:
    header = (
        "ply\nformat binary_little_endian 1.0\ncomment hello there\nelement vertex 2\nproperty double x\n"
        "property double y\nproperty short label\nproperty double z\nelement face 1\n"
        "property list uchar int vertex_indices\nend_header\n"
    )
    rows = struct.pack("<ddhd", 1, 2, 7, 3) + struct.pack("<ddhd", 4, 5, 8, 6)
    (tmp_path / "c.ply").write_bytes(header.encode() + rows + b"\x03" + bytes(12))
    cloud = read_ply(tmp_path / "c.ply")
    assert cloud.xyz.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert (cloud.rgb == 255).all()


def test_bad_files_are_explained(tmp_path: Path) -> None:
    path = tmp_path / "c.ply"
    write_ply(path, some_cloud(100))
    whole = path.read_bytes()
    for content, message in (
        (whole[:-100], "cut off: 94 of 100"),
        (whole[:60], "cut off inside its header"),
        (b"PNG whatever", "is not a PLY"),
        (b"ply\nformat ascii 1.0\nelement vertex 0\nend_header\n", "is ascii PLY"),
        (whole.replace(b"float z", b"float w"), "no x, y, z"),
        (whole.replace(b"element vertex 100", b"element face 100"), "does not begin with its vertices"),
        (whole.replace(b"uchar red", b"strange red"), "property strange red"),
    ):
        path.write_bytes(content)
        with pytest.raises(SourceError, match=message):
            read_ply(path)
    with pytest.raises(SourceError, match="No such file"):
        read_ply(tmp_path / "none.ply")
    with pytest.raises(RunError, match="cannot write"):
        write_ply(tmp_path / "none" / "c.ply", some_cloud(1))
