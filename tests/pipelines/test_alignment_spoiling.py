"""Photos that agree with no camera, among few others, and with known cameras."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from pipelines.alignment_world import world
from threer.config import AlignmentConfig
from threer.pipelines.alignment import pairs as graphs
from threer.pipelines.alignment.align import align
from threer.pipelines.alignment.predictions import Pairs
from threer.pipelines.alignment.scene import Known
from threer.types import Pointmap

FEWER = AlignmentConfig(alignment_pixels=80)


def foreign(pairs: Pairs, *photos: int) -> Pairs:
    """Each pair with one of these photos puts its second photo elsewhere."""
    generator = np.random.default_rng(5)
    other = list(pairs.other)
    for e in np.flatnonzero(np.isin(pairs.edges, photos).any(axis=1)):
        R = torch.from_numpy(Rotation.from_rotvec(generator.uniform(-0.6, 0.6, 3)).as_matrix()).float()
        shift = torch.from_numpy(generator.uniform(-2, 2, 3)).float()
        other[e] = Pointmap(other[e].xyz @ R.T + shift, other[e].conf)
    return Pairs(pairs.edges, pairs.own, other, pairs.sizes)


@pytest.mark.parametrize(("count", "bad"), [(2, (1,)), (3, (2,)), (3, (1, 2)), (3, (0, 1, 2))])
def test_few_photos_of_which_some_or_all_are_foreign(count: int, bad: tuple[int, ...]) -> None:
    pairs = world(count, seed=1).pairs(graphs.symmetrized(graphs.complete(count)), noise=0.03, seed=2)
    found = align(foreign(pairs, *bad), FEWER)
    gone = {photo for photo, why in found.problems.items() if "without it" in why}
    assert set(found.photos) == set(range(count)) - gone
    assert len(gone) <= count / 3
    assert torch.isfinite(found.scene.c2w).all()
    for photo in set(range(count)) - set(found.photos):
        assert found.problems[photo]


@pytest.mark.parametrize(("poses", "stays"), [((0, 1, 4), False), ((0, 4), True)])
def test_a_foreign_photo_in_a_known_place(poses: tuple[int, ...], stays: bool) -> None:
    truth = world(5, seed=1)
    pairs = foreign(truth.pairs(graphs.symmetrized(graphs.complete(5)), noise=0.03, seed=2), 4)
    known = Known.nothing(5)
    known.c2w[list(poses)] = truth.c2w[list(poses)]
    found = align(pairs, FEWER, known=known)
    assert "agree with any camera" in found.problems[4]
    assert (4 in found.photos) == stays  # where nothing else says how large the world is
    if not stays:
        assert list(found.problems) == [4]
        apart = np.linalg.norm(found.scene.c2w.numpy()[:, :3, 3] - truth.c2w[:4, :3, 3], axis=1)
        assert apart.max() < 0.05 * truth.size
