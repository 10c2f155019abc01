"""What walks with a phone may not do: turn too fast, look too far up or down, run into things."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from threer.data.synthetic import HandHeld
from threer.data.synthetic.raycast import clearance
from threer.data.synthetic.room_style import LIVED_IN
from threer.data.synthetic.rooms import Rooms, sample_room, stack_rooms
from threer.data.synthetic.walks import MIN_CLEARANCE, _bounded, sample_walks

STEADY = HandHeld(shake=0.0, roll=0.0, bob=(0.0, 0.0))


@pytest.fixture(scope="module")
def rooms() -> Rooms:
    return stack_rooms([sample_room(seed) for seed in range(60, 66)])


def gaze(rooms: Rooms, style: HandHeld) -> tuple[Tensor, Tensor, Tensor]:
    """Yaw and pitch (down is positive) [S, N] in radians, and seconds between frames [S, 1]."""
    generators = [torch.Generator().manual_seed(seed) for seed in range(len(rooms))]
    walks = sample_walks(rooms, 16, torch.full((len(rooms),), 0.9), style, generators)
    x, y, z = walks.c2w[..., :3, 2].unbind(-1)
    return torch.atan2(x, z), torch.asin(y.clamp(-1, 1)), walks.interval.unsqueeze(1)


@pytest.mark.parametrize("turn", [10.0, 75.0])
def test_the_gaze_turns_no_faster_than_it_may(rooms: Rooms, turn: float) -> None:
    yaw, pitch, interval = gaze(rooms, replace(STEADY, turn=turn, glance=80.0))
    turned = torch.remainder(yaw.diff(dim=1) + math.pi, 2 * math.pi) - math.pi
    most = math.radians(turn) * interval
    assert (turned.abs() <= most + 1e-4).all()
    assert (pitch.diff(dim=1).abs() <= 0.5 * most + 1e-4).all()
    assert (turned.abs() > most - 1e-3).any(), "glances go to the limit"


@pytest.mark.parametrize("mean", [-80.0, 80.0])
def test_nobody_films_the_ceiling_or_the_feet_alone(rooms: Rooms, mean: float) -> None:
    _, pitch, _ = gaze(rooms, replace(STEADY, pitch=(mean, 5.0)))
    assert pitch.min() > -0.5 - 1e-3
    assert pitch.max() < 0.9 + 1e-3


def test_the_gaze_turns_the_short_way_round() -> None:
    asked = torch.tensor([[[3.0, -3.0, -3.0, 3.0, 0.0]]])
    followed = _bounded(asked, torch.tensor([[1.0]]))[0, 0]
    assert followed.tolist() == pytest.approx([3.0, 2 * math.pi - 3.0, 2 * math.pi - 3.0, 3.0, 2.0], abs=1e-5)


def test_paths_that_run_into_things_are_not_taken() -> None:
    """Of people who sway so much that every third one would."""
    seeds = range(60, 76)
    rooms = stack_rooms([sample_room(seed, LIVED_IN) for seed in seeds])
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    walks = sample_walks(rooms, 24, torch.full((len(seeds),), 0.9), HandHeld(bob=(0.4, 0.4)), generators)
    assert clearance(rooms, torch.arange(len(seeds)), walks.c2w[..., :3, 3]).min() > MIN_CLEARANCE
