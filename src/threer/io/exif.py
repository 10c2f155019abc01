"""What a photo's EXIF says about its focal length: roughly right mostly, and absurd now and then."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image

from threer.io.images import HEIC_SUFFIXES, register_heic

PLAUSIBLE = (0.3, 10.0)
"""In units of the longer side: 118° to 6° of view."""
FILM_DIAGONAL_MM = math.hypot(36, 24)
OTHER_SHAPE = 0.02
"""A picture whose sides are in another proportion than EXIF says, by this share, was cut."""
_UNIT_MM = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}  # of FocalPlaneResolutionUnit: inch, cm, and what TIFF/EP adds


@dataclass(frozen=True)
class PhotoFocal:
    """The focal length of a photo.

    px       in pixels of the picture, None where nothing is said that can be used
    problem  what is wrong with what is said, in a few words; None if nothing is
    """

    px: float | None = None
    problem: str | None = None


def read_focal(path: Path) -> PhotoFocal:
    """The focal length that an image file names, however the picture is turned: its pixels are taken for square.

    FocalLengthIn35mmFilm goes first, and relates to the diagonal (CIPA DCG-001). Without it FocalLength and
    FocalPlaneXResolution are used, which hold for the size that the camera wrote. Of a file that cannot be read,
    or names none, nothing is said.
    """
    try:
        if path.suffix.lower() in HEIC_SUFFIXES:
            register_heic(path)
        with Image.open(path) as image:
            return focal_of(image.getexif().get_ifd(ExifTags.IFD.Exif), image.size)
    except Exception:  # damaged EXIF raises nearly anything, and a picture needs none
        return PhotoFocal()


def focal_of(tags: Mapping[int, Any], size: tuple[int, int]) -> PhotoFocal:
    """What the tags of an Exif block say of a picture of ``size`` (W, H), in either orientation."""
    names = ExifTags.Base
    film, focal = _number(tags, names.FocalLengthIn35mmFilm), _number(tags, names.FocalLength)
    across = _number(tags, names.FocalPlaneXResolution)
    unit = _UNIT_MM.get(int(_number(tags, names.FocalPlaneResolutionUnit) or 2))
    if film is None and (focal is None or across is None or unit is None):
        return PhotoFocal()
    written = _number(tags, names.ExifImageWidth), _number(tags, names.ExifImageHeight)
    shrunk = 1.0
    if written[0] and written[1]:
        shrunk = max(size) / max(written[0], written[1])
        if abs(shrunk * min(written[0], written[1]) / min(size) - 1) > OTHER_SHAPE:
            return PhotoFocal(problem="the picture was cut since it was taken")
    if film or focal is None or across is None or unit is None:  # EXIF writes 0 where it does not know
        px = (film or 0.0) / FILM_DIAGONAL_MM * math.hypot(*size)
    else:
        px = focal * across / unit * shrunk
    sides = px / max(size)
    if not PLAUSIBLE[0] <= sides <= PLAUSIBLE[1]:
        return PhotoFocal(problem=f"a focal length of {sides:.3g} image sides")
    return PhotoFocal(px)


def _number(tags: Mapping[int, Any], tag: int) -> float | None:
    """The value of a tag; None without it, or where it is no finite number."""
    try:
        value = float(tags[tag])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return value if math.isfinite(value) else None
