"""The way of a camera, drawn over a picture of the scene: a line from blue to red, frusta, and both ends marked."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from threer.render import splat
from threer.render.pictures import TEXT_COLOR, colorize
from threer.render.splat import ByteImage, Layer
from threer.types import FloatArray

LINE_PX = 3.0  # wide
MARK_PX = 10  # across, at both ends
RIM_PX = 1.0  # of white around line and marks: they stand out from a scene of their own colour
RIM_COLOR = (255, 255, 255)
FRUSTUM_PX = 14
STEEPEST = 1e6  # sideways over ahead, of a mark that can be in a picture
FRUSTUM_GAP = 5.0  # along the path between frusta, in their length
HIDDEN_OPACITY = 0.75  # where the scene stands in front of it
LABEL_SHARE = 1 / 45  # height of the letters, of the picture


def draw(cameras: FloatArray, K: FloatArray, c2w: FloatArray, size: tuple[int, int]) -> Layer:
    """The path of cameras [N, 4, 4] (c2w), seen by the camera K, c2w in a picture of ``size`` (W, H)."""
    centres = cameras[:, :3, 3]
    pixel = float(np.median(np.linalg.norm(centres - c2w[:3, 3], axis=1)) / K[0, 0])  # its length at the path
    time = np.linspace(0, 1, len(centres))
    lines = [(centres[i], centres[i + 1], time[i], time[i + 1]) for i in range(len(centres) - 1)]
    shape = FRUSTUM_PX * pixel * np.array([[-0.7, -0.5, 1], [0.7, -0.5, 1], [0.7, 0.5, 1], [-0.7, 0.5, 1]])
    for i in _apart(centres, FRUSTUM_GAP * FRUSTUM_PX * pixel):
        corners = shape @ cameras[i, :3, :3].T + centres[i]
        for k in range(4):
            lines.append((centres[i], corners[k], time[i], time[i]))
            lines.append((corners[k], corners[(k + 1) % 4], time[i], time[i]))
    points, times = [], []
    most_steps = 2 * (size[0] + size[1])  # enough from one corner of the picture to the other
    for start, end, first, last in lines:
        steps = 2 + int(min(2 * float(np.linalg.norm(end - start)) / max(pixel, 1e-12), most_steps))
        share = np.linspace(0, 1, steps)[:, None]
        points.append(start + share * (end - start))
        times.append(first + share[:, 0] * (last - first))
    xyz = np.concatenate(points)
    rgb = _colours(np.concatenate(times))
    radii = np.full(len(xyz), pixel, dtype=np.float32)
    line = splat.rasterize(xyz, rgb, LINE_PX / 2 * radii, K, c2w, size)
    rim = splat.rasterize(xyz, np.full_like(rgb, RIM_COLOR), (LINE_PX / 2 + RIM_PX) * radii, K, c2w, size)
    return Layer(np.minimum(line.depth, rim.depth), np.where(np.isfinite(line.depth)[..., None], line.rgb, rim.rgb))


def over(path: Layer, scene: Layer, background: tuple[int, int, int]) -> Layer:
    """The path in front of the scene, fainter where the scene hides it."""
    drawn = np.isfinite(path.depth)[..., None]
    opacity = np.where(path.depth <= scene.depth, 1.0, HIDDEN_OPACITY)[..., None] * drawn
    backdrop = np.where(np.isfinite(scene.depth)[..., None], scene.rgb, np.array(background, dtype=np.float32))
    return Layer(np.minimum(path.depth, scene.depth), opacity * path.rgb + (1 - opacity) * backdrop)


def mark_ends(picture: ByteImage, cameras: FloatArray, K: FloatArray, c2w: FloatArray) -> ByteImage:
    """A disc with "start" or "end" beside it at the first and the last camera, the words on opposite sides."""
    canvas = Image.fromarray(picture)
    drawing = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=max(8.0, LABEL_SHARE * canvas.height))
    half = MARK_PX / 2
    ends = [("start", 0, -1, "rb")] * (len(cameras) > 0) + [("end", -1, 1, "lt")] * (len(cameras) > 1)
    for text, i, side, anchor in ends:
        local = (cameras[i, :3, 3] - c2w[:3, 3]) @ c2w[:3, :3]
        if local[2] * STEEPEST <= np.abs(local).max():  # a stray one, behind the picture or far beside it
            continue
        x, y = (float(v) for v in local[:2] / local[2] * K[[0, 1], [0, 1]] + K[:2, 2])
        colour = tuple(int(v) for v in _colours(np.array(float(side > 0))))
        drawing.ellipse((x - half, y - half, x + half, y + half), colour, RIM_COLOR)
        beside = (x + side * half, y + side * half)
        drawing.text(beside, text, TEXT_COLOR, font, anchor, stroke_width=2, stroke_fill=RIM_COLOR)
    return np.asarray(canvas)


def _colours(time: FloatArray) -> ByteImage:
    """Of times 0..1 along the path; the ends of the colour map are nearly black and left out."""
    return colorize(time, -0.12, 1.08)


def _apart(centres: FloatArray, gap: float) -> list[int]:
    """The first camera, and each that is ``gap`` away from the one taken before: frusta that do not overlap."""
    taken = [0]
    for i, centre in enumerate(centres):
        if np.linalg.norm(centre - centres[taken[-1]]) >= gap:
            taken.append(i)
    return taken
