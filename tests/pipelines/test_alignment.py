"""Global alignment: a known scene comes back exactly, and what cannot come back is said."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from pipelines.alignment_world import World, world
from threer.config import AlignmentConfig
from threer.errors import ReconstructionError, ThreerError
from threer.geometry.procrustes import align_cameras, align_points
from threer.pipelines.alignment import pairs as graphs
from threer.pipelines.alignment.align import Alignment, align
from threer.pipelines.alignment.cleaning import without_floaters
from threer.pipelines.alignment.optimise import optimise
from threer.pipelines.alignment.predictions import Pairs
from threer.pipelines.alignment.published import learning_rate, optimise_published
from threer.pipelines.alignment.scene import Known, alignment_loss
from threer.pipelines.alignment.spanning_tree import grow_scene, spanning_tree
from threer.types import Pointmap

FEWER = AlignmentConfig(alignment_pixels=250)


def errors(found: Alignment, truth: World) -> tuple[float, float, float]:
    """Worst camera position over the scene's size, worst focal length, mean distance of points over the size."""
    c2w = truth.c2w[list(found.photos)]
    move = align_cameras(found.scene.c2w.numpy(), c2w)
    assert move is not None
    moved = move.apply_to_cameras(found.scene.c2w.numpy())
    position = np.linalg.norm(moved[:, :3, 3] - c2w[:, :3, 3], axis=1).max() / truth.size
    focal = np.abs(found.scene.focals.numpy() / truth.focals[list(found.photos)] - 1).max()
    points = np.concatenate([found.scene.points(k).reshape(-1, 3).numpy() for k in range(len(found.photos))])
    wanted = np.concatenate([truth.points(i).reshape(-1, 3).numpy() for i in found.photos])
    move = align_points(points, wanted)
    assert move is not None
    point = np.linalg.norm(move.apply(points) - wanted, axis=1).mean()
    return position, focal, point / truth.size


def middle(pairs: Pairs) -> torch.Tensor:
    return torch.tensor([[(w - 1) / 2, (h - 1) / 2] for h, w in pairs.sizes], dtype=torch.float64)


@pytest.mark.parametrize("sizes", [[(24, 36)], [(24, 36), (36, 24), (20, 20)]])
@pytest.mark.parametrize("graph", ["complete", "chain", "star, one order"])
def test_exact_pairs_give_the_exact_scene(graph: str, sizes: list[tuple[int, int]]) -> None:
    truth = world(5, sizes, seed=len(sizes))
    chosen = {
        "complete": graphs.symmetrized(graphs.complete(5)),
        "chain": graphs.symmetrized(graphs.sliding_window(5, 1, cyclic=False)),
        "star, one order": graphs.one_reference(5, 2),
    }[graph]
    pairs = truth.pairs(chosen)
    if graph == "star, one order":  # no pair begins with four of the five: their cameras are searched for
        known = Known.nothing(5)
        known.focals[:] = truth.focals
        found = align(pairs, FEWER, known=known)
    else:
        found = align(pairs, FEWER)
    assert found.problems == {}
    assert found.doubts == []
    assert max(errors(found, truth)) < 1e-4
    np.testing.assert_allclose(found.scene.c2w[0], np.eye(4), atol=1e-9)
    np.testing.assert_allclose(float(found.scene.scales.log().mean()), 0, atol=1e-9)


def test_a_disturbed_start_comes_back() -> None:
    truth = world(4, seed=3)
    pairs = truth.pairs(graphs.symmetrized(graphs.complete(4)))
    known = Known.nothing(4)
    start = grow_scene(pairs, known, middle(pairs))
    shaken = start.c2w.clone()
    shaken[:, :3, 3] += 0.05 * torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    start = dataclasses.replace(start, c2w=shaken, focals=start.focals * 1.15)
    assert alignment_loss(start, pairs) > 0.02
    final, how = optimise(start, pairs, known)
    assert how.converged
    assert alignment_loss(final, pairs) < 1e-5
    np.testing.assert_allclose(final.focals, truth.focals, rtol=1e-4)


def test_noise_and_outliers_are_averaged_out() -> None:
    truth = world(6, seed=1)
    pairs = truth.pairs(graphs.symmetrized(graphs.complete(6)), noise=0.03, outliers=0.05, seed=2)
    found = align(pairs, FEWER)
    position, focal, point = errors(found, truth)
    assert position < 0.02
    assert focal < 0.03
    assert point < 0.03
    # One pair alone is worse: this is not the start coming through.
    start = grow_scene(pairs, Known.nothing(6), middle(pairs))
    assert alignment_loss(found.scene, pairs) < 0.9 * alignment_loss(start.resized(2.0, torch.zeros(3)), pairs)


