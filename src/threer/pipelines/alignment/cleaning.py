"""Points that float in front of what other photos see lose their confidence (pipelines.md 2.3, clean-up)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from threer.geometry.projection import project
from threer.pipelines.alignment.predictions import Pairs
from threer.pipelines.alignment.scene import Aligned

TOLERANCE = 1e-3


def without_floaters(
    scene: Aligned,
    conf: Sequence[Tensor],
    *,
    pairs: Pairs | None = None,
    in_turn: bool = False,
    tolerance: float = TOLERANCE,
) -> list[Tensor]:
    """Confidences [H, W] of all photos, 0 where a point hides what another photo sees more surely.

    conf       [H, W] of each photo
    pairs      compare photos that are paired only: the others rarely see the same; None compares all
    in_turn    let each pair of photos see the confidences that the pairs before left, as the original does; the
               answer then depends on the order of the photos (quirk D7)
    tolerance  share of the depth by which a point must be nearer
    """
    cleaned = [c.clone() for c in conf]
    partners: list[Iterable[int]] = [range(len(conf)) for _ in conf]
    if pairs is not None:
        partners = [sorted(pairs.partners(i)) for i in range(len(conf))]
    for i in range(len(conf)):
        world = scene.points(i)
        for j in partners[i]:
            if i == j:
                continue
            trusted = cleaned if in_turn else conf
            local = scene.in_camera(j, world)
            pixels = project(local, scene.K(j))
            height, width = conf[j].shape
            u, v = (pixels[..., k].nan_to_num(nan=-1e6, posinf=-1e6, neginf=-1e6).round() for k in (0, 1))
            inside = (local[..., 2] > 0) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
            rows, columns = v[inside].long(), u[inside].long()
            depth, other = scene.depth[j][rows, columns].double(), trusted[j][rows, columns]
            hides = (local[..., 2][inside] < (1 - tolerance) * depth) & (trusted[i][inside] < other)
            floating = torch.zeros_like(inside)
            floating[inside] = hides
            cleaned[i] = torch.where(floating, 0.0, cleaned[i])
    return cleaned
