"""Pictures that are not in a run are found in it, and those of another place are not."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

import threer
from pair_world import TruthfulPairs, picture
from stored_runs import write_run
from threer.cli import main
from threer.config import ClassicalConfig, InputSpec, LocalizeConfig, ReconstructConfig
from threer.data.synthetic.clips import WALK, Clip, render_clip
from threer.errors import RunError, ThreerError
from threer.io.cameras import read_cameras
from threer.io.frames import to_frame
from threer.io.images import RGBImage
from threer.io.runs import RunWriter, Scene
from threer.io.runs.placing import Placement, place
from threer.io.sources import open_source
from threer.io.trajectory import read_tum
from threer.pipelines.classical.features import FeatureStore
from threer.pipelines.classical.session import FOLDER
from threer.pipelines.localization import LocalizedCamera, localize
from threer.pipelines.localization.landmarks import SMALL_FOLDER
from threer.types import Pointmap, Sim3, Update

pytest.importorskip("pycolmap", reason="localisation needs pycolmap: pip install 'threer[refine]'")

SIZE = (256, 192)
FRAMES = 11
HELD_BACK = (3, 7)
KEPT = [i for i in range(FRAMES) if i not in HELD_BACK]
STYLE = dataclasses.replace(WALK, antialias=False)


def errors_of(answer: LocalizedCamera, clip: Clip, k: int, sim3: Sim3) -> tuple[float, float]:
    """Metres and degrees from the truth."""
    found, truth = sim3.apply_to_cameras(answer.c2w[None])[0], clip.c2w[k].double().numpy()
    cosine = (np.trace(found[:3, :3].T @ truth[:3, :3]) - 1) / 2
    return float(np.linalg.norm(found[:3, 3] - truth[:3, 3])), float(np.degrees(np.arccos(min(1.0, cosine))))


def onto_truth(scene: Scene, clip: Clip) -> Sim3:
    """Turned as the cameras say: the walk is nearly straight, so that their positions leave a turn open."""
    found, truth = scene.cameras.c2w, clip.c2w[KEPT].double().numpy()
    R = Rotation.from_matrix(truth[:, :3, :3] @ found[:, :3, :3].transpose(0, 2, 1)).mean().as_matrix()
    x, y = found[:, :3, 3] @ R.T, truth[:, :3, 3]
    scale = float(np.sqrt(np.square(y - y.mean(axis=0)).sum() / np.square(x - x.mean(axis=0)).sum()))
    return Sim3(scale, R, y.mean(axis=0) - scale * x.mean(axis=0))


@pytest.fixture(autouse=True, scope="module")
def features_once() -> Iterator[None]:
    """Features of each picture are found once: they are a third of the time otherwise."""
    known: dict[tuple[tuple[int, ...], bytes], Any] = {}
    find = FeatureStore._extract

    def extract(store: FeatureStore, picture: RGBImage) -> Any:
        key = picture.shape, picture.tobytes()
        if key not in known:
            known[key] = find(store, picture)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeatureStore, "_extract", extract)
        yield


@pytest.fixture(scope="module")
def clip() -> Clip:
    return render_clip(9, FRAMES, SIZE, STYLE)


@pytest.fixture(scope="module")
def elsewhere() -> RGBImage:
    return picture(render_clip(4, 1, SIZE, STYLE), 0)


@pytest.fixture(scope="module")
def source(clip: Clip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("walk")
    for i in KEPT:
        cv2.imwrite(str(folder / f"{i:03d}.png"), picture(clip, i)[..., ::-1])
    return folder


@pytest.fixture(scope="module")
def classical(clip: Clip, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """A classical run whose source is gone."""
    copy = shutil.copytree(source, tmp_path_factory.mktemp("copy") / "walk")
    K = clip.K[0].double().numpy()
    config = ReconstructConfig(
        method="sfm",
        classical=ClassicalConfig(depth_size=64, depth_planes=8, depth_partners=2),
        intrinsics=(K[0, 0], K[1, 1], K[0, 2], K[1, 2]),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("threer.pipelines.reconstruct.draw_preview", lambda scene: None)
        scene = threer.reconstruct(copy, tmp_path_factory.mktemp("run") / "out", config)
    shutil.rmtree(copy)
    return scene


def dense_run(clip: Clip, source: Path, out: Path) -> Scene:
    """A run like a network's: exact points for the pixels of small pictures, no features."""
    frames = open_source(source)
    settings = {"method": "test", "source": str(source), "fingerprint": frames.fingerprint()}
    writer = RunWriter(out, settings, precision="float32")
    for k, raw in zip(KEPT, frames, strict=True):
        frame = to_frame(raw, InputSpec(size=128, square=False))
        width, height = frame.size
        u, v = np.meshgrid(np.arange(width), np.arange(height))
        x, y = (
            (np.stack([u, v, np.ones_like(u)], axis=-1) @ frame.to_original.T).astype(np.float32).transpose(2, 0, 1)
        )
        depth = cv2.remap(clip.depth[k].numpy(), x, y, cv2.INTER_NEAREST)
        K, c2w = clip.K[k].double().numpy(), clip.c2w[k].double().numpy()
        local = np.stack([(x - K[0, 2]) / K[0, 0] * depth, (y - K[1, 2]) / K[1, 1] * depth, depth], axis=-1)
        xyz = local @ c2w[:3, :3].T + c2w[:3, 3]
        points = Pointmap(torch.from_numpy(xyz).float(), torch.full(depth.shape, 2.0))
        writer.on(Update("final", frame, points=points, c2w=c2w, K=K))
    return writer.finish("complete", {"seconds": {"total": 1.0}, "skipped": [], "notes": []})


