"""One frame and unit for a run and what was made from it: where one is scaled, the others follow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from threer.io.runs import Scene
from threer.io.runs.placing import Placement, follow, place, unplace
from threer.io.runs.scene import read_run
from threer.pipelines.refine.second_run import CLOSED, PLACED, REFINED
from threer.types import Sim3

KINDS = (REFINED, CLOSED)


@dataclass(frozen=True)
class Moved:
    """Folders of a run that was scaled.

    first    the run that decides
    along    what lies in its folder and was made from it, now in the same coordinates
    apart    what was made from these elsewhere, and keeps the coordinates of before
    """

    first: Path
    along: tuple[Path, ...]
    apart: tuple[Path, ...]


def place_all(path: Path, placement: Placement) -> Moved:
    """`place`, for a complete run, its refined run and the one with closed loops, whichever of them is named.

    If that is cut off, repeating it puts them right. Raises `RunError` as `place` does.
    """
    first = first_of(path)
    place(first, placement)
    return _followed(first)


def unplace_all(path: Path) -> Moved:
    """`unplace`, for all of them."""
    first = first_of(path)
    unplace(first)
    return _followed(first)


def first_of(path: Path) -> Path:
    """The run in whose folder this one lies if it was made from that; else the run itself."""
    here = path.resolve()
    settings = (read_run(here) or {}).get("settings", {})
    around = here.parent
    for kind in KINDS:
        if here.name == kind.name and kind.marker in settings and read_run(around) is not None:
            return first_of(around)
    return path


def _followed(first: Path) -> Moved:
    along: list[Path] = []
    apart: list[Path] = []
    scene = Scene.open(first)
    for kind in KINDS:
        folder = first / kind.name
        run = read_run(folder)
        if run is not None and kind.marker in run["settings"]:
            said = run["settings"].get(PLACED)
            made_in = None if said is None else Sim3(said["scale"], np.array(said["R"]), np.array(said["t"]))
            follow(folder, _onto(scene.placement, made_in), scene)
            below = _followed(folder)
            along += [folder, *below.along]
            apart += below.apart
        elsewhere = (scene.report.get(kind.name) or {}).get("folder")
        if elsewhere and Path(elsewhere).resolve() != folder.resolve() and read_run(Path(elsewhere)) is not None:
            apart.append(Path(elsewhere))
    return Moved(first, tuple(along), tuple(apart))


def _onto(now: Sim3 | None, made_in: Sim3 | None) -> Sim3 | None:
    """What takes coordinates under the placement ``made_in`` to those under ``now``; None for no placement."""
    if made_in is None:
        return now
    back = made_in.inverse()
    return back if now is None else now.after(back)
