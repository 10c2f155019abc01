import pytest
import torch

from threer.geometry.scale import mean_distance, normalize


def test_one_factor_for_all_views() -> None:
    points = torch.zeros(2, 3, 4, 5, 3)
    points[0, :, ..., 2] = torch.tensor([1.0, 2.0, 6.0])[:, None, None]
    points[1, ..., 0] = 10.0
    assert mean_distance(points).tolist() == pytest.approx([3.0, 10.0])
    scaled, factor = normalize(points)
    assert mean_distance(scaled).tolist() == pytest.approx([1.0, 1.0])
    assert torch.allclose(scaled * factor.reshape(2, 1, 1, 1, 1), points)


def test_only_valid_points_decide_and_invalid_can_be_zeroed() -> None:
    points = torch.ones(1, 2, 2, 3)
    masks = torch.zeros(1, 2, 2, dtype=torch.bool)
    masks[0, 0] = True
    points[0, 1] = torch.nan
    scaled, factor = normalize(points, masks, zero_invalid=True)
    assert float(factor) == pytest.approx(3**0.5)
    assert (scaled[0, 1] == 0).all()
    assert scaled[0, 0].norm(dim=-1).tolist() == pytest.approx([1.0, 1.0])
    assert normalize(points, masks)[0][0, 1].isnan().all()


def test_empty_and_collapsed_pointmaps_divide_by_a_small_number() -> None:
    points = torch.ones(1, 2, 2, 3)
    assert float(mean_distance(points, torch.zeros(1, 2, 2, dtype=torch.bool))) == pytest.approx(1e-8)
    assert float(mean_distance(points * 0)) == pytest.approx(1e-8)


def test_invalid_nan_stays_out_of_the_gradient() -> None:
    points = torch.ones(1, 2, 2, 3)
    points[0, 0, 0] = torch.nan
    points.requires_grad_()
    mean_distance(points, points.detach().isfinite().all(dim=-1)).sum().backward()
    assert points.grad is not None
    assert points.grad.isfinite().all()
    assert points.grad[0, 1, 1].norm() > 0


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ValueError, match=r"points must be \[\.\.\., V, H, W, 3\]"):
        mean_distance(torch.zeros(4, 5, 3))
    with pytest.raises(ValueError, match="masks must be"):
        mean_distance(torch.zeros(1, 4, 5, 3), torch.zeros(1, 4, 4, dtype=torch.bool))
