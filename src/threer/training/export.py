"""From a trained network to what travels: weights in half precision, in small files, with their card."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from threer.errors import ThreerError
from threer.models.checkpoints import FAMILIES, Model, read_card, save_checkpoint
from threer.models.encoders import encoder_of, encoder_prefix, same_tensors
from threer.models.files import ENCODER, read_safetensors, write_shards
from threer.training.initialise import initialise, read_state
from threer.training.logs import LOG
from threer.training.networks import build
from threer.training.recipes.recipe import Initialisation, Recipe, Synthetic
from threer.training.rounds import style_of
from threer.training.scores import MEAN_POINTMAP, SCORES, Scores, save_mean_pointmap, score_name
from threer.training.start import RESULT
from threer.training.state import Progress
from threer.types import Checkpoint

LICENCE = "Apache-2.0"
SHARD = 16 * 2**20
"""Bytes that no file of weights exceeds: small files travel everywhere."""
COURSE_ROWS = 12


def export(
    tensors: Mapping[str, Tensor],
    recipe: Recipe,
    progress: Progress,
    run: Path,
    destination: Path,
    mean_pointmap: Tensor | None,
    scores: Mapping[str, Scores],
    held_out: Mapping[str, str],
    began: str,
    compute: str,
) -> None:
    """Write the trained ``tensors``, card and mean pointmap to ``destination``, which is replaced as a whole.

    ``scores`` by who answered; ``held_out`` says by source on what; ``began`` says with which weights, ``compute``
    on what it was trained. A half of SLAM3R alone is written without settings: it starts other trainings, and
    cannot be loaded as a model. Raises CheckpointError for weights that do not fit into float16.
    """
    model = build(recipe)
    model.load_state_dict(dict(tensors))
    fresh = destination.with_name(f".{destination.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    if recipe.family in FAMILIES:
        assert isinstance(model, Model)
        width, height = recipe.resolution.sizes[0]
        description = f"{recipe.description} ({width}×{height} pixels), trained by threer"
        card = Checkpoint(recipe.name, recipe.family, (), LICENCE, description=description)
        save_checkpoint(model, fresh, card, SHARD)
    else:
        fresh.mkdir(parents=True)
        write_shards({k: t.to(torch.float16).contiguous() for k, t in tensors.items()}, fresh, SHARD)
    if mean_pointmap is not None:
        save_mean_pointmap(mean_pointmap, fresh)
    text = _card(sum(t.numel() for t in tensors.values()), recipe, progress, began, compute)
    text += _tables(recipe, scores, held_out) + _course(recipe, run / LOG)
    (fresh / "README.md").write_text(text, encoding="utf-8")
    old = destination.with_name(f".{destination.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if destination.exists():
        destination.rename(old)
    fresh.rename(destination)
    shutil.rmtree(old, ignore_errors=True)


def package(run: Path, recipe: Recipe, destination: Path) -> None:
    """Copy the result of a run to ``destination``, to ship it under that folder's name. Raises ThreerError.

    DUSt3R's encoder goes into a file by itself; checkpoints beside it share it if they were trained with it frozen.
    """
    result, destination = run / RESULT, destination.resolve()  # its name and what lies beside it count
    if recipe.family not in FAMILIES:
        raise ThreerError(f"a {recipe.family} alone is no model that could be shipped")
    if not result.is_dir():
        raise ThreerError(f"{run} holds no {RESULT}: train into it first")
    model = build(recipe)
    initialise(model, recipe.family, read_state(result, recipe.family), Initialisation(str(result), recipe.family))
    assert isinstance(model, Model)
    card = replace(read_card(result), name=destination.name)
    destination.mkdir(parents=True, exist_ok=True)
    if recipe.family == "dust3r":
        (destination / ENCODER).unlink(missing_ok=True)
        encoder: str | None = ENCODER
    else:
        encoder = _shared_encoder(model, destination)
    save_checkpoint(model, destination, card, encoder=encoder)
    text = (result / "README.md").read_text(encoding="utf-8")
    text = text.replace(f"# {recipe.name}\n", f"# {destination.name}\n", 1)
    (destination / "README.md").write_text(text, encoding="utf-8")
    if (result / MEAN_POINTMAP).is_file():
        shutil.copyfile(result / MEAN_POINTMAP, destination / MEAN_POINTMAP)


def _shared_encoder(model: Model, destination: Path) -> str | None:
    """The file beside ``destination`` that holds the encoder of ``model``, seen from there; None if none does."""
    state = {name: tensor.half() for name, tensor in model.state_dict().items()}
    own = encoder_of(state, encoder_prefix(model))
    for file in sorted(destination.parent.glob(f"*/{ENCODER}")):
        if file.parent != destination and same_tensors(own, read_safetensors(file)):
            return f"../{file.parent.name}/{ENCODER}"
    return None


def _card(parameters: int, recipe: Recipe, progress: Progress, began: str, compute: str) -> str:
    width, height = recipe.resolution.sizes[0]
    batch = recipe.batch
    low, high = recipe.views.count
    views = f"{low}" if low == high else f"{low}–{high}"
    sources = ", ".join(f"{share:.0%} {name}" for name, share in recipe.data.shares().items())
    rooms = ""
    if "synthetic" in recipe.data.sources:
        rooms = f"; synthetic: {_rooms(recipe.synthetic)}"
    if set(recipe.data.sources) == {"synthetic"}:
        rooms += "; no recording of any kind"
    trained = max(progress.seconds - progress.begun, 1e-9)
    return f"""# {recipe.name}

