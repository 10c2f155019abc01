"""Where a finished run lies in the world, and how large it is: said beside its frames, which stay as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from threer.errors import RunError
from threer.io.atomic import os_errors_as_run_errors, write_json
from threer.io.cameras import write_cameras
from threer.io.ply import write_ply
from threer.io.runs import layout
from threer.io.runs.folder import lock_folder
from threer.io.runs.scene import PLACEMENT, Scene, read_run
from threer.io.trajectory import write_tum
from threer.types import Sim3


@dataclass(frozen=True, eq=False)
class Placement:
    """A similarity that moves a run as it is read now into metres, and what it was found from, in a line."""

    sim3: Sim3
    source: str


def place(path: Path, placement: Placement) -> Scene:
    """Make the coordinates of the complete run in ``path`` metres. Its frames on disk stay; `unplace` undoes it.

    A mesh that was made in the folder goes: it is of another size. `run.json` is replaced next and decides; then
    cameras, trajectory, cloud and report follow. If that is cut off, doing either again puts them right. Raises
    `RunError` for a run that is not complete or cannot be written.
    """
    _complete(path)  # before anything is made in its folder, a lock included
    with lock_folder(path):
        before = _complete(path).placement
        sim3 = placement.sim3 if before is None else placement.sim3.after(before)
        run = dict(read_run(path) or {})
        said = {
            "scale": sim3.scale,
            "R": sim3.R,
            "t": sim3.t,
            "source": placement.source,
            "metric_before": run.get(PLACEMENT, {}).get("metric_before", run["metric"]),
        }
        return _rewrite(path, {**run, "metric": True, PLACEMENT: said})


def follow(path: Path, sim3: Sim3 | None, first: Scene) -> Scene:
    """Move the complete run in ``path`` as ``sim3`` says into the coordinates of ``first``, which it was made from.

    sim3  from the coordinates in which it was written; None leaves it there

    Whatever it was moved by before does not count, so doing it again changes nothing. Raises as `place` does.
    """
    _complete(path)
    with lock_folder(path):
        run = dict(read_run(path) or {})
        before = run.pop(PLACEMENT, {}).get("metric_before", run["metric"])
        run["metric"] = first.metric
        if sim3 is not None:
            source = f"the run that it was made from, {first.path}"
            said = {"scale": sim3.scale, "R": sim3.R, "t": sim3.t, "source": source, "metric_before": before}
            run[PLACEMENT] = said
        return _rewrite(path, run)


def unplace(path: Path) -> Scene:
    """Give a run the coordinates back in which it was reconstructed. Raises `RunError`, as `place` does."""
    _complete(path)
    with lock_folder(path):
        half_done = PLACEMENT in _complete(path).report  # which is written last
        run = dict(read_run(path) or {})
        if PLACEMENT in run:
            run["metric"] = run.pop(PLACEMENT)["metric_before"]
        elif not half_done:
            raise RunError(f"{path} has the coordinates in which it was reconstructed: there is nothing to undo")
        return _rewrite(path, run)


def _complete(path: Path) -> Scene:
    scene = Scene.open(path)
    if scene.state != "complete":
        raise RunError(
            f"{path} is not complete ({scene.state}): let it finish, or reconstruct with --resume, first"
        )
    return scene


def _rewrite(path: Path, run: Mapping[str, Any]) -> Scene:
    with os_errors_as_run_errors(path / layout.MESH):
        (path / layout.MESH).unlink(missing_ok=True)
    write_json(path / layout.RUN, run)
    scene = Scene.open(path)
    write_cameras(path / layout.CAMERAS, scene.table)
    write_tum(path / layout.TRAJECTORY, scene.trajectory)
    store = run.get("store", {})
    keep, budget = store.get("keep", 0.7), store.get("cloud_budget", 2_000_000)
    write_ply(path / layout.POINTS, scene.cloud(keep, budget, normals=store.get("normals", False)))
    report = {name: value for name, value in scene.report.items() if name != PLACEMENT}
    if PLACEMENT in run:
        said = run[PLACEMENT]
        report[PLACEMENT] = {"metric": run["metric"], "scale": said["scale"], "source": said["source"]}
    write_json(path / layout.REPORT, report)
    return scene
