"""`threer train` reaches the trainer with what was asked for, and says in a line what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from threer.cli import main
from threer.training import command
from threer.training.recipes.recipe import Recipe


def test_arguments_reach_the_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    class Watched:
        def __init__(self, recipe: Recipe, folder: Path, options: Any, console: Any) -> None:
            made.extend((recipe, folder, options))

        def run(self) -> None:
            made.append("run")

    monkeypatch.setattr(command, "Trainer", Watched)
    arguments = ["--device", "cpu", "--minutes", "5", "--set", "batch.per_device=8", "synthetic.fov=[40,70]"]
    assert main(["train", "dust3r-mini", str(tmp_path), *arguments]) == 0
    recipe, folder, options, ran = made
    assert ran == "run"
    assert folder == tmp_path
    assert (options.device, options.minutes) == ("cpu", 5)
    assert recipe.batch.per_device == 8
    assert recipe.synthetic.fov == (40, 70)
    assert recipe.schedule.minutes == 5
    assert recipe.validation.every == pytest.approx(1), "validations are squeezed along"
    assert recipe.schedule.warmup == pytest.approx(0.15)


def test_what_is_wrong_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "slam4r", str(tmp_path)]) == 1
    assert "unknown recipe 'slam4r'; valid: " in capsys.readouterr().err
    assert main(["train", "dust3r-mini", str(tmp_path), "--set", "batch.per_device=none"]) == 1
    assert "'none' is no TOML value" in capsys.readouterr().err
