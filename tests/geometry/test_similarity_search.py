"""RANSAC for similarities."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from threer.geometry.similarity_search import find_similarity
from threer.types import Sim3

TRUE = Sim3(1.6, Rotation.from_rotvec([0.3, -0.5, 0.2]).as_matrix(), np.array([0.4, -1.0, 2.0]))


@pytest.mark.parametrize("share", [0.0, 0.6])
def test_the_truth_is_found_among_wrong_pairs(share: float) -> None:
    generator = np.random.default_rng(0)
    source = generator.normal(0, 1, (200, 3))
    target = TRUE.apply(source) + generator.normal(0, 0.002, (200, 3))
    wrong = generator.random(200) < share
    target[wrong] = generator.normal(0, 3, (int(wrong.sum()), 3))
    found = find_similarity(source, target, np.full(200, 0.02))
    assert found is not None
    sim3, inliers = found
    assert (inliers == ~wrong).mean() > 0.99
    assert sim3.scale == pytest.approx(TRUE.scale, rel=2e-3)
    np.testing.assert_allclose(sim3.R, TRUE.R, atol=2e-3)
    np.testing.assert_allclose(sim3.t, TRUE.t, atol=4e-3)


def test_nothing_follows_from_two_points_or_a_line() -> None:
    assert find_similarity(np.eye(3)[:2], np.eye(3)[:2], np.ones(2)) is None
    line = np.linspace(0, 1, 30)[:, None] * [1.0, 2.0, 3.0]
    assert find_similarity(line, line, np.full(30, 0.1)) is None
    assert find_similarity(np.ones((30, 3)), line, np.full(30, 0.1)) is None
