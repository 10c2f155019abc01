"""Do generated clips look like real video? Statistics of them beside those of the recorded office walk.

    python benchmarks/looks.py                 # a column each: office, hand-held, plain; 112×112
    python benchmarks/looks.py --size 224 --clips 4

Numbers are the 10, 50 and 90 % quantiles over frames, or over pixels for depth. Of the walk ($THREER_OFFICE or the
folder beside the project) every fourth frame is cut to its centre square; without it, generated clips are alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from office_data import find_office, load_walk
from PIL import Image

from threer.data.synthetic import HAND_HELD, ClipStyle, render_clips

Floats = npt.NDArray[np.float64]
STYLES = {"hand-held": HAND_HELD, "plain": ClipStyle(colour=0.0)}
_LAPLACIAN = ((0, -1, 0), (-1, 4, -1), (0, -1, 0))
_NOISE = ((1, -2, 1), (-2, 4, -2), (1, -2, 1))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=112, help="side of the pictures")
    parser.add_argument("--clips", type=int, default=10, help="of each style")
    parser.add_argument("--frames", type=int, default=6, help="of a clip")
    parser.add_argument("--first-seed", type=int, default=0)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    columns = {}
    if find_office() is not None:
        columns["office"] = looks(*office(given.size))
    for name, style in STYLES.items():
        seeds = range(given.first_seed, given.first_seed + given.clips)
        clips = render_clips(seeds, given.frames, (given.size, given.size), style)
        pictures = clips.images.flatten(0, 1).permute(0, 2, 3, 1).double().numpy()
        columns[name] = looks(pictures, clips.depth.double().numpy())
    print(f"| {given.size}×{given.size} | " + " | ".join(columns) + " |")
    print("|---" * (1 + len(columns)) + "|")
    for row in next(iter(columns.values())):
        print(f"| {row} | " + " | ".join(values[row] for values in columns.values()) + " |")


def office(size: int) -> tuple[Floats, Floats]:
    """Centre squares of every fourth frame [n, size, size, 3] in 0..1, and their measured depth in metres."""
    folder = find_office()
    assert folder is not None
    walk = load_walk(folder)
    pictures, depth = [], []
    for index in range(0, len(walk), 4):
        picture = Image.fromarray(_square(walk.color(index)))
        pictures.append(np.asarray(picture.resize((size, size), Image.Resampling.LANCZOS)) / 255)
        depth.append(_square(walk.depth(index)).ravel())
    return np.stack(pictures), np.concatenate(depth)


def _square(image: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]


def looks(pictures: Floats, depth: Floats) -> dict[str, str]:
    """Of pictures [n, H, W, 3] in 0..1 and depth in metres, NaN where unknown."""
    grey = pictures @ np.array([0.299, 0.587, 0.114])
    gradient = np.abs(np.diff(grey, axis=2)).mean((1, 2))
    laplacian = np.abs(filtered(grey, _LAPLACIAN)).mean((1, 2))
    noise = np.median(np.abs(filtered(grey, _NOISE)).reshape(len(grey), -1), axis=1) / 0.6745 / 6
    return {
        "mean brightness": _quantiles(grey.mean((1, 2)), 2),
        "contrast (deviation)": _quantiles(grey.std((1, 2)), 2),
        "mean gradient": _quantiles(gradient, 3),
        "sharpness (Laplacian / gradient)": _quantiles(laplacian / gradient.clip(1e-6), 1),
        "noise (Immerkær, × 1000)": _quantiles(1000 * noise, 1),
        "over-exposed pixels": f"{(grey > 0.98).mean():.1%}",
        "black pixels (below 0.05)": f"{(grey < 0.05).mean():.1%}",
        "depth (m, over pixels)": _quantiles(depth[np.isfinite(depth)], 1),
    }


def filtered(grey: Floats, kernel: Sequence[Sequence[int]]) -> Floats:
    """[n, H, W] by a 3×3 kernel -> [n, H - 2, W - 2]."""
    height, width = grey.shape[1] - 2, grey.shape[2] - 2
    total = np.zeros((len(grey), height, width))
    for i, row in enumerate(kernel):
        for j, weight in enumerate(row):
            total += weight * grey[:, i : i + height, j : j + width]
    return total


def _quantiles(values: Floats, digits: int) -> str:
    return " ".join(f"{value:.{digits}f}" for value in np.quantile(values, (0.1, 0.5, 0.9)))


if __name__ == "__main__":
    main()
