"""A run each of whose frames is moved by a similarity of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from threer.io.runs import Scene
from threer.pipelines.refine.second_run import as_frame
from threer.types import Pointmap, Sim3, Update


def moved(scene: Scene, moves: Sequence[Sim3]) -> Iterator[Update]:
    """The frames of a run, points and camera of frame k moved by ``moves[k]``."""
    for position, move in enumerate(moves):
        stored = scene.frame(position)
        known = (stored.conf > 0) & np.isfinite(stored.points).all(axis=-1)
        points = move.apply(np.where(known[..., None], stored.points, 0.0).astype(np.float64))
        pointmap = Pointmap(
            torch.from_numpy(np.where(known[..., None], points, np.nan).astype(np.float32)),
            torch.from_numpy(np.where(known, stored.conf, 0.0).astype(np.float32)),
        )
        c2w = move.apply_to_cameras(stored.c2w)
        yield Update("final" if known.any() else "failed", as_frame(stored), points=pointmap, c2w=c2w, K=stored.K)
