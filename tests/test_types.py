"""Types are checked when made."""

import pytest
import torch

from threer.types import Pointmap, Prediction, View

IMAGE, RAYS = torch.zeros(2, 3, 32, 48), torch.zeros(2, 32, 48, 6)


def test_a_view_knows_what_it_has() -> None:
    view = View(IMAGE, ray_map=RAYS, ray_mask=torch.tensor([True, False]))
    assert view.has_image.tolist() == [True, True]
    assert view.has_rays.tolist() == [True, False]
    rays = View(ray_map=RAYS)
    assert rays.shape.tolist() == [[32, 48]] * 2
    assert (rays.batch, rays.has_image.tolist()) == (2, [False, False])
    assert View(None, torch.tensor([[32, 48]]), torch.zeros(1, 6, 8)).has_image.tolist() == [True]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "needs an image, tokens or a ray map"),
        ({"image": IMAGE[0]}, r"View.image must be \[B, 3, H, W\]"),
        (
            {"ray_map": RAYS.movedim(-1, 1)},
            r"View.ray_map must have shape \[..., \?, \?, 6\], got \[2, 6, 32, 48\]",
        ),
        ({"ray_map": RAYS[0]}, r"View.ray_map must be \[B, H, W, 6\]"),
        ({"image": IMAGE, "ray_map": RAYS[:, :16]}, "does not fit the image"),
        ({"tokens": torch.zeros(1, 6, 8)}, "tokens only needs true_shape"),
        ({"image": IMAGE, "ray_mask": torch.tensor([True, True])}, "View.ray_mask has nothing to mask"),
        ({"image": IMAGE, "image_mask": torch.tensor([True])}, r"View.image_mask must be bool \[2\]"),
        ({"image": IMAGE, "image_mask": torch.tensor([1, 0])}, r"must be bool \[2\], got torch.int64"),
    ],
)
def test_wrong_views_are_refused(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        View(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"local": Pointmap(torch.zeros(1, 4, 4, 3), torch.ones(1, 4, 4))}, "Prediction.local"),
        ({"c2w": torch.zeros(1, 3, 4)}, "Prediction.c2w"),
        ({"rgb": torch.zeros(1, 3, 4, 6)}, "Prediction.rgb"),
    ],
)
def test_wrong_predictions_are_refused(fields: dict, message: str) -> None:
    points = Pointmap(torch.zeros(1, 4, 6, 3), torch.ones(1, 4, 6))
    with pytest.raises(ValueError, match=message):
        Prediction(points, "first", **fields)
