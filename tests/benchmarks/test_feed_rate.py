"""How fast rendering feeds training, in small."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import feed

from tiny_training import PAIRS, tiny_recipe


def test_both_sides_are_timed_and_compared(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:  # type: ignore[type-arg]
    monkeypatch.setattr(feed, "load_recipe", lambda name: tiny_recipe(PAIRS))
    monkeypatch.setattr("torch.set_num_threads", lambda count: None)
    feed.main(["tiny", "--clips", "2", "--batch", "2"])
    said = capsys.readouterr().out
    numbers = {line[:16].strip(): float(re.findall(r"[\d.]+", line[16:])[0]) for line in said.splitlines()[1:]}
    assert set(numbers) == {"room and path", "pictures", "rendered", "trained", "rendering feeds"}
    assert all(value > 0 for value in numbers.values())
    seconds_a_clip = (numbers["room and path"] + tiny_recipe(PAIRS).synthetic.frames * numbers["pictures"]) / 1000
    assert numbers["rendered"] * seconds_a_clip == pytest.approx(1, rel=0.1)
    used = numbers["trained"] / tiny_recipe(PAIRS).synthetic.reuse
    assert numbers["rendering feeds"] * used == pytest.approx(numbers["rendered"], rel=0.1)


def test_rendering_alone_trains_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:  # type: ignore[type-arg]
    monkeypatch.setattr(feed, "train", lambda *a: pytest.fail("trained"))
    monkeypatch.setattr(feed, "load_recipe", lambda name: tiny_recipe(PAIRS))
    monkeypatch.setattr("torch.set_num_threads", lambda count: None)
    feed.main(["tiny", "--clips", "1", "--size", "16", "--style", "hand-held", "--render-only"])
    assert "hand-held, 16×16, clips of 5 frames, cpu" in capsys.readouterr().out
