"""Photos in: decode upright RGB, and prepare an image the way the networks were trained (networks.md section 2)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from threer.config import InputSpec
from threer.errors import SourceError
from threer.types import FloatArray

RGBImage = npt.NDArray[np.uint8]  # [H, W, 3]

HEIC_SUFFIXES = frozenset({".heic", ".heif"})
IMAGE_SUFFIXES = (
    frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"}) | HEIC_SUFFIXES
)

# Beyond this ratio of the sides a square crop is resampled on its own: resizing the whole strip first, which is
# what the reference does, would make an image of gigapixels to throw nearly all of it away.
_EXTREME_ASPECT = 32


def upright_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB with the EXIF orientation applied. Grey, palette, transparent and 16-bit images are converted."""
    image = ImageOps.exif_transpose(image)
    if image.mode == "RGB":
        return image
    if image.mode == "I" or image.mode.startswith("I;16"):
        high_byte = np.asarray(image) // 256  # as Pillow itself does for 16-bit colour
        return Image.fromarray(high_byte.clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise SourceError("a floating-point image has no known range; convert it to 8 or 16 bits")
    return image.convert("RGB")


def load_image(path: str | Path) -> RGBImage:
    """Upright RGB [H, W, 3] of an image file. Raises `SourceError` if there is none or it is damaged."""
    path = Path(path)
    if path.suffix.lower() in HEIC_SUFFIXES:
        register_heic(path)
    try:
        with Image.open(path) as image:
            image.load()
            return np.asarray(upright_rgb(image))
    except FileNotFoundError:
        raise SourceError(f"no such file: {path}") from None
    except PermissionError:
        raise SourceError(f"no permission to read {path}") from None
    except UnidentifiedImageError:
        raise SourceError(
            f"{path} is not an image that can be read; remove it or convert it to PNG or JPEG"
        ) from None
    except SourceError as error:
        raise SourceError(f"{path}: {error}") from None
    # Damaged files raise nearly anything from inside the decoders.
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, Image.DecompressionBombError) as error:
        raise SourceError(f"{path} is damaged ({error}); replace or remove it") from error


def check_picture(image: Any) -> RGBImage:
    """An array as a picture. Raises `SourceError` for anything but [H, W, 3] uint8."""
    array = np.asarray(image)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8 or not array.size:
        raise SourceError(f"a picture must be RGB [H, W, 3] uint8, got {array.dtype} {list(array.shape)}")
    return array


def register_heic(path: Path) -> None:
    """Let Pillow open HEIC photos, as ``path`` is one. Raises `SourceError` without the package that it takes."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise SourceError(f"{path}: HEIC photos need one more package: pip install pillow-heif") from None
    register_heif_opener()


def prepare_image(image: Image.Image | RGBImage, spec: InputSpec) -> tuple[Tensor, FloatArray]:
    """Resize and crop an image for a network, byte for byte as the published loaders do.

    image  upright original: Pillow image (any mode; EXIF orientation is applied) or uint8 RGB [H, W, 3]

    Returns the image [3, h, w] float32 in 0..1, and the affine [2, 3] float64 that takes a network pixel (x, y, 1)
    to the upright original's pixel; pixel centres are at integers on both sides.
    Raises `SourceError` for an image so narrow that no whole patch is left (never with ``spec.square``).
    """
    if isinstance(image, Image.Image):
        picture = upright_rgb(image)
    else:
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"an image must be uint8 [H, W, 3], got {image.dtype} {list(image.shape)}")
        picture = Image.fromarray(image)
    if not picture.width or not picture.height:
        raise SourceError("the image is empty")

    resized, box = _plan(picture.size, spec)
    scale = np.array(picture.size) / resized  # original pixels per network pixel, (x, y)
    long_side, resized_long = max(picture.size), max(resized)
    kernel = Image.Resampling.LANCZOS if long_side > resized_long else Image.Resampling.BICUBIC
    left, top, right, bottom = box
    if spec.square and long_side > _EXTREME_ASPECT * min(picture.size):
        area = (left * scale[0], top * scale[1], right * scale[0], bottom * scale[1])
        area = (max(area[0], 0), max(area[1], 0), min(area[2], picture.width), min(area[3], picture.height))
        prepared = picture.resize((right - left, bottom - top), kernel, box=area)
    else:
        prepared = picture.resize(resized, kernel).crop(box)

    pixels = torch.from_numpy(np.array(prepared)).permute(2, 0, 1).contiguous()  # [3, h, w] uint8
    # A pixel centre u sits at u + 0.5 of the pixel grid's edge coordinates, which is what resizing scales.
    offset = (np.array([left, top]) + 0.5) * scale - 0.5
    to_original = np.array([[scale[0], 0.0, offset[0]], [0.0, scale[1], offset[1]]])
    return pixels.float() / 255, to_original


def _plan(size: tuple[int, int], spec: InputSpec) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
    """Resized (w, h) and the crop box (left, top, right, bottom) in it, for an original of ``size`` (W, H)."""
    width, height = size
    longest = max(width, height)
    target = round(spec.size * max(width / height, height / width)) if spec.square else spec.size
    resized = round(width * target / longest), round(height * target / longest)
    centre_x, centre_y = resized[0] // 2, resized[1] // 2
    if spec.square:
        left, top = centre_x - spec.size // 2, centre_y - spec.size // 2
        return resized, (left, top, left + spec.size, top + spec.size)

    # Half a patch is the unit, so that the crop stays centred on (centre_x, centre_y).
    half_width = 2 * centre_x // spec.patch * spec.patch // 2
    half_height = 2 * centre_y // spec.patch * spec.patch // 2
    if resized[0] == resized[1] and not spec.allow_square:
        half_height = 3 * half_width // 4 // (spec.patch // 2) * (spec.patch // 2)
    if not half_width or not half_height:
        raise SourceError(
            f"an image of {width}×{height} is too narrow: at {spec.size} pixels it is {resized[0]}×{resized[1]}, "
            f"less than one {spec.patch}-pixel patch; crop it or leave it out"
        )
    return resized, (centre_x - half_width, centre_y - half_height, centre_x + half_width, centre_y + half_height)
