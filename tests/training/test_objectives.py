"""Objectives on small networks: what they descend on, what reaches which parameters, and that they can learn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from threer.geometry.raymap import ray_map
from threer.models.cut3r import CUT3R, CUT3RConfig
from threer.models.dust3r import DUSt3R, DUSt3RConfig
from threer.models.fast3r import Fast3R, Fast3RConfig
from threer.models.slam3r import SLAM3R, ImageToPoints, LocalToWorld, SLAM3RConfig
from threer.training.batch import Batch, Roles
from threer.training.losses import confidence_loss, point_distances
from threer.training.objectives import Losses, Step, finite_everywhere, make_objective
from threer.training.objectives.common import image_views, stack_points
from threer.training.objectives.pairs import both_orders
from threer.training.objectives.sequence import network_views
from threer.training.objectives.settings import (
    FusionSettings,
    JointSettings,
    ObjectiveSettings,
    PairSettings,
    RecurrentSettings,
    RegistrationSettings,
    RetrievalSettings,
    WindowSettings,
)

SIZES: dict[str, Any] = {
    "image_size": 32, "enc_dim": 32, "enc_depth": 1, "enc_heads": 2, "dec_dim": 32, "dec_depth": 2, "dec_heads": 2
}  # fmt: skip
CUT3R_SIZES = SIZES | {"state_size": 4, "state_heads": 2, "memory_size": 4, "ray_depth": 1, "ray_heads": 2}
SCENE = Roles(reference=1, scene=(0, 2), keys=(1, 3))


def batch(views: int, roles: Roles | None = None, samples: int = 2, **given: Tensor) -> Batch:
    generator = torch.Generator().manual_seed(0)
    c2w = torch.eye(4).repeat(samples, views, 1, 1)
    c2w[..., :3, 3] = 0.2 * torch.randn(samples, views, 3, generator=generator)
    K = torch.tensor([[30.0, 0, 15.5], [0, 30.0, 15.5], [0, 0, 1]]).repeat(samples, views, 1, 1)
    depth = 1 + torch.rand(samples, views, 32, 32, generator=generator)
    depth[:, :, :4] = torch.nan
    images = 2 * torch.rand(samples, views, 3, 32, 32, generator=generator) - 1
    return Batch.of(images, depth, c2w, K, roles=roles, **given)


def step(progress: float = 0.0, seed: int = 0) -> Step:
    return Step(torch.Generator().manual_seed(seed), progress)


def run(settings: ObjectiveSettings, model: nn.Module, data: Batch, at: Step | None = None) -> Iterator[Losses]:
    return make_objective(settings)(model, data, at or step())


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}


CASES: dict[str, Any] = {
    "dust3r": (PairSettings(), lambda: DUSt3R(DUSt3RConfig(**SIZES)), lambda: batch(2)),
    "i2p": (WindowSettings(), lambda: ImageToPoints(SLAM3RConfig(**SIZES)), lambda: batch(3, Roles(1))),
    "slam3r": (WindowSettings(mean=True), lambda: SLAM3R.from_config(SLAM3RConfig(**SIZES)), lambda: batch(3)),
    "l2w": (
        RegistrationSettings(noise_from=1.0),
        lambda: LocalToWorld(SLAM3RConfig(**SIZES), encoder=True),
        lambda: batch(5, Roles()).with_world_of(0, SCENE),
    ),
    "joint": (JointSettings(), lambda: SLAM3R.from_config(SLAM3RConfig(**SIZES)), lambda: batch(4, Roles(2))),
    "cut3r": (RecurrentSettings(), lambda: CUT3R(CUT3RConfig(**CUT3R_SIZES)), lambda: batch(3)),
    "fast3r": (FusionSettings(), lambda: Fast3R(Fast3RConfig(**SIZES | {"head": "linear"})), lambda: batch(3)),
}


@pytest.mark.parametrize("name", list(CASES))
def test_a_few_steps_on_one_batch_bring_the_loss_down(name: str) -> None:
    torch.manual_seed(0)
    settings, make, data = CASES[name]
    model, seen = make(), data()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    course = []
    for _ in range(12):
        (losses,) = run(settings, model, seen)
        assert losses.total.dtype == torch.float32
        assert finite_everywhere(losses.total)
        assert set(losses.parts) >= {"loss"}
        assert not any(part.requires_grad for part in losses.parts.values())
        optimizer.zero_grad()
        losses.total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        course.append(float(losses.total.detach()))
    assert course[-1] < course[0] - 0.05 * abs(course[0])


def test_losses_leave_autocast_and_report_what_is_not_finite() -> None:
    torch.manual_seed(0)
    settings, make, data = CASES["dust3r"]
    model = make()
    with torch.autocast("cpu", torch.bfloat16):
        (losses,) = run(settings, model, data())
    assert losses.total.dtype == torch.float32
    with torch.no_grad():
        model.bridge.weight.fill_(torch.nan)
    (losses,) = run(settings, model, data())
    assert not finite_everywhere(losses.total)


def test_every_pair_is_seen_in_both_orders() -> None:
    torch.manual_seed(0)
    model, data = DUSt3R(DUSt3RConfig(**SIZES)), batch(2)
    doubled = both_orders(data)
    assert torch.equal(doubled.images[1::2], data.images.flip(1))
    (both,) = run(PairSettings(), model, data)
    (swapped,) = run(PairSettings(), model, data.of_views([1, 0], data.roles))
    torch.testing.assert_close(both.total, swapped.total)  # the order that a data set gives does not matter
    (once,) = run(PairSettings(symmetrized=False), model, data)
    points, confidence = stack_points(model(image_views(data)))
    truth = data.points_in(data.reference)
    expected = confidence_loss(point_distances(points, truth, data.valid), confidence, data.valid)
    torch.testing.assert_close(once.total, expected.total)


def test_the_retrieval_score_learns_alone() -> None:
    torch.manual_seed(0)
    model = ImageToPoints(SLAM3RConfig(**SIZES))
    (losses,) = run(RetrievalSettings(), model, batch(3))
    losses.total.backward()  # type: ignore[no-untyped-call]
    names = gradients(model)
    assert any(n.startswith("affinity_head") for n in names)
    assert not any(n.startswith(("first_head", "second_head")) for n in names)


def test_noise_on_registration_starts_late() -> None:
    torch.manual_seed(0)
    settings, make, data = CASES["l2w"]
    model, seen = make(), data()
    late = replace(settings, noise_from=0.5)
    moments = ((0, 1), (0, 2), (1, 1), (1, 2))
    totals = [float(next(run(late, model, seen, step(p, s))).total.detach()) for p, s in moments]
    assert totals[0] == totals[1]
    assert len(set(totals)) == 3


def with_rays(views: int) -> Batch:
    data = batch(views)
    rays, seen = data.rays.clone(), data.seen.clone()
    rays[:, 2], seen[0, 2] = True, False
    return replace(data, rays=rays, seen=seen)


def test_rays_are_fed_where_they_are_asked_for() -> None:
    data = with_rays(3)
    views = network_views(data)
    assert [v.ray_map is not None for v in views] == [False, False, True]
    assert views[2].has_image.tolist() == [False, True]
    first = data.points_in(data.reference)
    assert views[2].ray_map is not None
    centre = (first - data.camera)[:, 2, 10:11, 10:11]  # these cameras do not turn
    torch.testing.assert_close(views[2].ray_map[..., :3], centre.expand(-1, 32, 32, -1))
    true = network_views(data, true_rays=True)[2].ray_map
    assert true is not None
    direction = torch.nn.functional.normalize(data.camera[:, 2, 8:], dim=-1)
    torch.testing.assert_close(true[:, 8:, :, 3:], direction)
    assert not torch.equal(true, views[2].ray_map)
    at_origin = [ray_map(torch.eye(4), data.K[0, 0], (32, 32), true) for true in (False, True)]
    assert torch.equal(*at_origin)


def test_only_views_without_an_image_are_asked_for_their_colours() -> None:
    torch.manual_seed(0)
    model, data = CUT3R(CUT3RConfig(**CUT3R_SIZES)), with_rays(3)
    (ours,) = run(RecurrentSettings(), model, data)
    other = data.images.clone()
    other[0, 2] = -other[0, 2]  # not fed: only its colours' error knows it
    (changed,) = run(RecurrentSettings(), model, replace(data, images=other))
    assert changed.parts["colour"] != ours.parts["colour"]
    assert changed.parts["error"] == ours.parts["error"]
    (plain,) = run(RecurrentSettings(), model, batch(3))
    assert plain.parts["colour"] == 0
    (published,) = run(RecurrentSettings(colour_views="all"), model, batch(3))
    assert published.parts["colour"] > 0


def test_samples_follow_their_types() -> None:
    torch.manual_seed(0)
    model, data = CUT3R(CUT3RConfig(**CUT3R_SIZES)), batch(2)
    typed = RecurrentSettings(sample_types=True)
    yes = torch.tensor([True, False])
    (plain,) = run(typed, model, data)
    for name in ("camera_only", "depth_only", "single_view"):
        flagged = replace(data, **{name: yes})  # type: ignore[arg-type]
        (losses,) = run(typed, model, flagged)
        (unaware,) = run(RecurrentSettings(), model, flagged)
        assert torch.isfinite(losses.total)
        assert losses.total != plain.total, name
        torch.testing.assert_close(unaware.total, plain.total)
    unseen = replace(data, seen=torch.tensor([[True, False], [True, True]]), rays=torch.tensor([[False, True]] * 2))
    (view,) = run(typed, model, unseen)
    (last,) = run(replace(typed, pose_mask="last"), model, unseen)
    assert view.parts["pose"] != last.parts["pose"]


def test_chunks_send_gradients_where_they_should() -> None:
    torch.manual_seed(0)
    model, data = CUT3R(CUT3RConfig(**CUT3R_SIZES)), batch(5)
    settings = RecurrentSettings(chunk=2, gradient_chunks=2, gradient_window="last")
    chunks = []
    for losses in run(settings, model, data):
        losses.total.backward()  # type: ignore[no-untyped-call]
        chunks.append(losses)
    assert len(chunks) == 2
    assert not any(c.step for c in chunks)
    names = gradients(model)
    assert not any(n.startswith("encoder.") for n in names)
    assert any(n.startswith("decoder.first") for n in names)
    assert not any(n == "first_pose" for n in names)  # the first chunk has no gradient
    published = list(run(replace(settings, step_each_chunk=True), model, data))
    assert [c.step for c in published] == [True, False]
    torch.testing.assert_close(published[0].total, 2 * chunks[0].total)
    anywhere = replace(settings, gradient_window="random")
    drawn = [[float(c.parts["loss"]) for c in run(anywhere, model, data, step(seed=s))] for s in range(8)]
    assert {len(d) for d in drawn} == {2}
    assert len({d[0] for d in drawn}) == 2, "of three chunks, the first two or the last two"


def test_a_chunk_that_holds_everything_is_the_whole_sequence() -> None:
    torch.manual_seed(0)
    model, data = CUT3R(CUT3RConfig(**CUT3R_SIZES)), with_rays(3)
    (whole,) = run(RecurrentSettings(), model, data)
    (chunk,) = run(RecurrentSettings(chunk=8), model, data)
    torch.testing.assert_close(chunk.total, whole.total)
    parts = list(run(RecurrentSettings(chunk=2, gradient_chunks=9, metric_scale=False), model, data))
    assert len(parts) == 2, "the state goes from chunk to chunk"


def test_batches_that_do_not_fit_are_refused() -> None:
    wrong = {"cut3r": batch(3, Roles(1)), "fast3r": batch(3, Roles(1)), "l2w": batch(4), "dust3r": batch(3)}
    for name, data in wrong.items():
        settings, make, _ = CASES[name]
        with pytest.raises(ValueError, match=r"first view|roles|two views"):
            next(run(settings, make(), data))
