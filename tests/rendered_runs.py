"""Runs on disk whose depth and cameras are exact, from a rendered room."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from threer.data.synthetic.clips import Clip, render_clip
from threer.data.synthetic.raycast import clearance
from threer.data.synthetic.rooms import sample_room
from threer.geometry.projection import unproject
from threer.io.runs import RunWriter, Scene
from threer.types import FloatArray, Frame, Pointmap, Update

SEED = 3
SIZE = (96, 72)
FRAMES = 12
ENLARGED = 4.0
"""The original pictures are so many times as large as those of the network."""


@cache
def clip() -> Clip:
    return render_clip(SEED, FRAMES, SIZE)


def distance_to_room(points: FloatArray) -> FloatArray:
    """Metres from world points [M, 3] to the nearest true surface."""
    placed = torch.from_numpy(np.asarray(points, np.float32))[None]
    return clearance(sample_room(SEED), torch.zeros(1, dtype=torch.int64), placed)[0].abs().numpy()


def updates(conf: FloatArray | None = None) -> list[Update]:
    """One for each frame of the clip; ``conf`` [H, W] is the confidence of all, 2 if not given."""
    shown, made = clip(), []
    offset = (ENLARGED - 1) / 2
    affine = np.array([[ENLARGED, 0, offset], [0, ENLARGED, offset]])
    for k in range(len(shown)):
        c2w = shown.c2w[k].double()
        xyz = unproject(shown.depth[k].double(), shown.K[k].double()) @ c2w[:3, :3].T + c2w[:3, 3]
        sure = torch.full(xyz.shape[:2], 2.0) if conf is None else torch.from_numpy(conf).float()
        size = int(SIZE[0] * ENLARGED), int(SIZE[1] * ENLARGED)
        frame = Frame(shown.images[k], k, k / 5, f"{k:03d}.png", size, affine)
        K = np.vstack([affine, [0, 0, 1]]) @ shown.K[k].double().numpy()
        made.append(Update("final", frame, points=Pointmap(xyz.float(), sure), c2w=c2w.numpy(), K=K))
    return made


def write(out: Path, told: list[Update], **options: Any) -> Scene:
    writer = RunWriter(out, {"method": "test"}, precision="float32", **options)
    for update in told:
        writer.on(update)
    return writer.finish("complete", {"seconds": {"total": 1.0}, "skipped": [], "notes": []})
