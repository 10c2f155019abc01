"""How far a run is, by steps and by the clock, and when it stops."""

from __future__ import annotations

import time

import pytest
import torch

from threer.training.clock import Clock
from threer.training.options import Options
from threer.training.state import Progress
from tiny_training import PAIRS, tiny_recipe

RECIPE = tiny_recipe(PAIRS)  # of one minute


def clock(ago: float = 0.0, **options: float) -> Clock:
    """Of a call that began ``ago`` seconds ago."""
    return Clock(RECIPE, Options(**options), 1, torch.device("cpu"), time.monotonic() - ago)  # type: ignore[arg-type]


def test_the_end_of_a_run_of_minutes_leaves_time_for_what_is_to_be_done() -> None:
    ends = clock(minutes=10)
    ends.reserve = 100.0
    assert ends.done(Progress(seconds=20, begun=20)) == 0
    assert ends.done(Progress(seconds=260, begun=20)) == pytest.approx(0.5)
    assert ends.done(Progress(seconds=500, begun=20)) == 1
    assert ends.done(Progress(seconds=700, begun=650)) == 1  # set-up took it all
    assert clock().done(Progress(seconds=30)) == pytest.approx(0.5)  # the recipe's minute


def test_steps_set_the_pace_whatever_the_clock_says() -> None:
    both = clock(steps=8, minutes=10)
    assert both.done(Progress(step=2, seconds=590)) == 0.25
    assert both.done(Progress(step=9)) == 1


def test_calls_before_count_for_the_run_and_not_for_the_session() -> None:
    later = clock(ago=50, minutes=10, session=2)
    later.before = 300.0
    seconds, stop = later.now()
    assert seconds == pytest.approx(350, abs=1)
    assert not stop
    assert later.now(asked=True)[1]


@pytest.mark.parametrize(
    ("options", "before", "reserve", "stop"),
    [
        ({"session": 2}, 500.0, 0.0, False),
        ({"session": 2}, 0.0, 80.0, True),
        ({"session": 0.5}, 0.0, 0.0, True),
        ({"steps": 8, "minutes": 2}, 0.0, 0.0, False),
        ({"steps": 8, "minutes": 2}, 0.0, 80.0, True),
        ({"steps": 8, "minutes": 2}, 80.0, 0.0, True),
    ],
)
def test_a_run_stops_before_its_time_is_over(
    options: dict[str, float], before: float, reserve: float, stop: bool
) -> None:
    running = clock(ago=50, **options)
    running.before, running.reserve = before, reserve
    assert running.now()[1] == stop


def test_validations_are_spread_over_the_run() -> None:
    every = clock(minutes=10)  # half a minute of one, by the recipe
    assert every.validation_due(Progress(done=0.0, validated=0))
    assert not every.validation_due(Progress(done=0.49, validated=1))
    assert every.validation_due(Progress(done=0.5, validated=1))
    assert [every.validations(Progress(done=done)) for done in (0.0, 0.49, 0.5, 1.0)] == [1, 1, 2, 3]
