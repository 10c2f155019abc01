"""From the light of a scene to the frames of a phone's video: blur, exposure over time, noise, sharpening, JPEG.

Everything happens for all frames of a batch at once, on their device. Depth and cameras are those of the middle of
each exposure, and stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from threer.data.synthetic.draws import Draws
from threer.data.synthetic.jpeg import jpeg
from threer.data.synthetic.photometric import develop
from threer.geometry.projection import rays
from threer.geometry.transforms import relative_pose

TAPS = 7  # places along the way of a pixel that are averaged
LONGEST = 0.06  # of the width: the longest way that TAPS can show without ghosts


@dataclass(frozen=True)
class Sensor:
    """What a phone's camera does to light. Ranges are (smallest, largest), drawn once per clip.

    shutter   seconds that a frame is exposed
    tremble   degrees per second, standard deviation of the hand's motion during an exposure
    softness  pixels, standard deviation of the blur of the lens
    hunting   share of clips in which the focus is lost for a while
    key       mean of the light that automatic exposure aims at; 1 is shown at 63 %
    lag       seconds in which exposure and white balance follow the scene
    balance   standard deviation of the white balance, as logarithms of red and blue over green; a third drifts
    vignette  share of the light that is missing in the corners
    noise     standard deviation of the noise at a light of 0.2, with a floor of a fifth of it in the dark
    contrast  exponent of the light, before the tone curve: what a camera's processing makes of a flat scene
    sharpen   how much of the detail is added again
    quality   of the JPEG that is made of each frame
    """

    shutter: tuple[float, float] = (0.004, 0.033)
    tremble: float = 3.0
    softness: tuple[float, float] = (0.0, 0.4)
    hunting: float = 0.15
    key: tuple[float, float] = (0.08, 0.3)
    lag: tuple[float, float] = (0.2, 1.5)
    balance: float = 0.12
    vignette: tuple[float, float] = (0.0, 0.35)
    noise: tuple[float, float] = (0.002, 0.02)
    contrast: tuple[float, float] = (1.4, 2.4)
    sharpen: tuple[float, float] = (0.0, 1.2)
    quality: tuple[float, float] = (45.0, 97.0)


def record(
    light: Tensor,
    depth: Tensor,
    c2w: Tensor,
    K: Tensor,
    distortion: Tensor,
    interval: Tensor,
    sensor: Sensor,
    generators: Sequence[torch.Generator],
) -> Tensor:
    """Frames of a video [B, N, 3, H, W] in 0..1.

    light       [B, N, 3, H, W] linear RGB
    depth       [B, N, H, W] metres
    c2w, K      [B, N, 4, 4] and [B, N, 3, 3]; distortion [B, 2]
    interval    [B] seconds from frame to frame, on the CPU
    generators  one for each clip, on the CPU
    """
    draws = Draws(generators)
    batch, frames, _, height, width = light.shape
    device = light.device

    def maps(values: Tensor) -> Tensor:
        """[B, N or 1, channels] on the CPU to something that multiplies frames."""
        return values.to(device)[..., None, None]

    shutter = draws.uniform(*sensor.shutter)
    share = (shutter / interval).clamp(max=1).view(-1, 1, 1)
    tremble = math.radians(sensor.tremble) * shutter.view(-1, 1, 1) * draws.normal(frames, 3)
    way = _way_of_pixels(depth, c2w, K, distortion, share.to(device), tremble.to(device))
    light = _smeared(light, way)

    sigma = draws.uniform(*sensor.softness, 1) + _focus_lost(draws, frames, sensor.hunting) * 0.012 * width
    light = _blurred(light, sigma.to(device))
    y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
    off = torch.stack([x, y], dim=-1) - K[:, :1, None, None, :2, 2]
    radius2 = off.square().sum(-1) / (0.25 * (height * height + width * width))  # [B, 1, H, W]
    light = light * (1 - maps(draws.uniform(*sensor.vignette, 1, 1)) * radius2.unsqueeze(2)).clamp(min=0)

    lag = draws.uniform(*sensor.lag)
    follow = _following(frames, interval / lag).to(device)  # [B, N, N]
    mean = light.mean(dim=(2, 3, 4))
    metered = torch.minimum(light, 4 * mean[..., None, None, None]).mean(dim=(2, 3, 4)).clamp(min=1e-4)
    key = draws.uniform(*sensor.key, 1)
    aim = key.to(device).log() - metered.log()
    gain = (follow @ aim.unsqueeze(-1)).exp()  # [B, N, 1]
    tint = sensor.balance * (draws.normal(1, 2) + draws.normal(frames, 2) / 3).clamp(-2, 2)
    tint = follow @ F.pad(tint, (1, 0)).to(device)[..., [1, 0, 2]]  # red, green, blue
    light = light * (gain * tint.exp())[..., None, None]
    middle = key.to(device)[..., None, None, None]
    light = middle * (light / middle).clamp(min=1e-4).pow(maps(draws.uniform(*sensor.contrast, 1, 1)))

    noise = torch.stack([
        torch.randn(light.shape[1:], device=device, generator=torch.Generator(device).manual_seed(seed))
        for seed in draws.seeds()
    ])  # fmt: skip
    strength = maps(draws.uniform(*sensor.noise, 1, 1)) * gain[..., None, None].clamp(0.5, 2).sqrt()
    light = light + strength * (light.clamp(min=0) / 0.2 * 0.95 + 0.05).sqrt() * noise

    shown = develop(light, 1.0)
    detail = shown - _blurred(shown, torch.full((batch, 1), 1.0, device=device))
    shown = (shown + maps(draws.uniform(*sensor.sharpen, 1, 1)) * detail).clamp(0, 1)
    quality = draws.uniform(*sensor.quality, 1).expand(batch, frames)
    return jpeg(shown.flatten(0, 1), quality.flatten().to(device)).view_as(shown)


def _way_of_pixels(
    depth: Tensor, c2w: Tensor, K: Tensor, distortion: Tensor, share: Tensor, tremble: Tensor
) -> Tensor:
    """[B, N, H, W, 2] pixels that what is seen moves while a frame is exposed.

    share    [B, 1, 1] of the time between frames that the shutter is open
    tremble  [B, N, 3] rotation during an exposure that the frames' poses do not show
    """
    batch, frames, height, width = depth.shape
    turn, move = (
        torch.zeros(batch, frames, 3, device=depth.device),
        torch.zeros(batch, frames, 3, device=depth.device),
    )
    if frames > 1:
        step = relative_pose(c2w[:, 1:], c2w[:, :-1])  # the next camera, seen from this one
        R = step[..., :3, :3]
        half = 0.5 * (R - R.mT)
        after = torch.stack([half[..., 2, 1], half[..., 0, 2], half[..., 1, 0]], dim=-1)
        turn = _middles(after)
        move = _middles(step[..., :3, 3])
    turn, move = share * turn + tremble, share * move
    ray = rays(K[:, :1], height, width, distortion.unsqueeze(1))  # [B, 1, H, W, 3]
    wide = turn[..., None, None, :].expand(*depth.shape, 3)
    towards = -torch.linalg.cross(wide, ray.expand_as(wide)) - move[..., None, None, :] / depth.unsqueeze(-1)
    slope = towards[..., :2] - ray[..., :2] * towards[..., 2:]
    way = slope * K[..., None, None, [0, 1], [0, 1]]
    length = way.norm(dim=-1, keepdim=True)
    capped: Tensor = way * (LONGEST * width / length.clamp(min=1e-6)).clamp(max=1)
    return capped


def _middles(steps: Tensor) -> Tensor:
    """What changes from frame to frame [B, N - 1, c], at the frames themselves [B, N, c]."""
    ends = torch.cat([steps[:, :1], steps, steps[:, -1:]], dim=1)
    return 0.5 * (ends[:, 1:] + ends[:, :-1])


def _smeared(light: Tensor, way: Tensor) -> Tensor:
    """Mean of the light [B, N, 3, H, W] along ways [B, N, H, W, 2], half of each before and half after."""
    height, width = light.shape[-2:]
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, height, device=light.device),
        torch.linspace(-1, 1, width, device=light.device),
        indexing="ij",
    )
    grid = torch.stack([x, y], dim=-1)
    step = way.flatten(0, 1) * (2 / torch.tensor([max(width - 1, 1), max(height - 1, 1)], device=light.device))
    flat, total = light.flatten(0, 1), torch.zeros_like(light.flatten(0, 1))
    for share in torch.linspace(-0.5, 0.5, TAPS).tolist():
        total += F.grid_sample(flat, grid + share * step, align_corners=True, padding_mode="border")
    return (total / TAPS).view_as(light)


def _focus_lost(draws: Draws, frames: int, share: float) -> Tensor:
    """[B, N] in 0..1: how far out of focus each frame is."""
    hunts = (draws.uniform(0, 1, 1) < share).float()
    middle, width = draws.uniform(0, frames, 1), draws.uniform(1, 3, 1)
    return hunts * draws.uniform(0.3, 1, 1) * (-(((torch.arange(frames) - middle) / width) ** 2)).exp()


def _blurred(images: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of [B, N, 3, H, W] by sigma [B, N or 1] pixels, cut off at three pixels."""
    offsets = torch.arange(-3, 4, device=images.device)
    weights = (-0.5 * (offsets / sigma.clamp(min=0.05).unsqueeze(-1)) ** 2).exp()
    weights = (weights / weights.sum(-1, keepdim=True))[..., None, None, None, :]  # [B, N or 1, 1, 1, 1, 7]
    height, width = images.shape[-2:]
    wide = F.pad(images.flatten(0, 1), (3, 3, 3, 3), mode="replicate").view(
        *images.shape[:3], height + 6, width + 6
    )
    rows = sum(weights[..., k] * wide[..., k : k + width] for k in range(7))
    assert isinstance(rows, Tensor)
    blurred = sum(weights[..., k] * rows[..., k : k + height, :] for k in range(7))
    assert isinstance(blurred, Tensor)
    return blurred


def _following(frames: int, pace: Tensor) -> Tensor:
    """[B, N, N] weights of the frames so far, for something that follows with a lag; pace [B] frames by lag.

    The first frame has been looked at for long.
    """
    number = torch.arange(frames)
    age = (number.unsqueeze(1) - number).clamp(min=0)
    kept = (-pace).exp().view(-1, 1, 1)
    weights = (1 - kept) * kept**age * (number.unsqueeze(1) >= number)
    weights[..., 0] = kept.squeeze(-1) ** number
    return weights
