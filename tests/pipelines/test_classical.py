"""The classical baseline on rendered rooms: cameras and depth come back, and what cannot be solved is said."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

import threer
from threer.config import ClassicalConfig, ReconstructConfig
from threer.data.synthetic.clips import WALK, Clip, render_clip
from threer.errors import ReconstructionError, ThreerError
from threer.evaluation.depth import depth_errors
from threer.evaluation.trajectory import AteResult, ate
from threer.io.frames import RawFrame, to_frame
from threer.io.images import RGBImage
from threer.pipelines.classical.session import FOLDER, ClassicalSession, NoNetwork
from threer.types import Trajectory, Update

pytest.importorskip("pycolmap", reason="the classical baseline needs pycolmap: pip install 'threer[refine]'")

SIZE = (256, 192)
FRAMES = 10
CONFIG = ClassicalConfig(depth_size=96, depth_planes=32, depth_partners=4)
HARDLY_DENSE = ClassicalConfig(depth_size=96, depth_planes=8, depth_partners=2)
"""Where the depths are not looked at."""
STYLE = dataclasses.replace(WALK, antialias=False)


@pytest.fixture(autouse=True)
def no_preview(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("threer.pipelines.reconstruct.draw_preview", lambda scene: None)


def pictures(clip: Clip) -> list[RGBImage]:
    return [(f.permute(1, 2, 0) * 255).round().byte().numpy().copy() for f in clip.images]


def run(session: ClassicalSession, shown: Sequence[RGBImage]) -> list[Update]:
    spec = NoNetwork(session.config).input
    for i, picture in enumerate(shown):
        session.look(picture)
        assert session.push(to_frame(RawFrame(picture, i, i / 5, f"{i}.png"), spec)) == []
    return list(session.finish())


def error_of(updates: Sequence[Update], clip: Clip) -> AteResult:
    times = np.arange(len(updates)) / 5
    c2w = np.stack([u.c2w for u in updates if u.c2w is not None])
    return ate(Trajectory(times, c2w), Trajectory(times, clip.c2w[: len(updates)].double().numpy()))


def true_depth_at(update: Update, depth: torch.Tensor) -> npt.NDArray[np.float32]:
    """The true depth [h, w] at the pixels of an update's frame."""
    width, height = update.frame.size
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    x, y = np.rint(np.stack([u, v, np.ones_like(u)], axis=-1) @ update.frame.to_original.T).astype(int).T
    return depth.numpy()[y.T, x.T]


@pytest.fixture(scope="module")
def clip() -> Clip:
    return render_clip(9, FRAMES, SIZE, STYLE)


@pytest.fixture(scope="module")
def known(clip: Clip) -> tuple[ClassicalSession, list[Update]]:
    session = ClassicalSession(CONFIG, intrinsics=clip.K[0].double().numpy())
    return session, run(session, pictures(clip))


def test_cameras_and_depth_come_back(clip: Clip, known: tuple[ClassicalSession, list[Update]]) -> None:
    session, updates = known
    assert [u.kind for u in updates] == ["final"] * FRAMES
    found = error_of(updates, clip)
    assert found.share_of_path < 0.01
    turn = found.sim3.apply_to_cameras(np.stack([u.c2w for u in updates]))[:, :3, :3]
    angle = np.degrees(np.arccos(np.clip((np.einsum("nij,nij->n", turn, clip.c2w[:, :3, :3]) - 1) / 2, -1, 1)))
    assert angle.max() < 1
    for update, depth in zip(updates, clip.depth, strict=True):
        assert update.points is not None
        assert update.local is not None
        np.testing.assert_allclose(update.K, clip.K[0], rtol=1e-6)
        truth = true_depth_at(update, depth)
        conf = update.local.conf.numpy()
        sure = conf >= np.quantile(conf, 0.3)  # at the ends of the walk a quarter is seen by one picture
        result = depth_errors(found.sim3.scale * update.local.depth.numpy(), truth, sure, align="none")
        assert result.abs_rel < 0.06
        assert result.delta_1_25 > 0.95
        world = update.local.xyz.double().numpy() @ update.c2w[:3, :3].T + update.c2w[:3, 3]
        np.testing.assert_allclose(update.points.xyz, world, atol=1e-4)
    np.testing.assert_allclose(updates[0].c2w, np.eye(4), atol=1e-9)  # the first camera is the world's
    middle = np.median([float(u.local.depth.median()) for u in updates if u.local is not None])
    assert 0.3 < middle < 3  # in units of the median depth of the sparse points
    assert session.report["placed"] == FRAMES
    assert "classical" in session.report["method_name"]
    assert list(session.finish()) == []
    with pytest.raises(ReconstructionError, match="has ended"):
        session.push(updates[0].frame)


def test_an_unknown_focal_length_is_found_and_reported_in_our_pixels(clip: Clip) -> None:
    session = ClassicalSession(HARDLY_DENSE)
    updates = run(session, pictures(clip))
    assert error_of(updates, clip).share_of_path < 0.02
    K = updates[0].K
    assert K[0, 0] == pytest.approx(float(clip.K[0, 0, 0]), rel=0.05)
    np.testing.assert_allclose(K[:2, 2], [(SIZE[0] - 1) / 2, (SIZE[1] - 1) / 2])