def test_better_than_the_published_schedule_and_sooner() -> None:
    truth = world(3, [(40, 56)], seed=5)
    pairs = truth.pairs(graphs.symmetrized(graphs.complete(3)), noise=0.03, outliers=0.05, seed=6)
    known = Known.nothing(3)
    start = grow_scene(pairs, known, middle(pairs))
    begun = time.process_time()
    own, how = optimise(start, pairs, known)
    spent = time.process_time() - begun
    assert how.converged
    assert all(b <= a for a, b in zip(how.losses, how.losses[1:], strict=False)), "no step makes it worse"
    begun = time.process_time()
    published, course = optimise_published(start, pairs, known, iterations=100)
    assert alignment_loss(own, pairs) < alignment_loss(published, pairs)
    assert course.losses[-1] < course.losses[0]
    assert (
        spent < time.process_time() - begun
    )  # a third of the schedule, on images of a twentieth of the usual size


def test_parity_gives_the_original_result() -> None:
    truth = world(4, seed=7)
    pairs = truth.pairs(graphs.symmetrized(graphs.complete(4)), noise=0.02, seed=8)
    config = AlignmentConfig.parity(alignment_steps=30)
    found = align(pairs, config)
    centres = torch.tensor([[18.0, 12.0]] * 4, dtype=torch.float64)  # half a pixel off, as published
    start = grow_scene(pairs, Known.nothing(4), centres, published=True)
    final, _ = optimise_published(start, pairs, Known.nothing(4), iterations=30)
    torch.testing.assert_close(found.scene.c2w, final.c2w)
    torch.testing.assert_close(found.scene.depth, final.depth)
    assert found.report["loss"] < found.report["start_loss"]


def test_the_published_rate_falls_to_its_end() -> None:
    assert learning_rate(0, 0.01, "cosine") == learning_rate(0, 0.01, "linear") == 0.01
    assert learning_rate(1, 0.01, "linear") == pytest.approx(1e-6)
    assert learning_rate(0.5, 0.01, "linear") == pytest.approx(0.0050005)
    assert learning_rate(0.25, 0.01, "cosine") > learning_rate(0.25, 0.01, "linear")


@pytest.mark.parametrize("published", [False, True])
def test_known_cameras_are_honoured_photo_by_photo(published: bool) -> None:
    truth = world(5, seed=9)
    pairs = truth.pairs(graphs.symmetrized(graphs.complete(5)), noise=0.005, seed=1)
    known = Known.nothing(5)
    known.c2w[[1, 3]] = truth.c2w[[1, 3]]
    known.focals[2] = 1.02 * truth.focals[2]
    known.principal_points[4] = [18.0, 11.0]
    config = AlignmentConfig.parity(alignment_steps=60) if published else FEWER
    found = align(pairs, dataclasses.replace(config, find_principal_points=True), known=known)
    np.testing.assert_allclose(found.scene.c2w[[1, 3]], truth.c2w[[1, 3]], atol=1e-6)
    assert float(found.scene.focals[2]) == pytest.approx(known.focals[2], rel=1e-6)
    np.testing.assert_allclose(found.scene.principal_points[4], [18.0, 11.0], rtol=1e-6)
    assert not np.allclose(found.scene.principal_points[0], [17.5, 11.5], atol=1e-3)
    # Two known cameras say where the others are, in their own unit.
    apart = np.linalg.norm(found.scene.c2w[[0, 4], :3, 3].numpy() - truth.c2w[[0, 4], :3, 3], axis=1)
    assert apart.max() < (0.15 if published else 0.05)


def test_all_cameras_known_and_one_camera_known() -> None:
    truth = world(4, seed=10)
    pairs = truth.pairs(graphs.symmetrized(graphs.complete(4)))
    known = Known(truth.c2w, truth.focals, np.full((4, 2), np.nan), np.ones(4))
    found = align(pairs, FEWER, known=known)
    np.testing.assert_array_equal(found.scene.c2w, truth.c2w)
    for i in range(4):
        assert (found.scene.points(i) - truth.points(i)).abs().max() < 1e-3
    alone = Known.nothing(4)
    alone.c2w[2] = truth.c2w[2]
    found = align(pairs, FEWER, known=alone)
    np.testing.assert_allclose(found.scene.c2w[2], truth.c2w[2], atol=1e-9)
    assert max(errors(found, truth)) < 1e-4


