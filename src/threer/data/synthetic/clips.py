"""Rendered clips: images, depth and cameras of a walk through a generated room, all from a seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from threer.data.synthetic.cameras import Motion, sample_paths
from threer.data.synthetic.draws import Draws
from threer.data.synthetic.edges import smooth_edges
from threer.data.synthetic.lenses import draw_lenses
from threer.data.synthetic.photometric import augment, develop, soften
from threer.data.synthetic.raycast import Hits, cast
from threer.data.synthetic.rooms import Rooms, sample_room, stack_rooms
from threer.data.synthetic.sensor import record
from threer.data.synthetic.shading import Bundles, shade
from threer.data.synthetic.styles import WALK, ClipStyle
from threer.data.synthetic.textures import TextureBank, texture_bank
from threer.data.synthetic.tiles import TILE, Views, to_frames
from threer.data.synthetic.walks import sample_walks

RAYS_AT_ONCE = 300_000
INTERVAL = 0.2  # seconds between frames where the motion does not say
BRIGHTEST = 8.0  # of linear light that a sensor is given: the sun in a window would ring through the blur
_SUBPIXELS = ((-0.125, -0.375), (0.375, -0.125), (0.125, 0.375), (-0.375, 0.125))  # rotated grid


@dataclass(frozen=True, eq=False)
class Clip:
    """N frames of one room.

    images      [N, 3, H, W] RGB 0..1
    depth       [N, H, W] z-depth in metres
    c2w         [N, 4, 4] OpenCV camera-to-world
    K           [N, 3, 3] pixels, pixel centres at integers: the pinhole part of the lens
    distortion  [2] k1, k2 of `threer.geometry.lens`; 0 for a pinhole. Points are
                ``unproject(depth, K, distortion.expand(N, 2))``
    """

    images: Tensor
    depth: Tensor
    c2w: Tensor
    K: Tensor
    distortion: Tensor

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, eq=False)
class ClipBatch:
    """B clips of N frames: the fields of `Clip` with B in front; distortion [B, 2] stays on the CPU."""

    images: Tensor
    depth: Tensor
    c2w: Tensor
    K: Tensor
    distortion: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def clip(self, index: int) -> Clip:
        return Clip(self.images[index], self.depth[index], self.c2w[index], self.K[index], self.distortion[index])


@dataclass(frozen=True, eq=False)
class Scenes:
    """What S clips of N frames show, before any ray is cast; on the CPU.

    rooms       S rooms
    c2w         [S, N, 4, 4];  K [S, 3, 3];  distortion [S, 2]
    interval    [S] seconds between frames
    generators  one for each clip, for what the camera does to the pictures
    """

    rooms: Rooms
    c2w: Tensor
    K: Tensor
    distortion: Tensor
    interval: Tensor
    generators: Sequence[torch.Generator]


def render_clip(
    seed: int,
    frames: int = 72,
    size: tuple[int, int] = (320, 240),
    style: ClipStyle = WALK,
    device: str | torch.device = "cpu",
) -> Clip:
    """A walk through the room of a seed. size is (W, H), multiples of 8. Raises ValueError for other sizes."""
    return render_clips([seed], frames, size, style, device).clip(0)


def render_clips(
    seeds: Sequence[int],
    frames: int,
    size: tuple[int, int],
    style: ClipStyle | None = None,
    device: str | torch.device = "cpu",
) -> ClipBatch:
    """One clip for each seed. A seed's clip does not depend on the others, up to rounding."""
    style = style or ClipStyle()
    _check(size)
    return render_scenes(draw_scenes(seeds, frames, size, style), size, style, device)


def draw_scenes(seeds: Sequence[int], frames: int, size: tuple[int, int], style: ClipStyle) -> Scenes:
    """Room, lens and path of each seed: the part of rendering that is the CPU's."""
    rooms = [sample_room(seed, style.room) for seed in seeds]
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    fov = [math.radians(_uniform(style.fov, g)) for g in generators]
    K, distortion = draw_lenses(torch.tensor(fov, dtype=torch.float64), size, style.lens, Draws(generators))
    interval = torch.full((len(seeds),), INTERVAL)
    if isinstance(style.motion, Motion):
        c2w = torch.cat([
            sample_paths(room, frames, torch.tensor([angle]), style.motion, g)
            for room, angle, g in zip(rooms, fov, generators, strict=True)
        ])  # fmt: skip
    else:
        seen = 2 * (size[0] / 2 / K[:, 0, 0]).atan()
        walks = sample_walks(stack_rooms(rooms), frames, seen, style.motion, generators)
        c2w, interval = walks.c2w, walks.interval
    return Scenes(stack_rooms(rooms), c2w, K, distortion, interval, generators)


