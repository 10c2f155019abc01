"""What was learned about earlier frames of a run while it went on: similarities that move them when they are read.

The frames on disk stay as they came. `corrections.json` is replaced as a whole with every correction; each one
moves the frames up to its last one, so frames that were registered after it are not touched by it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from threer.errors import RunError
from threer.geometry.sim3_paths import interpolate
from threer.io.atomic import write_json
from threer.io.runs.layout import CORRECTIONS
from threer.types import FloatArray, Moves, Sim3

FORMAT = 1


def read_corrections(folder: Path) -> list[Moves]:
    """All corrections of a run, in the order in which they were made. Raises `RunError` if the file is damaged."""
    path = folder / CORRECTIONS
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path} cannot be read: {error}") from None
    try:
        said = json.loads(text)
        if said["format"] > FORMAT:
            raise RunError(f"{path} has format {said['format']}, this version reads {FORMAT}: update threer")
        return [
            Moves(
                np.array(entry["frames"], np.int64),
                tuple(
                    Sim3(float(scale), np.array(R, np.float64), np.array(t, np.float64))
                    for scale, R, t in zip(entry["scale"], entry["R"], entry["t"], strict=True)
                ),
            )
            for entry in said["corrections"]
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{path} is damaged ({error}): overwrite the run, or remove the file, which leaves frames where they "
            "were when they became final"
        ) from None


def write_corrections(folder: Path, corrections: Sequence[Moves]) -> None:
    """Replace the corrections of a run. Raises `RunError`."""
    entries = [
        {
            "frames": moves.indices,
            "scale": [sim3.scale for sim3 in moves.sim3],
            "R": [sim3.R for sim3 in moves.sim3],
            "t": [sim3.t for sim3 in moves.sim3],
        }
        for moves in corrections
    ]
    write_json(folder / CORRECTIONS, {"format": FORMAT, "corrections": entries})


def moves_of(corrections: Sequence[Moves], indices: npt.NDArray[np.integer]) -> list[Sim3 | None]:
    """What all corrections together do to the frames with these indices; None to those that stay."""
    total: list[Sim3 | None] = [None] * len(indices)
    for moves in corrections:
        rows = np.flatnonzero(indices <= moves.last)
        for row, sim3 in zip(rows.tolist(), interpolate(moves.indices, moves.sim3, indices[rows]), strict=True):
            before = total[row]
            total[row] = sim3 if before is None else sim3.after(before)
    return total


def moved_cameras(c2w: FloatArray, moves: Sequence[Sim3 | None]) -> FloatArray:
    """[N, 4, 4] cameras, each moved by its own similarity."""
    moved = np.array(c2w)
    for row, by in enumerate(moves):
        if by is not None:
            moved[row] = by.apply_to_cameras(moved[row])
    return moved
