"""A contact sheet: pictures of a data set or of the generator, each above its depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from threer.data.checking.check import groups
from threer.data.datasets.format import Dataset, nearest
from threer.data.synthetic import HAND_HELD, ClipStyle, render_clips
from threer.errors import ThreerError

BORDER = 2
Picture = npt.NDArray[np.uint8]
Pair = tuple[Picture, npt.NDArray[np.float32]]


def of_dataset(dataset: Dataset, rows: int, columns: int) -> list[list[Pair]]:
    """Each row a scene, its columns neighbouring views."""
    chosen: dict[int, list[int]] = {}
    for scene, views in groups(dataset, rows * columns, columns):
        chosen.setdefault(scene, views)
    sheet = []
    for scene, views in list(chosen.items())[:rows]:
        read = [dataset.read(scene, view) for view in views]
        sheet.append([(view.image, view.depth) for view in read])
    return sheet


def of_generator(
    rows: int, columns: int, seed: int, style: ClipStyle = HAND_HELD, width: int = 160, height: int = 120
) -> list[list[Pair]]:
    """Each row a generated room, its columns frames of a walk through it; from no clutter to that of the style."""
    sheet = []
    for row in range(rows):
        room = replace(style.room, clutter=style.room.clutter * row / max(1, rows - 1))
        clip = render_clips([seed + row], columns, (width, height), replace(style, room=room)).clip(0)
        images = (clip.images.permute(0, 2, 3, 1).numpy() * 255).round().astype(np.uint8)
        sheet.append(list(zip(images, clip.depth.numpy(), strict=True)))
    return sheet


def contact_sheet(rows: Sequence[Sequence[Pair]], width: int = 160) -> Picture:
    """[H, W, 3] uint8: every picture ``width`` wide, its depth below from near (bright) to far; sky is pale blue,
    and what is not known is black. One scale of depth for each row. Raises `ThreerError` without pictures."""
    if not rows or not any(rows):
        raise ThreerError("nothing to show: no view could be drawn")
    lines = []
    for row in rows:
        known = np.concatenate([depth[depth > 0] for _, depth in row])
        bounds = tuple(np.percentile(known, (2, 98))) if known.size else (0.0, 1.0)
        cells = [_cell(image, depth, bounds, width) for image, depth in row]
        tallest = max(cell.shape[0] for cell in cells)
        lines.append(np.concatenate([_padded(cell, tallest, cell.shape[1] + BORDER) for cell in cells], axis=1))
    widest = max(line.shape[1] for line in lines)
    return np.concatenate([_padded(line, line.shape[0] + BORDER, widest) for line in lines])


def save_sheet(sheet: Picture, path: Path) -> None:
    """Write a PNG or JPEG. Raises `ThreerError` where that is not possible."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(sheet).save(path)
    except (OSError, ValueError) as error:
        raise ThreerError(f"cannot write {path} ({error}); give a name that ends in .png or .jpg") from None


def _cell(image: Picture, depth: npt.NDArray[np.float32], bounds: Sequence[float], width: int) -> Picture:
    height = max(1, round(width * image.shape[0] / image.shape[1]))
    small = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))
    z = nearest(depth, (width, height))
    near, far = bounds
    shade = (1 - (z - near) / max(far - near, 1e-6)).clip(0, 1)
    colours = cv2.applyColorMap((20 + 235 * shade).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1].copy()
    colours[z == 0] = 0
    colours[z < 0] = (190, 215, 255)
    return np.concatenate([small, colours.astype(np.uint8)])


def _padded(picture: Picture, height: int, width: int) -> Picture:
    padded = np.full((height, width, 3), 255, np.uint8)
    padded[: picture.shape[0], : picture.shape[1]] = picture
    return padded
