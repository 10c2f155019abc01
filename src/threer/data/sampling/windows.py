"""Windows of SLAM3R: consecutive frames at a stride, or the views of a half circle (training.md, section 3.2)."""

from __future__ import annotations

import numpy as np

from threer.data.datasets.format import IntArray, Track

GAP_FACTOR = 3
"""A window whose frame numbers span so many times what they should has a hole in it."""
HALF = 0.5
UNIFORM_ONE_IN = 3


def window_starts(track: Track, views: int, interval: int) -> IntArray:
    """Where windows of ``views`` frames, ``interval`` apart, fit and have no hole: [n] positions."""
    span = interval * (views - 1)
    starts = np.arange(max(0, len(track) - span))
    if not len(starts) or len(track) < 2 or not span:
        return starts
    step = float(np.median(np.diff(track.numbers)))  # video frames may have been numbered by tens
    covered = track.numbers[starts + span] - track.numbers[starts]
    return starts[covered < GAP_FACTOR * span * step]


def window(start: int, views: int, interval: int) -> list[int]:
    """Positions of a window."""
    return [start + interval * view for view in range(views)]


def arc(track: Track, start: int, views: int, rng: np.random.Generator) -> list[int]:
    """Positions on half of a loop: one time in three evenly spaced, else a random part of it, both ends kept.

    Shorter loops give as much more than a half as they need. Raises ValueError with fewer frames than views.
    """
    count = len(track)
    if count < views:
        raise ValueError(f"an arc of {views} views needs so many frames, got {count}")
    span = max(round(count * HALF), views)
    if rng.integers(UNIFORM_ONE_IN) == 0 or views <= 2:
        inside = np.rint(np.linspace(0, span - 1, views)).astype(int)
    else:
        middle = 1 + np.sort(rng.permutation(span - 2)[: views - 2])
        inside = np.concatenate([[0], middle, [span - 1]])
    return [int(p) for p in (start + inside) % count]