def render_scenes(
    scenes: Scenes, size: tuple[int, int], style: ClipStyle, device: str | torch.device = "cpu"
) -> ClipBatch:
    """The pictures and depth of scenes, on a device. Uses the scenes' generators up."""
    width, height = size
    count, frames = scenes.c2w.shape[:2]
    c2w, K = scenes.c2w.to(device), scenes.K.to(device).unsqueeze(1).expand(-1, frames, -1, -1)
    room = torch.arange(count, device=device).repeat_interleave(frames)
    bank = texture_bank(device=str(device), photographs=style.room.photographs)
    distortion = scenes.distortion.to(device)
    views = Views(size, c2w.flatten(0, 1), K.flatten(0, 1), distortion[room])
    images, depth = _render(scenes.rooms.to(device), bank, room, views, style)
    images, depth = images.view(count, frames, *images.shape[1:]), depth.view(count, frames, height, width)
    if style.sensor is not None:
        images = record(images, depth, c2w, K, distortion, scenes.interval, style.sensor, scenes.generators)
    else:
        images = torch.stack([
            soften(clip, 0.6 * _uniform((0, 1), g)) for clip, g in zip(images, scenes.generators, strict=True)
        ])  # fmt: skip
    finished = [
        augment(clip.unsqueeze(0), _on(g, device), style.colour)
        for clip, g in zip(images, scenes.generators, strict=True)
    ]
    return ClipBatch(torch.cat(finished), depth, c2w, K.contiguous(), scenes.distortion)


def render_path(seed: int, c2w: Tensor, fov: float, size: tuple[int, int], style: ClipStyle = WALK) -> Clip:
    """The room of a seed along a path of one's own: c2w [N, 4, 4] in the room, horizontal ``fov`` in degrees.

    Colours are as the room has them, without photometric changes. size is (W, H), multiples of 8; raises ValueError
    for other sizes.
    """
    _check(size)
    width, height = size
    frames = len(c2w)
    focal = width / 2 / math.tan(math.radians(fov) / 2)
    K = torch.tensor([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]]).repeat(frames, 1, 1)
    rooms, number = stack_rooms([sample_room(seed, style.room)]), torch.zeros(frames, dtype=torch.int64)
    bank, pinhole = texture_bank(device="cpu", photographs=style.room.photographs), torch.zeros(2)
    images, depth = _render(rooms, bank, number, Views(size, c2w.float(), K, pinhole.expand(frames, 2)), style)
    return Clip(images, depth, c2w.float(), K, pinhole)


def _check(size: tuple[int, int]) -> None:
    width, height = size
    if width % TILE or height % TILE or min(width, height) < TILE:
        raise ValueError(f"size must be multiples of {TILE} pixels, got {width}x{height}")


def _uniform(bounds: tuple[float, float], generator: torch.Generator) -> float:
    low, high = bounds
    return low + (high - low) * float(torch.rand((), generator=generator))


def _on(generator: torch.Generator, device: str | torch.device) -> torch.Generator:
    """A generator on the device that continues from this one's state."""
    if torch.device(device).type == "cpu":
        return generator
    seed = int(torch.randint(2**62, (), generator=generator))
    return torch.Generator(device).manual_seed(seed)


def _render(rooms: Rooms, bank: TextureBank, room: Tensor, views: Views, style: ClipStyle) -> tuple[Tensor, Tensor]:
    """Images [n, 3, H, W] and depth [n, H, W] of n frames, a few frames at a time; linear light for a sensor."""
    per_frame = views.size[0] * views.size[1] * (2 if style.antialias is True else 1)
    chunk = max(1, RAYS_AT_ONCE // per_frame)
    pieces = [
        _render_frames(rooms, bank, room[first : first + chunk], views.part(first, first + chunk), style)
        for first in range(0, len(room), chunk)
    ]
    return torch.cat([p[0] for p in pieces]), torch.cat([p[1] for p in pieces])


def _render_frames(
    rooms: Rooms, bank: TextureBank, room: Tensor, views: Views, style: ClipStyle
) -> tuple[Tensor, Tensor]:
    of_tile = views.of_tiles(room)
    origin, pixel = views.of_tiles(views.c2w[:, :3, 3]), views.of_tiles(1 / views.K[:, 0, 0])

    def colours(rays: Tensor, hits: Hits) -> Tensor:
        light = shade(rooms, bank, Bundles(of_tile, origin, rays, pixel), hits, views.size)
        return light.clamp(0, BRIGHTEST) if style.sensor is not None else develop(light, style.exposure)

    centres = views.rays()
    hits = cast(rooms, of_tile, origin, centres)
    if style.antialias is True:
        samples = [views.rays(offset) for offset in _SUBPIXELS]
        shown = torch.stack([colours(rays, cast(rooms, of_tile, origin, rays)) for rays in samples]).mean(0)
    else:
        shown = colours(centres, hits)
    pictures = to_frames(shown, views.size)
    if style.antialias == "edges":
        part = to_frames(hits.part.unsqueeze(-1), views.size).squeeze(-1)
        pictures = smooth_edges(rooms, room, views, part, pictures, _SUBPIXELS)
    depth = to_frames(hits.distance.unsqueeze(-1), views.size).squeeze(-1)
    return pictures.permute(0, 3, 1, 2).contiguous(), depth
