"""Crops and sizes: points projected with the new intrinsics lie where the picture shows them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from threer.data.augment import ColourChange
from threer.data.crops import UnusableViewError, centre_principal_point, fit, resize, upright_size
from threer.data.datasets.format import nearest
from threer.data.samples import RawView

K = np.array([[90.0, 0, 52.3], [0, 95.0, 33.8], [0, 0, 1]])


def ramp(width: int, height: int, matrix: np.ndarray = K) -> RawView:
    """Red and green are twice and three times the pixel's coordinates; depth 2 m on the left half and 5 m right."""
    v, u = np.mgrid[:height, :width]
    image = np.stack([2 * u, 3 * v, np.zeros_like(u)], -1).astype(np.uint8)
    return RawView(image, np.where(u < width / 2, 2, 5).astype(np.float32), np.eye(4), matrix.copy())


def places(view: RawView) -> np.ndarray:
    """Ray (x, y) at depth 1 of every pixel: [H, W, 2]."""
    height, width = view.depth.shape
    v, u = np.mgrid[:height, :width]
    return np.stack([(u - view.K[0, 2]) / view.K[0, 0], (v - view.K[1, 2]) / view.K[1, 1]], -1)


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(12, 90), st.integers(12, 70)),
    enlarge=st.integers(0, 40),
    cx=st.floats(35, 70),
    cy=st.floats(25, 45),
)
def test_colours_stay_on_their_rays(size: tuple[int, int], enlarge: int, cx: float, cy: float) -> None:
    matrix = np.array([[90.0, 0, cx], [0, 95.0, cy], [0, 0, 1]])
    view = ramp(104, 70, matrix)
    out = fit(view, size, enlarge)
    assert out.size == size
    rays = places(out)
    # where the ray of each new pixel met the old picture, whose colours say where that was
    expected = (rays * [90, 95] + [cx, cy]) * [2, 3]
    shown = out.image[..., :2].astype(float)
    inner = (slice(4, -4), slice(4, -4))  # Lanczos rings at the borders
    # one Lanczos step of 8-bit ramps is exact to rounding
    assert np.abs(shown[inner] - expected[inner]).max() < 1.01


@settings(max_examples=40, deadline=None)
@given(size=st.tuples(st.integers(12, 90), st.integers(12, 70)), cx=st.floats(35, 70), cy=st.floats(25, 45))
def test_the_principal_point_ends_in_the_middle(size: tuple[int, int], cx: float, cy: float) -> None:
    out = fit(ramp(104, 70, np.array([[90.0, 0, cx], [0, 95.0, cy], [0, 0, 1]])), size)
    zoom = out.K[0, 0] / 90
    off = np.abs(out.K[:2, 2] - (np.array(size) - 1) / 2)
    assert off.max() <= 0.5 + 0.5 * max(zoom, 1) + 1e-9  # half a pixel of each of the two crops


def test_enlarging_narrows_the_view() -> None:
    plain, zoomed = fit(ramp(104, 70), (64, 32)), fit(ramp(104, 70), (64, 32), enlarge=16)
    assert zoomed.K[0, 0] / plain.K[0, 0] == pytest.approx((64 + 16) / 64, rel=0.03)
    assert zoomed.size == plain.size


def test_depth_is_never_mixed() -> None:
    out = fit(ramp(104, 70), (50, 30))
    assert set(np.unique(out.depth)) == {2, 5}
    edge = np.argmax(out.depth[0] == 5)  # first column of the right half
    source = places(out)[0, edge - 1 : edge + 1, 0] * 90 + 52.3
    assert source[0] < 52.5 < source[1] + 1


def test_resizing_up_and_down_keeps_pixel_centres() -> None:
    view = ramp(40, 20)
    up = resize(view, (80, 40))
    # the centre of old pixel 0 is between the new pixels 0 and 1
    assert up.K[0, 2] == pytest.approx(2 * 52.3 + 0.5)
    np.testing.assert_allclose(resize(up, (40, 20)).K, view.K)
    assert nearest(np.arange(4)[None], (2, 1)).tolist() == [[1, 3]]
    assert nearest(np.arange(2)[None], (4, 1)).tolist() == [[0, 0, 1, 1]]


def test_a_principal_point_at_the_border_is_refused() -> None:
    for cx in (3.0, 101.0, np.nan):
        with pytest.raises(UnusableViewError, match="principal point"):
            centre_principal_point(ramp(104, 70, np.array([[90.0, 0, cx], [0, 95, 35], [0, 0, 1]])))


def test_standing_pictures_turn_in_lying_batches() -> None:
    rng = np.random.default_rng(0)
    assert upright_size((30, 40), (64, 48), rng) == (48, 64)
    assert upright_size((40, 30), (64, 48), rng) == (64, 48)
    assert upright_size((40, 30), (48, 48), rng) == (48, 48)
    turned = [upright_size((40, 40), (64, 48), rng) == (48, 64) for _ in range(400)]
    assert 0.4 < np.mean(turned) < 0.6


def test_colour_changes_do_what_they_say() -> None:
    image = np.random.default_rng(0).integers(60, 120, (8, 9, 3)).astype(np.uint8)
    order = (0, 1, 2, 3)
    assert np.abs(ColourChange(1, 1, 1, 0, order)(image).astype(int) - image).max() <= 1
    np.testing.assert_allclose(ColourChange(1.5, 1, 1, 0, order)(image), image * 1.5, atol=1)
    assert ColourChange(1, 0.5, 1, 0, order)(image).std() < 0.6 * image.std()
    grey = ColourChange(1, 1, 0, 0, order)(image)
    assert np.ptp(grey.astype(int), axis=-1).max() <= 1
    red = np.zeros((2, 2, 3), np.uint8) + np.array([200, 0, 0], np.uint8)
    assert ColourChange(1, 1, 1, 1 / 3, order)(red)[0, 0].tolist() == [0, 200, 0]


def test_colour_changes_are_drawn_within_their_bounds() -> None:
    rng = np.random.default_rng(1)
    drawn = [ColourChange.draw((0.5, 0.2, 2.0, 0.1), rng) for _ in range(300)]
    for name, low, high in (
        ("brightness", 0.5, 1.5),
        ("contrast", 0.8, 1.2),
        ("saturation", 0, 3),
        ("hue", -0.1, 0.1),
    ):
        values = [getattr(change, name) for change in drawn]
        assert low <= min(values) < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < max(values) <= high
    assert len({change.order for change in drawn}) == 24