{recipe.description}: {parameters / 1e6:.1f} M parameters, {width}×{height} pixels, trained by this project. \
Licence: {LICENCE}. Weights in float16.

* **Data**: {sources}{rooms}.
* **Recipe**: `{recipe.name}`, objective `{recipe.objective_name}`, seed {recipe.seed}; {views} views a \
sample, batch {batch.per_device} a device × {batch.accumulate}, {recipe.optimizer.name}.
* **Started from**: {began}.
* **Compute**: {compute}; {progress.seconds / 60:.1f} minutes, {progress.step} steps, {progress.samples} samples \
({progress.samples / trained:.1f} a second after set-up), {progress.skipped} steps skipped.
"""


def _rooms(settings: Synthetic) -> str:
    style = style_of(settings)
    drawn = "drawn textures"
    if style.room.photographs:
        drawn += f" and {len(style.room.photographs)} photographs of surfaces"
    return (
        f"{settings.style} clips of {settings.frames} frames in rooms of `threer.data.synthetic` with {drawn}, "
        f"field of view {style.fov[0]:g}–{style.fov[1]:g}°, each clip seen {settings.reuse:g} times on average"
    )


def _tables(recipe: Recipe, scores: Mapping[str, Scores], held_out: Mapping[str, str]) -> str:
    """A table of scores for each source, and what they mean; nothing where nothing is held out."""
    text = ""
    for source, description in held_out.items():
        named = {n: score_name(recipe, source, n) for n in SCORES}
        names = [n for n, name in named.items() if any(name in row for row in scores.values())]
        rows = [
            f"| {who} | {' | '.join(_score(row.get(named[n])) for n in names)} |"
            for who, row in scores.items()
            if any(named[n] in row for n in names)
        ]
        heading = [f"| answer | {' | '.join(SCORES[n] for n in names)} |", "|" + "---|" * (len(names) + 1)]
        text += f"\nScores on {description}:\n\n" + "\n".join([*heading, *rows]) + "\n"
    if not text:
        return ""
    return f"""{text}
Pointmap error: mean distance from the truth after dividing both by their mean distance, reference frame; window
error: all views, jointly; without other views: the reference's image in place of all of them. AbsRel and δ:
reference depth after the ratio of medians. Registration error: the reference's points in the world frame, in units
of the scene's mean distance, registered with the pointmap predicted for it, where one is.
"""


def _course(recipe: Recipe, log: Path) -> str:
    """The run's validation scores over time as a section of the card: of several sources the first one of each."""
    if not log.is_file():
        return ""
    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    every = max(1, -(-len(rows) // COURSE_ROWS))
    shown = rows[::-every][::-1]  # the last row always
    names = ["minutes", "samples"]
    for source in recipe.data.sources:
        columns = [f"val_{score_name(recipe, source, name)}" for name in SCORES]
        found = [column for column in columns if rows and rows[0].get(column)]
        names += found if len(recipe.data.sources) == 1 else found[:1]
    lines = [f"| {' | '.join(n.removeprefix('val_') for n in names)} |", "|" + "---|" * len(names)]
    lines += [f"| {' | '.join(_short(row[n]) for n in names)} |" for row in shown]
    return "\n## Course of the training\nThe same scores while it ran.\n\n" + "\n".join(lines) + "\n"


def _short(value: str) -> str:
    if not value:
        return "–"
    number = float(value)
    return f"{number:.0f}" if number >= 1000 else f"{number:.4g}"


def _score(value: float | None) -> str:
    return "–" if value is None or value != value else f"{value:.3f}"