def test_two_places_give_the_larger_one_and_say_so(clip: Clip) -> None:
    other = render_clip(4, 5, SIZE, STYLE)
    session = ClassicalSession(HARDLY_DENSE, intrinsics=clip.K[0].double().numpy(), in_order=False)
    updates = run(session, pictures(other) + pictures(clip)[:7])
    assert [u.kind for u in updates] == ["failed"] * 5 + ["final"] * 7
    for update in updates[:5]:
        assert np.isnan(update.c2w).all()
        assert update.points is None
        assert "outside the largest model" in update.message
    assert error_of(updates[5:], clip).share_of_path < 0.02
    assert session.report["models"][0] == 7
    assert any("5 of 12 frames are outside" in note for note in session.report["notes"])


def test_a_camera_that_only_turns_is_refused(clip: Clip) -> None:
    wide = render_clip(9, 2, (512, 384), dataclasses.replace(STYLE, fov=(90.0, 90.0)))
    K, wide_K = clip.K[0].double().numpy(), wide.K[0].double().numpy()
    turned = []
    for i in range(5):
        a = np.radians(4 * (i - 2))
        R = cv2.Rodrigues(np.array([0.2 * a, a, 0.1 * a]))[0]
        turned.append(cv2.warpPerspective(pictures(wide)[0], K @ R @ np.linalg.inv(wide_K), SIZE))
    with pytest.raises(ReconstructionError, match=r"no camera path .* a mere rotation"):
        run(ClassicalSession(CONFIG, intrinsics=K), turned)


@pytest.mark.parametrize(
    ("shown", "why"),
    [
        ([np.full((192, 256, 3), 90 + i, np.uint8) for i in range(4)], "0 features each, so they lack texture"),
        (
            list(np.random.default_rng(0).integers(0, 255, (4, 192, 256, 3), dtype=np.uint8)),
            "no two pictures show the same things",
        ),
        ([np.full((96, 128, 3), 90, np.uint8)] * 4, "needs 3 different pictures, got 1 in 4 frames"),
        ([], "needs 3 different pictures, got 0 in 0 frames"),
    ],
)
def test_what_shows_nothing_fails_with_the_reason(shown: list[RGBImage], why: str) -> None:
    with pytest.raises(ReconstructionError, match=why):
        run(ClassicalSession(CONFIG), shown)


def test_a_run_on_disk_keeps_features_for_the_next(
    clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "walk"
    source.mkdir()
    for i, picture in enumerate([*pictures(clip)[:6], np.full((120, 200, 3), 80, np.uint8)]):
        cv2.imwrite(str(source / f"{i:03d}.png"), picture[..., ::-1])
    config = ReconstructConfig(method="sfm", classical=HARDLY_DENSE, overwrite=True)
    told, stages = [], []
    scene = threer.reconstruct(
        source, tmp_path / "run", config, on_start=told.append, on_progress=lambda *what: stages.append(what)
    )
    assert [done for what, done, _ in stages if what == "features"] == [1, 2, 3, 4, 5, 6, 7]
    assert ("matches", 21, 21) in stages  # all pairs of 7
    assert stages[-1][0] == "mapping, attempt"
    assert (told[0].method, told[0].checkpoint.name, told[0].advice) == ("sfm", "none", None)
    assert "classical" in told[0].why
    assert not scene.metric
    assert scene.cameras.found.tolist() == [True] * 6 + [False]
    assert scene.report["counts"]["failed"] == 1
    assert any(note.startswith("classical: 1 of 7") for note in scene.report["notes"])
    cameras, cloud = scene.cameras.c2w, scene.cloud().xyz
    assert len(cloud) > 10_000
    assert (tmp_path / "run" / FOLDER / "sparse" / "cameras.bin").is_file()
    monkeypatch.setattr(
        "threer.pipelines.classical.features.FeatureStore._extract",
        lambda *_: pytest.fail("features were looked for again"),
    )
    again = threer.reconstruct(source, tmp_path / "run", config)
    np.testing.assert_array_equal(again.cameras.c2w, cameras)  # the same seed, the same result
    np.testing.assert_array_equal(again.cloud().xyz, cloud)


def test_without_pycolmap_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((32, 32, 3), np.uint8))
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    with pytest.raises(ThreerError, match=r"pip install 'threer\[refine\]'"):
        threer.reconstruct(tmp_path, tmp_path / "run", ReconstructConfig(method="sfm"))
    with pytest.raises(ThreerError, match="has no network"):
        threer.reconstruct(tmp_path, tmp_path / "run", ReconstructConfig(method="sfm", weights="slam3r-mini"))


def test_packaged_weights_come_with_the_advice(clip: Clip, tmp_path: Path) -> None:
    from threer.io.sources import open_source
    from threer.pipelines.methods import advice

    for i, picture in enumerate(pictures(clip)[:3]):
        cv2.imwrite(str(tmp_path / f"{i}.png"), picture)
    source = open_source(tmp_path)
    assert "--method sfm" in (advice("slam3r", source, "slam3r-mini") or "")
    assert advice("slam3r", source, "slam3r") is None
    assert advice("sfm", source, "none") is None
    assert advice("slam3r", open_source(tmp_path / "0.png"), "slam3r-mini") is None
