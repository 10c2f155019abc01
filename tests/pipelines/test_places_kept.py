"""Which places and loops of a stream are kept where there are too many, and which places are compared."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from threer.config import LoopConfig
from threer.pipelines.streaming import closing
from threer.pipelines.streaming.closing import Found, LoopCloser
from threer.types import Sim3

for module in ("pycolmap", "gtsam"):
    pytest.importorskip(module, reason="closing loops needs both: pip install 'threer[refine]'")

PLACES = 17


def found(first: int, second: int, settled: bool = True) -> Found:
    """A loop between places of these frames."""
    loop: Any = SimpleNamespace(edge=SimpleNamespace(first=first, second=second))
    return Found(loop, loop, settled)


def closer(frames: range, loops: list[Found]) -> LoopCloser:
    made = LoopCloser()
    made._places = [SimpleNamespace(index=frame) for frame in frames]  # type: ignore[misc]
    made._pooled = [torch.tensor([float(frame)]) for frame in frames]
    made._loops = loops
    return made


@pytest.fixture(autouse=True)
def _room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closing, "MOST_PLACES", PLACES - 1)
    monkeypatch.setattr(closing, "MOST_LOOPS", 4)


def test_every_second_place_goes_but_for_the_newest_and_the_ends_of_loops() -> None:
    frames = range(30, 30 + 3 * (PLACES + 1), 3)
    full = closer(frames, [found(frames[5], frames[11], settled=False)])
    full._thin()
    assert [place.index for place in full._places] == [
        frames[k] for k in (0, 2, 4, 5, 6, 8, 10, 11, 12, 14, 16, 17)
    ]
    assert [int(vector) for vector in full._pooled] == [place.index for place in full._places]
    full._thin()
    assert len(full._places) == 12, "there is room again"


def test_loops_that_the_poses_know_go_first() -> None:
    loops = [found(k, 10 + k, settled=k not in (1, 4)) for k in range(6)]
    full = closer(range(PLACES - 1), list(loops))
    full._thin()
    assert full._loops == [loops[k] for k in (1, 2, 4, 5)]
    assert len(full._places) == PLACES - 1
    new = [found(k, 10 + k, settled=False) for k in range(5)]
    full = closer(range(PLACES - 1), list(new))
    full._thin()
    assert full._loops == [new[1], new[3]]


def test_new_places_come_half_as_often_once_every_second_one_went(monkeypatch: pytest.MonkeyPatch) -> None:
    unmoved = Sim3(1.0, np.eye(3), np.zeros(3))

    def remember(update: Any) -> Any:
        return SimpleNamespace(
            index=update.frame.index, now=unmoved, chain=unmoved, descriptors=torch.zeros(1, 1), nbytes=0
        )

    monkeypatch.setattr(closing, "remember", remember)
    monkeypatch.setattr(closing, "find_words", lambda *_, **__: torch.zeros(1, 1))
    monkeypatch.setattr(closing, "describe", lambda *_: np.ones(1))
    stream = LoopCloser(LoopConfig(gap=1000))
    for index in range(2 * PLACES - 4):
        stream.look(SimpleNamespace(kind="final", frame=SimpleNamespace(index=index)), 1)  # type: ignore[arg-type]
    assert [place.index for place in stream._places] == list(range(0, 2 * PLACES - 4, 2))


@pytest.mark.parametrize(("away", "asked"), [(0.0, False), (2.5, True)])
def test_only_places_that_the_camera_left_are_compared_with_the_newest(away: float, asked: bool) -> None:
    """Five places that look the same way, or the middle one the other way."""
    points = np.stack(np.meshgrid(np.linspace(-0.4, 0.4, 8), np.linspace(-0.3, 0.3, 6), [2.0]), axis=-1)[..., 0, :]
    shown = SimpleNamespace(points=points, conf=np.ones(points.shape[:2]))
    K = np.array([[100.0, 0, 63.5], [0, 100, 47.5], [0, 0, 1]])
    ahead = Sim3(1.0, np.eye(3), np.zeros(3))
    c, s = np.cos(away), np.sin(away)
    beside = Sim3(1.0, np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]), np.zeros(3))
    stream = LoopCloser()
    stream._places = [
        SimpleNamespace(index=20 * k, now=beside if k == 2 else ahead, K=K, size=(128, 96), frame=lambda _: shown)
        for k in range(5)
    ]  # type: ignore[misc]
    stream._pooled = [torch.ones(3) / 3**0.5 for _ in range(5)]
    compared = [place.index for place in stream._candidates()]
    assert compared == ([0, 20] if asked else [])
