"""Scoring a run: perfect is zero, wrong is not, and the baselines are what they say."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from threer.errors import ThreerError
from threer.evaluation.scores import Collector, Truth, score_run, score_table
from threer.types import Frame, Pointmap, Update

SIZE, COUNT = 24, 12


def corridor() -> Truth:
    """A camera that walks a bend beside a bumpy wall."""
    rng = np.random.default_rng(0)
    bumps = 2 + 0.6 * np.sin(np.arange(SIZE) / 3)[None, :] + 0.3 * np.cos(np.arange(SIZE) / 2)[:, None]
    depth = np.stack([bumps + 0.05 * i + 0.01 * rng.normal(size=(SIZE, SIZE)) for i in range(COUNT)])
    c2w = np.tile(np.eye(4), (COUNT, 1, 1))
    angle = np.linspace(0, 1, COUNT)
    c2w[:, 0, 3], c2w[:, 2, 3] = np.sin(angle), 1 - np.cos(angle)
    c2w[:, 0, 0] = c2w[:, 2, 2] = np.cos(angle)
    c2w[:, 0, 2], c2w[:, 2, 0] = np.sin(angle), -np.sin(angle)
    middle = (SIZE - 1) / 2
    return Truth(depth, c2w, np.array([[20, 0, middle], [0, 20, middle], [0, 0, 1.0]]))


def follow(truth: Truth, scale: float = 1.0) -> Collector:
    """A run that gives the truth, at another scale."""
    v, u = np.mgrid[:SIZE, :SIZE]
    rays = np.stack([(u - truth.K[0, 2]) / 20, (v - truth.K[1, 2]) / 20, np.ones_like(u)], axis=-1)
    run = Collector()
    for i in range(COUNT):
        local = rays * truth.depth[i][..., None]
        world = local @ truth.c2w[i, :3, :3].T + truth.c2w[i, :3, 3]
        c2w = truth.c2w[i].copy()
        c2w[:3, 3] *= scale
        frame = Frame(torch.zeros(3, SIZE, SIZE), i, i / 10, str(i), (SIZE, SIZE), np.eye(2, 3))
        ones = torch.ones(SIZE, SIZE)
        run.on(
            Update(
                "final",
                frame,
                points=Pointmap(torch.from_numpy(world * scale), ones),
                local=Pointmap(torch.from_numpy(local * scale), ones),
                c2w=c2w,
                K=truth.K,
            )
        )
    return run


MEAN_MAP = np.ones((8, 8, 3))


def test_the_truth_scores_zero_at_any_scale() -> None:
    truth = corridor()
    ours, *_ = score_run(follow(truth, scale=7.0), truth, MEAN_MAP)
    assert ours.abs_rel == pytest.approx(0, abs=1e-6)
    assert ours.delta_1_25 == 1
    assert ours.ate_share == pytest.approx(0, abs=1e-6)
    assert ours.accuracy_m == pytest.approx(0, abs=1e-4)
    assert ours.missing_cameras == 0


def test_baselines_know_nothing_but_the_scale() -> None:
    truth = corridor()
    ours, mean_map, constant = score_run(follow(truth), truth, MEAN_MAP)
    assert (mean_map.name, constant.name) == ("mean pointmap", "constant depth")
    relative = np.abs(np.median(truth.depth, axis=(1, 2))[:, None, None] - truth.depth) / truth.depth
    assert constant.abs_rel == pytest.approx(relative.mean(), rel=1e-6)
    assert constant.ate_share > 0.01  # the path bends
    assert constant.accuracy_m > 10 * ours.accuracy_m


def test_errors_show() -> None:
    truth = corridor()
    run = follow(truth)
    run.local_depth = [d * np.where(np.arange(SIZE) % 2, 1.0, 1.5)[None] for d in run.local_depth]
    run.c2w[3] = np.full((4, 4), np.nan)
    run.c2w[6][:3, 3] += 0.3
    worse, *_ = score_run(run, truth, MEAN_MAP)
    assert worse.abs_rel > 0.1
    assert worse.delta_1_25 < 0.9
    assert worse.ate_share > 0.05
    assert worse.missing_cameras == pytest.approx(1 / COUNT)


def test_unknown_depth_is_left_out() -> None:
    truth = corridor()
    holes = truth.depth.copy()
    holes[:, ::2] = 0
    holes[5] = np.nan
    ours, *_ = score_run(follow(truth), dataclasses.replace(truth, depth=holes), MEAN_MAP)
    assert ours.abs_rel == pytest.approx(0, abs=1e-6)
    assert ours.delta_1_25 == 1


def test_nothing_to_compare_is_nan_not_perfect() -> None:
    truth = corridor()
    run = follow(truth)
    run.c2w = [np.full((4, 4), np.nan)] * COUNT
    run.local_depth = [np.full((SIZE, SIZE), np.nan)] * COUNT
    ours, *_ = score_run(run, truth, MEAN_MAP)
    assert math.isnan(ours.ate_share)
    assert math.isnan(ours.abs_rel)
    assert ours.missing_cameras == 1


def test_a_run_of_something_else_is_refused() -> None:
    truth = corridor()
    with pytest.raises(ThreerError, match="belong together"):
        score_run(follow(truth), dataclasses.replace(truth, depth=truth.depth[:5]), MEAN_MAP)


def test_table_has_a_row_for_each() -> None:
    truth = corridor()
    table = score_table(score_run(follow(truth), truth, MEAN_MAP))
    assert len(table.splitlines()) == 5
    assert "| constant depth |" in table
