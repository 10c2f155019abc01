"""`threer reconstruct`: progress while it runs, a summary when it is done."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from threer.config import ReconstructConfig
from threer.io.runs import Scene
from threer.pipelines.reconstruct import Start
from threer.pipelines.reconstruct import reconstruct as run
from threer.types import Update


def reconstruct(source: str | Sequence[str], out: Path, config: ReconstructConfig, *, json: bool = False) -> int:
    """Reconstruct ``source`` into ``out``, telling on standard error what happens."""
    console = Console(stderr=True)
    with Bar(console) as bar:
        scene = run(source, out, config, observers=[bar], on_start=bar.start)
    if json:
        print(jsonlib.dumps({"out": str(out), **scene.report}))
    else:
        summarize(scene, out, console)
    return 0


class Bar:
    """A progress bar that counts final frames; silent when nobody watches."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("loading", total=None)

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def start(self, start: Start) -> None:
        weights = start.checkpoint
        self._console.print(
            f"{start.method}: {start.why}\nweights: {weights.name} ({weights.licence}) on {start.device}",
            highlight=False,
            markup=False,
        )
        self._progress.update(self._task, description="looking at the first frames", total=start.expected)

    def on(self, update: Update) -> None:
        self._progress.update(self._task, description="reconstructing", advance=1)


def summarize(scene: Scene, out: Path, console: Console) -> None:
    """What came out, and where it is."""
    report, counts = scene.report, scene.report["counts"]
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_row("frames", f"{counts['final']} in {report['seconds']['total']:.1f} s")
    missing = f", {counts['cameras_missing']} not found" if counts["cameras_missing"] else ""
    table.add_row("cameras", f"{counts['cameras_found']} of {len(scene)}{missing}")
    table.add_row("points", f"{counts['points']:,}")
    if counts["failed"]:
        table.add_row("failed", f"{counts['failed']} frames could not be reconstructed")
    for skipped in report["skipped"]:
        table.add_row("skipped", f"{skipped['name']}: {skipped['reason']}")
    for note in report["notes"]:
        table.add_row("note", note)
    table.add_row("cloud", str(out / "points.ply"))
    table.add_row("picture", str(out / "preview.png"))
    table.add_row("cameras", f"{out / 'cameras.json'}, {out / 'trajectory.tum'}")
    console.print(table)
