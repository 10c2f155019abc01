"""The pieces of training, and a whole run small enough to watch."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from threer.errors import ThreerError
from threer.geometry.transforms import apply, invert
from threer.models.checkpoints import load_checkpoint
from threer.models.slam3r import SLAM3R, SLAM3RConfig
from threer.training.batch import Batch
from threer.training.export import export
from threer.training.losses import confidence_loss, point_distances, regression_loss
from threer.training.mini import SLAM3RMini
from threer.training.objectives import Losses, Step
from threer.training.objectives.common import perturb, stack_points
from threer.training.objectives.joint import JointObjective, as_scene_and_keys
from threer.training.pool import ClipPool
from threer.training.schedule import make_optimizers, rate
from threer.training.targets import registration_sample
from threer.training.trainer import LOG, Trainer, start_from_mean
from threer.training.validation import Validation, depth_scores, load_mean_pointmap, mean_training_pointmap
from threer.types import View

NETWORK = SLAM3RConfig(
    image_size=32,
    enc_dim=32,
    enc_depth=1,
    enc_heads=2,
    dec_dim=32,
    dec_depth=2,
    dec_heads=2,
    absolute_positions=True,
    ray_prior=0.5,
    pixel_bias=True,
    point_prior=True,
)
RECIPE = SLAM3RMini(
    network=NETWORK,
    pool_clips=6,
    first_clips=4,
    clip_frames=6,
    batch=4,
    minutes=0.03,
    render_share=0.05,
    colour=0.5,
)


@pytest.fixture(scope="module")
def pool() -> ClipPool:
    pool = ClipPool(6, 6, 32, RECIPE.style)
    pool.grow(5)
    return pool


def test_a_torch_without_muon_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(ThreerError, match=r"training needs torch 2\.9 or newer.* this is torch \d"):
        make_optimizers(torch.nn.Linear(2, 2), RECIPE)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def step_losses(model: SLAM3R, windows: Batch, recipe: SLAM3RMini, seed: int = 0) -> Losses:
    (losses,) = JointObjective(recipe.objective())(model, windows, Step(generator(seed)))
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


# Windows --------------------------------------------------------------------------------------------------------


def test_windows_hold_one_room_in_every_frame_asked_for(pool: ClipPool) -> None:
    windows = pool.draw(3, 4, generator(), colour=0.0)
    torch.testing.assert_close(windows.points_in(windows.c2w[:, 0])[:, 0], windows.camera[:, 0], atol=1e-4, rtol=0)
    world = apply(windows.c2w, windows.camera)
    torch.testing.assert_close(
        windows.points_in(windows.world), apply(invert(windows.world), world), atol=1e-4, rtol=0
    )
    assert windows.images.min() >= -1
    assert windows.images.max() <= 1
    again = pool.draw(3, 4, generator(), colour=0.0)
    assert torch.equal(windows.images, again.images)
    assert not torch.equal(pool.draw(3, 4, generator(), colour=1.0).images, windows.images)
    for b in range(3):
        assert len({tuple(p.flatten().tolist()) for p in windows.c2w[b]}) == 4, "frames repeat in a window"


def test_a_full_pool_drops_the_oldest_clip() -> None:
    small = ClipPool(2, 2, 16, RECIPE.style)
    small.grow(2)
    first = small.windows(
        torch.tensor([0, 1]), torch.zeros(2, 1, dtype=torch.long), torch.zeros(2, dtype=torch.long)
    )
    small.grow(1)
    then = small.windows(
        torch.tensor([0, 1]), torch.zeros(2, 1, dtype=torch.long), torch.zeros(2, dtype=torch.long)
    )
    assert len(small) == 2
    assert not torch.equal(first.images[0], then.images[0])
    assert torch.equal(first.images[1], then.images[1])


# Schedule -------------------------------------------------------------------------------------------------------


def test_the_rate_rises_then_falls() -> None:
    shares = [rate(p / 100, RECIPE) for p in range(101)]
    assert shares[0] < 0.01
    assert max(shares) == pytest.approx(1, abs=1e-3)
    assert shares[3:] == sorted(shares[3:], reverse=True)
    assert shares[-1] == pytest.approx(RECIPE.last_lr)


def test_every_parameter_has_one_optimizer_and_vectors_no_decay() -> None:
    model = SLAM3R.from_config(NETWORK)
    decay = {}
    for optimizer in make_optimizers(model, RECIPE):
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                assert id(parameter) not in decay
                decay[id(parameter)] = group["weight_decay"]
    for name, parameter in model.named_parameters():
        assert (decay[id(parameter)] == 0) == (parameter.squeeze().ndim < 2), name


# The loop -------------------------------------------------------------------------------------------------------


def test_an_untrained_network_answers_with_its_priors(pool: ClipPool) -> None:
    model = SLAM3R.from_config(NETWORK)
    mean = mean_training_pointmap(pool)
    start_from_mean(model, mean)
    windows = pool.draw(2, 4, generator(), colour=0.0)
    with torch.inference_mode():
        local, _ = stack_points(model.local(windows.images))
        torch.testing.assert_close(local, mean.expand_as(local), atol=1e-4, rtol=0)
        views = [View(windows.images[:, v], points=windows.camera[:, v]) for v in range(4)]
        placed, _ = stack_points(model.register(views[:3], views[3:]))
    torch.testing.assert_close(placed, windows.camera, atol=1e-4, rtol=1e-4)


def test_steps_on_one_batch_bring_all_errors_down(pool: ClipPool) -> None:
    torch.manual_seed(0)
    recipe = replace(RECIPE, muon_lr=5e-3, adam_lr=3e-3, own_points=0.0, holes=0.0, point_noise=0.0, pixel_step=1)
    model = SLAM3R.from_config(NETWORK)
    start_from_mean(model, mean_training_pointmap(pool))
    windows = pool.draw(4, 4, generator(3), colour=0.0)
    optimizers = make_optimizers(model, recipe)
    first = last = None
    for _ in range(60):
        last = step_losses(model, windows, recipe, 1)
        first = first or last
        model.zero_grad()
        torch.autograd.backward(last.total)
        for optimizer in optimizers:
            optimizer.step()
    assert first is not None
    assert last is not None
    assert last.parts["local_error"] < 0.6 * first.parts["local_error"]
    assert last.parts["register_error"] < 0.75 * first.parts["register_error"]
    assert last.parts["retrieval"] < 0.6 * first.parts["retrieval"]


def test_the_retrieval_loss_teaches_scores_and_leaves_confidences_alone(pool: ClipPool) -> None:
    torch.manual_seed(0)
    model = SLAM3R.from_config(NETWORK)
    windows = pool.draw(2, 4, generator(), colour=0.0)
    heads, scores = [], []
    for weight in (0.0, 1.0):
        model.zero_grad()
        losses = step_losses(model, windows, replace(RECIPE, retrieval_weight=weight))
        torch.autograd.backward(losses.total)
        heads.append(model.i2p.second_head.linear.weight.grad.clone())
        scores.append(sum(float(p.grad.abs().sum()) for p in model.i2p.affinity_head.parameters()))
    torch.testing.assert_close(heads[1], heads[0])
    assert scores[0] == 0
    assert scores[1] > 0


def test_a_run_continues_where_it_stopped_and_exports(tmp_path: Path) -> None:
    first = Trainer(RECIPE, tmp_path / "run")
    first.run(validate_every=1.0)
    done = first.progress
    assert done.step > 0
    assert done.samples == done.step * RECIPE.batch
    assert set(done.scores) == {"error", "abs_rel", "inlier", "window_error", "register_error"}

    longer = Trainer(replace(RECIPE, minutes=0.05), tmp_path / "run")
    assert vars(longer.progress) == vars(done)
    assert longer.pool.next_seed == first.pool.next_seed
    for (name, a), (_, b) in zip(longer.model.state_dict().items(), first.model.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
    longer.run(validate_every=1.0)
    assert longer.progress.step > done.step
    with (tmp_path / "run" / LOG).open() as file:
        steps = [int(row["step"]) for row in csv.DictReader(file)]
    assert steps == sorted(steps)
    assert steps[-1] == longer.progress.step

    scores = export(tmp_path / "run", tmp_path / "weights" / "tiny", "a test")
    model = load_checkpoint(tmp_path / "weights" / "tiny")
    assert isinstance(model, SLAM3R)
    assert model.i2p.config == NETWORK
    assert Validation(replace(RECIPE)).network(model).error == pytest.approx(scores["slam3r-mini"].error, abs=2e-3)
    mean = load_mean_pointmap(tmp_path / "weights" / "tiny")
    assert mean.shape == (32, 32, 3)
    assert mean.norm(dim=-1).mean() == pytest.approx(1, abs=0.15)
    card = (tmp_path / "weights" / "tiny" / "README.md").read_text()
    assert f"{longer.progress.samples} windows" in card
    assert card.rstrip().splitlines()[-1].split("|")[2].strip() == str(longer.progress.samples)
    assert sorted(p.name for p in (tmp_path / "weights").iterdir()) == ["tiny"]


def test_a_folder_of_another_network_is_refused(tmp_path: Path) -> None:
    Trainer(RECIPE, tmp_path).save()
    other = replace(RECIPE, network=replace(NETWORK, enc_dim=64))
    with pytest.raises(ThreerError, match="other sizes"):
        Trainer(other, tmp_path)
    with pytest.raises(ThreerError, match="holds no"):
        export(tmp_path / "nowhere", tmp_path / "out", "")


def test_windows_that_cannot_be_split_are_refused() -> None:
    with pytest.raises(ThreerError, match="key frames"):
        SLAM3RMini(views=(2, 5))


# Validation -----------------------------------------------------------------------------------------------------


def test_baselines_of_known_maps_are_exact() -> None:
    validation = Validation(RECIPE, clips=3, views=4)
    perfect = validation.reference_maps(7 * validation.truth)
    assert perfect.error < 1e-5
    assert perfect.abs_rel < 1e-5
    assert perfect.inlier == 1
    flat = validation.constant_depth()
    assert flat.abs_rel > 0.05
    truth = torch.tensor([[[[1.0, 2.0, 4.0]]]])
    abs_rel, inlier = depth_scores(torch.tensor([[[[1.0, 1.0, 1.0]]]]), truth)
    assert abs_rel == pytest.approx((1 + 0 + 0.5) / 3)
    assert inlier == pytest.approx(1 / 3)
