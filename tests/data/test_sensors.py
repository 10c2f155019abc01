"""What a phone's sensor does, effect by effect: each against what it is said to do."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from threer.data.synthetic import Lens, Sensor
from threer.data.synthetic.draws import Draws
from threer.data.synthetic.jpeg import jpeg
from threer.data.synthetic.lenses import draw_lenses
from threer.data.synthetic.sensor import LONGEST, _smeared, _way_of_pixels, record
from threer.geometry.projection import project, unproject
from threer.geometry.transforms import apply, invert

WIDTH, HEIGHT = 48, 40


def lens(frames: int) -> torch.Tensor:
    K = torch.tensor([[40.0, 0, (WIDTH - 1) / 2], [0, 40.0, (HEIGHT - 1) / 2], [0, 0, 1]])
    return K.repeat(1, frames, 1, 1)


def plain(light: torch.Tensor, **settings: object) -> torch.Tensor:
    """Frames of light [N, 3, HEIGHT, WIDTH] by a camera at rest whose sensor does nothing but ``settings``."""
    off = {"tremble": 0.0, "softness": (0.0, 0.0), "hunting": 0.0, "key": (0.3, 0.3), "balance": 0.0}
    clean = {"vignette": (0.0, 0.0), "noise": (0.0, 0.0), "contrast": (1.0, 1.0), "sharpen": (0.0, 0.0)}
    rest = {"quality": (100.0, 100.0), "lag": (1e-3, 1e-3)}
    sensor = Sensor(**(off | clean | rest | settings))  # type: ignore[arg-type]
    frames = len(light)
    c2w, depth = torch.eye(4).repeat(1, frames, 1, 1), torch.ones(1, frames, HEIGHT, WIDTH)
    lights = (light[None], depth, c2w, lens(frames), torch.zeros(1, 2), torch.tensor([0.1]))
    return record(*lights, sensor, [torch.Generator().manual_seed(3)])[0]


def half_lit(frames: int = 1) -> torch.Tensor:
    light = torch.full((frames, 3, HEIGHT, WIDTH), 0.1)
    light[..., WIDTH // 2 :] = 0.5
    return light


@pytest.mark.parametrize("bent", [0.0, 0.1])
def test_pixels_move_in_an_exposure_as_they_do_from_frame_to_frame(bent: float) -> None:
    """A quarter of the way to the next frame, of turn and step alike, through the lens."""
    step = torch.eye(4)
    angle = math.radians(0.6)
    step[0, 0] = step[2, 2] = math.cos(angle)
    step[0, 2], step[2, 0] = math.sin(angle), -math.sin(angle)
    step[:3, 3] = torch.tensor([-0.03, 0.02, 0.01])
    c2w = torch.stack([torch.eye(4), step, step @ step])[None]
    depth = 1 + torch.rand(1, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    K, distortion = lens(3), torch.tensor([[bent, 0.0]])
    share, tremble = torch.full((1, 1, 1), 0.25), torch.zeros(1, 3, 3)
    way = _way_of_pixels(depth, c2w, K, distortion, share, tremble)
    bend = distortion[:, None].expand(1, 3, 2)
    points = unproject(depth, K, bend)
    later = apply(invert(step).expand(1, 3, 4, 4), points)
    truth = 0.25 * (project(later, K, bend) - project(points, K, bend))
    inner = (slice(None), slice(None), slice(8, -8), slice(8, -8))  # the bend's own slope is left out
    assert truth[inner].norm(dim=-1).min() > 0.05
    wrong = (way - truth)[inner].norm(dim=-1)
    assert wrong.median() < (0.1 if bent else 0.03) * truth[inner].norm(dim=-1).median()


def test_the_hand_trembles_beside_the_poses_and_no_way_is_longer_than_can_be_shown() -> None:
    depth, c2w, K = torch.ones(1, 1, HEIGHT, WIDTH), torch.eye(4).repeat(1, 1, 1, 1), lens(1)
    for turn, length in ((0.02, 0.02 * 40), (0.5, LONGEST * WIDTH)):
        way = _way_of_pixels(
            depth, c2w, K, torch.zeros(1, 2), torch.ones(1, 1, 1), torch.tensor([[[0.0, turn, 0]]])
        )
        middle = way[0, 0, HEIGHT // 2, WIDTH // 2]
        assert middle.tolist() == pytest.approx([-length, 0], abs=0.02)
    row, column = torch.arange(HEIGHT) // 2 % 2, torch.arange(WIDTH) // 2 % 2
    squares = (0.1 + 0.4 * (row[:, None] ^ column)).expand(2, 3, -1, -1)
    still, shaken = (plain(squares, tremble=tremble, shutter=(0.03, 0.03)) for tremble in (0.0, 40.0))
    assert shaken.std() < 0.9 * still.std()


def test_light_is_spread_evenly_over_the_whole_way() -> None:
    light = torch.zeros(1, 1, 3, 21, 41)
    light[..., 10, 20] = 1
    way = torch.tensor([12.0, 0.0]).expand(1, 1, 21, 41, 2)
    smeared = _smeared(light, way)[0, 0, 0, 10]
    assert smeared.nonzero().flatten().tolist() == [14, 16, 18, 20, 22, 24, 26]
    torch.testing.assert_close(smeared[14:27:2], torch.full((7,), 1 / 7))


def test_white_balance_tints_red_and_blue_and_leaves_green() -> None:
    grey = torch.full((4, 3, HEIGHT, WIDTH), 0.3)
    tinted, neutral = plain(grey, balance=1.0).mean((2, 3)), plain(grey).mean((2, 3))
    assert torch.allclose(tinted[:, 1], neutral[:, 1], atol=0.02)
    assert ((tinted - neutral)[:, [0, 2]].abs() > 0.01).all()
    tint = tinted / neutral
    assert tint.std(0)[[0, 2]].max() > 0.005, "a part of it drifts"


def test_contrast_spreads_light_around_the_exposure_that_is_aimed_at() -> None:
    flat, strong = plain(half_lit()), plain(half_lit(), contrast=(2.0, 2.0))
    dark, bright = (
        strong[..., columns].mean() - flat[..., columns].mean() for columns in (slice(8), slice(-8, None))
    )
    assert dark < -0.02
    assert bright > 0.02
    even = torch.full((1, 3, HEIGHT, WIDTH), 0.1)
    assert torch.allclose(plain(even), plain(even, contrast=(2.0, 2.0)), atol=0.01)


def test_sharpening_overshoots_at_edges_only() -> None:
    light = half_lit()
    change = (plain(light, sharpen=(1.0, 1.0)) - plain(light)).mean((0, 1, 2))
    assert change[WIDTH // 2] > 0.03
    assert change[WIDTH // 2 - 1] < -0.03
    assert change[:16].abs().max() < 0.01
    assert change[-16:].abs().max() < 0.01


def test_corners_get_less_light() -> None:
    even = torch.full((1, 3, HEIGHT, WIDTH), 0.1)
    shown = plain(even, vignette=(0.5, 0.5))[0, 1]
    light = -(1 - shown**2.2).log()  # back through the tone curve
    corners = light[[0, 0, -1, -1], [0, -1, 0, -1]] / light[HEIGHT // 2, WIDTH // 2]
    assert corners.tolist() == pytest.approx([0.5] * 4, abs=0.06)


def test_lenses_are_soft_and_lose_the_focus_for_a_while() -> None:
    def sharpness(shown: torch.Tensor) -> torch.Tensor:
        return shown.diff(dim=-1).abs().amax((1, 2, 3))

    light = half_lit(12)
    sharp = sharpness(plain(light))
    soft, hunting = sharpness(plain(light, softness=(1.0, 1.0))), sharpness(plain(light, hunting=1.0))
    assert (soft < 0.7 * sharp).all()
    assert hunting.min() < 0.9 * sharp.min()
    assert hunting.max() > 0.98 * sharp.min(), "only for a while"


def test_a_small_bright_spot_does_not_darken_the_picture() -> None:
    light = torch.full((1, 3, HEIGHT, WIDTH), 0.1)
    even = plain(light)[..., 0, 0].mean()
    light[..., 20, 20:30] = 50.0  # half a per cent, which makes up most of the mean
    assert plain(light)[..., 0, 0].mean() > even - 0.1


def test_both_terms_of_a_lens_move_the_corner_by_their_share() -> None:
    bend = Lens(aspects=(1.0,), off_centre=0.0, k1=(0.05, 0.05), k2=(-0.02, -0.02))
    K, distortion = draw_lenses(torch.tensor([1.2]), (48, 48), bend, Draws([torch.Generator().manual_seed(0)]))
    r2 = 2 * (23.5 / K[0, 0, 0]) ** 2
    assert (distortion[0] * torch.stack([r2, r2**2])).tolist() == pytest.approx([0.05, -0.02], rel=0.01)


@pytest.mark.parametrize("quality", [40, 85])
def test_colours_of_jpeg_are_those_of_pillow(quality: int) -> None:
    noise = torch.rand(1, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    colours = (F.interpolate(noise, size=(48, 64), mode="bicubic").clamp(0.1, 0.9) * 255).round() / 255
    file = io.BytesIO()
    pixels = (colours[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    theirs = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) / 255
    ours = jpeg(colours, torch.tensor([float(quality)]))[0]
    assert (ours - theirs).abs().mean() < 0.5 * (theirs - colours[0]).abs().mean()
