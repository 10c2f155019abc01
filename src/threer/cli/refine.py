"""`threer refine`: cameras and depths of a finished run, adjusted to its pictures."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from threer.config import RefineConfig
from threer.io.runs import Scene
from threer.pipelines.refine.apply import Refinement
from threer.pipelines.refine.apply import refine as run


def refine(path: Path, out: Path | None, config: RefineConfig) -> int:
    """Refine the run in ``path``, telling on standard error what came of it; 0 also where it was no use."""
    console = Console(stderr=True)
    tell(run(Scene.open(path), out, config), console)
    return 0


def tell(refinement: Refinement, console: Console) -> None:
    """What became of a run, in figures."""
    found = refinement.verdict
    lines = [
        ("refined", str(refinement.scene.path) if found.accepted else f"no, the run stays as it is: {found.why}"),
        ("points", f"{found.observations:,} of {found.offered:,} observations agree"),
        ("error", f"{found.reprojection_px[0]:.2f} px before, {found.reprojection_px[1]:.2f} px after"),
        (
            "held back",
            f"{found.held_back_px[0]:.2f} px before, {found.held_back_px[1]:.2f} px after, in {found.held_back:,} "
            "matches that took no part",
        ),
        ("cameras", f"moved by {found.moved:.1%} of their spread and turned by {found.turned_deg:.1f}°"),
    ]
    if found.following:
        lines.append(("", f"{found.following} with few points follow their neighbours"))
    for name, text in lines:
        console.print(f"{name:<10}{text}", highlight=False, markup=False, soft_wrap=True)
