"""Meshes of runs: a rendered room comes out where it is, and what cannot be done is said."""

import dataclasses

import numpy as np
import pytest
import trimesh
from scipy.spatial import cKDTree

import rendered_runs
from threer.cli.app import run
from threer.config import MeshConfig
from threer.errors import ReconstructionError, RunError, ThreerError
from threer.io.mesh import write_mesh
from threer.io.runs import Scene
from threer.pipelines.surfaces import surface


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    return rendered_runs.write(tmp_path_factory.mktemp("room") / "run", rendered_runs.updates())


@pytest.fixture(scope="module")
def found(room):
    return surface(room, MeshConfig(keep=1.0))


def test_the_mesh_of_a_room_lies_within_a_voxel_of_it(room, found):
    error = rendered_runs.distance_to_room(found.mesh.vertices)
    assert np.quantile(error, 0.95) < found.voxel
    assert np.median(error) < found.voxel / 5
    # It is all there: nearly every measured point has a vertex within a voxel.
    points = room.frame(5).points.reshape(-1, 3)[::17]
    gaps = cKDTree(found.mesh.vertices).query(points)[0]
    assert np.quantile(gaps, 0.95) < found.voxel
    assert (found.frames, found.left_out) == (rendered_runs.FRAMES, 0)


def test_colours_are_those_of_the_pictures(room, found):
    frame = room.frame(0)
    K = rendered_runs.clip().K[0].numpy()
    local = (found.mesh.vertices - frame.c2w[:3, 3]) @ frame.c2w[:3, :3]
    u, v = (local[:, :2] / local[:, 2:] * K[0, 0] + K[:2, 2]).T
    height, width = frame.conf.shape
    seen = (local[:, 2] > 0) & (u > 1) & (u < width - 2) & (v > 1) & (v < height - 2)
    x, y = np.rint(u[seen]).astype(int), np.rint(v[seen]).astype(int)
    depth = room.depth(0)[y, x]
    front = np.abs(depth - local[seen, 2]) < found.voxel
    off = np.abs(frame.colours[y, x].astype(float) - found.mesh.rgb[seen])[front].mean()
    assert off < 12  # of 255: neighbouring pixels of a texture are mixed


def test_a_voxel_is_one_and_a_half_pixels_wide_and_grows_to_fit_the_memory(room, found):
    pixel = np.median([np.median(room.depth(k)) for k in range(len(room))]) / rendered_runs.clip().K[0, 0, 0]
    assert found.voxel == pytest.approx(1.5 * float(pixel), rel=0.05)
    small = surface(room, MeshConfig(memory=0.001))
    assert small.voxel > 1.3 * found.voxel
    assert "memory" in small.notes[0]
    with pytest.raises(ThreerError, match=r"voxels of 0\.001 need more than 0\.001 GiB"):
        surface(room, MeshConfig(memory=0.001, voxel=0.001))


def test_a_simpler_mesh_still_lies_in_place(room, found):
    simple = surface(room, MeshConfig(keep=1.0, faces=2000)).mesh
    assert len(simple.faces) <= 2000 < len(found.mesh.faces)
    assert np.quantile(rendered_runs.distance_to_room(simple.vertices), 0.9) < found.voxel


def test_unsure_points_and_frames_without_a_camera_take_no_part(tmp_path):
    conf = np.full((72, 96), 2.0)
    conf[:, :48] = 1.0  # the less sure half
    told = rendered_runs.updates(conf)
    told[3] = dataclasses.replace(told[3], c2w=np.full((4, 4), np.nan))
    half = surface(rendered_runs.write(tmp_path / "run", told), MeshConfig(keep=0.5))
    assert (half.frames, half.left_out) == (rendered_runs.FRAMES - 1, 1)
    frame = Scene.open(tmp_path / "run").frame(0)
    local = (half.mesh.vertices - frame.c2w[:3, 3]) @ frame.c2w[:3, :3]
    assert np.quantile(local[:, 0] / local[:, 2], 0.2) > -0.05  # the first camera's right half


@pytest.mark.parametrize("suffix", [".ply", ".glb", ".obj"])
def test_files_can_be_read_again(tmp_path, found, suffix):
    write_mesh(tmp_path / f"mesh{suffix}", found.mesh)
    read = trimesh.load(tmp_path / f"mesh{suffix}", force="mesh", process=False)
    sign = (1, -1, -1) if suffix == ".glb" else (1, 1, 1)
    assert len(read.faces) == len(found.mesh.faces)
    np.testing.assert_allclose(
        read.bounds,
        np.sort(np.stack([found.mesh.vertices.min(0), found.mesh.vertices.max(0)]) * sign, axis=0),
        atol=1e-5,
    )
    assert read.visual.vertex_colors[:, :3].std() > 10


def test_what_cannot_become_a_mesh_is_told_in_a_line(tmp_path, found):
    def without(**changes):
        name = f"run{len(list(tmp_path.iterdir()))}"
        return rendered_runs.write(
            tmp_path / name, [dataclasses.replace(update, **changes) for update in rendered_runs.updates()[:2]]
        )

    with pytest.raises(ReconstructionError, match="no camera of"):
        surface(without(c2w=None, K=None))
    with pytest.raises(ReconstructionError, match="none of the 2 frames"):
        surface(without(points=None))
    with pytest.raises(ReconstructionError, match="holds no frames"):
        surface(rendered_runs.write(tmp_path / "empty", []))
    with pytest.raises(ReconstructionError, match="no surface came out of 2"):
        surface(without(), MeshConfig(views=3))
    with pytest.raises(RunError, match=r"ends in \.ply, \.glb, \.obj"):
        write_mesh(tmp_path / "mesh.stl", found.mesh)


def test_command(tmp_path, room, capsys):
    assert run(["mesh", str(room.path), "-o", str(tmp_path / "room.ply"), "--faces", "3000"]) == 0
    assert (tmp_path / "room.ply").is_file()
    assert "voxel" in capsys.readouterr().err
    assert run(["mesh", str(tmp_path)]) == 1
    assert "is not a run folder" in capsys.readouterr().err
    assert run(["mesh", str(room.path), "--keep", "2"]) != 0


def test_a_bad_place_for_the_mesh_is_told_before_the_work(tmp_path, room, capsys, monkeypatch):
    monkeypatch.setattr("threer.cli.mesh.surface", lambda *_: pytest.fail("the work was done for nothing"))
    cloud = (room.path / "points.ply").read_bytes()
    (tmp_path / "folder.ply").mkdir()
    for out, words in (
        (tmp_path / "none" / "room.ply", "there is no folder"),
        (tmp_path / "folder.ply", "is a folder"),
        (room.path / "points.ply", "is the cloud of the run"),
    ):
        assert run(["mesh", str(room.path), "-o", str(out)]) == 1
        assert words in " ".join(capsys.readouterr().err.split())
    assert (room.path / "points.ply").read_bytes() == cloud
