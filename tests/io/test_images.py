"""Decoding of odd image files, and the mapping from network pixels back to the original."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from threer.config import InputSpec
from threer.errors import SourceError
from threer.io.images import load_image, prepare_image

EXIF_ORIENTATION = 0x0112
# How pixels must be stored so that EXIF orientation k shows them upright.
STORED_AS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


def position_image(width: int, height: int) -> npt.NDArray[np.uint8]:
    """Red grows with x and green with y, from 0 to 255."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([x, y, np.full_like(x, 128)], axis=-1).round().astype(np.uint8)


def stored(upright: npt.NDArray[np.uint8], orientation: int) -> Image.Image:
    image = Image.fromarray(np.ascontiguousarray(STORED_AS[orientation](upright)))
    image.getexif()[EXIF_ORIENTATION] = orientation
    return image


sides = st.integers(1, 96)
specs = st.one_of(
    st.builds(InputSpec, size=st.sampled_from([32, 48, 96]), square=st.just(True)),
    st.builds(InputSpec, size=st.sampled_from([64, 96]), square=st.just(False), allow_square=st.booleans()),
)


@settings(max_examples=150, deadline=None)
@given(width=sides, height=sides, orientation=st.sampled_from(sorted(STORED_AS)), spec=specs)
def test_to_original_points_at_the_pixel_that_was_seen(
    width: int, height: int, orientation: int, spec: InputSpec
) -> None:
    image = stored(position_image(width, height), orientation)
    try:
        prepared, to_original = prepare_image(image, spec)
    except SourceError:
        assert not spec.square
        assert round(spec.size * min(width, height) / max(width, height)) < spec.patch
        return
    h, w = prepared.shape[1:]
    assert (h, w) == (spec.size, spec.size) if spec.square else h % spec.patch == w % spec.patch == 0

    v, u = np.mgrid[:h, :w]
    x, y = np.einsum("ij,jhw->ihw", to_original, np.stack([u, v, np.ones_like(u)]))
    seen_x, seen_y = prepared[0].numpy() * (width - 1), prepared[1].numpy() * (height - 1)
    # Within the kernel's reach of the border a resampled ramp is bent, so it says nothing there.
    reach = 3 * np.maximum(1, to_original[[0, 1], [0, 1]])
    inside = (x >= reach[0]) & (x <= width - 1 - reach[0]) & (y >= reach[1]) & (y <= height - 1 - reach[1])
    assert np.abs(seen_x - x)[inside].max(initial=0) < 0.5
    assert np.abs(seen_y - y)[inside].max(initial=0) < 0.5


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (600, 600), (1037, 641), (3, 2), (1, 1)])
@pytest.mark.parametrize("spec", [InputSpec(224), InputSpec(512, square=False)], ids=["224", "512"])
def test_to_original_takes_crop_corners_into_the_image(size: tuple[int, int], spec: InputSpec) -> None:
    prepared, to_original = prepare_image(position_image(*size), spec)
    h, w = prepared.shape[1:]
    corners = to_original @ np.array([[-0.5, w - 0.5], [-0.5, h - 0.5], [1, 1]])  # [2 axes, near and far]
    assert (corners[:, 0] >= -0.5 - 1e-9).all()
    assert (corners[:, 1] <= np.array(size) - 0.5 + 1e-9).all()
    # The crop is centred: what is lost left and right (above and below) differs by a network pixel at most.
    lost_near, lost_far = corners[:, 0] + 0.5, np.array(size) - 0.5 - corners[:, 1]
    assert (np.abs(lost_near - lost_far) <= to_original[[0, 1], [0, 1]] + 1e-9).all()


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (1200, 680), (1037, 641), (600, 600)])
@pytest.mark.parametrize("spec", [InputSpec(224), InputSpec(512, square=False)], ids=["224", "512"])
def test_a_spot_is_found_where_it_was(size: tuple[int, int], spec: InputSpec) -> None:
    width, height = size
    spot = np.array([0.55 * width, 0.45 * height]).round(2)
    y, x = np.mgrid[:height, :width]
    bell = 255 * np.exp(-((x - spot[0]) ** 2 + (y - spot[1]) ** 2) / (2 * 12.0**2))
    prepared, to_original = prepare_image(bell.round().astype(np.uint8)[..., None].repeat(3, axis=2), spec)
    weight = prepared[0].double().numpy()
    v, u = np.mgrid[: weight.shape[0], : weight.shape[1]]
    centroid = np.array([(weight * u).sum(), (weight * v).sum()]) / weight.sum()
    np.testing.assert_allclose(to_original @ [*centroid, 1], spot, atol=0.1)


