"""Times of live frames: what the sender says, what the wall clock says where it cannot be right, and pacing."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from threer.io.live.timing import Pace, StreamClock


def times(arrivals: Sequence[tuple[float, float | None]]) -> list[float]:
    """Times that a clock gives to frames: (wall clock at arrival, stamp)."""
    wall = iter([now for now, _ in arrivals])
    clock = StreamClock(lambda: next(wall))
    return [clock.time(stamp) for _, stamp in arrivals]


def test_the_senders_spacing_counts_not_that_of_arrival() -> None:
    assert times([(50, 7.0), (50.9, 7.5), (50.91, 8.0), (54, 8.25)]) == [0, 0.5, 1.0, 1.25]


def test_without_stamps_the_wall_clock_counts() -> None:
    assert times([(50, None), (50.5, None), (52, None), (52, None)]) == [0, 0.5, 2, 2.001]


def test_a_sender_that_starts_anew_leaves_a_gap_as_long_as_it_was() -> None:
    # Stops at 1.0, is back 5 s after that, and counts from its own zero again.
    got = times([(50, 3.0), (51, 4.0), (56, 0.0), (56.3, 0.25), (57, 1.0)])
    assert got == [0, 1.0, 6, 6.25, 7]


def test_a_break_of_a_clock_that_goes_on_keeps_the_clock() -> None:
    assert times([(50, 3.0), (51, 4.0), (56.2, 9.0)]) == [0, 1.0, 6.0]


def test_a_stamp_far_ahead_of_the_wall_clock_is_not_believed() -> None:
    assert times([(50, 3.0), (51, 4.0), (51.5, 95443.7), (52, 95444.0)]) == pytest.approx([0, 1.0, 1.5, 1.8])


def test_a_stamp_that_repeats_costs_nothing_but_its_own_place() -> None:
    got = times([(50, 3.0), (50.5, 3.5), (50.6, 3.5), (60, None), (61, 4.5)])
    assert got == pytest.approx([0, 0.5, 0.501, 10, 11])
    assert times([(50, 3.0), (50.5, 3.5), (50.6, 3.48), (51, 4.0)]) == pytest.approx([0, 0.5, 0.501, 1.0])


STAMPS = st.one_of(st.none(), st.floats(-1e5, 1e5))


@given(st.lists(st.tuples(st.floats(0, 20), STAMPS), min_size=2, max_size=30))
def test_times_always_rise(steps: list[tuple[float, float | None]]) -> None:
    now, arrivals = 1000.0, []
    for step, stamp in steps:
        now += step
        arrivals.append((now, stamp))
    got = times(arrivals)
    assert got[0] == 0
    assert all(a < b for a, b in itertools.pairwise(got))


def paced(moments: Sequence[float], fps: float | None) -> list[float]:
    pace = Pace(fps)
    return [moment for moment in moments if pace.takes(moment)]


def test_pace_takes_the_first_frame_near_each_tick() -> None:
    assert paced([k / 30 for k in range(31)], 5) == pytest.approx(
        [0, 0.1667, 0.3667, 0.5667, 0.7667, 0.9667], abs=1e-3
    )
    assert paced([0, 0.01, 3.0, 3.01, 3.9, 4.3], 1) == [0, 3.0, 3.9]
    assert paced([0, 0.001], None) == [0, 0.001]


def test_at_the_sources_own_rate_jitter_costs_no_frame() -> None:
    jittered = [k / 30 + (0.006 if k % 3 == 1 else -0.006 if k % 3 == 2 else 0) for k in range(300)]
    assert paced(jittered, 30) == jittered


@given(st.lists(st.floats(0, 20), unique=True, max_size=60), st.floats(0.1, 40))
def test_what_passed_once_passes_again(moments: list[float], fps: float) -> None:
    taken = paced(sorted(moments), fps)
    assert paced(taken, fps) == taken
    assert len(taken) <= 20 * fps + 2