def test_pixels_that_are_not_square() -> None:
    truth = world(4, seed=11)
    pairs = truth.pairs(graphs.symmetrized(graphs.complete(4)))
    squeezed = [Pointmap(p.xyz * torch.tensor([1.0, 1 / 1.25, 1.0]), p.conf) for p in pairs.own]  # fy = 1.25 fx
    pairs = Pairs(pairs.edges, squeezed, pairs.other, pairs.sizes)
    known = Known.nothing(4)
    known.focals[:], known.aspects[:] = truth.focals, 1.25
    found = align(pairs.subset([0, 1]), FEWER, known=known.subset([0, 1]))
    assert float(found.scene.K(0)[1, 1]) == pytest.approx(1.25 * truth.focals[0])
    local = found.scene.in_camera(0, found.scene.points(0))
    own = pairs.own[int(np.flatnonzero(pairs.edges[:, 0] == 0)[0])].xyz.double()
    shape = local / local[..., 2:]
    np.testing.assert_allclose(shape, own / own[..., 2:], atol=1e-3)


def test_one_focal_length_for_all() -> None:
    truth = world(4, seed=12)
    truth = dataclasses.replace(truth, focals=np.full(4, 44.0))
    found = align(
        truth.pairs(graphs.symmetrized(graphs.complete(4)), noise=0.02),
        dataclasses.replace(FEWER, shared_focal=True),
    )
    assert len(set(found.scene.focals.tolist())) == 1


def test_parts_that_never_meet() -> None:
    truth = world(5, seed=13)
    pairs = truth.pairs(graphs.symmetrized([(0, 1), (1, 2), (0, 2), (3, 4)]))
    found = align(pairs, FEWER, names=list("abcde"))
    assert list(found.photos) == [0, 1, 2]
    assert set(found.problems) == {3, 4}
    assert found.problems[3] == "no sure pair joins it to the 3 photos of the scene (it goes with d, e only)"
    assert max(errors(found, truth)) < 1e-4


def masked(pairs: Pairs, photo: int, conf: float) -> Pairs:
    def faded(role: int, maps: list[Pointmap]) -> list[Pointmap]:
        hit = pairs.edges[:, role] == photo
        return [Pointmap(p.xyz, torch.full_like(p.conf, conf)) if h else p for p, h in zip(maps, hit, strict=True)]

    return Pairs(pairs.edges, faded(0, list(pairs.own)), faded(1, list(pairs.other)), pairs.sizes)


@pytest.mark.parametrize("conf", [0.0, 1.0, 1.02])
def test_a_photo_without_sure_points_has_no_place(conf: float) -> None:
    truth = world(5, seed=14)
    found = align(masked(truth.pairs(graphs.symmetrized(graphs.complete(5))), 3, conf), FEWER)
    assert list(found.photos) == [0, 1, 2, 4]
    assert list(found.problems) == [3]
    assert max(errors(found, truth)) < 1e-4


def test_nothing_to_go_by_is_an_error() -> None:
    pairs = world(3, seed=15).pairs(graphs.symmetrized(graphs.complete(3)))
    blank = [Pointmap(p.xyz, torch.ones_like(p.conf)) for p in pairs.own]
    with pytest.raises(ReconstructionError, match="no two of the photos fit together"):
        align(Pairs(pairs.edges, blank, blank, pairs.sizes))


def test_photos_from_one_place_are_doubted() -> None:
    found = align(world(4, spread=0.0, seed=16).pairs(graphs.symmetrized(graphs.complete(4))), FEWER)
    assert "all 4 photos were taken from one place" in found.doubts[0]
    truth = world(4, seed=17)
    truth.c2w[2] = truth.c2w[0]
    found = align(truth.pairs(graphs.symmetrized(graphs.complete(4))), FEWER, names=list("abcd"))
    assert found.doubts == ["a and c were taken from one place, or are the same"]


def test_a_flat_scene_is_no_problem() -> None:
    truth = world(4, seed=18)
    flat = []
    for i, own in enumerate(truth.own):  # where the rays meet the plane z = 4 of the world
        pose = torch.from_numpy(truth.c2w[i])
        along = own / own[..., 2:]
        flat.append(along * ((4 - pose[2, 3]) / (along @ pose[2, :3]))[..., None])
    truth = dataclasses.replace(truth, own=flat)
    assert max(errors(align(truth.pairs(graphs.symmetrized(graphs.complete(4))), FEWER), truth)) < 1e-3


