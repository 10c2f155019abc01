"""What a network starts from: the recipe's weights, given weights, or the mean training pointmap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from threer.errors import ThreerError
from threer.models.checkpoints import is_own_format, read_card
from threer.models.files import CONFIG, INDEX, WEIGHTS
from threer.models.registry import is_name, resolve
from threer.nn.heads import LinearHead, camera_rays, from_points
from threer.training.initialise import Report, initialise, read_state
from threer.training.networks import Network
from threer.training.recipes import recipe_names
from threer.training.recipes.recipe import Initialisation, Recipe

RESULT = "weights"
"""Folder of a run that holds its result."""


def find_weights(name: str, beside: Path) -> Path:
    """The file or folder that ``init.weights`` of a recipe names.

    Looked for, in this order: a path, or ``weights`` in it; the result of a run of that name ``beside`` this one; a
    checkpoint by name, which is not downloaded. Raises ThreerError.
    """
    given = Path(name)
    for place in (given / RESULT, given, beside / name / RESULT, beside / name):
        if place.is_file() or any((place / file).is_file() for file in (CONFIG, WEIGHTS, INDEX)):
            return place
    if is_name(name):
        found = resolve(name)
        if len(found.paths) != 1 or found.checkpoint.name != name:
            raise ThreerError(f"the weights {name!r} to start from are not on this disk; get them, or give a path")
        return found.paths[0]
    advice = f"train it first, into {beside / name}" if name in recipe_names() else "give a path"
    raise ThreerError(f"no weights {name!r} to start from: {advice}; or start from nothing with --init none")


def start(model: Network, recipe: Recipe, beside: Path, given: str | None) -> tuple[Report, Path] | None:
    """Fill ``model`` and say with what; None where it stays random.

    ``given`` is a path or name of weights of the recipe's own family, or "none"; without it the recipe's ``[init]``
    counts. Raises ThreerError.
    """
    if given == "none" or (given is None and recipe.init is None):
        return None
    if given is None:
        assert recipe.init is not None
        init = recipe.init
    else:
        init = Initialisation(given, recipe.family)
    path = find_weights(init.weights, beside)
    return initialise(model, recipe.family, read_state(path, init.family), init), path


def name_of(weights: Path) -> str:
    """What a card calls the weights that a network began with: a result without a card of its own by its run."""
    if is_own_format(weights):
        return read_card(weights).name
    place = weights.resolve()
    return place.parent.name if place.name == RESULT else place.name


def frozen_at_random(model: nn.Module, taken: Report | None) -> str:
    """A warning where the recipe freezes what holds no weights; empty if it does not."""
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    lost = frozen if taken is None else [name for name in frozen if name in taken.random]
    if not lost:
        return ""
    return f"warning: {lost[0]} and {len(lost) - 1} others are random and frozen; --set freeze=[] trains them"


def start_heads(model: nn.Module, mean: Tensor, random: tuple[str, ...] | None, foreign: bool) -> list[str]:
    """Let heads that have learnt nothing answer with their priors; the names of those heads.

    A head with a bias for each pixel gives the mean pointmap [H, W, 3]; one that moves given points leaves them.

    random   names of the tensors that hold no weights yet; None for all of them
    foreign  the weights are of another family, whose heads never moved points
    """
    started = []
    for name, head in model.named_modules():
        if not isinstance(head, LinearHead):
            continue
        owner: Any = model.get_submodule(name.rpartition(".")[0])
        moves_points = getattr(owner, "point_prior", False)
        untaught = random is None or any(f"{name}.{tensor}" in random for tensor, _ in head.named_parameters())
        if not (untaught or (moves_points and foreign)) or (head.pixel_bias is None and not moves_points):
            continue
        with torch.no_grad():
            (head.linear if isinstance(head.linear, nn.Linear) else head.linear.down).weight.zero_()
            if head.pixel_bias is not None:
                vectors = from_points(mean.to(head.pixel_bias), owner.config.point_mode).permute(2, 0, 1)
                if head.ray_prior is not None:
                    size = (mean.shape[0], mean.shape[1])
                    vectors = vectors - camera_rays(size, head.ray_prior, vectors.device)
                head.pixel_bias[:3] = vectors
        started.append(name)
    return started