def test_held_back_frames_are_found_in_a_classical_run(clip: Clip, classical: Scene) -> None:
    answers = threer.localize(classical, [picture(clip, k) for k in HELD_BACK])
    sim3 = onto_truth(classical, clip)
    for k, answer in zip(HELD_BACK, answers, strict=True):
        assert (answer.status, answer.lens, answer.why) == ("found", "run", "")
        metres, degrees = errors_of(answer, clip, k, sim3)
        assert metres < 0.02
        assert degrees < 0.5
        assert metres < 6 * sim3.scale * answer.position_sigma + 0.01
        assert 0 < answer.rotation_sigma_deg < 0.5
        assert answer.inliers > 50
        assert answer.reprojection_error_px < 1.5
        assert {KEPT[index] for index in answer.frames} & {k - 1, k + 1}  # it shares most with its neighbours
    again = threer.localize(classical.path, [picture(clip, k) for k in HELD_BACK])
    for one, two in zip(answers, again, strict=True):
        np.testing.assert_array_equal(one.c2w, two.c2w)


def test_a_run_that_was_brought_to_metres_is_localised_in_there(
    clip: Clip, classical: Scene, tmp_path: Path
) -> None:
    turn = Rotation.from_rotvec([0.1, 0.2, 0.3]).as_matrix()
    moved = Sim3(3.0, turn, np.array([1.0, 2.0, 3.0]))
    shutil.copytree(classical.path, tmp_path / "out")
    placed = place(tmp_path / "out", Placement(moved, "a test"))
    shown = picture(clip, HELD_BACK[0])
    (here,), (there,) = localize(classical, shown), localize(placed, shown)
    np.testing.assert_allclose(there.c2w, moved.apply_to_cameras(here.c2w[None])[0], atol=1e-3)
    assert there.inliers == pytest.approx(here.inliers, abs=3)  # by the sparse points, not by the dense ones
    assert there.position_sigma == pytest.approx(3 * here.position_sigma, rel=0.1)


def test_a_focal_length_is_found_with_the_pose(clip: Clip, classical: Scene) -> None:
    (answer,) = localize(classical, picture(clip, HELD_BACK[0]), camera="unknown")
    assert (answer.status, answer.lens) == ("found", "estimated")
    assert answer.K[0, 0] == pytest.approx(float(clip.K[0, 0, 0]), rel=0.03)
    np.testing.assert_allclose(answer.K[:2, 2], [(SIZE[0] - 1) / 2, (SIZE[1] - 1) / 2])
    assert errors_of(answer, clip, HELD_BACK[0], onto_truth(classical, clip))[0] < 0.1
    # A part of a picture is taken by another camera; so is one that was shrunk.
    part = picture(clip, HELD_BACK[0])[16:176, 16:240]
    (cut,) = localize(classical, part)
    assert (cut.status, cut.lens, cut.size) == ("found", "estimated", (224, 160))
    assert errors_of(cut, clip, HELD_BACK[0], onto_truth(classical, clip))[0] < 0.1
    (refused,) = localize(classical, part, camera="run")
    assert refused.status == "failed"
    assert "256×192: give --intrinsics" in refused.why


