"""Small runs on disk with known contents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from threer.io.runs import RunWriter, Scene
from threer.types import Frame, Pointmap, Update

H, W = 6, 8


def make_update(index: int, *, kind: str = "final", camera: bool = True, size: tuple[int, int] = (H, W)) -> Update:
    """A frame whose contents follow from its index."""
    rng = torch.Generator().manual_seed(index)
    image = torch.rand(3, *size, generator=rng)
    xyz = torch.randn(*size, 3, generator=rng) + torch.tensor([100.0 * index, 0, 0])
    conf = 1 + torch.rand(*size, generator=rng)
    frame = Frame(image, index, index / 5, f"frame{index}.png", (80, 60), np.array([[10.0, 0, 4.5], [0, 10, 4.5]]))
    c2w = np.eye(4)
    c2w[:3, 3] = index, 0, -1
    K = np.array([[70.0, 0, 39.5], [0, 70, 29.5], [0, 0, 1]])
    unknown = not camera
    return Update(
        kind,  # type: ignore[arg-type]
        frame,
        points=Pointmap(xyz, conf),
        c2w=np.full((4, 4), np.nan) if unknown else c2w,
        K=np.full((3, 3), np.nan) if unknown else K,
    )


def write_run(out: Path, indices: list[int], **options: Any) -> Scene:
    writer = RunWriter(out, {"method": "test"}, **options)
    for index in indices:
        writer.on(make_update(index))
    return writer.finish("complete", {"seconds": 1.5})
