"""A run and those made from it keep one frame and unit, whatever is cut off, moved or put in the wrong place."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import rendered_runs
from threer.cli.app import run
from threer.errors import RunError
from threer.io.runs import RunWriter, Scene, lock_folder
from threer.io.runs.placing import Placement, place
from threer.pipelines import one_frame
from threer.pipelines.one_frame import family, place_all, unplace_all
from threer.pipelines.refine import second_run
from threer.pipelines.refine.moved_run import moved
from threer.pipelines.refine.second_run import CLOSED, REFINED, SecondRun
from threer.pipelines.scaling import from_distance
from threer.types import Sim3

TURNED = Sim3(2.0, Rotation.from_rotvec([0.3, 0, 1]).as_matrix(), np.array([1.0, 2, 3]))
DISTANCE = ["--distance", "2:81.5,201.5", "9:321.5,121.5", "1"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rendered_runs.write(tmp_path_factory.mktemp("made") / "run", rendered_runs.updates()).path


@pytest.fixture(autouse=True)
def _no_preview(monkeypatch: pytest.MonkeyPatch) -> None:
    """A drawn preview takes longest."""
    monkeypatch.setattr(second_run, "overview", lambda *_: np.zeros((8, 8, 3), np.uint8))


@pytest.fixture
def scene(made: Path, tmp_path: Path) -> Scene:
    return Scene.open(shutil.copytree(made, tmp_path / "run"))


def second_of(first: Scene, kind: SecondRun = REFINED, at: Path | None = None) -> Path:
    """A second run that is as the first one was, with the entry in both reports that the pipelines write."""
    out = first.path / kind.name if at is None else at
    told = {"folder": str(out)}
    kind.write(first, moved(first, [Sim3(1.0, np.eye(3), np.zeros(3))] * len(first)), out, told)
    report = {**first.report, kind.name: told}
    (first.path / "report.json").write_text(json.dumps(report))
    return out


@contextmanager
def cut_off(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What happens to the first run happens, and nothing more."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(one_frame, "follow", stop)
        with pytest.raises(KeyboardInterrupt):
            yield


def marked_distance(path: Path) -> float:
    a, b = (Scene.open(path).frame(k).points[y, x] for k, x, y in ((2, 20, 50), (9, 80, 30)))
    return float(np.linalg.norm(a - b))


def test_what_followed_is_not_said_to_have_the_scale_of_before(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    second_of(scene, CLOSED)
    second_of(scene)  # whose report tells of the loops of the first one
    assert run(["scale", str(scene.path), *DISTANCE]) == 0
    told = capsys.readouterr().err
    assert "with it" in told
    assert "scale of before" not in told


def test_a_run_elsewhere_that_is_scaled_itself_is_not_told_to_be_made_again(
    scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    better = second_of(scene, at=tmp_path / "better")
    assert run(["scale", str(better), *DISTANCE]) == 0
    assert "scale of before" not in capsys.readouterr().err
    assert not Scene.open(scene.path).metric


def test_repeating_on_the_second_run_scales_once(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    place(scene.path, Placement(TURNED, "an earlier one"))
    closed = second_of(Scene.open(scene.path), CLOSED)
    place_all(closed, Placement(TURNED, "another"))
    refined = second_of(Scene.open(closed))
    with cut_off(monkeypatch):
        place_all(refined, from_distance(Scene.open(refined), (2, 81.5, 201.5), (9, 321.5, 121.5), 1))
    assert marked_distance(scene.path) == pytest.approx(1, abs=1e-4)
    assert marked_distance(refined) != pytest.approx(1, abs=0.1)
    assert run(["scale", str(refined), *DISTANCE]) == 0
    for path in (scene.path, closed, refined):
        assert marked_distance(path) == pytest.approx(1, abs=1e-4)
        np.testing.assert_allclose(
            Scene.open(path).cameras.c2w, Scene.open(scene.path).cameras.c2w, atol=1e-6, rtol=0
        )


@pytest.mark.parametrize("named", ["run", "run/refined"])
def test_a_reset_cut_off_is_put_right_by_doing_it_again(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    refined = second_of(scene)
    place_all(scene.path, Placement(TURNED, "a guess"))
    with cut_off(monkeypatch):
        unplace_all(tmp_path / named)
    assert Scene.open(refined).metric
    assert run(["scale", str(tmp_path / named), "--reset"]) == 0
    np.testing.assert_array_equal(Scene.open(refined).cameras.c2w, scene.cameras.c2w)
    with pytest.raises(RunError, match="nothing to undo"):
        unplace_all(tmp_path / named)


def test_a_reset_cut_off_is_put_right_for_what_was_made_from_a_scaled_run(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    place(scene.path, Placement(TURNED, "before it was refined"))
    refined = second_of(Scene.open(scene.path))
    place_all(scene.path, Placement(TURNED, "after"))
    with cut_off(monkeypatch):
        unplace_all(scene.path)
    assert Scene.open(refined).placement is not None  # of before: another one than is due now
    unplace_all(scene.path)
    np.testing.assert_allclose(Scene.open(refined).cameras.c2w, scene.cameras.c2w, atol=1e-6)


def test_what_was_made_from_a_stranger_does_not_follow(scene: Scene, tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "stranger", {"method": "another"}, precision="float32")
    for update in rendered_runs.updates()[:3]:
        writer.on(update)
    stranger = writer.finish("complete", {}).path
    guest = second_of(scene, at=stranger / "refined")
    assert family(guest) == [guest]
    moved_runs = place_all(stranger, Placement(TURNED, "a guess"))
    assert moved_runs.along == ()
    np.testing.assert_array_equal(Scene.open(guest).cameras.c2w, scene.cameras.c2w)
    assert place_all(scene.path, Placement(TURNED, "a guess")).apart == (guest,)


def test_runs_belong_together_wherever_they_are_moved(scene: Scene, tmp_path: Path) -> None:
    second_of(scene)
    scene.path.rename(tmp_path / "elsewhere")
    refined = tmp_path / "elsewhere" / "refined"
    assert place_all(refined, Placement(TURNED, "a guess")).along == (refined,)
    assert Scene.open(tmp_path / "elsewhere").metric


def test_a_copy_of_a_run_leaves_the_original_and_what_follows_that_alone(scene: Scene, tmp_path: Path) -> None:
    refined = second_of(scene)
    copy = Path(shutil.copytree(scene.path, tmp_path / "copy"))
    found = place_all(copy, Placement(TURNED, "a guess"))
    assert found.along == (copy / "refined",)
    assert found.apart == ()
    assert Scene.open(refined).placement is None


def test_a_run_scaled_while_it_is_refined_tells_where_it_was(scene: Scene) -> None:
    place(scene.path, Placement(TURNED, "meanwhile"))
    refined = second_of(scene)  # from what was opened before
    place_all(scene.path, Placement(Sim3(1.0, np.eye(3), np.zeros(3)), "the same"))
    np.testing.assert_allclose(Scene.open(refined).cameras.c2w, Scene.open(scene.path).cameras.c2w, atol=1e-6)


def test_meshes_of_all_of_them_are_told_of(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    refined = second_of(scene)
    (refined / "mesh.ply").write_bytes(b"of the scale of before")
    assert run(["scale", str(scene.path), *DISTANCE]) == 0
    assert f"{refined / 'mesh.ply'} had the scale of before and is gone" in capsys.readouterr().err
    assert not (refined / "mesh.ply").exists()


def test_nothing_moves_while_one_of_them_is_being_written(scene: Scene) -> None:
    refined = second_of(scene)
    with lock_folder(refined), pytest.raises(RunError, match="is being written by"):
        place_all(scene.path, Placement(TURNED, "a guess"))
    assert Scene.open(scene.path).placement is None
    place_all(scene.path, Placement(TURNED, "a guess"))
    with lock_folder(refined), pytest.raises(RunError, match="is being written by"):
        unplace_all(scene.path)
    assert Scene.open(scene.path).metric
