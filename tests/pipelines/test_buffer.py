"""The scene buffer: who gets in, who leaves."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from threer.config import StreamingConfig
from threer.pipelines.streaming.buffer import SceneBuffer
from threer.pipelines.streaming.state import Draws, Keyframe


def keyframe(index: int, world: float = 8.0, local: float = 8.0) -> Keyframe:
    return Keyframe(index, None, (16, 16), local_conf=local, world_conf=world)


def fill(config: StreamingConfig, stride: int, until: int) -> SceneBuffer:
    initial = [keyframe(i * stride) for i in range(config.init_frames)]
    buffer = SceneBuffer(config, Draws(config), stride, initial)
    frames = {i: keyframe(i) for i in range(until)}
    for upto in range(initial[-1].index + 1, until + 1):
        buffer.consider(upto, frames)
    return buffer


def test_every_candidate_stays_with_the_same_probability() -> None:
    """Reservoir sampling keeps each of 800 candidates with probability 100/800, old or new."""
    counts: Counter[int] = Counter()
    runs = 60
    for seed in range(runs):
        config = StreamingConfig(stride=1, seed=seed)
        counts.update(k.index for k in fill(config, 1, 800).keyframes)
    for start in range(0, 800, 200):
        share = sum(counts[i] for i in range(start, start + 200)) / (200 * runs)
        assert share == pytest.approx(0.125, abs=0.015)


def test_fifo_keeps_the_newest() -> None:
    config = StreamingConfig(stride=1, buffer_size=6, policy="fifo")
    assert [k.index for k in fill(config, 1, 50).keyframes] == list(range(44, 50))


def test_no_limit_keeps_all() -> None:
    assert len(fill(StreamingConfig(stride=1, buffer_size=0), 1, 300)) == 300


def test_entries_are_three_quarters_of_a_stride_apart() -> None:
    stride = 8
    indices = [k.index for k in fill(StreamingConfig(stride=stride, buffer_size=0), stride, 200).keyframes]
    assert min(b - a for a, b in itertools.pairwise(indices)) >= 3 * stride // 4


def test_the_surest_frame_of_a_segment_is_taken() -> None:
    config = StreamingConfig(stride=4)
    buffer = SceneBuffer(config, Draws(config), 4, [keyframe(0), keyframe(4)])
    frames = {i: keyframe(i) for i in range(5, 9)}
    frames[7] = keyframe(7, world=12.0)
    frames[8].local_conf = 1.5
    buffer.consider(9, frames)
    assert buffer.keyframes[-1].index == 7
    assert buffer.milestone == 9


def test_badly_registered_and_failed_frames_stay_out() -> None:
    config = StreamingConfig(stride=1)
    buffer = SceneBuffer(config, Draws(config), 1, [keyframe(0), keyframe(1)])
    failed = keyframe(3)
    failed.failure = "nothing seen"
    buffer.consider(5, {2: keyframe(2, world=1.1), 3: failed, 4: keyframe(4)})
    assert [k.index for k in buffer.keyframes] == [0, 1, 4]


def test_the_newest_is_never_evicted_by_its_own_arrival() -> None:
    config = StreamingConfig(stride=1, buffer_size=5)
    draws = Draws(config)
    buffer = SceneBuffer(config, draws, 1, [keyframe(i) for i in range(5)])
    frames = {i: keyframe(i) for i in range(400)}
    for upto in range(6, 400):
        before = [k.index for k in buffer.keyframes]
        buffer.consider(upto, frames)
        after = [k.index for k in buffer.keyframes]
        assert len(after) == 5
        if after != before:
            assert after[-1] == upto - 1
