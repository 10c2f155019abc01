"""Photographs of tileable surfaces as textures in linear RGB."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from threer.errors import SourceError

PHOTO_SIZE = 256  # texels along one side of the finest level


def photographs_in(folder: str | Path) -> tuple[str, ...]:
    """The images of a folder, in the order of their names. Raises SourceError if there are none."""
    from threer.io.images import IMAGE_SUFFIXES  # io needs more than training without photographs does

    folder = Path(folder)
    if not folder.is_dir():
        raise SourceError(f"no such folder of textures: {folder}; name one that holds tileable photographs")
    found = sorted(str(path) for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise SourceError(f"{folder}: no image to use as a texture; put tileable photographs there")
    return tuple(found)


def load_photographs(paths: Sequence[str]) -> Tensor:
    """Linear RGB [n, 3, PHOTO_SIZE, PHOTO_SIZE] of the middle squares, each divided by its mean brightness.

    Raises SourceError for files that cannot be read.
    """
    return torch.stack([_load(path) for path in paths])


def _load(path: str) -> Tensor:
    from threer.io.images import load_image

    image = Image.fromarray(load_image(path))
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = np.asarray(image.crop((left, top, left + side, top + side)), dtype=np.float32) / 255
    linear = torch.from_numpy(square).permute(2, 0, 1).pow(2.2)
    small = F.interpolate(linear[None], size=(PHOTO_SIZE, PHOTO_SIZE), mode="area")[0]
    return small / small.mean().clamp(min=1e-3)
