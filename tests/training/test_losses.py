"""Every loss: its slope against differences, its invariances, and what it does with nothing to look at."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch import Tensor

from threer.geometry.transforms import pose_from_quaternion
from threer.training.losses import (
    Normalization,
    SequencePoints,
    colour_errors,
    confidence_loss,
    fusion_distances,
    match_scale,
    match_shift,
    mean_pose_error,
    normalize_points,
    point_distances,
    pose_errors,
    regression_loss,
    retrieval_loss,
    sequence_distances,
    sequence_scales,
    sky_included,
    typed_distances,
    within,
)
from threer.training.losses.regression import distances

SHAPE = (2, 3, 3, 4)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


TRUTH = draw(*SHAPE, 3, seed=1)
VALID = torch.rand(SHAPE, generator=torch.Generator().manual_seed(2)) > 0.25
SKY = torch.rand(SHAPE, generator=torch.Generator().manual_seed(3)) > 0.8
CONFIDENCE = 1 + draw(*SHAPE, seed=4).exp()
YES, NO = torch.tensor([True, False]), torch.tensor([False, False])


def mean_of(values: Tensor, valid: Tensor = VALID) -> Tensor:
    return regression_loss(values, valid).total


def medianless(prediction: Tensor, kind: str) -> Tensor:
    """Invariant comparisons with the medians of the point of expansion: those carry no gradient on purpose."""
    start = draw(*SHAPE, 3)
    shifted = match_shift(start, TRUTH, VALID)
    offset = (shifted[0] - start).detach()
    if kind == "shift":
        return mean_of(distances(prediction + offset, shifted[1]))
    scaled = match_scale(start, TRUTH, VALID)
    factor = (scaled[0] / start).detach()
    return mean_of(distances(prediction * factor, scaled[1]))


def typed(prediction: Tensor, which: str) -> Tensor:
    flags = {name: YES if name == which else NO for name in ("camera_only", "depth_only", "loose")}
    predicted, truth = SequencePoints(prediction + 3, prediction - 3), SequencePoints(TRUTH + 3, TRUTH - 2)
    counted = VALID | SKY
    plain = sequence_distances(predicted, truth, VALID, sequence_scales(predicted, truth, VALID))
    own, world = typed_distances(plain, predicted, truth, VALID, counted, **flags)
    return mean_of(sky_included(own, VALID, SKY, 2.0), counted) + mean_of(world, counted)


def sequence(prediction: Tensor, metric: Tensor | None, weighted: bool) -> Tensor:
    predicted, truth = SequencePoints(prediction, 2 * prediction + 1), SequencePoints(TRUTH, TRUTH - 1)
    confidence = (CONFIDENCE, CONFIDENCE.flip(1)) if weighted else None
    scales = sequence_scales(predicted, truth, VALID, metric, confidence)
    own, world = sequence_distances(predicted, truth, VALID, scales)
    return mean_of(own) + mean_of(world)


def pose(prediction: Tensor, **options: object) -> Tensor:
    seven = prediction[:, :, 0].reshape(2, 3, -1)[..., :7]
    quaternions = torch.nn.functional.normalize(draw(2, 3, 4, seed=6), dim=-1)
    truth = pose_from_quaternion(draw(2, 3, 3, seed=5), quaternions)
    scale = torch.tensor([1.5, 0.5], dtype=torch.float64)
    errors = pose_errors(seven, truth, scale, 2 * scale, **options)  # type: ignore[arg-type]
    return mean_pose_error(errors, scale, NO, torch.ones(2, 3, dtype=torch.bool))


TERMS: dict[str, Callable[[Tensor], Tensor]] = {
    **{
        f"regression {mode}": lambda p, mode=mode: mean_of(point_distances(p, TRUTH, VALID, mode))  # type: ignore[misc]
        for mode in get_args(Normalization)
        if not mode.startswith("median")
    },
    "truth kept": lambda p: mean_of(point_distances(p, TRUTH, VALID, keep_truth=True)),
    "shift": lambda p: medianless(p, "shift"),
    "scale": lambda p: medianless(p, "scale"),
    "confidence": lambda p: confidence_loss(draw(*SHAPE).abs(), 1 + p[..., 0].exp(), VALID, 0.3).total,
    "retrieval": lambda p: (
        retrieval_loss([p[:, v].flatten(1) for v in range(3)], [1 + x.exp() for x in draw(*SHAPE).unbind(1)]).total
    ),
    "global and local": lambda p: torch.stack(
        [mean_of(d) for d in fusion_distances((p, p + 1), (TRUTH, TRUTH - 1), VALID)]
    ).sum(),
    "local in the global scale": lambda p: mean_of(
        fusion_distances((p, p + 1), (TRUTH, TRUTH - 1), VALID, consistent=True)[1]
    ),
    "sequence": lambda p: sequence(p, None, weighted=False),
    "sequence, metric and weighted": lambda p: sequence(p, YES, weighted=True),
    "camera only": lambda p: typed(p, "camera_only"),
    "depth only": lambda p: typed(p, "depth_only"),
    "unrelated views": lambda p: typed(p, "loose"),
    "pose": lambda p: pose(p),
    "pose by its own path": lambda p: pose(p, own_path=YES, either_sign=False),
    "colour": lambda p: colour_errors(p, TRUTH.movedim(-1, 2)).sum(),
    "colour distance": lambda p: colour_errors(p, TRUTH.movedim(-1, 2), squared=False).sum(),
}


@pytest.mark.parametrize("name", list(TERMS))
def test_slopes_are_those_of_differences(name: str) -> None:
    start = draw(*SHAPE, 3).requires_grad_()
    term = TERMS[name]
    value = term(start)
    (slope,) = torch.autograd.grad(value, start)
    assert torch.isfinite(slope).all()
    assert slope.abs().max() > 0
    for seed in range(4):
        direction, step = draw(*SHAPE, 3, seed=10 + seed), 1e-6
        with torch.no_grad():
            difference = (TERMS[name](start + step * direction) - TERMS[name](start - step * direction)) / (
                2 * step
            )
        assert float((slope * direction).sum()) == pytest.approx(float(difference), rel=1e-5, abs=1e-7)


def test_comparisons_forgive_what_they_are_meant_to() -> None:
    shift = torch.tensor([0.0, 0.0, 5.0])
    assert mean_of(distances(*match_shift(TRUTH + shift, TRUTH, VALID))) < 1e-9
    assert mean_of(distances(*match_shift(TRUTH + shift.roll(1), TRUTH, VALID))) > 1
    for keep in (False, True):
        assert mean_of(distances(*match_scale(4 * TRUTH, TRUTH, VALID, keep))) < 1e-9
    for mode in ("avg_dis", "median_dis", "sqrt_dis"):
        normal, scale = normalize_points(7 * TRUTH, VALID, mode)  # type: ignore[arg-type]
        once, first = normalize_points(TRUTH, VALID, mode)  # type: ignore[arg-type]
        torch.testing.assert_close(normal, once)
        torch.testing.assert_close(scale, 7 * first)
    lengths = TRUTH.norm(dim=-1)[0][VALID[0]]
    assert normalize_points(TRUTH, VALID, "median_dis")[1][0] == lengths.median()
    torch.testing.assert_close(normalize_points(TRUTH, VALID, "sqrt_dis")[1][0], lengths.sqrt().mean().square())
    warped, _ = normalize_points(TRUTH, VALID, "avg_warp-log1p")
    ratio = warped.norm(dim=-1)[0][VALID[0]] / lengths.log1p()
    torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio))


def test_views_and_samples_count_alike_whatever_their_order() -> None:
    prediction = draw(*SHAPE, 3)
    order, rows = [2, 0, 1], [1, 0]
    for consistent in (False, True):
        plain = fusion_distances((prediction, prediction), (TRUTH, TRUTH), VALID, consistent=consistent)
        moved = fusion_distances(
            (prediction[rows][:, order],) * 2, (TRUTH[rows][:, order],) * 2, VALID[rows][:, order],
            consistent=consistent,
        )  # fmt: skip
        for a, b in zip(plain, moved, strict=True):
            torch.testing.assert_close(a[rows][:, order], b)
    rays, affine = typed(TRUTH, "camera_only"), typed(TRUTH, "depth_only")
    assert rays < typed(prediction, "camera_only")
    assert affine < typed(prediction, "depth_only")


def test_metric_samples_alone_are_held_to_the_scale_of_the_truth() -> None:
    truth = SequencePoints(TRUTH, TRUTH + 1)
    double = SequencePoints(2 * truth.own, 2 * truth.world)
    own, world = sequence_distances(double, truth, VALID, sequence_scales(double, truth, VALID, YES))
    assert own[0].max() > 0.1
    assert own[1].max() < 1e-6
    assert world[1].max() < 1e-6


def test_a_rotation_has_two_quaternions() -> None:
    truth = torch.eye(4).expand(1, 1, 4, 4)
    negative = torch.tensor([[[0.0, 0, 0, -1, 0, 0, 0]]])
    one = torch.ones(1)
    assert pose_errors(negative, truth, one, one)[1] == 0
    assert pose_errors(negative, truth, one, one, either_sign=False)[1] == 2


def test_nothing_valid_costs_nothing_and_has_a_finite_slope() -> None:
    none = torch.zeros(SHAPE, dtype=torch.bool)
    prediction = torch.full((*SHAPE, 3), torch.nan).requires_grad_()
    truth = torch.full((*SHAPE, 3), torch.inf)
    total = prediction.new_zeros(())
    for mode in get_args(Normalization):
        total = total + mean_of(point_distances(prediction, truth, none, mode), none)
    points = SequencePoints(prediction, prediction), SequencePoints(truth, truth)
    scales = sequence_scales(*points, none)
    plain = sequence_distances(*points, none, scales)
    flags = {"camera_only": YES, "depth_only": YES.flip(0), "loose": NO}
    for d in (*plain, *typed_distances(plain, *points, none, none, **flags)):
        total = total + confidence_loss(d, torch.ones(SHAPE), none).total
    for d in fusion_distances((prediction, prediction), (truth, truth), none):
        total = total + mean_of(d, none)
    assert total == 0
    total.backward()  # type: ignore[no-untyped-call]
    assert prediction.grad is not None
    assert (prediction.grad == 0).all()
    errors = torch.ones(2, 3), torch.ones(2, 3)
    assert mean_pose_error(errors, torch.ones(2), NO, torch.zeros(2, 3, dtype=torch.bool)) == 0
    assert mean_pose_error(errors, torch.full((2,), 1e-3), NO, torch.ones(2, 3, dtype=torch.bool)) == 0
    assert mean_pose_error(errors, torch.full((2,), 1e-3), YES, torch.ones(2, 3, dtype=torch.bool)) == 2


def test_far_points_and_sky() -> None:
    near = within(TRUTH, VALID, 1.0)
    assert near.any()
    assert (TRUTH.norm(dim=-1)[near] <= 1).all()
    assert not (near & ~VALID).any()
    error = draw(*SHAPE).abs()
    with_sky = sky_included(error, VALID, SKY, 2.0)
    assert (with_sky[SKY & ~VALID] == 2).all()
    torch.testing.assert_close(with_sky[VALID], error[VALID])
    assert torch.equal(sky_included(error, VALID, SKY, 0.0), error)
