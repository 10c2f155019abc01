"""Every layout, written from one rendered clip, gives back its depth, poses and intrinsics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import layouts
from threer.data.datasets import guess_name, names, open_dataset
from threer.data.overlap import overlap
from threer.errors import SourceError, ThreerError

CAMERA_ONLY = {"re10k", "mvimgnet"}
GUESSED = ("co3d", "wildrgbd", "scannet", "arkitscenes", "ase", "blendedmvs", "habitat", "staticthings3d", "waymo")


def source(name: str) -> str:
    return "scannetpp" if name.startswith("scannetpp") else name


@pytest.mark.parametrize("name", [*layouts.WRITERS, "scannetpp-pairs", "scannetpp-frames"])
def test_what_was_written_is_read(name: str, tmp_path: Path) -> None:
    truth = layouts.write(name, tmp_path)
    dataset = open_dataset(source(name), tmp_path)
    order = order_of(name, dataset.scenes[0].stems)
    for view, frame in enumerate(order):
        raw = dataset.read(0, view)
        np.testing.assert_allclose(raw.c2w, truth.c2w[frame], atol=1e-6)
        np.testing.assert_allclose(raw.K, truth.K, atol=1e-4)
        assert np.abs(raw.image.astype(int) - truth.images[frame]).mean() < 4  # JPEG
        if name in CAMERA_ONLY:
            assert dataset.traits.camera_only
            assert not raw.depth.any()
            continue
        known = raw.depth > 0
        assert known.mean() > 0.5
        np.testing.assert_allclose(raw.depth[known], truth.depth[frame][known], rtol=1e-3, atol=1e-3)
    if name not in CAMERA_ONLY:
        shared = overlap(dataset.read(0, 0), dataset.read(0, 1))
        assert shared.agree > 0.95


def order_of(name: str, stems: tuple[str, ...]) -> list[int]:
    """Which frame of the clip each view is."""
    return list(range(5)) if name == "habitat" else frame_numbers(name, stems)


def frame_numbers(name: str, stems: tuple[str, ...]) -> list[int]:
    half = layouts.FRAMES // 2
    if name == "waymo":
        places = [stem.split("_") for stem in stems]
        return [int(frame) + (half if camera == "4" else 0) for frame, camera in places]
    if name == "staticthings3d":
        places = [stem.split("/") for stem in stems]
        return [int(frame) - 6 + (half if side == "right" else 0) for side, frame in places]
    return list(range(len(stems)))


@pytest.mark.parametrize("name", GUESSED)
def test_a_layout_is_recognised(name: str, tmp_path: Path) -> None:
    layouts.write(name, tmp_path / "folder")
    assert guess_name(tmp_path / "folder") == name


def test_folders_that_say_nothing_are_asked_about(tmp_path: Path) -> None:
    layouts.write("bedlam", tmp_path / "folder")
    with pytest.raises(ThreerError, match="say so with --dataset"):
        guess_name(tmp_path / "folder")
    (tmp_path / "folder").rename(tmp_path / "bedlam")
    assert guess_name(tmp_path / "bedlam") == "bedlam"


def test_what_is_held_out_is_not_trained_on(tmp_path: Path) -> None:
    for name in ("blendedmvs", "megadepth", "ase"):
        layouts.write(name, tmp_path / name)
        parts = {split: {s.name for s in open_dataset(name, tmp_path / name, split).scenes} for split in
                 ("train", "test", "all")}  # fmt: skip
        assert parts["train"]
        assert parts["test"]
        assert not parts["train"] & parts["test"]
        assert parts["train"] | parts["test"] == parts["all"]
    assert {s.name for s in open_dataset("megadepth", tmp_path / "megadepth", "test").scenes} == {"0015/0"}
    low = [int(s.name[8:], 16) for s in open_dataset("blendedmvs", tmp_path / "blendedmvs", "test").scenes]
    assert low == [20]
    assert len(open_dataset("ase", tmp_path / "ase").scenes) == 9
    layouts.write("bedlam", tmp_path / "bedlam")
    with pytest.raises(ThreerError, match="no test split of its own; keep some scenes in a folder test/"):
        open_dataset("bedlam", tmp_path / "bedlam", "test")
    layouts.write("waymo", tmp_path / "waymo")
    with pytest.raises(ThreerError, match=r"waymo has no test split of its own$"):
        open_dataset("waymo", tmp_path / "waymo", "test")
    layouts.folders(tmp_path / "bedlam" / "val", layouts.truth())  # beside scene0/, without a folder train/
    scenes = {split: [s.name for s in open_dataset("bedlam", tmp_path / "bedlam", split).scenes] for split in
              ("train", "test", "all")}  # fmt: skip
    assert scenes == {"train": ["scene0"], "test": ["val/scene0"], "all": ["scene0", "val/scene0"]}


def test_depth_of_ase_is_the_length_of_rays(tmp_path: Path) -> None:
    truth = layouts.write("ase", tmp_path)
    raw = open_dataset("ase", tmp_path).read(0, 0)
    corner = layouts.ray_length(truth.depth[0], truth.K)[0, 0]
    assert corner > 1.1 * truth.depth[0][0, 0]
    assert raw.depth[0, 0] == pytest.approx(truth.depth[0][0, 0], abs=2e-3)


def test_masks_make_depth_unknown_or_sky(tmp_path: Path) -> None:
    layouts.write("dl3dv", tmp_path / "a")
    depth = open_dataset("dl3dv", tmp_path / "a").read(0, 0).depth
    assert (depth[:4, 3:] == -1).all()
    assert (depth[:, :3] == 0).all()
    layouts.write("scannetpp-frames", tmp_path / "b")
    depth = open_dataset("scannetpp", tmp_path / "b").read(0, 0).depth
    assert (depth[:5] == 0).all()
    assert (depth[5:] > 0).all()
    truth = layouts.write("co3d", tmp_path / "c")
    raw = open_dataset("co3d", tmp_path / "c").read(0, 0)
    assert raw.foreground is not None
    np.testing.assert_array_equal(raw.foreground, layouts.object_mask(truth.depth[0]))


@pytest.mark.parametrize(
    ("name", "limit", "beyond"), [("vkitti2", 655.0, -1), ("bedlam", 200.0, 0), ("uasol", 20.0, 0)]
)
def test_depth_beyond_the_limit_of_a_set(name: str, limit: float, beyond: float, tmp_path: Path) -> None:
    layouts.write(name, tmp_path)
    dataset = open_dataset(name, tmp_path)
    path = dataset.files(0, 0).depth
    assert path is not None
    depth = np.full((48, 64), limit - 1, np.float32)
    depth[0, :10], depth[1, 0], depth[1, 1], depth[1, 2] = limit + 1, np.nan, -5, np.inf
    np.save(path, depth)
    read = dataset.read(0, 0).depth
    assert (read[0, :10] == beyond).all()
    assert read[1, :3].tolist() == [0, -1, 0]
    assert (read[2:] == limit - 1).all()


def test_the_farthest_hundredths_are_dropped_where_outliers_are_known(tmp_path: Path) -> None:
    layouts.write("tartanair", tmp_path)
    depth = open_dataset("tartanair", tmp_path).read(0, 0).depth
    assert 0.01 < (depth == 0).mean() < 0.03


def test_pictures_of_two_renderings_are_chosen_by_chance(tmp_path: Path) -> None:
    truth = layouts.write("staticthings3d", tmp_path)
    dataset = open_dataset("staticthings3d", tmp_path)
    means = {round(float(dataset.read(0, 0, np.random.default_rng(s)).image.mean())) for s in range(8)}
    expected = {round(float(truth.images[0].mean())), round(255 - float(truth.images[0].mean()))}
    assert means == expected
    assert dataset.scenes[0].edges is not None
    assert dataset.scenes[0].edges.tolist() == [[0, 5], [1, 3]]


def test_sensors_with_fewer_pixels_are_taken_by_nearest_neighbour(tmp_path: Path) -> None:
    truth = layouts.write("arkitscenes", tmp_path)
    dataset = open_dataset("arkitscenes", tmp_path)
    path = dataset.files(0, 0).depth
    assert path is not None
    layouts.put_png16(path, truth.depth[0][1::2, 1::2] * 1000)
    depth = dataset.read(0, 0).depth
    assert depth.shape == (48, 64)
    np.testing.assert_allclose(depth[0::2, 0::2], truth.depth[0][1::2, 1::2], atol=1e-3)
    layouts.put_png16(path, truth.depth[0][:, :40] * 1000)
    with pytest.raises(SourceError, match="40×48 does not fit a picture of 64×48"):
        dataset.read(0, 0)
    assert [g.tolist() for g in dataset.scenes[0].collections] == [[0, 1, 3], [4, 5, 6]]


def test_frames_of_two_cameras_are_two_tracks(tmp_path: Path) -> None:
    layouts.write("scannetpp-frames", tmp_path / "a")
    dslr, iphone = open_dataset("scannetpp", tmp_path / "a").scenes[0].tracks
    assert (np.diff(dslr.numbers) == 1).all()
    assert (np.diff(iphone.numbers) == 10).all()
    layouts.write("waymo", tmp_path / "b")
    front, side = open_dataset("waymo", tmp_path / "b").scenes[0].tracks
    assert (front.interval, side.interval) == (None, 4)
    scene = open_dataset("waymo", tmp_path / "b").scenes[0]
    assert scene.edges is not None
    stems = [[scene.stems[v] for v in edge] for edge in scene.edges]
    assert stems == [["00000_1", "00001_1"], ["00001_1", "00000_4"]]


def test_any_name_takes_the_generic_layout_with_its_own_traits(tmp_path: Path) -> None:
    layouts.write("generic", tmp_path / "room")
    dataset = open_dataset("vkitti2", tmp_path)
    assert dataset.scenes[0].name == "room"
    assert dataset.traits.sky_from == 655
    for depth in (".npy", ".exr"):
        layouts.generic(tmp_path / depth, layouts.truth(), depth)
        assert open_dataset("generic", tmp_path / depth).read(0, 0).depth.min() > 0


def test_names_and_folders_that_are_wrong_are_named(tmp_path: Path) -> None:
    assert len(names()) == len(set(names()))
    with pytest.raises(ThreerError, match=r"unknown data set 'scanet'; did you mean scannet\?"):
        open_dataset("scanet", tmp_path)
    with pytest.raises(SourceError, match="no such folder"):
        open_dataset("scannet", tmp_path / "none")
    for name in names():
        with pytest.raises(ThreerError) as caught:
            open_dataset(name, tmp_path)
        assert "\n" not in str(caught.value)


def test_objects_in_arrays_run_no_code(tmp_path: Path) -> None:
    layouts.write("arkitscenes", tmp_path)
    path = tmp_path / "Training" / "40753679" / "new_scene_metadata.npz"
    np.savez(path, image_collection=np.array({0: print}, dtype=object))
    with pytest.raises(SourceError, match=r"builtins\.print is refused"):
        open_dataset("arkitscenes", tmp_path)
