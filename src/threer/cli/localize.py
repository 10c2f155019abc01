"""`threer localize`: where pictures were taken that are not in a run."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from threer.config import LocalizeConfig
from threer.errors import ThreerError
from threer.io.atomic import plain
from threer.io.runs import Scene
from threer.io.runs.layout import RUN
from threer.pipelines.localization import LocalizedCamera
from threer.pipelines.localization import localize as find
from threer.pipelines.localization.saving import save_answers


def localize(run: Path, images: Sequence[str], out: Path | None, config: LocalizeConfig, *, json: bool) -> int:
    """Find ``images`` in ``run``; answers go to standard output, and to files in ``out``. 1 if none is found."""
    if out is not None and (out / RUN).exists():
        raise ThreerError(f"{out} is a run, whose cameras would be lost: choose another folder for the answers")
    console = Console(stderr=True)

    def watch(numbers: Iterable[int], what: str, count: int) -> Iterable[int]:
        return track(numbers, what, count, console=console, transient=True, disable=not console.is_terminal)

    scene = Scene.open(run)
    answers = find(scene, list(images), config, watch=watch)
    if out is not None:
        save_answers(out, scene, answers)
    if json:
        print(jsonlib.dumps({"run": str(run), "pictures": plain(answers)}))
    else:
        Console().print(_table(answers, scene.metric))
        if out is not None:
            console.print(f"answers  {out}", highlight=False, markup=False, soft_wrap=True)
    return 0 if any(answer.found for answer in answers) else 1


def _table(answers: Sequence[LocalizedCamera], metric: bool) -> Table:
    table = Table(box=None, show_edge=False)
    for heading in ("picture", "status", "inliers"):
        table.add_column(heading, no_wrap=True)
    table.add_column("position, or why there is none")
    for answer in answers:
        cells = answer.name, answer.status, f"{answer.inliers} of {answer.matches}", _told(answer, metric)
        table.add_row(*map(Text, cells))  # names may hold brackets, which rich would take for markup
    return table


def _told(answer: LocalizedCamera, metric: bool) -> str:
    if not answer.found:
        return answer.why
    position = " ".join(f"{x:.3f}" for x in answer.c2w[:3, 3])
    return (
        f"{position} ±{answer.position_sigma:.2g}{' m' if metric else ''}, ±{answer.rotation_sigma_deg:.2g}°, "
        f"{answer.reprojection_error_px:.2f} px, focal length {answer.K[0, 0]:.0f} px ({answer.lens})"
    )