def test_wrong_intrinsics_are_named() -> None:
    truth = world(4, seed=19)
    known = Known.nothing(4)
    known.focals[:] = 4 * truth.focals
    found = align(truth.pairs(graphs.symmetrized(graphs.complete(4))), FEWER, known=known)
    assert set(found.problems) == {0, 1, 2, 3}
    assert "the intrinsics given do not fit" in found.problems[0]


def test_scrambled_points_find_no_camera() -> None:
    truth = world(4, seed=20)
    pairs = truth.pairs(graphs.symmetrized(graphs.complete(4)))
    generator = torch.Generator().manual_seed(0)
    for maps, role in ((pairs.own, 0), (pairs.other, 1)):
        for e in np.flatnonzero(pairs.edges[:, role] == 1):
            order = torch.randperm(maps[e].conf.numel(), generator=generator)
            maps[e].xyz[:] = maps[e].xyz.reshape(-1, 3)[order].reshape(maps[e].xyz.shape)
    found = align(pairs, FEWER)
    assert "agree with any camera" in found.problems[1]


def foreign(pairs: Pairs, photo: int) -> Pairs:
    """The network is as sure as ever of a photo of somewhere else, and puts it elsewhere in each pair."""
    generator = np.random.default_rng(5)
    other = list(pairs.other)
    for e in np.flatnonzero((pairs.edges == photo).any(axis=1)):
        R = torch.from_numpy(Rotation.from_rotvec(generator.uniform(-0.6, 0.6, 3)).as_matrix()).float()
        shift = torch.from_numpy(generator.uniform(-2, 2, 3)).float()
        other[e] = Pointmap(other[e].xyz @ R.T + shift, other[e].conf)
    return Pairs(pairs.edges, pairs.own, other, pairs.sizes)


def test_a_foreign_photo_does_not_bend_the_others() -> None:
    truth = world(8, seed=1)
    pairs = truth.pairs(graphs.symmetrized(graphs.complete(8)), noise=0.03, outliers=0.05, seed=2)
    found = align(foreign(pairs, 7), FEWER)
    assert list(found.photos) == list(range(7))
    assert "agree with any camera, and the others were aligned without it" in found.problems[7]
    alone = align(pairs.subset(range(7)), FEWER)
    torch.testing.assert_close(found.scene.c2w, alone.scene.c2w)
    assert errors(found, truth)[0] < 0.015  # with it: 0.026


def test_a_foreign_photo_that_alone_joins_others_stays_without_a_camera() -> None:
    truth = world(6, seed=1)
    chain = truth.pairs(graphs.symmetrized(graphs.sliding_window(6, 1, cyclic=False)))
    found = align(foreign(chain, 3), FEWER)
    assert "any camera" in found.problems[3]
    assert list(found.photos) == list(range(6))


def altered(pairs: Pairs, photo: int, change: Callable[[Pointmap], Pointmap]) -> Pairs:
    edges = pairs.edges.tolist()
    own = [change(p) if i == photo else p for p, (i, _) in zip(pairs.own, edges, strict=True)]
    other = [change(p) if j == photo else p for p, (_, j) in zip(pairs.other, edges, strict=True)]
    return dataclasses.replace(pairs, own=own, other=other)


@pytest.mark.parametrize("masked", [True, False])
def test_points_that_are_no_numbers_count_nothing(masked: bool) -> None:
    def blank(points: Pointmap) -> Pointmap:
        xyz, conf = points.xyz.clone(), points.conf.clone()
        xyz[:6] = torch.nan
        if masked:
            conf[:6] = 0
        return Pointmap(xyz, conf)

    truth = world(4, seed=1)
    pairs = truth.pairs(graphs.symmetrized(graphs.complete(4)), noise=0.01)
    found = align(altered(pairs, 1, blank), FEWER)
    assert not found.problems
    assert found.report["loss"] < found.report["start_loss"] < 0.1
    assert not found.conf[1][:6].any()
    turns = found.scene.c2w[:, :3, :3].numpy()
    relative = np.einsum("ji,njk->nik", truth.c2w[0, :3, :3], truth.c2w[:, :3, :3])
    assert np.abs(turns - relative).max() < 5e-3


def test_a_photo_whose_points_lead_to_no_camera_does_not_stop_the_others() -> None:
    truth = world(4, seed=1)
    pairs = truth.pairs(graphs.symmetrized(graphs.complete(4)))
    found = align(altered(pairs, 2, lambda p: Pointmap(torch.zeros_like(p.xyz), p.conf)), FEWER)
    assert list(found.photos) == [0, 1, 3]
    assert found.problems == {2: "its points agree with no camera"}
    assert np.isfinite(found.scene.c2w.numpy()).all()
    assert found.report["loss"] < 1e-3
    nothing = dataclasses.replace(pairs, own=[Pointmap(torch.zeros_like(p.xyz), p.conf) for p in pairs.own])
    with pytest.raises(ReconstructionError, match=r"no two of the photos fit|in one spot"):
        align(nothing)


