"""Two views that overlap (training.md, section 4)."""

from __future__ import annotations

import numpy as np

from threer.data.datasets.format import Track

LOOP_GAPS = (5, 10, 15, 20, 25, 30)
"""Frames between the views of a pair, of 100 frames around an object."""
LOOP_JITTER = 4


def loop_pair(track: Track, start: int, rng: np.random.Generator) -> list[int]:
    """Positions of two views of a loop: a gap of 5 … 30 hundredths of the round, each moved by up to 4 hundredths.

    Either may come first. Raises ValueError for a loop of fewer than two views.
    """
    count = len(track)
    if count < 2:
        raise ValueError(f"a pair needs two views, got {count}")
    share = count / 100
    gap = int(rng.choice(LOOP_GAPS))
    direction = 1 if rng.random() < 0.5 else -1
    ends = np.array([start, start + direction * gap * share])
    jitter = rng.integers(-LOOP_JITTER, LOOP_JITTER + 1, 2) * share
    first, second = (int(p) for p in np.rint(ends + jitter).astype(int) % count)
    if first == second:  # a short loop rounds small gaps to nothing
        second = (first + direction) % count
    return [first, second]


def near_pair(track: Track, start: int, interval: int, rng: np.random.Generator) -> list[int]:
    """Positions of two views at most ``interval`` apart, in either order."""
    gap = int(rng.integers(1, max(1, min(interval, len(track) - 1)) + 1))
    other = start + gap if start + gap < len(track) else start - gap
    if other < 0:
        other = (start + 1) % len(track)
    pair = [start, other]
    return pair if rng.random() < 0.5 else pair[::-1]
