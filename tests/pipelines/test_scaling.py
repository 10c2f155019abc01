"""Runs in metres: from a distance, from a path; what is on disk stays, and can be had back."""

import dataclasses
import json
import shutil

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import rendered_runs
from threer.cli.app import run
from threer.errors import ReconstructionError, RunError, ThreerError
from threer.io.cameras import read_cameras
from threer.io.ply import read_ply
from threer.io.runs import RunWriter, Scene, placing
from threer.io.runs.placing import Placement, place, unplace
from threer.io.trajectory import read_tum, write_tum
from threer.pipelines import one_frame
from threer.pipelines.one_frame import place_all
from threer.pipelines.refine import second_run
from threer.pipelines.refine.moved_run import moved
from threer.pipelines.refine.second_run import CLOSED, REFINED
from threer.pipelines.scaling import from_distance, from_trajectory, marked_point
from threer.types import Pointmap, Sim3, Trajectory

INTO_RUN = Sim3(0.37, Rotation.from_rotvec([0.4, -1.0, 0.3]).as_matrix(), np.array([5.0, -2.0, 1.0]))
"""From the true room into the arbitrary coordinates of the run."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run in coordinates of its own, as networks give them."""
    told = []
    for update in rendered_runs.updates():
        xyz = INTO_RUN.apply(update.points.xyz.double().numpy())
        points = Pointmap(update.points.xyz.new_tensor(xyz), update.points.conf)
        told.append(dataclasses.replace(update, points=points, c2w=INTO_RUN.apply_to_cameras(update.c2w[None])[0]))
    return rendered_runs.write(tmp_path_factory.mktemp("made") / "run", told).path


@pytest.fixture
def scene(made, tmp_path):
    return Scene.open(shutil.copytree(made, tmp_path / "run"))


def truth():
    clip = rendered_runs.clip()
    return Trajectory(np.arange(len(clip)) / 5, clip.c2w.double().numpy())


def frames_on_disk(path):
    return {file.name: file.read_bytes() for file in (path / "frames").iterdir()}


def true_point(frame, x, y):
    """World point at a pixel of the rendered picture."""
    clip = rendered_runs.clip()
    ray = np.linalg.inv(clip.K[frame].double().numpy()) @ [x, y, 1]
    c2w = clip.c2w[frame].double().numpy()
    return c2w[:3, :3] @ (ray * float(clip.depth[frame, y, x])) + c2w[:3, 3]


def original(x, y):
    """The same place in pixels of the original picture."""
    return 4 * x + 1.5, 4 * y + 1.5


def test_a_known_distance_makes_metres(scene, capsys):
    metres = float(np.linalg.norm(true_point(2, 20, 50) - true_point(9, 80, 30)))
    before = frames_on_disk(scene.path)
    (u, v), (s, t) = original(20, 50), original(80, 30)
    arguments = ["scale", str(scene.path), "--distance", f"2:{u},{v}", f"9:{s},{t}", str(metres)]
    assert run(arguments) == 0
    assert "now in metres" in capsys.readouterr().err
    scaled = Scene.open(scene.path)
    assert scaled.metric
    assert not scene.metric
    assert scaled.placement.scale == pytest.approx(1 / INTO_RUN.scale, rel=1e-5)
    steps = np.linalg.norm(np.diff(scaled.trajectory.positions, axis=0), axis=1)
    np.testing.assert_allclose(steps, np.linalg.norm(np.diff(truth().positions, axis=0), axis=1), rtol=1e-4)
    np.testing.assert_allclose(scaled.depth(4), rendered_runs.clip().depth[4], rtol=1e-4)
    assert frames_on_disk(scene.path) == before
    said = scaled.report["placement"]
    assert said["metric"] is True
    assert "between frame 2 at" in said["source"]


