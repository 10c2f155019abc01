"""Walks with a phone: paths, lenses and sensors of generated clips."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from threer.data.synthetic import HAND_HELD, ClipStyle, HandHeld, Lens, Sensor, render_clips
from threer.data.synthetic.draws import Draws
from threer.data.synthetic.jpeg import jpeg
from threer.data.synthetic.lenses import draw_lenses
from threer.data.synthetic.raycast import clearance
from threer.data.synthetic.room_style import PLAIN
from threer.data.synthetic.rooms import sample_room, stack_rooms
from threer.data.synthetic.sensor import record
from threer.data.synthetic.walks import MIN_CLEARANCE, Walks, sample_walks
from threer.geometry.lens import distort, undistort
from threer.geometry.projection import project, unproject
from threer.geometry.transforms import apply, invert

SEEDS = range(40, 48)
STRONG = Lens(aspects=(1.0,), k1=(0.2, 0.2), k2=(-0.05, -0.05))
PHONE = replace(HAND_HELD, room=PLAIN, antialias=False)


def walks(style: HandHeld, frames: int, seeds: range = SEEDS) -> Walks:
    rooms = stack_rooms([sample_room(seed) for seed in seeds])
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return sample_walks(rooms, frames, torch.full((len(seeds),), 0.9), style, generators)


def angles(rotation: torch.Tensor) -> torch.Tensor:
    """Degrees of rotations [..., 3, 3]."""
    cosine = (rotation.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    return cosine.clamp(-1, 1).acos().rad2deg()


# Paths ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def long_walks() -> Walks:
    return walks(HandHeld(), 40)


def test_walks_keep_clear_of_everything(long_walks: Walks) -> None:
    rooms = stack_rooms([sample_room(seed) for seed in SEEDS])
    gap = clearance(rooms, torch.arange(len(rooms)), long_walks.c2w[..., :3, 3])
    assert gap.min() > MIN_CLEARANCE
    rotation = long_walks.c2w[..., :3, :3]
    torch.testing.assert_close(rotation.mT @ rotation, torch.eye(3).expand_as(rotation), atol=1e-5, rtol=0)
    assert (rotation[..., 1, 1] > 0.4).all(), "down stays down"


def test_walks_are_as_fast_as_people(long_walks: Walks) -> None:
    style = HandHeld()
    interval = long_walks.interval.unsqueeze(1)
    assert ((1 / interval >= 2.99) & (1 / interval <= 10.01)).all()
    steps = long_walks.c2w[:, :, :3, 3].diff(dim=1)
    # the arm swings with the body's turns, and every step lifts and sways
    swing = math.radians(style.turn) * style.arm[1] + 2 * style.bob[1] / interval
    assert (steps.norm(dim=-1) / interval < 1.4 + swing).all()
    assert 0.2 < (steps.norm(dim=-1) / interval).mean() < 1.0
    turns = angles(long_walks.c2w[:, :-1, :3, :3].mT @ long_walks.c2w[:, 1:, :3, :3])
    # yaw and pitch are bounded; the tremor and the roll of the gait come on top
    assert (turns < 1.2 * style.turn * interval + 8).all()
    total = angles(long_walks.c2w[:, :1, :3, :3].mT @ long_walks.c2w[:, :, :3, :3]).amax(1)
    assert total.median() > 45, "they look around"


def test_walks_come_back_to_a_place_from_another_direction() -> None:
    style = HandHeld(rate=(5.0, 5.0), speed=(0.8, 1.2), ways=(1.0, 0.0, 0.0, 0.0), back=1.0, pauses=0.0)
    found = walks(style, 40)
    place, gaze = found.c2w[:, :, [0, 2], 3], found.c2w[:, :, :3, 2]
    apart = torch.arange(40).unsqueeze(1) - torch.arange(40) > 10
    near = (place.unsqueeze(2) - place.unsqueeze(1)).norm(dim=-1) < 0.7
    other = (gaze.unsqueeze(2) * gaze.unsqueeze(1)).sum(-1) < 0
    assert (near & apart).flatten(1).any(1).float().mean() > 0.8
    assert (near & apart & other).flatten(1).any(1).float().mean() > 0.6
    assert (place - place[:, :1]).norm(dim=-1).amax(1).median() > 0.8


def test_turning_on_the_spot_stays_there() -> None:
    found = walks(HandHeld(ways=(0.0, 0.0, 0.0, 1.0)), 12)
    spread = (found.c2w[:, :, :3, 3] - found.c2w[:, :1, :3, 3]).norm(dim=-1).amax(1)
    assert (spread < 2 * 0.3 + 0.1).all()


def test_a_seed_fixes_the_walk_whatever_it_is_drawn_with() -> None:
    together = walks(HandHeld(), 8)
    alone = walks(HandHeld(), 8, range(44, 45))
    torch.testing.assert_close(alone.c2w[0], together.c2w[4], atol=1e-4, rtol=0)
    assert torch.equal(walks(HandHeld(), 1).c2w[..., 3, :], torch.tensor([0.0, 0, 0, 1]).expand(8, 1, 4))


# Lenses ---------------------------------------------------------------------------------------------------------


def test_undistorting_undoes_distortion() -> None:
    xy = torch.rand(3, 50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    lenses = torch.tensor([[0.12, 0.04], [-0.12, 0.02], [0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(undistort(distort(xy, lenses), lenses), xy, atol=1e-9, rtol=0)
    assert (distort(xy, lenses)[0] - xy[0]).norm(dim=-1).max() > 0.05
    assert torch.equal(undistort(xy, lenses)[2], xy[2])
    assert torch.equal(undistort(torch.zeros(3, 1, 2), lenses.float()), torch.zeros(3, 1, 2))


def test_points_of_a_bent_picture_lie_in_the_room_and_come_back_to_their_pixels() -> None:
    style = ClipStyle(fov=(80.0, 80.0), colour=0.0, lens=STRONG)
    clips = render_clips(SEEDS[:2], 2, (64, 48), style)
    bent = clips.distortion.unsqueeze(1).expand(-1, 2, -1)
    points = unproject(clips.depth, clips.K, bent)
    back = project(points, clips.K, bent)
    grid = torch.stack(torch.meshgrid(torch.arange(48.0), torch.arange(64.0), indexing="ij")[::-1], dim=-1)
    torch.testing.assert_close(back, grid.expand_as(back), atol=2e-3, rtol=0)
    rooms = stack_rooms([sample_room(seed) for seed in SEEDS[:2]])
    world = apply(clips.c2w, points).flatten(1, 3)
    assert clearance(rooms, torch.arange(2), world).abs().max() < 3e-3, "points lie on surfaces"
    straight = apply(clips.c2w, unproject(clips.depth, clips.K)).flatten(1, 3)
    assert clearance(rooms, torch.arange(2), straight).abs().max() > 0.02, "a pinhole would miss them"


def test_squares_of_wide_pictures_are_narrow() -> None:
    style = replace(PHONE, sensor=None, lens=Lens(aspects=(16 / 9,), off_centre=0.02))
    K = render_clips(range(20), 1, (16, 16), style).K[:, 0]
    fov = (8 / K[:, 0, 0]).atan().rad2deg() * 2
    assert fov.min() > 26
    assert fov.max() < 55
    centre = K[:, :2, 2] - 7.5
    assert 0 < centre.abs().max() <= 0.04 * 16 + 1e-5
    assert (centre != 0).all()


# Sensors --------------------------------------------------------------------------------------------------------


def test_a_sensor_moves_neither_depth_nor_cameras() -> None:
    without, seen = (render_clips(SEEDS[:2], 3, (48, 48), s) for s in (replace(PHONE, sensor=None), PHONE))
    for name in ("depth", "c2w", "K", "distortion"):
        assert torch.equal(getattr(without, name), getattr(seen, name))
    assert not torch.allclose(without.images, seen.images, atol=0.02)
    assert torch.equal(seen.images, render_clips(SEEDS[:2], 3, (48, 48), PHONE).images)
    assert seen.images.min() >= 0
    assert seen.images.max() <= 1


def filmed(light: torch.Tensor, turn: float = 0.0, **settings: object) -> torch.Tensor:
    """Frames of light [N, 3, H, W] by a camera that turns by ``turn`` degrees a frame; nothing but ``settings``."""
    frames, _, height, width = light.shape
    still = {"shutter": (0.1, 0.1), "tremble": 0.0, "softness": (0.0, 0.0), "hunting": 0.0, "key": (0.3, 0.3)}
    clean = {"balance": 0.0, "vignette": (0.0, 0.0), "noise": (0.0, 0.0), "contrast": (1.0, 1.0)}
    rest = {"sharpen": (0.0, 0.0), "quality": (100.0, 100.0), "lag": (1e-3, 1e-3)}
    sensor = Sensor(**(still | clean | rest | settings))  # type: ignore[arg-type]
    angle = torch.arange(frames) * math.radians(turn)
    c2w = torch.eye(4).repeat(1, frames, 1, 1)
    c2w[0, :, 0, 0] = c2w[0, :, 2, 2] = angle.cos()
    c2w[0, :, 0, 2], c2w[0, :, 2, 0] = angle.sin(), -angle.sin()
    K = torch.tensor([[width, 0, (width - 1) / 2], [0, width, (height - 1) / 2], [0, 0, 1.0]])
    depth = torch.ones(1, frames, height, width)
    generator = torch.Generator().manual_seed(0)
    K = K.repeat(1, frames, 1, 1)
    return record(light[None], depth, c2w, K, torch.zeros(1, 2), torch.tensor([0.2]), sensor, [generator])[0]


def test_blur_lies_along_the_motion_around_the_same_place() -> None:
    light = torch.full((3, 3, 48, 48), 0.1)
    light[..., 20:28, 24:26] = 1.0
    sharp, smeared = filmed(light), filmed(light, turn=4.0)
    column, row = torch.arange(48.0), torch.arange(48.0)

    def spread(image: torch.Tensor, place: torch.Tensor, axis: int) -> tuple[float, float]:
        bright = (image[1].mean(0) - image[1].mean(0).median()).clamp(min=0).sum(axis)
        mean = (bright * place).sum() / bright.sum()
        return float(mean), float((bright * (place - mean) ** 2).sum() / bright.sum())

    before, after = spread(sharp, column, 0), spread(smeared, column, 0)
    assert after[0] == pytest.approx(before[0], abs=0.15), "blur is centred on the frame's own time"
    assert after[1] > before[1] + 0.15, "half of 4° is 1.7 pixels"
    assert spread(smeared, row, 1)[1] == pytest.approx(spread(sharp, row, 1)[1], rel=0.05)


def test_exposure_follows_the_scene_with_a_lag() -> None:
    light = torch.full((12, 3, 16, 16), 0.05)
    light[4:] = 1.0
    shown = filmed(light, lag=(0.4, 0.4)).mean((1, 2, 3))
    assert torch.allclose(shown[:4], shown[0], atol=0.01)
    assert shown[4] > shown[3] + 0.2, "too bright at first"
    assert (shown[5:].diff() < 0).all()
    assert abs(shown[-1] - shown[0]) < 0.05


def test_noise_differs_from_frame_to_frame() -> None:
    shown = filmed(torch.full((2, 3, 32, 32), 0.2), noise=(0.02, 0.02))
    residual = shown - shown.mean((-1, -2), keepdim=True)
    assert 0.005 < residual.std() < 0.05
    assert abs(torch.corrcoef(residual.flatten(1))[0, 1]) < 0.1


def picture() -> torch.Tensor:
    noise = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    return F.interpolate(noise, size=(40, 56), mode="bicubic").clamp(0.1, 0.9)


def test_jpeg_is_that_of_pillow() -> None:
    grey = (picture()[:, :1] * 255).round() / 255
    for quality in (30, 75, 95):
        file = io.BytesIO()
        Image.fromarray((grey[0, 0].numpy() * 255).round().astype(np.uint8)).save(file, "JPEG", quality=quality)
        theirs = torch.from_numpy(np.array(Image.open(file))) / 255.0
        ours = jpeg(grey.expand(-1, 3, -1, -1), torch.tensor([quality]))[0]
        assert (ours[0] - theirs).abs().mean() < 1.5 / 255
        again = jpeg(ours[None], torch.tensor([quality]))[0]
        assert (again - ours).abs().mean() < 0.1 * (ours - grey[0]).abs().mean(), "a second time changes little"


def test_jpeg_is_better_at_higher_quality() -> None:
    image = picture()
    qualities = torch.tensor([15.0, 40.0, 70.0, 98.0])
    wrong = (jpeg(image.expand(4, -1, -1, -1), qualities) - image).abs().mean((1, 2, 3))
    assert (wrong.diff() < 0).all()
    flat = torch.full((2, 3, 16, 16), 100 / 255)
    torch.testing.assert_close(jpeg(flat, torch.tensor([30.0, 90.0])), flat, atol=0.02, rtol=0)


def test_paths_and_poses_agree() -> None:
    """What the batch says of a hand-held clip is what its frames show."""
    style = replace(PHONE, sensor=None, motion=HandHeld(rate=(10.0, 10.0), speed=(0.3, 0.4), glance=5.0))
    clip = render_clips([41], 2, (64, 48), style).clip(0)
    bent = clip.distortion
    points = apply(invert(clip.c2w[1]) @ clip.c2w[0], unproject(clip.depth[0], clip.K[0], bent))
    pixel = project(points, clip.K[1], bent)
    inside = (pixel > 0).all(-1) & (pixel[..., 0] < 63) & (pixel[..., 1] < 47)
    assert inside.float().mean() > 0.4
    grid = pixel / torch.tensor([31.5, 23.5]) - 1
    seen = F.grid_sample(clip.depth[1][None, None], grid[None], align_corners=True)[0, 0]
    ratio = (points[..., 2] / seen)[inside]
    assert ((ratio - 1).abs() < 0.02).float().mean() > 0.7


def test_no_lens_folds_its_picture() -> None:
    """At the corners of the widest pictures, with the strongest bend that is drawn, every pixel has a ray."""
    strong = replace(Lens(), k1=(-0.06, -0.06), k2=(-0.02, -0.02))
    seeds = [torch.Generator().manual_seed(i) for i in range(20)]
    K, distortion = draw_lenses(torch.full((20,), math.radians(85)), (112, 112), strong, Draws(seeds))
    corner = (torch.zeros(20, 1, 2) - K[:, None, :2, 2]) / K[:, None, [0, 1], [0, 1]]
    ray = undistort(corner, distortion)
    assert torch.allclose(distort(ray, distortion), corner, atol=1e-5)
    assert float((ray.norm(dim=-1) / corner.norm(dim=-1)).min()) > 1.05  # they do bend
