"""What `python -m threer.training` and `threer train` do."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from threer.errors import ThreerError
from threer.training.export import package
from threer.training.options import Options
from threer.training.recipes import load_recipe
from threer.training.recipes.recipe import Recipe
from threer.training.rehearsal import rehearse
from threer.training.trainer import Trainer


def train(
    recipe: str,
    out: Path,
    options: Options,
    *,
    settings: Sequence[str] = (),
    published: bool = False,
    dry_run: bool = False,
    threads: int | None = None,
    package_into: Path | None = None,
    console: Console | None = None,
) -> None:
    """Train ``recipe``, by name or path, into ``out``; see `Options`.

    ``settings`` are changes of it, such as ``batch.per_device=8`` (TOML values). ``dry_run`` only rehearses;
    ``package_into`` only copies a result, to ship it. Raises ThreerError.
    """
    console = console or Console(highlight=False)
    if threads is not None:
        torch.set_num_threads(threads)
    if options.device == "auto":
        options = replace(options, device="cuda" if torch.cuda.is_available() else "cpu")
    if options.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    loaded = load_recipe(recipe, published, changes=[_change(text) for text in settings])
    if options.minutes is not None and options.steps is None:
        loaded = _within(loaded, options.minutes)
    if package_into is not None:
        package(out, loaded, package_into)
        console.print(f"{package_into} holds {loaded.name}", markup=False)
    elif dry_run:
        rehearse(loaded, out, options, console)
    else:
        Trainer(loaded, out, options, console).run()


def _within(recipe: Recipe, minutes: float) -> Recipe:
    """The recipe squeezed into ``minutes``, its validations along."""
    schedule = recipe.schedule.within(minutes)
    every = recipe.validation.every * minutes / recipe.schedule.length
    return replace(recipe, schedule=schedule, validation=replace(recipe.validation, every=every))


def _change(text: str) -> tuple[list[str], Any]:
    """``a.b=VALUE`` as the path to a setting and its value."""
    name, sign, value = text.partition("=")
    if not sign or not name.strip():
        raise ThreerError(f"--set needs NAME=VALUE, such as batch.per_device=8, got {text!r}")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        raise ThreerError(f"--set {name}: {value!r} is no TOML value; texts need quotes") from None
    return name.strip().split("."), parsed
