"""Reciprocal matches: what truth they give, what gates leave out, and the fast way held to the plain one."""

import numpy as np
import pytest
import torch

from threer.geometry.matching import match_pointmaps, reciprocal_neighbours
from threer.types import Pointmap


def surface(shift: int, noise: float = 0.0, size: tuple[int, int] = (40, 48)) -> Pointmap:
    """A bumpy wall, of which ``shift`` columns more have left the picture on the left."""
    h, w = size
    v, u = torch.meshgrid(torch.arange(h), torch.arange(w) + shift, indexing="ij")
    xyz = torch.stack([u / 10, v / 10, 3 + 0.3 * torch.sin(u / 7) + 0.2 * torch.cos(v / 5)], dim=-1)
    generator = torch.Generator().manual_seed(shift)
    xyz = xyz + noise * torch.randn(xyz.shape, generator=generator)
    return Pointmap(xyz, 1 + torch.rand(h, w, generator=generator))


def test_against_all_distances() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(60, 3)), generator.normal(size=(50, 3))
    apart = np.linalg.norm(a[:, None] - b[None], axis=-1)
    nearest, closed = reciprocal_neighbours(a, b)
    np.testing.assert_array_equal(nearest, apart.argmin(axis=0))
    np.testing.assert_array_equal(closed, apart.argmin(axis=1)[apart.argmin(axis=0)] == np.arange(50))
    assert 0 < closed.sum() < 50


def test_matches_are_the_same_places() -> None:
    matches = match_pointmaps(surface(0), surface(5), keep=1.0)
    true = matches.pixels_b + np.array([5, 0])
    inside = true[:, 0] < 48
    np.testing.assert_array_equal(matches.pixels_a[inside], true[inside])
    assert inside.sum() == 43 * 40
    far = match_pointmaps(surface(0), surface(5), keep=1.0, max_distance=1e-6)
    assert len(far) == 43 * 40


def test_masks_and_gates() -> None:
    a, b = surface(0), surface(3)
    a.conf[:, :20] = 0
    b.conf[:10] = 1.0
    matches = match_pointmaps(a, b, keep=1.0, min_conf=1.0)
    assert matches.pixels_a[:, 0].min() >= 20
    assert matches.pixels_b[:, 1].min() >= 10
    np.testing.assert_allclose(
        matches.conf[0] ** 2,
        float(
            a.conf[tuple(matches.pixels_a[0, ::-1].astype(int))]
            * b.conf[tuple(matches.pixels_b[0, ::-1].astype(int))]
        ),
        rtol=1e-6,
    )
    surer = match_pointmaps(a, b, keep=1.0, min_product=2.0)
    assert 0 < len(surer) < len(match_pointmaps(a, b, keep=1.0))
    assert (surer.conf**2 >= 2).all()
    assert len(match_pointmaps(surface(0), surface(3), keep=0.25)) < 0.3 * 48 * 40


def test_the_grid_finds_some_of_the_plain_matches() -> None:
    a, b = surface(0, 0.02), surface(5, 0.02)
    plain, fast = match_pointmaps(a, b, keep=1.0), match_pointmaps(a, b, keep=1.0, grid=4)
    known = {(*p, *q) for p, q in zip(plain.pixels_a.tolist(), plain.pixels_b.tolist(), strict=True)}
    found = [(*p, *q) for p, q in zip(fast.pixels_a.tolist(), fast.pixels_b.tolist(), strict=True)]
    assert set(found) <= known
    assert len(found) == len(set(found)) > 0.5 * (48 // 4) * (40 // 4)


def test_nothing_to_match() -> None:
    empty = Pointmap(torch.zeros(4, 4, 3), torch.zeros(4, 4))
    assert len(match_pointmaps(empty, surface(0))) == 0
    assert len(match_pointmaps(surface(0), empty, grid=2)) == 0
    lost = Pointmap(torch.full((4, 4, 3), torch.nan), torch.ones(4, 4))
    assert len(match_pointmaps(lost, surface(0))) == 0
    with pytest.raises(ValueError, match="keep must be above 0"):
        match_pointmaps(surface(0), surface(0), keep=0)
    with pytest.raises(ValueError, match="grid must be at least 1"):
        match_pointmaps(surface(0), surface(0), grid=0)
    with pytest.raises(ValueError, match=r"is \[H, W\]"):
        match_pointmaps(Pointmap(torch.zeros(1, 4, 4, 3), torch.ones(1, 4, 4)), surface(0))
