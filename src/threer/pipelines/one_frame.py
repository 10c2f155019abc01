"""One frame and unit for a run and what was made from it: where one is scaled, the others follow."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from threer.io.runs import Scene, lock_folder
from threer.io.runs.placing import Placement, follow, place, unplace
from threer.io.runs.scene import PLACEMENT, read_run
from threer.pipelines.refine.second_run import CLOSED, PLACED, REFINED, SecondRun
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
    first, *along = family(path)
    _check_free(along)
    onto_first = placement.sim3.after(_from_first(first, path.resolve()))
    place(first, dataclasses.replace(placement, sim3=onto_first))
    return _followed(first, along)


def unplace_all(path: Path) -> Moved:
    """`unplace`, for all of them."""
    first, *along = family(path)
    _check_free(along)
    scene = Scene.open(first)
    cut_off = scene.placement is None and PLACEMENT not in scene.report and not all(map(_has_followed, along))
    if not cut_off:
        unplace(first)
    return _followed(first, along)


def _check_free(folders: Sequence[Path]) -> None:
    """Raises `RunError` for one that cannot be written, or is at the moment: before any of them is moved."""
    for folder in folders:
        lock_folder(folder).release()


def family(path: Path) -> list[Path]:
    """The run that decides about this one, and what lies in its folder and follows, each after what it is from."""
    first = first_of(path)
    return [first, *_below(first)]


def first_of(path: Path) -> Path:
    """The run in whose folder this one lies if it was made from that; else the run itself."""
    here = path.resolve()
    if any(here.name == kind.name and _made_from(here.parent, here, kind) for kind in KINDS):
        return first_of(here.parent)
    return path


def _below(folder: Path) -> list[Path]:
    seconds = [folder / kind.name for kind in KINDS if _made_from(folder, folder / kind.name, kind)]
    return [run for second in seconds for run in (second, *_below(second))]


def _made_from(first: Path, second: Path, kind: SecondRun) -> bool:
    """Whether one folder holds a run of this kind and the other the run it was made from.

    Settings decide, of which it has all: folders move, and a second run may be put into that of a stranger.
    """
    run = read_run(second)
    if run is None or kind.marker not in run["settings"]:
        return False
    other = read_run(first)
    own = {name: value for name, value in run["settings"].items() if name not in (kind.marker, PLACED)}
    return other is not None and own == {n: value for n, value in other["settings"].items() if n != PLACED}


def _followed(first: Path, along: Sequence[Path]) -> Moved:
    for folder in along:
        above = Scene.open(folder.parent)
        follow(folder, _due(folder, above), above)
    inside = {folder.resolve() for folder in (first, *along)}
    apart: dict[Path, Path] = {}
    for folder in (first, *along):
        report = Scene.open(folder).report
        for kind in KINDS:
            named = (report.get(kind.name) or {}).get("folder")
            if named and _stands_alone(Path(named)) and Path(named).resolve() not in inside:
                apart.setdefault(Path(named).resolve(), Path(named))
    return Moved(first, tuple(along), tuple(apart.values()))


def _stands_alone(path: Path) -> bool:
    """Whether there is a run that follows no other one: that of a folder which this one is a copy of does."""
    return read_run(path) is not None and first_of(path) == path


def _due(folder: Path, above: Scene) -> Sim3 | None:
    """What takes a second run from the coordinates it was written in to those of ``above``; None for nothing."""
    made_in = _made_in(folder)
    if made_in is None:
        return above.placement
    back = made_in.inverse()
    return back if above.placement is None else above.placement.after(back)


def _made_in(folder: Path) -> Sim3 | None:
    """How the first run was placed when this second one was made."""
    said = (read_run(folder) or {}).get("settings", {}).get(PLACED)
    return None if said is None else Sim3(said["scale"], np.array(said["R"]), np.array(said["t"]))


def _has_followed(folder: Path) -> bool:
    """Whether a second run lies where the run around it does, to the last file."""
    scene, above = Scene.open(folder), Scene.open(folder.parent)
    due, now, told = _due(folder, above), scene.placement, scene.report.get(PLACEMENT)  # which is written last
    if due is None or now is None or told is None:
        return due is None and now is None and told is None
    same = now.scale == due.scale and np.array_equal(now.R, due.R) and np.array_equal(now.t, due.t)
    return same and told["scale"] == now.scale


def _from_first(first: Path, path: Path) -> Sim3:
    """From the coordinates of the first run to those of a run in its folder, both as they are read now.

    They are the same unless a scaling was cut off.
    """
    move = Sim3(1.0, np.eye(3), np.zeros(3))
    top = first.resolve()
    if path == top:
        return move
    placement = Scene.open(first).placement
    if placement is not None:
        move = placement.inverse()
    way = [path, *path.parents]
    for folder in reversed(way[: way.index(top)]):
        made_in = _made_in(folder)
        if made_in is not None:
            move = made_in.after(move)
    now = Scene.open(path).placement
    return move if now is None else now.after(move)
