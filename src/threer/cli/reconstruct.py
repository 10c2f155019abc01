"""`threer reconstruct`: progress while it runs, a summary when it is done."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from threer.config import ReconstructConfig
from threer.io.runs import Scene
from threer.pipelines.reconstruct import Start
from threer.pipelines.reconstruct import reconstruct as run
from threer.types import Update

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


def reconstruct(source: str | Sequence[str], out: Path, config: ReconstructConfig, *, json: bool = False) -> int:
    """Reconstruct ``source`` into ``out``, telling on standard error what happens."""
    console = Console(stderr=True)
    with Bar(console) as bar:
        try:
            scene = run(
                source,
                out,
                config,
                observers=[bar],
                on_start=bar.start,
                on_stop=bar.stop,
                on_progress=bar.stage,
            )
        except KeyboardInterrupt:
            if bar.started:
                scene = Scene.open(out)
                advice = "; --resume goes on from there" if scene.settings["fingerprint"] else ""
                text = f"interrupted: {len(scene)} final frames are kept in {out}{advice}"
                console.print(f"threer: {text}", highlight=False, markup=False, soft_wrap=True)
                return INTERRUPTED
            raise
    if not bar.started:
        console.print(f"{out} is already complete", highlight=False, markup=False)
    if json:
        print(jsonlib.dumps({"out": str(out), **scene.report}))
    else:
        summarize(scene, scene.path, console)
    return 0


class Bar:
    """A progress bar that counts final frames; silent when nobody watches."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.started = False
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
        self._stage = self._progress.add_task("", total=None, visible=False)

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def start(self, start: Start) -> None:
        self.started = True
        weights = start.checkpoint
        self._console.print(
            f"{start.method}: {start.why}\nweights: {weights.name} ({weights.licence}) on {start.device}",
            highlight=False,
            markup=False,
        )
        if start.advice:
            self._console.print(f"advice: {start.advice}", highlight=False, markup=False)
        if start.done:
            self._console.print(f"going on after {start.done} frames", highlight=False, markup=False)
        self._progress.update(
            self._task, description="looking at the frames", total=start.expected, completed=start.done
        )

    def stop(self) -> None:
        """Ctrl-C has ended the source."""
        text = "no more frames are taken; what came in is reconstructed, another Ctrl-C stops at once"
        self._console.print(f"threer: {text}", highlight=False, markup=False, soft_wrap=True)

    def stage(self, what: str, done: int, total: int) -> None:
        """Something goes on in which no frame becomes final."""
        self._progress.update(self._stage, description=what, completed=done, total=total or None, visible=True)

    def on(self, update: Update) -> None:
        advance = 0 if update.kind in ("provisional", "correction") else 1
        self._progress.update(self._stage, visible=False)
        self._progress.update(self._task, description="reconstructing", advance=advance)


def summarize(scene: Scene, out: Path, console: Console) -> None:
    """What came out, and where it is."""
    report, counts = scene.report, scene.report["counts"]
    missing = f", {counts['cameras_missing']} not found" if counts["cameras_missing"] else ""
    lines = [
        ("frames", f"{counts['final']} in {report['seconds']['total']:.1f} s"),
        ("cameras", f"{counts['cameras_found']} of {len(scene)}{missing}"),
        ("points", f"{counts['points']:,}"),
    ]
    if counts["failed"]:
        lines.append(("failed", f"{counts['failed']} frames could not be reconstructed"))
    if closed := counts.get("correction"):
        lines.append(("loops", f"closed, which moved earlier frames ({closed} corrections)"))
    lines += [("skipped", f"{skipped['name']}: {skipped['reason']}") for skipped in report["skipped"]]
    lines += [("note", note) for note in report["notes"]]
    lines += [
        ("cloud", str(out / "points.ply")),
        ("picture", str(out / "preview.png")),
        ("poses", f"{out / 'cameras.json'}, {out / 'trajectory.tum'}"),
    ]
    lines += [("refined", text) for text in _refined(report)]
    for name, text in lines:
        console.print(f"{name:<9}{text}", highlight=False, markup=False, soft_wrap=True)


def _refined(report: Mapping[str, Any]) -> list[str]:
    if "refined" not in report:
        return []
    said = report["refined"]
    if not said["accepted"]:
        return [f"no, the run stays as it was: {said['why']}"]
    before, after = said["held_back_px"]
    return [f"held-back matches are off by {before:.2f} px before, {after:.2f} px after; both runs are kept"]