def test_a_known_path_puts_the_room_where_it_is(scene):
    later = Trajectory(truth().timestamps + 0.004, truth().c2w)
    write_tum(scene.path / "truth.tum", later)
    assert run(["scale", str(scene.path), "--trajectory", str(scene.path / "truth.tum")]) == 0
    placed = Scene.open(scene.path)
    np.testing.assert_allclose(placed.cameras.c2w, truth().c2w, atol=1e-4)
    assert rendered_runs.distance_to_room(placed.frame(7).points.reshape(-1, 3)).max() < 1e-3
    # What is written beside the frames says the same.
    np.testing.assert_allclose(read_cameras(scene.path / "cameras.json").cameras.c2w, truth().c2w, atol=1e-4)
    np.testing.assert_allclose(read_tum(scene.path / "trajectory.tum").c2w, truth().c2w, atol=1e-4)
    assert rendered_runs.distance_to_room(read_ply(scene.path / "points.ply").xyz).max() < 1e-3


def test_it_can_be_done_again_and_undone(scene):
    before = json.loads((scene.path / "run.json").read_text())
    cloud = (scene.path / "points.ply").read_bytes()
    first = Sim3(2.0, Rotation.from_rotvec([0, 0, 1]).as_matrix(), np.array([1.0, 2, 3]))
    second = Sim3(5.0, Rotation.from_rotvec([0, 1, 0]).as_matrix(), np.array([-1.0, 0, 3]))
    place(scene.path, Placement(first, "a guess"))
    twice = place(scene.path, Placement(second, "a better one"))
    np.testing.assert_allclose(
        twice.cameras.c2w, second.apply_to_cameras(first.apply_to_cameras(scene.cameras.c2w)), atol=1e-9
    )
    assert run(["scale", str(scene.path), "--reset"]) == 0
    assert json.loads((scene.path / "run.json").read_text()) == before
    assert (scene.path / "points.ply").read_bytes() == cloud
    assert "placement" not in Scene.open(scene.path).report
    with pytest.raises(RunError, match="nothing to undo"):
        unplace(scene.path)


@pytest.mark.parametrize("last", ["write_cameras", "write_tum", "write_ply"])
def test_what_is_cut_off_is_put_right_by_doing_it_again(scene, monkeypatch, last):
    files = ("run.json", "cameras.json", "trajectory.tum", "points.ply", "report.json")
    before = {name: (scene.path / name).read_bytes() for name in files}

    def stop(*_):
        raise KeyboardInterrupt

    twice = Placement(Sim3(2.0, np.eye(3), np.zeros(3)), "a guess")
    with monkeypatch.context() as patched:
        patched.setattr(placing, last, stop)
        with pytest.raises(KeyboardInterrupt):
            place(scene.path, twice)
    place(scene.path, Placement(Sim3(1.0, np.eye(3), np.zeros(3)), "the same distance, which is right by now"))
    for file in (read_cameras(scene.path / "cameras.json").cameras, read_tum(scene.path / "trajectory.tum")):
        np.testing.assert_allclose(file.c2w[:, :3, 3], 2 * scene.cameras.c2w[:, :3, 3], atol=1e-6)

    with monkeypatch.context() as patched:
        patched.setattr(placing, last, stop)
        with pytest.raises(KeyboardInterrupt):
            unplace(scene.path)
    unplace(scene.path)
    for name in files:
        told = (scene.path / name).read_bytes()
        assert json.loads(told) == json.loads(before[name]) if name.endswith("json") else told == before[name], name


def test_a_mesh_of_another_size_does_not_stay(scene, capsys):
    for arguments in (["--trajectory", str(scene.path / "truth.tum")], ["--reset"]):
        write_tum(scene.path / "truth.tum", truth())
        (scene.path / "mesh.ply").write_bytes(b"of the scale of before")
        assert run(["scale", str(scene.path), *arguments]) == 0
        assert not (scene.path / "mesh.ply").exists()
        assert "make it again" in capsys.readouterr().err


def test_overwriting_a_run_takes_its_mesh_along(scene):
    (scene.path / "mesh.ply").write_bytes(b"of the run of before")
    rendered_runs.write(scene.path, rendered_runs.updates()[:1], overwrite=True)
    assert not (scene.path / "mesh.ply").exists()


