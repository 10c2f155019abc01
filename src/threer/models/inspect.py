"""Looking at weights without running them: what they are, whether they are whole, and our own format of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from threer.errors import CheckpointError
from threer.models.checkpoints import (
    UNKNOWN_LICENCE,
    Model,
    empty_network,
    family_of,
    is_own_format,
    read_card,
    save_checkpoint,
)
from threer.models.registry import entries, is_name, load_model
from threer.models.slam3r import SLAM3R
from threer.types import Checkpoint


def describe(name_or_path: str) -> dict[str, Any]:
    """Name, family, licence, metric, description, parameters and settings of weights, ready for JSON.

    Of named weights that are not on this disk only what is known about them. Our own format is not read but for its
    description. Raises CheckpointError.
    """
    card, network = None, None
    folder = Path(name_or_path)
    if is_name(name_or_path):
        entry = entries()[name_or_path]
        card = entry.checkpoint
        if not entry.paths:
            return _card(card) | {"on_disk": False}
        folder = entry.paths[0]
    if name_or_path and is_own_format(folder):
        card, network = card or read_card(folder), empty_network(folder)
    else:
        network = load_model(name_or_path)
        card = network.checkpoint
    settings = network.i2p.config if isinstance(network, SLAM3R) else network.config
    return _card(card) | {
        "on_disk": True,
        "parameters": count_parameters(network),
        "input": f"{network.input.size} pixels, {'square' if network.input.square else 'long side'}",
        "settings": settings.to_dict(),
    }


def check(name_or_path: str) -> tuple[str, int]:
    """Load weights strictly; returns their family and number of parameters.

    Raises CheckpointError with one line about the first thing that is wrong: a file that is not whole, a tensor
    that is missing, unknown, of the wrong shape, or not finite.
    """
    model = load_model(name_or_path)
    for name, tensor in model.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{name_or_path}: tensor {name} holds values that are not finite")
    return family_of(model), count_parameters(model)


def convert(name_or_path: str, out: Path, *, licence: str | None = None, metric: bool = False) -> Checkpoint:
    """Write weights to the folder ``out`` in our own format, and return their card.

    ``licence`` and ``metric`` are for files that do not tell; what is known about named weights cannot be changed.
    Raises CheckpointError, also when ``out`` holds something.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out} is not an empty folder: choose another one")
    model: Model = load_model(name_or_path)
    known = model.checkpoint
    told = known.licence != UNKNOWN_LICENCE
    if told and licence not in (None, known.licence):
        raise CheckpointError(f"{name_or_path} is under {known.licence}, not {licence}")
    card = Checkpoint(
        name=out.name,
        family=family_of(model),
        files=(),
        licence=known.licence if told else licence or UNKNOWN_LICENCE,
        metric=known.metric or metric,
        description=known.description or f"converted from {Path(name_or_path).name}",
    )
    save_checkpoint(model, out, card)
    return card


def count_parameters(model: nn.Module) -> int:
    """Numbers in all parameters; shared ones count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def _card(card: Checkpoint) -> dict[str, Any]:
    return {
        "name": card.name,
        "family": card.family,
        "licence": card.licence,
        "metric": card.metric,
        "description": card.description,
    }
