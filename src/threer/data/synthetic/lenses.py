"""Lenses: which part of a camera's picture a clip is, and how the lens bends it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from threer.data.synthetic.draws import Draws


@dataclass(frozen=True)
class Lens:
    """A clip is a part of what the lens shows. Drawn once per clip.

    aspects     width / height of the whole picture, alike in frequency. Clips are its centre, as large as fits: the
                square of a wide picture of 65° spans 40°
    off_centre  share of the clip's width, standard deviation of how far its centre is from the principal point
    k1, k2      (smallest, largest) share of its distance from the principal point by which each term of
                `threer.geometry.lens` moves what is seen about the clip's farthest corner
    """

    aspects: tuple[float, ...] = (16 / 9, 3 / 2, 4 / 3, 1.0)
    off_centre: float = 0.01
    k1: tuple[float, float] = (-0.06, 0.06)
    k2: tuple[float, float] = (-0.02, 0.02)


def draw_lenses(fov: Tensor, size: tuple[int, int], lens: Lens | None, draws: Draws) -> tuple[Tensor, Tensor]:
    """K [S, 3, 3] and distortion [S, 2] for horizontal fields of view [S] in radians of whole pictures.

    size is (W, H) of the clips. K is the pinhole part; distortion is 0 without a lens.
    """
    width, height = size
    half = (fov / 2).tan()
    middle = torch.tensor([(width - 1) / 2, (height - 1) / 2]).repeat(len(fov), 1)
    distortion = torch.zeros(len(fov), 2)
    if lens is not None:
        aspects = torch.tensor(lens.aspects)
        whole = aspects[(draws.uniform(0, 1) * len(aspects)).long().clamp(max=len(aspects) - 1)]
        half = half * (width / height / whole).clamp(max=1)
        middle = middle + lens.off_centre * width * draws.normal(2).clamp(-2, 2)
        corner = torch.maximum(middle, torch.tensor([width - 1, height - 1]) - middle).norm(dim=-1)
        r2 = (corner * 2 * half.float() / width).square()
        distortion = torch.stack([draws.uniform(*lens.k1) / r2, draws.uniform(*lens.k2) / r2.square()], dim=-1)
    K = torch.zeros(len(fov), 3, 3)
    K[:, 0, 0] = K[:, 1, 1] = width / 2 / half
    K[:, :2, 2], K[:, 2, 2] = middle, 1.0
    return K, distortion
