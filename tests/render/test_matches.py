"""Matches drawn side by side."""

import numpy as np
import pytest

from threer.render.matches import draw_matches
from threer.render.pictures import GAP_COLOR, GAP_PX


def test_lines_join_partners() -> None:
    a, b = np.zeros((20, 30, 3), np.uint8), np.full((16, 24, 3), 9, np.uint8)
    picture = draw_matches(a, b, np.array([[5.0, 6.0]]), np.array([[10.0, 6.0]]), zoom=2)
    assert picture.shape == (40, 60 + GAP_PX + 48, 3)
    assert tuple(picture[-1, -1]) == GAP_COLOR  # the smaller picture does not reach down
    row = picture[12]
    drawn = np.flatnonzero((row != picture[30]).any(axis=1))
    assert drawn.min() in range(7, 12)  # the mark about 2 · 5 + ½
    assert drawn.max() in range(86, 91)  # the mark about 60 + 6 + 2 · 10 + ½
    assert len(drawn) >= 75


def test_at_most_so_many_and_none() -> None:
    a = np.zeros((50, 50, 3), np.uint8)
    pixels = np.stack([np.full(40, 25.0), np.arange(5, 45.0)], axis=1)
    few = draw_matches(a, a, pixels, pixels, most=3)
    middle = few[:, 50 + GAP_PX // 2]
    assert (middle != GAP_COLOR).any(axis=1).sum() == 3
    none = draw_matches(a, a, np.zeros((0, 2)), np.zeros((0, 2)))
    assert (none[:, 50 : 50 + GAP_PX] == GAP_COLOR).all()
    with pytest.raises(ValueError, match="both be"):
        draw_matches(a, a, np.zeros((3, 2)), np.zeros((2, 2)))
