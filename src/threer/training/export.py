"""From a training folder to a checkpoint folder: weights, card, mean pointmap."""

from __future__ import annotations

import csv
import dataclasses
import shutil
from pathlib import Path
from typing import Any

import torch

from threer.errors import ThreerError
from threer.models.checkpoints import save_checkpoint
from threer.models.slam3r import SLAM3R, SLAM3RConfig
from threer.training.mini import SLAM3RMini
from threer.training.trainer import LOG, STATE
from threer.training.validation import CLIPS, Scores, Validation, save_mean_pointmap
from threer.types import Checkpoint

LICENCE = "Apache-2.0"
COURSE_ROWS = 12


def export(run: Path, destination: Path, compute: str) -> dict[str, Scores]:
    """Write the network trained in ``run`` to ``destination``, which is replaced as a whole.

    ``compute`` is a phrase for the card: on what it was trained. Returns the scores that the card lists. Raises
    ThreerError when ``run`` holds no state.
    """
    if not (run / STATE).is_file():
        raise ThreerError(f"{run} holds no {STATE}: train into it first")
    state = torch.load(run / STATE, map_location="cpu", weights_only=True)
    recipe = dataclasses.replace(SLAM3RMini(**state["recipe"]), network=SLAM3RConfig.from_dict(state["network"]))
    model = SLAM3R.from_config(recipe.network)
    model.load_state_dict(state["model"])
    mean = state["mean_pointmap"]
    validation = Validation(recipe)
    scores = {
        "slam3r-mini": validation.network(model),
        "mean training pointmap": validation.mean_pointmap(mean),
        "constant depth": validation.constant_depth(),
    }

    name = destination.name
    fresh = destination.with_name(f".{name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    description = f"compact SLAM3R, {recipe.network.image_size} pixels, trained on generated rooms by this project"
    save_checkpoint(model, fresh, Checkpoint(name, "slam3r", (), LICENCE, description=description))
    save_mean_pointmap(mean, fresh)
    card = _card(name, model, recipe, state["progress"], scores, validation.unmoved_keys(), compute)
    (fresh / "README.md").write_text(card + _course(run / LOG), encoding="utf-8")
    old = destination.with_name(f".{name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if destination.exists():
        destination.rename(old)
    fresh.rename(destination)
    shutil.rmtree(old, ignore_errors=True)
    return scores


def _card(
    name: str,
    model: SLAM3R,
    recipe: SLAM3RMini,
    progress: dict[str, Any],
    scores: dict[str, Scores],
    unmoved: float,
    compute: str,
) -> str:
    halves = [sum(p.numel() for p in half.parameters()) / 1e6 for half in (model.i2p, model.l2w)]
    minutes = progress["seconds"] / 60
    rate = progress["samples"] / max(progress["seconds"], 1e-9)
    rows = "\n".join(
        f"| {who} | {s.error:.3f} | {s.abs_rel:.3f} | {s.inlier:.2f} | {_or_dash(s.window_error)} | "
        f"{_or_dash(s.register_error)} |"
        for who, s in scores.items()
    )
    low, high = recipe.style.fov
    return f"""# {name}

A compact SLAM3R ({halves[0]:.1f} M parameters Image-to-Points, {halves[1]:.1f} M Local-to-World, \
{recipe.network.image_size}×{recipe.network.image_size} pixels), trained from nothing by this project. Licence: \
{LICENCE}. Weights in float16; coordinates have no unit.

* **Data**: generated rooms only (`threer.data.synthetic`), field of view {low:g}–{high:g}°, no photograph and no \
recording of any kind.
* **Recipe**: `SLAM3RMini`, seed {recipe.seed}; both halves together, {recipe.views[0]}–{recipe.views[1]} views a \
window, batch {recipe.batch}, Muon {recipe.muon_lr:g} and AdamW {recipe.adam_lr:g}, warm-up and cosine.
* **Compute**: {compute}; {minutes:.0f} minutes, {progress["step"]} steps, {progress["samples"]} windows \
({rate:.1f} a second).

Scores on {CLIPS} unseen generated rooms, one window of 5 views each:

| answer | pointmap error | AbsRel | δ<1.25 | window error | registration error |
|---|---|---|---|---|---|
{rows}
| true key pointmaps, left unmoved | – | – | – | – | {unmoved:.3f} |

Pointmap error: mean distance from the truth after dividing both by their mean distance, reference frame; window
error: all views, jointly. AbsRel and δ: reference depth after the ratio of medians. Registration error: key points
in the world frame, in units of the scene's mean distance, from Image-to-Points' own pointmap of the key; the mean
pointmap is left where it is.

**Limits**: published systems saw tens of millions of image pairs. This network has learned what a room looks like
on average and a little more; it hardly uses the support views, does not read the field of view, and does not track
over long walks. It is here so that everything can be tried without a download, not for its accuracy.
"""


def _course(log: Path) -> str:
    """The run's validation scores over time as a section of the card."""
    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    every = max(1, -(-len(rows) // COURSE_ROWS))
    shown = rows[::-every][::-1]  # the last row always
    names = (
        "minutes",
        "samples",
        "val_error",
        "val_abs_rel",
        "val_inlier",
        "val_window_error",
        "val_register_error",
    )
    lines = [f"| {' | '.join(n.removeprefix('val_') for n in names)} |", "|" + "---|" * len(names)]
    lines += [f"| {' | '.join(_short(row[n]) for n in names)} |" for row in shown]
    return "\n## Course of the training\nThe same scores while it ran.\n\n" + "\n".join(lines) + "\n"


def _short(value: str) -> str:
    number = float(value)
    return f"{number:.0f}" if number >= 1000 else f"{number:.4g}"


def _or_dash(value: float) -> str:
    return "–" if value != value else f"{value:.3f}"
