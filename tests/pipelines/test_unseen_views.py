"""Views asked of what CUT3R remembers: what is asked, what comes back, and that asking changes nothing."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import threer
from threer.config import RecurrentConfig
from threer.errors import CheckpointError, RunError, ThreerError
from threer.geometry.raymap import ray_map
from threer.io.runs import RunWriter, Scene
from threer.io.runs.placing import Placement, place
from threer.models import load_model
from threer.models.checkpoints import save_checkpoint
from threer.models.cut3r import CUT3R
from threer.models.dust3r import DUSt3R, DUSt3RConfig
from threer.pipelines.query import RememberedScene, query_state
from threer.pipelines.recurrent import RecurrentSession
from threer.pipelines.state_file import SegmentState, load_state, save_state
from threer.types import Checkpoint, Sim3, View
from tiny_cut3r import noise_frame, tiny_cut3r, winding_path

SIZE = (48, 32)
K = np.array([[40.0, 0, 23.5], [0, 40, 15.5], [0, 0, 1]])
COUNT = 5


@pytest.fixture(scope="module")
def cut3r() -> CUT3R:
    return tiny_cut3r()


@pytest.fixture(scope="module")
def weights(cut3r: CUT3R, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    save_checkpoint(cut3r, folder, Checkpoint("tiny", "cut3r", (), "Apache-2.0", metric=True))
    return folder


@pytest.fixture
def seen(cut3r: CUT3R) -> SegmentState:
    session = RecurrentSession(cut3r, RecurrentConfig(reset_every=3))
    for i in range(COUNT):
        session.push(noise_frame(i, SIZE))
    session.finish()
    return session.segment


@pytest.fixture
def scene(weights: Path, tmp_path: Path) -> Scene:
    """Made with the weights as they were stored, in half precision, and a known lens."""
    model = load_model(weights)
    assert isinstance(model, CUT3R)
    session = RecurrentSession(model, RecurrentConfig(reset_every=3), intrinsics=K)
    out = tmp_path / "out"
    writer = RunWriter(out, {"method": "cut3r", "weights": str(weights)}, metric=True)
    for i in range(COUNT):
        for update in session.push(noise_frame(i, SIZE)):
            writer.on(update)
    session.finish()
    session.save_state(out)
    return writer.finish("complete", {})


def copy_of(segment: SegmentState) -> tuple[torch.Tensor, torch.Tensor]:
    return segment.state.tokens.clone(), segment.state.memory.clone()


def test_an_observed_camera_gives_a_whole_view_and_leaves_the_state(cut3r: CUT3R, seen: SegmentState) -> None:
    before = copy_of(seen)
    view = query_state(cut3r, seen, seen.anchor, K, SIZE)
    assert view.points.shape == (32, 48, 3)
    assert view.points.dtype == np.float32
    assert view.conf.shape == view.depth.shape == (32, 48)
    assert view.rgb.shape == (32, 48, 3)
    assert view.rgb.dtype == np.uint8
    assert np.isfinite(view.points).all()
    assert (view.conf > 1).all()
    assert view.rgb.std() > 1
    assert torch.equal(seen.state.tokens, before[0])
    assert torch.equal(seen.state.memory, before[1])


def test_it_is_what_the_network_says_of_the_rays(cut3r: CUT3R, seen: SegmentState) -> None:
    seen = replace(seen, anchor=np.eye(4))
    c2w = winding_path(3)[2]
    rays = ray_map(c2w, torch.from_numpy(K), SIZE).float()[None]
    with torch.no_grad():
        said = cut3r.query(seen.state, View(ray_map=rays))
    view = query_state(cut3r, seen, c2w.numpy(), K, SIZE)
    np.testing.assert_allclose(view.conf, said.local.conf[0], rtol=1e-5)
    np.testing.assert_allclose(view.depth, said.local.xyz[0, ..., 2], rtol=1e-5)
    np.testing.assert_allclose(view.rgb, (said.rgb[0] + 1) * 127.5, atol=0.51)
    moved = said.local.xyz[0].double().numpy() @ c2w[:3, :3].T.numpy() + c2w[:3, 3].numpy()
    np.testing.assert_allclose(view.points, moved, atol=1e-4)


def test_cameras_are_seen_from_the_first_of_the_segment(cut3r: CUT3R, seen: SegmentState) -> None:
    first, c2w = winding_path(2).numpy()
    here = query_state(cut3r, replace(seen, anchor=np.eye(4)), c2w, K, SIZE)
    there = query_state(cut3r, replace(seen, anchor=first), first @ c2w, K, SIZE)
    np.testing.assert_allclose(there.depth, here.depth, rtol=1e-4)
    np.testing.assert_allclose(there.points, here.points @ first[:3, :3].T + first[:3, 3], atol=1e-3)


def test_another_camera_shows_something_else(cut3r: CUT3R, seen: SegmentState) -> None:
    here, there = (query_state(cut3r, seen, c2w, K, SIZE) for c2w in winding_path(2).numpy())
    assert not np.allclose(here.depth, there.depth, rtol=1e-3)


def test_a_state_comes_back_bit_for_bit(cut3r: CUT3R, seen: SegmentState, tmp_path: Path) -> None:
    save_state(tmp_path, seen, cut3r)
    back = load_state(tmp_path, cut3r)
    assert torch.equal(back.state.tokens, seen.state.tokens)
    assert torch.equal(back.state.memory, seen.state.memory)
    assert torch.equal(back.state.positions, seen.state.positions)
    assert torch.equal(back.state.initial_tokens, seen.state.initial_tokens)
    np.testing.assert_array_equal(back.anchor, seen.anchor)
    assert (back.begun, back.state.first) == (2, False)
    size = sum(t.nbytes for t in (seen.state.tokens, seen.state.memory))
    assert (tmp_path / "state.safetensors").stat().st_size < size + 1000
    views = [query_state(cut3r, segment, np.eye(4), K, SIZE) for segment in (seen, back)]
    np.testing.assert_array_equal(views[0].points, views[1].points)


def test_a_run_can_be_asked_later(scene: Scene) -> None:
    remembered = RememberedScene.open(scene)
    assert remembered.begun == 2
    lens = remembered.lens(4)
    assert lens.size == SIZE
    np.testing.assert_allclose(lens.K, K)
    view = remembered.query(scene.cameras.c2w[4], lens.K, lens.size)
    np.testing.assert_array_equal(threer.query(scene, scene.cameras.c2w[4], K, SIZE).points, view.points)
    assert np.isfinite(view.points).all()


def test_a_run_in_metres_is_asked_in_metres(scene: Scene) -> None:
    before = RememberedScene.open(scene).query(scene.cameras.c2w[4], K, SIZE)
    sim3 = Sim3(2.5, winding_path(3)[2, :3, :3].numpy(), np.array([1.0, -2.0, 3.0]))
    placed = place(scene.path, Placement(sim3, "a test"))
    after = RememberedScene.open(placed).query(placed.cameras.c2w[4], K, SIZE)
    np.testing.assert_allclose(after.rgb.astype(int), before.rgb, atol=1)
    np.testing.assert_allclose(after.points, sim3.apply(before.points), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(after.depth, 2.5 * before.depth, rtol=1e-3)


def test_a_flight_goes_along_what_is_remembered(scene: Scene) -> None:
    remembered = RememberedScene.open(scene)
    pictures = list(remembered.fly_through(5))
    assert [p.shape for p in pictures] == [(32, 48, 3)] * 5
    for picture, position in ((pictures[0], 2), (pictures[2], 3), (pictures[4], 4)):
        np.testing.assert_allclose(
            picture.astype(float), remembered.query(scene.cameras.c2w[position], K, SIZE).rgb, atol=1
        )
    remembered.begun = 99
    with pytest.raises(RunError, match="no camera to go along"):
        next(remembered.fly_through(5))


@pytest.mark.parametrize(
    ("c2w", "lens", "size", "words"),
    [
        (np.eye(3), K, SIZE, "a pose must be a finite 4×4"),
        (np.full((4, 4), np.nan), K, SIZE, "a pose must be a finite 4×4"),
        (np.diag([2.0, 2, 2, 1]), K, SIZE, "must be a rotation"),
        (np.diag([1.0, 1, -1, 1]), K, SIZE, "must be a rotation"),
        (np.diag([1.0, 1, 1, 2]), K, SIZE, "over 0 0 0 1"),
        (np.eye(4) + np.eye(4, k=3) * 1e30, K, SIZE, "from the first one is too far away"),
        (np.eye(4), K + np.eye(3, k=1), SIZE, "without skew"),
        (np.eye(4), K * 2, SIZE, "0 0 1"),
        (np.eye(4), K, (16_000, 16_000), "16000×16000 is too large"),
        (np.eye(4), np.zeros((3, 3)), SIZE, "positive focal lengths"),
        (np.eye(4), K, (50, 32), "multiples of 16, got 50×32"),
        (np.eye(4), K, (0, 32), "multiples of 16, got 0×32"),
    ],
)
def test_what_is_no_camera_is_refused(cut3r: CUT3R, seen: SegmentState, c2w, lens, size, words: str) -> None:
    with pytest.raises(ThreerError, match=re.escape(words)):
        query_state(cut3r, seen, c2w, lens, size)


def test_states_of_other_weights_are_refused(cut3r: CUT3R, seen: SegmentState, tmp_path: Path) -> None:
    save_state(tmp_path, seen, cut3r)
    with pytest.raises(CheckpointError, match=r"was made by the weights 'untrained', which .* are not"):
        load_state(tmp_path, tiny_cut3r(seed=4))


def test_wrong_state_files_are_told(cut3r: CUT3R, seen: SegmentState, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"holds no state\.safetensors"):
        load_state(tmp_path, cut3r)
    path = tmp_path / "state.safetensors"
    save_state(tmp_path, seen, cut3r)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RunError, match="is damaged or no state of CUT3R"):
        load_state(tmp_path, cut3r)
    save_file({"something": torch.zeros(3)}, path)
    with pytest.raises(RunError, match="not a state that this version"):
        load_state(tmp_path, cut3r)
    path.write_bytes(whole)
    tensors = load_file(path)
    del tensors["memory"]
    save_file(tensors, path, {"format": "1", "weights": "tiny", "fingerprint": "", "begun": "0"})
    with pytest.raises(RunError, match="is damaged"):
        load_state(tmp_path, cut3r)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("tokens", torch.zeros(1, 4, 16)),
        ("tokens", torch.zeros(1, 6, 16, dtype=torch.float16)),
        ("tokens", torch.full((1, 6, 16), torch.nan)),
        ("memory", torch.zeros(2, 3, 32)),
        ("anchor", torch.eye(3, dtype=torch.float64)),
        ("anchor", torch.zeros(4, 4, dtype=torch.float64)),
    ],
)
def test_states_of_a_wrong_form_are_told(
    cut3r: CUT3R, seen: SegmentState, tmp_path: Path, name: str, wrong: torch.Tensor
) -> None:
    save_state(tmp_path, seen, cut3r)
    path = tmp_path / "state.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file(load_file(path) | {name: wrong}, path, metadata)
    with pytest.raises(RunError, match=f"is damaged: its {name}"):
        load_state(tmp_path, cut3r)


def test_broken_weights_are_told(seen: SegmentState) -> None:
    model = tiny_cut3r()
    with torch.no_grad():
        next(iter(model.colour_head.parameters())).fill_(torch.nan)
    with pytest.raises(CheckpointError, match="not finite"):
        query_state(model, seen, np.eye(4), K, SIZE)


def test_runs_of_other_systems_cannot_be_asked(scene: Scene, tmp_path: Path) -> None:
    config = DUSt3RConfig(image_size=32, enc_dim=16, enc_depth=1, enc_heads=2, dec_dim=16, dec_depth=1, dec_heads=2)
    save_checkpoint(DUSt3R(config), tmp_path / "other", Checkpoint("other", "dust3r", (), "Apache-2.0"))
    with pytest.raises(CheckpointError, match="are not CUT3R's"):
        RememberedScene.open(scene, weights=tmp_path / "other")
    (scene.path / "state.safetensors").unlink()
    with pytest.raises(RunError, match="only runs of cut3r"):
        RememberedScene.open(scene)


def test_a_new_run_in_the_folder_forgets(scene: Scene) -> None:
    RunWriter(scene.path, {"method": "slam3r"}, overwrite=True).finish("complete", {})
    with pytest.raises(RunError, match="only runs of cut3r"):
        RememberedScene.open(Scene.open(scene.path))
