"""A second run, made from a finished one and put beside it: refined, or with closed loops."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from threer.errors import RunError
from threer.io.atomic import os_errors_as_run_errors, plain
from threer.io.runs import RunWriter, Scene, StoredFrame
from threer.io.runs.layout import PREVIEW
from threer.io.runs.scene import read_run
from threer.render.overview import overview
from threer.render.pictures import save_png
from threer.types import Frame, Update

PREVIEW_POINTS = 1_000_000
PLACED = "first_placement"
"""Setting of a second run: how the first one was placed when this one was made, in whose coordinates it is."""


@dataclass(frozen=True)
class SecondRun:
    """A kind of second run, and what its folder may replace.

    name    its folder in that of the first run, and its entry in the report of both
    marker  setting that holds the first run's folder
    word    for it in messages
    unsaid  entries of the first report that are not true of the second run
    """

    name: str
    marker: str
    word: str
    unsaid: tuple[str, ...] = ()

    def check_free(self, out: Path, overwrite: bool) -> None:
        """Raises `RunError` if a folder holds anything but a run of this kind that may be replaced."""
        with os_errors_as_run_errors(out):
            if not out.exists():
                return
            if not out.is_dir():
                raise RunError(f"{out} is a file; choose another folder for the {self.word}")
            if not any(out.iterdir()):
                return
        run = read_run(out)
        if run is None or self.marker not in run["settings"]:
            raise RunError(f"{out} holds something that is no {self.word}; choose another folder")
        if not overwrite:
            raise RunError(f"{out} holds a {self.word} already; overwrite it, or choose another folder")

    def discard(self, first: Path) -> None:
        """Remove the run of this kind from the folder of the first one, which is to be replaced, and no other."""
        folder = first / self.name
        run = read_run(folder)
        if run is not None and self.marker in run["settings"]:
            with os_errors_as_run_errors(folder):
                shutil.rmtree(folder)

    def write(self, first: Scene, updates: Iterable[Update], out: Path, told: Mapping[str, Any]) -> Scene:
        """Updates as a whole run of this kind, put into ``out`` at once when it is finished.

        told  is kept in its report
        """
        run = read_run(first.path) or {}
        store = run.get("store", {})
        here = first.placement  # as it was opened: it may be scaled while this goes on
        placed = None if here is None else {"scale": here.scale, "R": here.R.tolist(), "t": here.t.tolist()}
        part = out.with_name(f".{out.name}.{os.getpid()}.part")
        with os_errors_as_run_errors(out):
            out.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(part, ignore_errors=True)
        try:
            writer = RunWriter(
                part,
                {**first.settings, self.marker: str(first.path), PLACED: placed},
                weights=run.get("weights"),
                metric=first.metric,
                **{name: store[name] for name in ("precision", "cloud_budget", "keep", "normals") if name in store},
            )
            try:
                for update in updates:
                    writer.on(update)
                unsaid = {"counts", "state", self.name, *self.unsaid}
                kept = {entry: said for entry, said in first.report.items() if entry not in unsaid}
                written = writer.finish("complete", {**kept, self.name: plain(dict(told))})
            finally:
                writer.close()
            cloud = written.cloud(max_points=PREVIEW_POINTS)
            save_png(part / PREVIEW, overview(cloud.xyz, cloud.rgb, written.trajectory))
            with os_errors_as_run_errors(out):
                if out.exists():
                    shutil.rmtree(out)
                os.replace(part, out)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return Scene.open(out)


REFINED = SecondRun("refined", "refined_from", "refined run")
CLOSED = SecondRun("closed", "closed_from", "run with closed loops", unsaid=(REFINED.name,))


def as_frame(stored: StoredFrame) -> Frame:
    """The frame that a stored one was made from."""
    image = torch.from_numpy(stored.colours).permute(2, 0, 1).float() / 255
    size = int(stored.size[0]), int(stored.size[1])
    return Frame(image, stored.index, stored.timestamp, stored.name, size, stored.to_original)
