import pytest
import torch

from threer.geometry.focal import median_focal, weiszfeld_focal
from threer.geometry.projection import centred_intrinsics, unproject

TRUE = 200.0
ESTIMATES = [weiszfeld_focal, median_focal]


def pointmap(noise: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    depth = 1.0 + torch.rand(2, 224, 224, generator=generator)
    K = torch.from_numpy(centred_intrinsics(TRUE, 224, 224)).float().expand(2, 3, 3)
    points = unproject(depth, K)
    return points * (1 + noise * torch.randn(points.shape, generator=generator))


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_exact_map_gives_the_exact_focal(estimate) -> None:
    assert estimate(pointmap()).tolist() == pytest.approx([TRUE, TRUE], rel=1e-5)


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_one_percent_noise_gives_a_tenth_of_a_percent(estimate) -> None:
    assert estimate(pointmap(noise=0.01)).tolist() == pytest.approx([TRUE, TRUE], rel=1e-3)


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_points_behind_the_camera_or_not_finite_do_not_count(estimate) -> None:
    points = pointmap()
    points[:, :80] *= torch.tensor([1.0, 1.0, -1.0])
    points[:, 80:90] = torch.nan
    assert estimate(points).tolist() == pytest.approx([TRUE, TRUE], rel=1e-5)


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_masked_points_do_not_count(estimate) -> None:
    points = pointmap()
    points[:, :150, :, 2] *= 3.0
    mask = torch.zeros(2, 224, 224, dtype=torch.bool)
    mask[:, 150:] = True
    assert estimate(points, None, mask).tolist() == pytest.approx([TRUE, TRUE], rel=1e-5)
    assert (estimate(points) > TRUE + 0.1).all()


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_nothing_usable_is_nan_not_a_number(estimate) -> None:
    assert estimate(-pointmap()).isnan().all()
    assert estimate(-pointmap(), bounds=(0.5, 3.5)).isnan().all()


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_bounds_are_multiples_of_a_sixty_degree_view(estimate) -> None:
    base = 224 / 2 * 3**0.5
    assert estimate(pointmap(), bounds=(1.2, 3.5)).tolist() == pytest.approx([1.2 * base] * 2)


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_a_crop_needs_its_own_principal_point(estimate) -> None:
    corner = pointmap()[:, :112, :112]
    assert estimate(corner, torch.tensor([111.5, 111.5])).tolist() == pytest.approx([TRUE, TRUE], rel=1e-5)
    assert not torch.allclose(estimate(corner), torch.tensor(TRUE), rtol=0.05)