def test_between_pixels_of_a_surface_points_are_mixed(scene):
    frame = scene.frame(0)
    depth = scene.depth(0)
    flat = np.abs(np.diff(depth, 2, axis=1))[1:-1].max(axis=0)
    x = int(flat.argmin()) + 1
    u, v = original(x + 0.25, 36)
    expected = 0.75 * frame.points[36, x] + 0.25 * frame.points[36, x + 1]
    np.testing.assert_allclose(marked_point(scene, (0, u, v)), expected, atol=1e-5)


def test_marks_are_pixels_of_the_picture_with_its_distortion(tmp_path):
    coefficients = (-0.2, 0.05, 0.0, 0.0)
    K = rendered_runs.updates()[0].K
    writer = RunWriter(tmp_path / "run", {"distortion": coefficients}, precision="float32")
    writer.on(rendered_runs.updates()[0])
    bent_run = writer.finish("complete", {})
    ray = np.linalg.inv(K) @ [*original(80, 60), 1]
    seen_at = cv2.projectPoints(ray[None], np.zeros(3), np.zeros(3), K, np.array(coefficients))[0].reshape(2)
    assert np.linalg.norm(seen_at - original(80, 60)) > 4
    np.testing.assert_allclose(marked_point(bent_run, (0, *seen_at)), true_point(0, 80, 60), atol=2e-3)


def test_a_straight_path_gives_the_scale_alone(tmp_path, scene):
    line = np.tile(np.eye(4), (12, 1, 1))
    line[:, :3, 3] = np.arange(12)[:, None] * [0.1, 0.2, 0.0]
    told = [dataclasses.replace(u, c2w=line[k]) for k, u in enumerate(rendered_runs.updates())]
    straight = rendered_runs.write(tmp_path / "straight", told)
    known = line.copy()
    known[:, :3, 3] *= 3
    found = from_trajectory(straight, Trajectory(np.arange(12) / 5, known))
    assert found.sim3.scale == pytest.approx(3)
    np.testing.assert_array_equal(found.sim3.R, np.eye(3))
    assert "straight" in found.source


def test_what_gives_no_scale_is_told_in_a_line(tmp_path, scene, capsys):
    good = (0, *original(20, 50))
    for second, metres, words in (
        ((0, *original(60, 50)), 0.0, "distance must be positive"),
        ((0, *original(60, 50)), float("nan"), "distance must be positive"),
        (good, 1.0, "are the same point"),
        ((99, 1.0, 1.0), 1.0, "has no frame 99; there are: 0 to 11"),
        ((0, 400.0, 10.0), 1.0, r"outside of what was reconstructed of that picture: u from -0\.5 to 383\.5"),
        ((0, float("nan"), 10.0), 1.0, "outside of what"),
    ):
        with pytest.raises(ThreerError, match=words):
            from_distance(scene, good, second, metres)
    unknown = rendered_runs.write(tmp_path / "masked", rendered_runs.updates(np.zeros((72, 96))))
    with pytest.raises(ThreerError, match="no point is known at frame 0"):
        marked_point(unknown, good)

    rng = np.random.default_rng(0)
    noise = truth().c2w.copy()
    noise[:, :3, 3] = rng.normal(size=(12, 3))
    still = np.tile(np.eye(4), (12, 1, 1))
    for known, words in (
        (Trajectory(truth().timestamps + 100, truth().c2w), "only 0 of 12 frames"),
        (Trajectory(truth().timestamps, noise), "the paths do not agree"),
        (Trajectory(truth().timestamps, still), "stands still"),
        (Trajectory(np.empty(0), np.empty((0, 4, 4))), "nothing to compare"),
    ):
        with pytest.raises(ReconstructionError, match=words):
            from_trajectory(scene, known)
    far = truth().c2w.copy()
    far[:, :3, 3] += [4e5, 5e6, 0]  # as UTM has it
    with pytest.raises(ReconstructionError, match=r"5e\+06 m from its origin.*subtract the same offset"):
        from_trajectory(scene, Trajectory(truth().timestamps, far))
    for arguments, words in (
        (["--distance", "0-1,2", "0:3,4", "1"], "a point is FRAME:U,V"),
        ([], "say what is known"),
        (["--reset", "--trajectory", "x.tum"], "say what is known"),
        (["--trajectory", str(tmp_path / "no.tum")], "cannot read"),
    ):
        assert run(["scale", str(scene.path), *arguments]) == 1
        assert words in " ".join(capsys.readouterr().err.split())
    writer = RunWriter(tmp_path / "half", {})
    writer.on(rendered_runs.updates()[0])
    writer.finish("interrupted", {})
    with pytest.raises(RunError, match="not complete"):
        place(tmp_path / "half", Placement(INTO_RUN, ""))