def test_wrong_intrinsics_do_not_pass_for_right_ones(clip: Clip, classical: Scene) -> None:
    K = clip.K[0].double().numpy()
    right = (K[0, 0], K[1, 1], K[0, 2], K[1, 2])
    (answer,) = localize(classical, picture(clip, HELD_BACK[0]), intrinsics=right)
    assert (answer.status, answer.lens) == ("found", "given")
    (wrong,) = localize(classical, picture(clip, HELD_BACK[0]), intrinsics=(3 * K[0, 0], 3 * K[1, 1], 10.0, 10.0))
    assert wrong.inliers < 0.7 * answer.inliers
    if wrong.status == "found":  # with so few good matches a far camera may fit, but says how badly
        assert wrong.position_sigma > 3 * answer.position_sigma


def test_what_cannot_be_found_fails_with_the_reason_and_the_others_go_on(
    clip: Clip, classical: Scene, elsewhere: RGBImage, tmp_path: Path
) -> None:
    cv2.imwrite(str(tmp_path / "good.png"), picture(clip, HELD_BACK[0])[..., ::-1])
    cv2.imwrite(str(tmp_path / "elsewhere.png"), elsewhere[..., ::-1])
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((192, 256, 3), 90, np.uint8))
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    names = ["elsewhere.png", "broken.jpg", "missing.png", "grey.png", "good.png"]
    answers = localize(classical, [tmp_path / name for name in names])
    assert [Path(answer.name).name for answer in answers] == names
    assert [answer.status for answer in answers] == ["failed"] * 4 + ["found"]
    reasons = (r"another place|match points", "not an image", "no such file", "lacks texture")
    for answer, why in zip(answers[:4], reasons, strict=True):
        assert np.isnan(answer.c2w).all()
        assert np.isnan(answer.K).all()
        assert re.search(why, answer.why)
    folder = localize(classical, tmp_path)
    assert sorted(answer.status for answer in folder) == ["failed"] * 3 + ["found"]


def test_a_run_of_a_network_is_localised_in_by_its_dense_points(
    clip: Clip, source: Path, elsewhere: RGBImage, tmp_path: Path
) -> None:
    walk = shutil.copytree(source, tmp_path / "walk")
    scene = dense_run(clip, walk, tmp_path / "out")
    shutil.move(walk, tmp_path / "moved")
    with pytest.raises(RunError, match=r"cannot be read \(no such file or folder: .*walk\): name their place"):
        localize(scene, elsewhere)
    assert not (scene.path / FOLDER).exists()
    (tmp_path / "other").mkdir()
    cv2.imwrite(str(tmp_path / "other" / "a.png"), elsewhere)
    with pytest.raises(RunError, match=r"is not what .* was made of"):
        localize(scene, elsewhere, source=tmp_path / "other")
    queries = [picture(clip, HELD_BACK[0]), elsewhere]
    found, failed = localize(scene, queries, source=tmp_path / "moved")
    assert (found.status, failed.status) == ("found", "failed")
    metres, degrees = errors_of(found, clip, HELD_BACK[0], Sim3(1.0, np.eye(3), np.zeros(3)))
    assert metres < 0.02
    assert degrees < 0.5
    again, _ = localize(scene, queries)  # the features are kept, so the source is no longer needed
    np.testing.assert_array_equal(again.c2w, found.c2w)


def test_the_small_pictures_of_a_run_do_where_its_source_is_gone(
    clip: Clip, source: Path, elsewhere: RGBImage, tmp_path: Path
) -> None:
    walk = shutil.copytree(source, tmp_path / "walk")
    scene = dense_run(clip, walk, tmp_path / "out")
    shutil.rmtree(walk)
    found, failed = localize(scene, [picture(clip, HELD_BACK[0]), elsewhere], pictures="run")
    assert (found.status, failed.status) == ("found", "failed")
    assert errors_of(found, clip, HELD_BACK[0], Sim3(1.0, np.eye(3), np.zeros(3)))[0] < 0.05
    assert (scene.path / SMALL_FOLDER).is_dir()


