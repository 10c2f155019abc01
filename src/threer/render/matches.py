"""Matches between two pictures, drawn side by side."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from threer.render.pictures import GAP_COLOR, GAP_PX, ByteImage, colorize
from threer.types import FloatArray

MARK_PX = 2


def draw_matches(
    image_a: ByteImage,
    image_b: ByteImage,
    pixels_a: FloatArray,
    pixels_b: FloatArray,
    *,
    most: int = 60,
    values: FloatArray | None = None,
    zoom: int = 1,
) -> ByteImage:
    """Two pictures [H, W, 3] next to each other, tops level, with a line from each match's pixel to its partner.

    pixels_a, pixels_b  [M, 2] (u, v), pixel centres at integers
    most                so many matches at most, spread evenly over their order
    values              [M] what the lines are coloured by, blue for low and red for high; by default the place in
                        the first picture, which makes crossing lines easy to see
    zoom                each pixel becomes so many
    """
    pixels_a, pixels_b = np.asarray(pixels_a, dtype=np.float64), np.asarray(pixels_b, dtype=np.float64)
    if pixels_a.ndim != 2 or pixels_a.shape[1] != 2 or pixels_a.shape != pixels_b.shape:
        raise ValueError(f"pixels must both be [M, 2], got {pixels_a.shape} and {pixels_b.shape}")
    if zoom < 1 or most < 0:
        raise ValueError(f"zoom must be at least 1 and most at least 0, got {zoom} and {most}")
    a, b = (np.repeat(np.repeat(image, zoom, axis=0), zoom, axis=1) for image in (image_a, image_b))
    height = max(a.shape[0], b.shape[0])
    canvas = np.full((height, a.shape[1] + GAP_PX + b.shape[1], 3), GAP_COLOR, dtype=np.uint8)
    canvas[: a.shape[0], : a.shape[1]] = a
    canvas[: b.shape[0], a.shape[1] + GAP_PX :] = b
    ranked = values if values is not None else pixels_a[:, 0] + pixels_a[:, 1]
    colours = colorize(np.asarray(ranked, dtype=np.float64))
    shown = np.unique(np.linspace(0, len(pixels_a) - 1, min(most, len(pixels_a))).astype(int))
    picture = Image.fromarray(canvas)
    pen = ImageDraw.Draw(picture)
    for row in shown:
        start = zoom * (pixels_a[row] + 0.5) - 0.5
        end = zoom * (pixels_b[row] + 0.5) - 0.5 + (a.shape[1] + GAP_PX, 0)
        colour = tuple(int(c) for c in colours[row])
        pen.line((*start, *end), fill=colour)
        for u, v in (start, end):
            pen.ellipse((u - MARK_PX, v - MARK_PX, u + MARK_PX, v + MARK_PX), outline=colour)
    return np.asarray(picture)