@pytest.fixture
def plainly(monkeypatch):
    """Second runs without a drawn preview, which takes longest."""
    monkeypatch.setattr(second_run, "overview", lambda *_: np.zeros((8, 8, 3), np.uint8))


def second_of(first, name="refined", at=None):
    """A second run of ``first`` that is as it was, in its folder or elsewhere."""
    kind = {"refined": REFINED, "closed": CLOSED}[name]
    told = list(moved(first, [Sim3(1.0, np.eye(3), np.zeros(3))] * len(first)))
    return kind.write(first, told, first.path / name if at is None else at, {}).path


@pytest.mark.usefixtures("plainly")
def test_all_results_of_a_run_have_one_frame_and_unit(scene, tmp_path, capsys):
    write_tum(tmp_path / "truth.tum", truth())
    early = second_of(scene)
    assert run(["scale", str(scene.path), "--trajectory", str(tmp_path / "truth.tum")]) == 0
    assert str(early) in capsys.readouterr().err
    late = second_of(Scene.open(scene.path), "closed")  # made in metres
    below = second_of(Scene.open(late))
    every = [scene.path, early, late, below]

    def agree(c2w, metric):
        for path in every:
            now = Scene.open(path)
            np.testing.assert_allclose(now.cameras.c2w, c2w, atol=2e-4)
            assert now.metric is metric
            np.testing.assert_allclose(now.frame(7).points, Scene.open(scene.path).frame(7).points, atol=2e-4)

    agree(truth().c2w, True)
    place_all(scene.path, Placement(Sim3(2.0, np.eye(3), np.ones(3)), "a guess"))
    twice = truth().c2w.copy()
    twice[:, :3, 3] = 2 * twice[:, :3, 3] + 1
    agree(twice, True)
    assert run(["scale", str(below), "--distance", "2:81.5,201.5", "9:321.5,121.5", "1"]) == 0
    assert str(late) in capsys.readouterr().err
    agree(Scene.open(scene.path).cameras.c2w, True)
    assert run(["scale", str(late), "--reset"]) == 0
    agree(scene.cameras.c2w, False)
    assert run(["scale", str(scene.path), "--reset"]) == 1


@pytest.mark.usefixtures("plainly")
def test_a_second_scaling_cut_off_is_put_right_by_doing_it_again(scene, monkeypatch):
    early = second_of(scene)
    twice = Placement(Sim3(2.0, np.eye(3), np.zeros(3)), "a guess")
    with monkeypatch.context() as patched:
        patched.setattr(one_frame, "follow", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            place_all(scene.path, twice)
    place_all(scene.path, Placement(Sim3(1.0, np.eye(3), np.zeros(3)), "the same distance, which is right by now"))
    centres = 2 * scene.cameras.c2w[:, :3, 3]
    for path in (scene.path, early):
        np.testing.assert_allclose(Scene.open(path).cameras.c2w[:, :3, 3], centres, atol=1e-6)


@pytest.mark.usefixtures("plainly")
def test_what_was_made_elsewhere_is_named(scene, tmp_path, capsys):
    better = second_of(scene, at=tmp_path / "better")
    report = json.loads((scene.path / "report.json").read_text())
    (scene.path / "report.json").write_text(json.dumps({**report, "refined": {"folder": str(better)}}))
    write_tum(tmp_path / "truth.tum", truth())
    assert run(["scale", str(scene.path), "--trajectory", str(tmp_path / "truth.tum")]) == 0
    assert f"{better} was made from this run, and has the scale of before" in capsys.readouterr().err
    assert not Scene.open(better).metric
