"""The state of a run on disk: one file, replaced atomically, from which a killed run goes on exactly."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from threer.errors import ThreerError

STATE = "state.pt"


@dataclass
class Progress:
    """What a run has done.

    seconds    on the clock, set-up and validation counted, over all calls
    begun      of them, before the first step
    number     of the next batch
    skipped    steps without finite gradients
    done       share of the run, 0..1
    validated  how many of the regular validations were done
    """

    seconds: float = 0.0
    begun: float = 0.0
    step: int = 0
    samples: int = 0
    number: int = 0
    skipped: int = 0
    done: float = 0.0
    validated: int = 0
    scores: dict[str, float] = field(default_factory=dict)


def write_atomically(path: Path, contents: Mapping[str, Any]) -> None:
    """Save with torch so that a kill at any moment leaves the old file or the new one."""
    temporary = path.with_name(path.name + ".new")
    try:
        with temporary.open("wb") as file:
            torch.save(dict(contents), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise ThreerError(f"cannot write {path}: {error}") from None


def read(path: Path) -> dict[str, Any]:
    """What `write_atomically` wrote, on the CPU. Raises ThreerError."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch names no common class for what can be wrong with a file
        reason = str(error).partition("\n")[0]
        raise ThreerError(f"cannot continue from {path}: {reason}; remove it to start again") from None
    return state


def generator_states() -> dict[str, Any]:
    """Of Python, NumPy, torch, and the accelerator of this process."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    version, numbers, spare = random.getstate()
    states: dict[str, Any] = {
        "python": [version, list(numbers), spare],
        "numpy": [str(kind), torch.from_numpy(np.asarray(keys, np.int64)), position, has_gauss, gauss],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_generator_states(states: Mapping[str, Any]) -> None:
    version, numbers, spare = states["python"]
    random.setstate((version, tuple(numbers), spare))
    kind, keys, position, has_gauss, gauss = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
