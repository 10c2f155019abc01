"""CUT3R on a stream: one answer for each frame at once, in constant memory, chained over resets."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch
from torch import Tensor

from threer.config import RecurrentConfig
from threer.errors import CheckpointError, ReconstructionError, ThreerError
from threer.geometry.transforms import apply, invert
from threer.models.cut3r import CUT3R
from threer.pipelines.recurrent import RecurrentSession
from threer.types import Frame, Update, View
from tiny_cut3r import FOCAL, Omniscient, noise_frame, numbered_frame, tiny_cut3r, winding_path

COUNT = 12


@pytest.fixture(scope="module")
def cut3r() -> CUT3R:
    return tiny_cut3r()


def run(session: RecurrentSession, frames: list[Frame]) -> list[Update]:
    updates = [update for frame in frames for update in session.push(frame)]
    return updates + session.finish()


def chained(truth: Tensor, config: RecurrentConfig) -> tuple[Omniscient, list[Update]]:
    model = Omniscient(truth)
    return model, run(RecurrentSession(model, config), [numbered_frame(i) for i in range(len(truth))])


def test_each_frame_is_answered_at_once_and_once(cut3r: CUT3R) -> None:
    session = RecurrentSession(cut3r)
    for i in range(6):
        (update,) = session.push(noise_frame(i))
        assert (update.kind, update.frame.index, update.version) == ("final", i, 0)
        assert update.points is not None
        assert update.points.xyz.shape == (32, 32, 3)
        assert (update.points.conf > 1).all()
        assert np.isfinite(update.c2w).all()
    assert session.finish() == []


def test_it_says_what_the_network_says(cut3r: CUT3R) -> None:
    frames = [noise_frame(i) for i in range(4)]
    sessions = {points: RecurrentSession(cut3r, RecurrentConfig(points=points)) for points in ("local", "world")}
    state = cut3r.start()
    for frame in frames:
        with torch.no_grad():
            state, said = cut3r.step(state, View(frame.image[None] * 2 - 1))
        assert said.local is not None
        assert said.c2w is not None
        (moved,), (direct,) = (session.push(frame) for session in sessions.values())
        assert torch.equal(direct.points.xyz, said.points.xyz[0])
        assert torch.equal(direct.points.conf, said.points.conf[0])
        assert torch.equal(moved.points.conf, said.local.conf[0])
        assert torch.allclose(moved.points.xyz, apply(said.c2w, said.local.xyz)[0], atol=1e-5)
        assert torch.equal(moved.local.xyz, said.local.xyz[0])
        np.testing.assert_array_equal(moved.c2w, said.c2w[0].numpy())


@pytest.mark.parametrize("poses", ["head", "alignment"])
@pytest.mark.parametrize("reset_every", [None, 2, 3, 5])
def test_poses_are_chained_over_resets(reset_every: int | None, poses: str) -> None:
    truth = winding_path(COUNT)
    model, updates = chained(truth, RecurrentConfig(reset_every=reset_every, poses=poses))
    assert [(u.kind, u.frame.index) for u in updates] == [("final", i) for i in range(COUNT)]
    in_first = (invert(truth[0]) @ truth).numpy()
    np.testing.assert_allclose(np.stack([u.c2w for u in updates]), in_first, atol=1e-5)
    for update in updates:
        number = update.frame.index
        want = apply(torch.from_numpy(in_first[number]), model.local(number))
        assert torch.allclose(update.points.xyz.double(), want, atol=1e-5)


def test_world_points_are_chained_too() -> None:
    truth = winding_path(COUNT)
    model, updates = chained(truth, RecurrentConfig(reset_every=4, points="world"))
    for update in updates:
        want = apply(invert(truth[0]) @ truth[update.frame.index], model.local(update.frame.index))
        assert torch.allclose(update.points.xyz.double()[1:], want[1:], atol=1e-4)


def test_a_segment_begins_with_the_last_frame_of_the_one_before() -> None:
    model, _ = chained(winding_path(6), RecurrentConfig(reset_every=3))
    # Three frames, then each time one that was there and two new ones; the first is told to be the first.
    assert model.seen == [
        (0, True),
        (1, False),
        (2, False),
        (2, True),
        (3, False),
        (4, False),
        (4, True),
        (5, False),
    ]


def test_segments_are_counted_and_the_current_one_is_known() -> None:
    truth = winding_path(6)
    session = RecurrentSession(Omniscient(truth), RecurrentConfig(reset_every=3))
    for i in range(6):
        session.push(numbered_frame(i))
    assert session.report == {"segments": 3}
    assert session.segment.begun == 4
    np.testing.assert_allclose(session.segment.anchor, (invert(truth[0]) @ truth[4]).numpy(), atol=1e-5)


def test_long_chains_stay_rigid() -> None:
    _, updates = chained(winding_path(400), RecurrentConfig(reset_every=2))
    R = updates[-1].c2w[:3, :3]
    np.testing.assert_allclose(R @ R.T, np.eye(3), atol=2e-7)


def test_a_frame_without_a_pose_fails_and_nothing_hangs_on_it() -> None:
    truth = winding_path(8)
    model = Omniscient(truth)
    model.flat = {2, 6}  # the last of the first segment, and one on the way
    session = RecurrentSession(model, RecurrentConfig(reset_every=3, poses="alignment"))
    updates = run(session, [numbered_frame(i) for i in range(8)])
    assert [u.frame.index for u in updates if u.kind == "failed"] == [2, 6]
    in_first = (invert(truth[0]) @ truth).numpy()
    for update in updates:
        if update.kind == "failed":
            assert np.isnan(update.c2w).all()
            assert not update.points.conf.any()
            assert "no pose" in update.message
        else:
            np.testing.assert_allclose(update.c2w, in_first[update.frame.index], atol=1e-5)
    assert (1, True) in model.seen, "the second segment begins with the latest frame that has a pose"


def test_alignment_keeps_the_scale_of_local_points() -> None:
    model = Omniscient(winding_path(1))
    model.stretch = 1.5
    (update,) = RecurrentSession(model, RecurrentConfig(poses="alignment")).push(numbered_frame(0))
    sure = model.local(0).flatten(0, 1)[1:].mean(dim=0).numpy()
    np.testing.assert_allclose(update.c2w[:3, :3], np.eye(3), atol=1e-6)
    np.testing.assert_allclose(update.c2w[:3, 3], 0.5 * sure, atol=1e-6)


def test_focal_length_comes_from_local_points_in_original_pixels() -> None:
    session = RecurrentSession(Omniscient(winding_path(2)))
    (update,) = session.push(numbered_frame(0, scale=10))
    np.testing.assert_allclose(update.K, [[90, 0, 39.5], [0, 90, 29.5], [0, 0, 1]], rtol=1e-4)
    assert FOCAL * 10 == 90


def test_known_intrinsics_are_given_back() -> None:
    K = np.array([[88.0, 0, 40], [0, 89, 30], [0, 0, 1]])
    session = RecurrentSession(Omniscient(winding_path(2)), intrinsics=K)
    (update,) = session.push(numbered_frame(0, scale=10))
    np.testing.assert_array_equal(update.K, K)


def test_frames_may_differ_in_size(cut3r: CUT3R) -> None:
    session = RecurrentSession(cut3r, RecurrentConfig(reset_every=2))
    sizes = [(32, 32), (48, 16), (16, 32), (48, 32)]
    updates = run(session, [noise_frame(i, size) for i, size in enumerate(sizes)])
    assert [tuple(u.points.conf.shape[::-1]) for u in updates] == sizes


def test_second_pass_replaces_what_was_provisional(cut3r: CUT3R) -> None:
    frames = [noise_frame(i) for i in range(5)]
    session = RecurrentSession(cut3r, RecurrentConfig(second_pass=True))
    with pytest.raises(ReconstructionError, match="session has ended"):
        session.review(frames[0])
    first = run(session, frames)
    assert {u.kind for u in first} == {"provisional"}
    state = session.segment.state
    before = state.tokens.clone(), state.memory.clone()
    second = [update for frame in frames for update in session.review(frame)]
    assert [(u.kind, u.frame.index, u.version) for u in second] == [("final", i, 1) for i in range(5)]
    assert torch.equal(session.segment.state.tokens, before[0])
    assert torch.equal(session.segment.state.memory, before[1])
    with torch.no_grad():
        _, want = cut3r.step(state, View(frames[1].image[None] * 2 - 1), update=False)
    assert torch.equal(second[1].local.xyz, want.local.xyz[0])
    assert not torch.allclose(second[1].local.xyz, first[1].local.xyz, atol=1e-4), "all frames were seen by then"
    plain = run(RecurrentSession(cut3r), frames)
    assert all(torch.equal(a.points.xyz, b.points.xyz) for a, b in zip(first, plain, strict=True))


def test_no_review_without_asking_for_it(cut3r: CUT3R) -> None:
    session = RecurrentSession(cut3r)
    run(session, [noise_frame(0)])
    with pytest.raises(ReconstructionError, match="second_pass is set"):
        session.review(noise_frame(0))


@pytest.mark.parametrize("reset_every", [None, 64])
def test_memory_is_the_same_after_900_frames(reset_every: int | None) -> None:
    truth = winding_path(2)
    session = RecurrentSession(Omniscient(truth[[0, 1] * 500]), RecurrentConfig(reset_every=reset_every))
    counted, watched = {}, []
    for i in range(900):
        frame = numbered_frame(i % 1000)
        (update,) = session.push(frame)
        if i == 700:
            watched = [weakref.ref(frame.image), weakref.ref(update), weakref.ref(update.points.xyz)]
        del frame, update
        if i in (600, 899):  # by 600 the running median has all its values
            gc.collect()
            counted[i] = tensors_alive(session)
    assert counted[600] == counted[899]
    assert all(reference() is None for reference in watched)


def test_the_network_keeps_nothing_else_alive(cut3r: CUT3R) -> None:
    session = RecurrentSession(cut3r, RecurrentConfig(reset_every=8))
    counted = []
    for i in range(60):
        session.push(noise_frame(i, (16, 16)))
        if i in (20, 59):
            gc.collect()
            counted.append(sum(issubclass(type(thing), Tensor) for thing in gc.get_objects()))
    assert counted[0] == counted[1]


def tensors_alive(session: RecurrentSession) -> tuple[int, int]:
    """Tensors in this process, and all objects that can be reached from the session."""
    reached: set[int] = set()
    waiting: list[object] = [vars(session)]
    while waiting:
        thing = waiting.pop()
        if id(thing) in reached or isinstance(thing, type | torch.nn.Module) or callable(thing):
            continue
        reached.add(id(thing))
        waiting += gc.get_referents(thing)
    return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects()), len(reached)


@pytest.mark.parametrize("broken", ["local_head", "world_head", "pose_head"])
def test_broken_weights_are_told_with_the_frame(broken: str) -> None:
    model = tiny_cut3r()
    session = RecurrentSession(model)
    session.push(noise_frame(0))
    with torch.no_grad():
        next(iter(getattr(model, broken).parameters())).fill_(torch.inf)
    with pytest.raises(CheckpointError, match=r"not finite for frame 1 \(1\.png\)"):
        session.push(noise_frame(1))


def test_wrong_use_is_told(cut3r: CUT3R) -> None:
    session = RecurrentSession(cut3r)
    with pytest.raises(ReconstructionError, match="nothing is remembered"):
        _ = session.segment
    with pytest.raises(ReconstructionError, match="no frame"):
        session.finish()
    run(session, [noise_frame(0)])
    with pytest.raises(ReconstructionError, match="has ended"):
        session.push(noise_frame(1))
    assert session.finish() == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"reset_every": 1}, "reset_every must be None or at least 2"),
        ({"reset_every": 64, "second_pass": True}, "second_pass needs one state"),
        ({"poses": "pnp"}, "poses must be head or alignment, got 'pnp'"),
        ({"points": "self"}, "points must be local or world"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ThreerError, match=words):
        RecurrentConfig(**settings)
