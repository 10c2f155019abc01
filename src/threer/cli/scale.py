"""`threer scale`: a finished run in metres."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from threer.errors import ThreerError
from threer.io.runs import Scene
from threer.io.runs.layout import MESH
from threer.io.trajectory import read_tum
from threer.pipelines.one_frame import Moved, family, place_all, unplace_all
from threer.pipelines.scaling import Mark, from_distance, from_trajectory


def scale(run: Path, *, distance: tuple[str, str, float] | None, trajectory: Path | None, reset: bool) -> int:
    """Scale ``run``, and what was made from it, by one of a known distance and a known trajectory, or undo that."""
    if (distance is not None) + (trajectory is not None) + reset != 1:
        raise ThreerError("say what is known: give one of --distance, --trajectory, or --reset")
    console = Console(stderr=True)
    meshes = [folder / MESH for folder in family(run) if (folder / MESH).is_file()]
    if reset:
        with console.status("writing cameras and cloud"):
            moved = unplace_all(run)
        lines = [("scale", "as it was reconstructed")]
    else:
        scene = Scene.open(run)
        if distance is not None:
            first, second, metres = distance
            placement = from_distance(scene, _mark(first), _mark(second), metres)
        else:
            assert trajectory is not None
            placement = from_trajectory(scene, read_tum(trajectory))
        with console.status("writing cameras and cloud"):  # a long run has many points to choose from
            moved = place_all(run, placement)
        lines = [("scale", f"× {placement.sim3.scale:.6g}, now in metres"), ("from", placement.source)]
    lines += [
        ("note", f"{mesh} had the scale of before and is gone: make it again with `threer mesh`") for mesh in meshes
    ]
    lines += _others(run, moved)
    for name, text in [*lines, ("run", str(run))]:
        console.print(f"{name:<9}{text}", highlight=False, markup=False, soft_wrap=True)
    return 0


def _others(run: Path, moved: Moved) -> list[tuple[str, str]]:
    """What to say of the runs that belong to ``run``."""
    along = [folder for folder in (moved.first, *moved.along) if folder.resolve() != run.resolve()]
    lines = [("with it", ", ".join(map(str, along)))] if along else []
    for folder in moved.apart:
        lines.append(("note", f"{folder} was made from this run, and has the scale of before: make it again"))
    return lines


def _mark(text: str) -> Mark:
    """A frame and a pixel from FRAME:U,V."""
    try:
        frame, pixel = text.split(":")
        u, v = pixel.split(",")
        return int(frame), float(u), float(v)
    except ValueError:
        raise ThreerError(f"a point is FRAME:U,V, as 12:340,215.5, got {text!r}") from None
