"""Views brought to the size of a network, the intrinsics exact to the pixel (geometry, section 1).

Pixel centres are at integers: a pixel at u covers u - ½ … u + ½. Resizing W pixels to w takes u to
(u + ½) · w / W - ½, and a crop takes its origin off.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from threer.data.datasets.format import nearest
from threer.data.samples import RawView
from threer.errors import ThreerError
from threer.types import FloatArray

LEAST_MARGIN = 0.2
"""A principal point nearer to the border than this share of a side leaves too little of the picture."""


class UnusableViewError(ThreerError):
    """A view that is readable but of no use: the principal point at the border, no depth."""


def crop(view: RawView, left: int, top: int, width: int, height: int) -> RawView:
    """A window of the picture. Raises ValueError when it reaches beyond the border."""
    W, H = view.size
    if left < 0 or top < 0 or width < 1 or height < 1 or left + width > W or top + height > H:
        raise ValueError(f"a crop of {width}×{height} at ({left}, {top}) does not fit into {W}×{H}")
    rows, columns = slice(top, top + height), slice(left, left + width)
    K = view.K.copy()
    K[0, 2] -= left
    K[1, 2] -= top
    return replace(
        view,
        image=view.image[rows, columns],
        depth=view.depth[rows, columns],
        K=K,
        foreground=None if view.foreground is None else view.foreground[rows, columns],
    )


def resized_intrinsics(K: FloatArray, old: tuple[int, int], new: tuple[int, int]) -> FloatArray:
    """K after resizing pictures of ``old`` (W, H) to ``new``, each axis by its own exact ratio."""
    ratio = np.array([new[0] / old[0], new[1] / old[1]])
    moved = K.copy()
    moved[:2, 2] += 0.5
    moved[:2] *= ratio[:, None]
    moved[:2, 2] -= 0.5
    return moved


def resize(view: RawView, size: tuple[int, int]) -> RawView:
    """To (W, H): colours by Lanczos, depth and masks by nearest neighbour."""
    if size == view.size:
        return view
    picture = Image.fromarray(np.ascontiguousarray(view.image)).resize(size, Image.Resampling.LANCZOS)
    return replace(
        view,
        image=np.asarray(picture),
        depth=nearest(view.depth, size),
        K=resized_intrinsics(view.K, view.size, size),
        foreground=None if view.foreground is None else nearest(view.foreground, size),
    )


def centre_principal_point(view: RawView, least_margin: float = LEAST_MARGIN) -> RawView:
    """The largest window that is symmetric about the principal point, rounded to whole pixels.

    Raises `UnusableViewError` when the principal point is nearer to a border than ``least_margin`` of the side.
    """
    W, H = view.size
    cx, cy = view.K[0, 2], view.K[1, 2]
    if not (np.isfinite(cx) and np.isfinite(cy)):
        raise UnusableViewError(f"{view.name}: the principal point is not finite")
    # in edge coordinates, where the picture reaches from 0 to W
    x, y = round(float(cx + 0.5)), round(float(cy + 0.5))
    half_x, half_y = min(x, W - x), min(y, H - y)
    if half_x < max(1, least_margin * W) or half_y < max(1, least_margin * H):
        raise UnusableViewError(
            f"{view.name}: the principal point ({cx:.0f}, {cy:.0f}) is at the border of {W}×{H}"
        )
    return crop(view, x - half_x, y - half_y, 2 * half_x, 2 * half_y)


def fit(view: RawView, size: tuple[int, int], enlarge: int = 0) -> RawView:
    """The view at exactly ``size`` (W, H), its principal point within a pixel of the centre.

    enlarge  pixels added to both sides of the target before the centre crop: the more, the narrower the view
    Raises `UnusableViewError` for a principal point at the border.
    """
    view = centre_principal_point(view)
    W, H = view.size
    width, height = size
    scale = max((width + enlarge) / W, (height + enlarge) / H) + 1e-8
    view = resize(view, (max(width, int(W * scale)), max(height, int(H * scale))))
    W, H = view.size
    left = round(float(view.K[0, 2] + 0.5 - width / 2))
    top = round(float(view.K[1, 2] + 0.5 - height / 2))
    return crop(view, min(max(left, 0), W - width), min(max(top, 0), H - height), width, height)


def upright_size(picture: tuple[int, int], size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
    """The size to crop a picture of (W, H) to, for a batch of ``size``: transposed where the picture stands and
    the batch lies or the other way round; for square pictures one time in two."""
    (W, H), (width, height) = picture, size
    if width == height:
        return size
    turned = bool(rng.random() < 0.5) if W == H else (W > H) != (width > height)
    return (height, width) if turned else size
