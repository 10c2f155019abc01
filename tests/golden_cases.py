"""Find and read the reference cases; compare results with their tolerance."""

from __future__ import annotations

import json
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

HERE = Path(__file__).parent


def golden_root() -> Path:
    """$THREER_GOLDEN, else the committed subset, else the folder beside the project."""
    named = os.environ.get("THREER_GOLDEN")
    for root in [Path(named)] if named else [HERE / "golden", HERE.parent.parent / "shared" / "golden"]:
        if root.is_dir():
            return root
    raise FileNotFoundError(
        "no reference data: neither $THREER_GOLDEN, tests/golden nor ../shared/golden is a folder; "
        "restore tests/golden from the repository"
    )


@dataclass(frozen=True)
class Case:
    name: str
    config: dict[str, Any]
    inputs: dict[str, Tensor]
    weights: dict[str, Tensor]
    outputs: dict[str, Tensor]
    folder: Path

    def decisions(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads((self.folder / "decisions.json").read_text())
        return loaded


def case_names(*prefixes: str) -> list[str]:
    """All cases at hand whose names start with one of ``prefixes``; at least one for each prefix."""
    names = sorted(p.name for p in golden_root().iterdir() if (p / "config.json").is_file())
    for prefix in prefixes:
        if not any(n.startswith(prefix) for n in names):
            raise FileNotFoundError(f"no reference case {prefix}* in {golden_root()}")
    return [n for n in names if n.startswith(tuple(prefixes))]


def load_case(name: str) -> Case:
    folder = golden_root() / name
    config = json.loads((folder / "config.json").read_text())
    weights_folder = folder / config.get("weights_dir", ".")
    inputs_folder = folder / config.get("inputs_dir", ".")
    weights: dict[str, Tensor] = {}
    if (weights_folder / "weights.safetensors").is_file():
        weights = {k: v.float() for k, v in load_file(weights_folder / "weights.safetensors").items()}
    if (weights_folder / "weights_recipe.json").is_file():
        weights |= weights_from_recipe(json.loads((weights_folder / "weights_recipe.json").read_text()))
    given = inputs_folder / "inputs.safetensors"
    inputs = load_file(given) if given.is_file() else {}  # pair graphs need none but their settings
    return Case(name, config, inputs, weights, load_file(folder / "outputs.safetensors"), folder)


def weights_from_recipe(recipe: dict[str, Any]) -> dict[str, Tensor]:
    """Draw the weights that a case does not store (reference data, section 1.2)."""
    made = {}
    for name, (shape, mean, std, seed_name) in recipe["keys"].items():
        seed = (zlib.crc32(seed_name.encode()) ^ recipe["seed"]) & 0xFFFFFFFF
        draw = np.random.RandomState(seed).standard_normal(int(np.prod(shape))).reshape(shape)
        made[name] = torch.from_numpy((draw * std + mean).astype(np.float32).astype(np.float16).astype(np.float32))
    return made


def relative_error(got: Tensor, want: Tensor) -> float:
    """Largest absolute difference over the largest absolute reference value."""
    assert got.shape == want.shape, f"shape {list(got.shape)}, expected {list(want.shape)}"
    assert torch.isfinite(got.double()).all(), "result is not finite"
    scale = want.double().abs().max().clamp(min=1e-12)
    return float((got.double() - want.double()).abs().max() / scale)