def test_a_mirrored_picture_is_not_found(clip: Clip, source: Path, tmp_path: Path) -> None:
    scene = dense_run(clip, source, tmp_path / "out")
    shown = picture(clip, HELD_BACK[0])
    for answer in localize(scene, [shown[:, ::-1].copy(), shown[::-1].copy()]):
        assert answer.status != "found"  # though the pattern of a wall agrees with a camera in some places
        assert np.isnan(answer.c2w).all()


def test_a_run_without_a_camera_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no camera of .* was found"):
        localize(write_run(tmp_path / "empty", []), np.zeros((32, 32, 3), np.uint8))


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"retrieved": 0}, "retrieved must be at least 1"),
        ({"threshold": float("nan")}, "threshold must be a finite number"),
        ({"camera": "mine"}, "one of auto, run, unknown"),
        ({"weights": "dust3r"}, "--matcher dust3r"),
        ({"seed": -1}, "seed must be at least 0"),
    ],
)
def test_impossible_settings_are_refused(settings: dict, why: str) -> None:
    with pytest.raises(ThreerError, match=why):
        LocalizeConfig(**settings)


def test_the_command_writes_answers_and_cameras(
    clip: Clip, classical: Scene, elsewhere: RGBImage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad, out = tmp_path / "good.png", tmp_path / "bad[red].png", tmp_path / "answers"
    cv2.imwrite(str(good), picture(clip, HELD_BACK[0])[..., ::-1])
    cv2.imwrite(str(bad), elsewhere[..., ::-1])
    run = str(classical.path)
    assert main(["localize", run, str(good), str(bad), "-o", str(out)]) == 0
    table = capsys.readouterr().out
    assert "good.png" in table
    assert "bad[red].png" in table
    assert "failed" in table
    told = json.loads((out / "localisation.json").read_text())
    assert [answer["status"] for answer in told["pictures"]] == ["found", "failed"]
    assert told["pictures"][1]["c2w"][0][0] is None
    cameras = read_cameras(out / "cameras.json")
    assert cameras.names == ("good.png", "bad[red].png")
    assert cameras.cameras.found.tolist() == [True, False]
    np.testing.assert_allclose(read_tum(out / "trajectory.tum").c2w[0], cameras.cameras.c2w[0], atol=1e-6)
    assert main(["localize", run, str(bad), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["pictures"][0]["status"] == "failed"
    assert main(["localize", run, str(good), "-o", run]) == 1
    assert "choose another folder" in capsys.readouterr().err
    assert main(["localize", run]) == 1
    assert "no picture given" in capsys.readouterr().err


def test_a_network_matches_where_features_do_not(
    clip: Clip, source: Path, elsewhere: RGBImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = dense_run(clip, source, tmp_path / "out")
    model = TruthfulPairs(clip)
    monkeypatch.setattr("threer.pipelines.localization.matchers.load_model", lambda *_, **__: model)
    monkeypatch.setattr("threer.pipelines.localization.matchers.family_of", lambda _: "dust3r")
    monkeypatch.setattr("threer.pipelines.localization.matchers.weights_fingerprint", lambda _: "0123456789abcdef")
    settings = LocalizeConfig(matcher="dust3r", retrieved=3)
    found, failed = localize(scene, [picture(clip, HELD_BACK[0]), elsewhere], settings)
    assert (found.status, failed.status) == ("found", "failed")
    assert errors_of(found, clip, HELD_BACK[0], Sim3(1.0, np.eye(3), np.zeros(3)))[0] < 0.02
    assert found.inliers > 1000
    assert len(found.frames) <= 3
    (kept,) = (scene.path / "tokens").iterdir()
    model.encoded = 0
    (again,) = localize(scene, [picture(clip, HELD_BACK[0])], settings)
    np.testing.assert_array_equal(again.c2w, found.c2w)
    assert model.encoded == 1 + 3  # the picture, and the frames it was matched with
    assert kept.suffix == ".npz"
