"""`threer loops`: close the loops of a finished run."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from threer.config import LoopConfig
from threer.io.runs import Scene
from threer.pipelines.refine.closing import Closing, close_loops


def loops(path: Path, out: Path | None, config: LoopConfig) -> int:
    """Close the loops of the run in ``path``, telling on standard error what came of it; 0 also without any."""
    tell(close_loops(Scene.open(path), out, config), Console(stderr=True))
    return 0


def tell(closing: Closing, console: Console) -> None:
    """What became of a run, in figures."""
    lines = [("closed", f"no, the run stays as it is: {closing.why}" if closing.why else str(closing.scene.path))]
    if closing.tried:
        refused = len(closing.tried) - len(closing.loops)
        lines.append(("loops", f"{len(closing.loops)} pairs of frames; {refused} refused, see the report"))
    if closing.loops:
        lines.append(
            (
                "held back",
                f"points that took no part were {closing.misfit[0]:.2%} of their depth apart, and are "
                f"{closing.misfit[1]:.2%}" + (" if closed" if closing.why else ""),
            )
        )
    for name, text in lines:
        console.print(f"{name:<10}{text}", highlight=False, markup=False, soft_wrap=True)