def test_what_is_behind_its_own_camera_poisons_nothing() -> None:
    truth = world(4, seed=1)
    pairs = truth.pairs(graphs.symmetrized(graphs.complete(4)), noise=0.01)
    found = align(altered(pairs, 2, lambda p: Pointmap(-p.xyz, p.conf)), FEWER)
    assert 2 in found.problems
    assert np.isfinite(found.report["loss"])
    assert torch.isfinite(found.scene.c2w).all()
    assert torch.isfinite(found.scene.focals).all()


def test_steps_through_a_singular_system_are_damped() -> None:
    truth = world(4, seed=1)
    pairs = truth.pairs(graphs.symmetrized(graphs.complete(4)), noise=0.01)
    found = align(altered(pairs, 2, lambda p: Pointmap(1e12 * p.xyz, p.conf)))
    assert torch.isfinite(found.scene.c2w).all()


def test_photos_can_come_in_any_order() -> None:
    truth = world(4, seed=21)
    graph = graphs.symmetrized(graphs.complete(4))
    straight = align(truth.pairs(graph, noise=0.02), FEWER)
    pairs = truth.pairs(graph, noise=0.02)
    order = [2, 0, 3, 1]
    turned = align(pairs.subset(order), FEWER)
    move = align_cameras(turned.scene.c2w.numpy(), straight.scene.c2w[order].numpy())
    assert move is not None
    apart = move.apply_to_cameras(turned.scene.c2w.numpy())[:, :3, 3] - straight.scene.c2w[order, :3, 3].numpy()
    assert np.abs(apart).max() < 5e-3


def test_the_tree_takes_the_stronger_order() -> None:
    pairs = world(3, seed=22).pairs([(0, 1), (1, 0), (1, 2), (2, 1), (0, 2), (2, 0)])
    scores = np.array([1.0, 5.0, 4.0, 2.0, 3.0, 3.0])
    assert spanning_tree(pairs, scores) == [1, 2]


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ThreerError, match="pair_graph must be one of auto, complete"):
        AlignmentConfig(pair_graph="ring")  # type: ignore[arg-type]
    with pytest.raises(ThreerError, match="weakest_pair must be at least 0 and below 1"):
        AlignmentConfig(weakest_pair=1.0)
    with pytest.raises(ThreerError, match="pair_window must be at least 1"):
        AlignmentConfig(pair_window=0)
    known = Known.nothing(2)
    known.focals[1] = 0.0
    with pytest.raises(ReconstructionError, match="focal lengths must be positive"):
        align(world(2).pairs([(0, 1), (1, 0)]), known=known)


def test_floaters_lose_their_confidence() -> None:
    truth = world(3, spread=0.2, seed=23)
    truth.c2w[:, :3, :3] = np.eye(3)
    known = Known(truth.c2w, truth.focals, np.full((3, 2), np.nan), np.ones(3))
    flat = []
    for i, own in enumerate(truth.own):  # all see the plane z = 4 of the world
        pose = torch.from_numpy(truth.c2w[i])
        along = own / own[..., 2:]
        flat.append(along * ((4 - pose[2, 3]) / (along @ pose[2, :3]))[..., None])
    truth = dataclasses.replace(truth, own=flat)
    pairs = truth.pairs(graphs.symmetrized([(0, 1), (1, 2)]))
    scene = align(pairs, dataclasses.replace(FEWER, hide_floaters=False), known=known).scene
    scene.depth[0][8:14, 12:22] = 2.0  # hangs in the air
    conf = [torch.full((24, 36), c) for c in (3.0, 5.0, 5.0)]
    cleaned = without_floaters(scene, conf, tolerance=0.01)
    assert (cleaned[0][8:14, 12:22] == 0).float().mean() > 0.9
    assert (cleaned[0][:6] > 0).all()
    assert (cleaned[1] > 0).all()
    surer = without_floaters(scene, [torch.full((24, 36), 9.0), *conf[1:]], tolerance=0.01)
    assert (surer[0] > 0).all()
    unpaired = without_floaters(scene, conf, pairs=pairs.without([0, 2]), tolerance=0.01)
    assert (unpaired[0] > 0).all()
