"""SLAM3R's inputs, and steps of both halves on generated rooms."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from threer.geometry.transforms import apply, invert
from threer.models.slam3r import SLAM3R, SLAM3RConfig
from threer.training.batch import Batch, Roles
from threer.training.losses import confidence_loss, point_distances, regression_loss
from threer.training.objectives import Losses, Step
from threer.training.objectives.common import perturb, stack_points
from threer.training.objectives.joint import JointObjective, as_scene_and_keys
from threer.training.objectives.settings import JointSettings
from threer.training.pool import PoolPlan, RoomPool, mean_training_pointmap
from threer.training.schedule import make_optimizers
from threer.training.sources import Request
from threer.training.start import start_heads
from threer.training.targets import registration_sample
from threer.types import View
from tiny_training import WINDOWS, tiny_recipe

RECIPE = tiny_recipe(WINDOWS)
NETWORK = RECIPE.network
assert isinstance(NETWORK, SLAM3RConfig)
WINDOW = Request(4, (32, 32), Roles())
SETTINGS = JointSettings(point_noise=0.0, holes=0.0, own_points=0.0, pixel_step=1)


@pytest.fixture(scope="module")
def pool() -> RoomPool:
    pool = RoomPool(RECIPE, PoolPlan(3, 3), 1, [0])
    pool.advance(0)
    return pool


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def step_losses(model: SLAM3R, windows: Batch, settings: JointSettings, seed: int = 0) -> Losses:
    (losses,) = JointObjective(settings)(model, windows, Step(generator(seed)))
    return losses


# Losses ---------------------------------------------------------------------------------------------------------


def test_invalid_points_touch_neither_loss_nor_gradient() -> None:
    prediction = torch.randn(2, 3, 4, 5, 3, generator=generator()).requires_grad_()
    truth = torch.randn(2, 3, 4, 5, 3, generator=generator(1))
    valid = torch.rand(2, 3, 4, 5, generator=generator(2)) > 0.3
    valid[:, 1] = False
    truth[~valid] = torch.nan
    confidence = 1 + torch.rand(2, 3, 4, 5, generator=generator(3))
    distances = point_distances(prediction, truth, valid)
    losses = confidence_loss(distances, confidence, valid)
    assert losses.per_view[1] == 0
    torch.autograd.backward(losses.total)
    assert prediction.grad is not None
    assert torch.isfinite(prediction.grad).all()
    assert (prediction.grad[~valid] == 0).all()
    assert (prediction.grad[valid] != 0).any()


def test_scale_matters_only_where_it_should() -> None:
    truth = torch.randn(2, 3, 4, 5, 3, generator=generator())
    valid = torch.ones(2, 3, 4, 5, dtype=torch.bool)
    assert regression_loss(point_distances(3 * truth, truth, valid), valid).total < 1e-5
    assert regression_loss(point_distances(3 * truth, truth, valid, "none"), valid).total > 1


# Inputs of Local-to-World ---------------------------------------------------------------------------------------


def test_registration_inputs_have_unit_scale_and_no_invalid_points() -> None:
    world = 5 * torch.randn(2, 4, 6, 6, 3, generator=generator())
    camera = 3 * torch.randn(2, 4, 6, 6, 3, generator=generator(1))
    valid = torch.rand(2, 4, 6, 6, generator=generator(2)) > 0.2
    sample = registration_sample(world, camera, valid, scene_views=3)
    assert (sample.scene[~valid[:, :3]] == 0).all()
    assert (sample.keys[~valid[:, 3:]] == 0).all()
    for b in range(2):
        assert sample.scene[b][valid[b, :3]].norm(dim=-1).mean() == pytest.approx(1, abs=1e-5)
        assert sample.keys[b, 0][valid[b, 3]].norm(dim=-1).mean() == pytest.approx(1, abs=1e-5)
        torch.testing.assert_close(sample.truth[b] * sample.factor[b], world[b])
    with pytest.raises(ValueError, match="at least one key"):
        registration_sample(world, camera, valid, scene_views=4)


def test_the_reference_is_the_first_key() -> None:
    assert as_scene_and_keys(5, 2) == ([1, 2, 3, 0, 4], 3)
    assert as_scene_and_keys(3, 1) == ([1, 2, 0], 2)
    assert as_scene_and_keys(5, 2, reference=2) == ([0, 1, 3, 2, 4], 3)


def test_perturbed_points_stay_on_their_rays() -> None:
    points = torch.rand(8, 6, 32, 32, 3, generator=generator()) + 0.5
    moved = perturb(points, 0.06, 0.5, generator(1))
    gone = (moved == 0).all(-1)
    assert 0.05 < gone.float().mean() < 0.5
    ratio = (moved / points)[~gone]
    torch.testing.assert_close(ratio[:, 0], ratio[:, 1], atol=1e-5, rtol=0)
    assert 0.01 < ratio.std() < 0.2


# Steps ----------------------------------------------------------------------------------------------------------


def test_an_untrained_network_answers_with_its_priors(pool: RoomPool) -> None:
    model = SLAM3R.from_config(NETWORK)
    mean = mean_training_pointmap(pool)
    assert len(start_heads(model, mean, None, foreign=True)) == 4
    windows = pool.draw(2, WINDOW, 0, generator())
    with torch.inference_mode():
        local, _ = stack_points(model.local(windows.images))
        torch.testing.assert_close(local, mean.expand_as(local), atol=1e-4, rtol=0)
        views = [View(windows.images[:, v], points=windows.camera[:, v]) for v in range(4)]
        placed, _ = stack_points(model.register(views[:3], views[3:]))
    torch.testing.assert_close(placed, windows.camera, atol=1e-4, rtol=1e-4)


def test_heads_that_hold_weights_are_left_alone(pool: RoomPool) -> None:
    model = SLAM3R.from_config(NETWORK)
    random = ("i2p.second_head.linear.weight",)
    assert start_heads(model, mean_training_pointmap(pool), random, foreign=False) == ["i2p.second_head"]
    assert float(model.i2p.first_head.linear.weight.detach().abs().sum()) > 0
    assert float(model.l2w.first_head.linear.weight.detach().abs().sum()) > 0


def test_steps_on_one_batch_bring_all_errors_down(pool: RoomPool) -> None:
    torch.manual_seed(0)
    recipe = replace(
        RECIPE,
        optimizer=replace(RECIPE.optimizer, muon_lr=5e-3),
        schedule=replace(RECIPE.schedule, lr=3e-3),
    )
    model = SLAM3R.from_config(NETWORK)
    start_heads(model, mean_training_pointmap(pool), None, foreign=True)
    windows = pool.draw(4, WINDOW, 0, generator(3))
    optimizers = make_optimizers(model, recipe)
    first = last = None
    for _ in range(50):
        last = step_losses(model, windows, SETTINGS, 1)
        first = first or last
        model.zero_grad()
        torch.autograd.backward(last.total)
        for optimizer in optimizers:
            optimizer.step()
    assert first is not None
    assert last is not None
    assert last.parts["local_error"] < 0.6 * first.parts["local_error"]
    assert last.parts["register_error"] < 0.9 * first.parts["register_error"]
    assert last.parts["retrieval"] < 0.6 * first.parts["retrieval"]


def test_the_retrieval_loss_teaches_scores_and_leaves_confidences_alone(pool: RoomPool) -> None:
    torch.manual_seed(0)
    model = SLAM3R.from_config(NETWORK)
    windows = pool.draw(2, WINDOW, 0, generator())
    heads, scores = [], []
    for weight in (0.0, 1.0):
        model.zero_grad()
        losses = step_losses(model, windows, replace(SETTINGS, retrieval_weight=weight))
        torch.autograd.backward(losses.total)
        heads.append(model.i2p.second_head.linear.weight.grad.clone())
        scores.append(sum(float(p.grad.abs().sum()) for p in model.i2p.affinity_head.parameters()))
    torch.testing.assert_close(heads[1], heads[0])
    assert scores[0] == 0
    assert scores[1] > 0


def test_windows_are_one_room_in_every_frame_asked_for(pool: RoomPool) -> None:
    windows = pool.draw(3, WINDOW, 0, generator())
    torch.testing.assert_close(windows.points_in(windows.c2w[:, 0])[:, 0], windows.camera[:, 0], atol=1e-4, rtol=0)
    world = apply(windows.c2w, windows.camera)
    torch.testing.assert_close(
        windows.points_in(windows.world), apply(invert(windows.world), world), atol=1e-4, rtol=0
    )