# square, original size, prepared (w, h), left and top of the crop in the resized image, size of that
REFERENCE_BOXES = [
    (True, (640, 480), (224, 224), (37, 0), (299, 224)),
    (True, (480, 640), (224, 224), (0, 37), (224, 299)),
    (True, (1200, 680), (224, 224), (85, 0), (395, 224)),
    (True, (100, 77), (224, 224), (33, 0), (291, 224)),
    (False, (640, 480), (512, 384), (0, 0), (512, 384)),
    (False, (480, 640), (384, 512), (0, 0), (384, 512)),
    (False, (1200, 680), (512, 288), (0, 1), (512, 290)),
    (False, (1037, 641), (512, 304), (0, 6), (512, 316)),
    (False, (600, 600), (512, 384), (0, 64), (512, 512)),
    (False, (320, 200), (512, 320), (0, 0), (512, 320)),
]


@pytest.mark.parametrize(("square", "size", "prepared_size", "corner", "resized"), REFERENCE_BOXES)
def test_boxes_are_the_published_ones(
    square: bool,
    size: tuple[int, int],
    prepared_size: tuple[int, int],
    corner: tuple[int, int],
    resized: tuple[int, int],
) -> None:
    prepared, to_original = prepare_image(position_image(*size), InputSpec(224 if square else 512, square=square))
    assert (prepared.shape[2], prepared.shape[1]) == prepared_size
    scale = np.array(size) / resized
    np.testing.assert_allclose(to_original[:, :2], np.diag(scale))
    np.testing.assert_allclose(to_original[:, 2], (np.array(corner) + 0.5) * scale - 0.5)


@pytest.mark.parametrize("size", [(1, 5000), (40000, 3)])
def test_a_strip_gives_a_square_without_a_gigapixel_detour(size: tuple[int, int]) -> None:
    prepared, to_original = prepare_image(position_image(*size), InputSpec(224))
    assert prepared.shape == (3, 224, 224)
    np.testing.assert_allclose(to_original @ [111.5, 111.5, 1], (np.array(size) - 1) / 2, atol=0.5)


def test_square_crops_of_long_and_extreme_strips_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    strip = rng.integers(0, 256, (12, 300, 3), dtype=np.uint8)
    whole, to_original_whole = prepare_image(strip, InputSpec(64))
    monkeypatch.setattr("threer.io.images._EXTREME_ASPECT", 2)
    window, to_original_window = prepare_image(strip, InputSpec(64))
    np.testing.assert_array_equal(to_original_whole, to_original_window)
    assert (whole - window).abs().max() <= 2 / 255


def test_too_narrow_without_square_says_so() -> None:
    with pytest.raises(SourceError, match="600×9 is too narrow"):
        prepare_image(position_image(600, 9), InputSpec(512, square=False))


@pytest.mark.parametrize("bad", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)])
def test_prepare_image_refuses_other_arrays(bad: npt.NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match="uint8"):
        prepare_image(bad, InputSpec(32))


@pytest.mark.parametrize("orientation", sorted(STORED_AS))
def test_files_come_out_upright(tmp_path: Path, orientation: int) -> None:
    upright = position_image(7, 5)
    stored(upright, orientation).save(tmp_path / "a.png", exif=stored(upright, orientation).getexif())
    np.testing.assert_array_equal(load_image(tmp_path / "a.png"), upright)


GREY = np.array([[0, 100], [200, 255]], np.uint8)


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(GREY),
        Image.fromarray(GREY.astype(np.uint16) * 257),
        Image.fromarray(GREY.astype(np.int32) * 257),
        Image.fromarray(np.stack([GREY, GREY, GREY, np.full_like(GREY, 9)], axis=-1)),
        Image.fromarray(np.stack([GREY, np.full_like(GREY, 9)], axis=-1)),
        Image.fromarray(GREY).convert("RGB").quantize(4),
    ],
    ids=["grey", "grey16", "grey32", "rgba", "grey-alpha", "palette"],
)
def test_other_pixel_formats_become_rgb(tmp_path: Path, image: Image.Image) -> None:
    image.save(tmp_path / "a.tif")
    loaded = load_image(tmp_path / "a.tif")
    assert loaded.shape == (2, 2, 3)
    assert loaded.dtype == np.uint8
    np.testing.assert_array_equal(loaded, GREY[..., None].repeat(3, axis=2))


@pytest.mark.parametrize(("stored_value", "seen"), [(0x1234, 0x12), (0x00FF, 0), (0xFFFF, 0xFF)])
def test_16_bit_images_share_one_brightness_scale(tmp_path: Path, stored_value: int, seen: int) -> None:
    Image.fromarray(np.full((2, 2), stored_value, np.uint16)).save(tmp_path / "a.png")
    assert (load_image(tmp_path / "a.png") == seen).all()


def test_floating_point_images_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((2, 2), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(SourceError, match=r"a\.tif.*floating-point"):
        load_image(tmp_path / "a.tif")


def test_what_is_wrong_with_a_file_is_said(tmp_path: Path) -> None:
    Image.fromarray(position_image(64, 64)).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:100])
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(SourceError, match=r"cut\.png is damaged"):
        load_image(tmp_path / "cut.png")
    with pytest.raises(SourceError, match=r"text\.png is not an image"):
        load_image(tmp_path / "text.png")
    with pytest.raises(SourceError, match=r"no such file.*none\.png"):
        load_image(tmp_path / "none.png")
