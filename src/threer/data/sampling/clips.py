"""Clips of CUT3R: videos at random gaps, collections without order, revisits (training.md, section 5.3)."""

from __future__ import annotations

import numpy as np

from threer.data.datasets.format import IntArray

BLOCKS = (16, 25)
REVISIT, RESAMPLE = 0.5, 0.4
FEWEST = 3


def fewest_frames(views: int) -> int:
    """How many different frames a clip of ``views`` needs at least, when frames may come again."""
    return min(views, max(-(-views // 3), FEWEST))


def clip(
    frames: int, start: int, views: int, interval: int, ordered: float, steady: float, rng: np.random.Generator
) -> list[int]:
    """Positions of ``views`` views out of ``frames``, from ``start`` on; a late start is moved forward.

    interval  the most frames from one view to the next, cut so that the clip fits
    ordered   probability of a video; then steady is that of one constant gap
    Raises ValueError when the frames are fewer than `fewest_frames`.
    """
    if frames < fewest_frames(views):
        raise ValueError(f"a clip of {views} views needs {fewest_frames(views)} frames or more, got {frames}")
    if frames < views:
        return again(np.arange(frames), views, rng)
    start = min(start, frames - views)
    if views == 1:
        return [start]
    widest = max(1, min(interval, (frames - start - 1) // (views - 1)))
    gaps = rng.integers(1, widest + 1, views - 1)
    if rng.random() < ordered:
        if rng.random() < steady:
            gaps = np.full(views - 1, rng.integers(1, widest + 1))
        return _ints(_positions(start, gaps))
    return _ints(shuffled(_positions(start, gaps), rng))


def shuffled(positions: IntArray, rng: np.random.Generator) -> IntArray:
    """All at random, or at random within blocks of 16 or 25 that keep their order; half of the time each."""
    if rng.random() < 0.5:
        return rng.permutation(positions)
    block = int(rng.choice(BLOCKS))
    return np.concatenate([rng.permutation(positions[i : i + block]) for i in range(0, len(positions), block)])


def again(frames: IntArray, views: int, rng: np.random.Generator) -> list[int]:
    """``views`` out of fewer frames: a part of them round and round, at random, or at random in order."""
    fewest = fewest_frames(views)
    if len(frames) < fewest:
        raise ValueError(f"a clip of {views} views needs {fewest} frames or more, got {len(frames)}")
    size = int(rng.integers(fewest, len(frames) + 1))
    part = np.sort(rng.permutation(frames)[:size])
    kind = rng.random()
    if kind < REVISIT:
        return _ints(np.resize(part, views))
    drawn = rng.choice(part, views)
    return _ints(drawn if kind < REVISIT + RESAMPLE else np.sort(drawn))


def _positions(start: int, gaps: IntArray) -> IntArray:
    return start + np.concatenate([[0], np.cumsum(gaps)])


def _ints(values: IntArray) -> list[int]:
    return [int(value) for value in values]
