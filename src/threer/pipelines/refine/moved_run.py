"""A run each of whose frames is moved by a similarity of its own, in a folder of its own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from threer.errors import RunError
from threer.io.atomic import os_errors_as_run_errors, plain
from threer.io.runs import RunWriter, Scene
from threer.io.runs.layout import PREVIEW
from threer.io.runs.scene import read_run
from threer.render.overview import overview
from threer.render.pictures import save_png
from threer.types import Frame, Pointmap, Sim3, Update

CLOSED = "closed"
"""Of a run: the folder of the one with closed loops, and the entry of both reports."""
FROM = "closed_from"
PREVIEW_POINTS = 1_000_000


def check_free(out: Path, overwrite: bool) -> None:
    """Raises `RunError` if a folder holds anything but a run with closed loops that may be replaced."""
    with os_errors_as_run_errors(out):
        if not out.exists():
            return
        if not out.is_dir():
            raise RunError(f"{out} is a file; choose another folder for the corrected run")
        if not any(out.iterdir()):
            return
    run = read_run(out)
    if run is None or FROM not in run["settings"]:
        raise RunError(f"{out} holds something that is no run with closed loops; choose another folder")
    if not overwrite:
        raise RunError(f"{out} holds a run with closed loops already; overwrite it, or choose another folder")


def discard(run: Path) -> None:
    """Remove the run with closed loops from the folder of another one, which is to be replaced, and no other."""
    closed = read_run(run / CLOSED)
    if closed is not None and FROM in closed["settings"]:
        with os_errors_as_run_errors(run / CLOSED):
            shutil.rmtree(run / CLOSED)


def write_moved(scene: Scene, moves: Sequence[Sim3], out: Path, told: Mapping[str, Any]) -> Scene:
    """The run ``scene`` with frame k moved by ``moves[k]``, written whole and put into ``out`` at the end.

    told  is kept in its report
    """
    run = read_run(scene.path) or {}
    store = run.get("store", {})
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    with os_errors_as_run_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(part, ignore_errors=True)
    try:
        writer = RunWriter(
            part,
            {**scene.settings, FROM: str(scene.path)},
            weights=run.get("weights"),
            metric=scene.metric,
            **{name: store[name] for name in ("precision", "cloud_budget", "keep", "normals") if name in store},
        )
        try:
            for update in _updates(scene, moves):
                writer.on(update)
            kept = {k: v for k, v in scene.report.items() if k not in ("counts", "state", CLOSED, "refined")}
            written = writer.finish("complete", {**kept, CLOSED: plain(dict(told))})
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


def _updates(scene: Scene, moves: Sequence[Sim3]) -> Iterator[Update]:
    for position, move in enumerate(moves):
        stored = scene.frame(position)
        known = (stored.conf > 0) & np.isfinite(stored.points).all(axis=-1)
        points = move.apply(np.where(known[..., None], stored.points, 0.0).astype(np.float64))
        pointmap = Pointmap(
            torch.from_numpy(np.where(known[..., None], points, np.nan).astype(np.float32)),
            torch.from_numpy(np.where(known, stored.conf, 0.0).astype(np.float32)),
        )
        image = torch.from_numpy(stored.colours).permute(2, 0, 1).float() / 255
        size = int(stored.size[0]), int(stored.size[1])
        frame = Frame(image, stored.index, stored.timestamp, stored.name, size, stored.to_original)
        c2w = move.apply_to_cameras(stored.c2w)
        yield Update("final" if known.any() else "failed", frame, points=pointmap, c2w=c2w, K=stored.K)
