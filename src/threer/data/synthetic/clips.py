"""Rendered clips: images, depth and cameras of a walk through a generated room, all from a seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from threer.data.synthetic.cameras import Motion, sample_paths
from threer.data.synthetic.draws import Draws
from threer.data.synthetic.lenses import draw_lenses
from threer.data.synthetic.photometric import augment, develop, soften
from threer.data.synthetic.raycast import Hits, cast
from threer.data.synthetic.rooms import Rooms, sample_room, stack_rooms
from threer.data.synthetic.sensor import record
from threer.data.synthetic.shading import shade
from threer.data.synthetic.styles import WALK, ClipStyle
from threer.data.synthetic.textures import TextureBank, texture_bank
from threer.data.synthetic.walks import sample_walks
from threer.geometry.lens import undistort

TILE = 8
RAYS_AT_ONCE = 300_000
INTERVAL = 0.2  # seconds between frames where the motion does not say
BRIGHTEST = 8.0  # of linear light that a sensor is given: the sun in a window would ring through the blur
_SUBPIXELS = ((-0.125, -0.375), (0.375, -0.125), (0.125, 0.375), (-0.375, 0.125))  # rotated grid
_AROUND = ((-0.33, 0.17), (0.33, -0.17))  # beside the pixel's centre, where there are edges


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
    images, depth = _render(
        scenes.rooms.to(device), bank, room, c2w.flatten(0, 1), K.flatten(0, 1), distortion[room], size, style
    )
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
    images, depth = _render(rooms, bank, number, c2w.float(), K, pinhole.expand(frames, 2), size, style)
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


def _render(
    rooms: Rooms,
    bank: TextureBank,
    room: Tensor,
    c2w: Tensor,
    K: Tensor,
    distortion: Tensor,
    size: tuple[int, int],
    style: ClipStyle,
) -> tuple[Tensor, Tensor]:
    """Images [n, 3, H, W] and depth [n, H, W] of n frames, a few frames at a time; linear light for a sensor."""
    per_frame = size[0] * size[1] * (2 if style.antialias else 1)
    chunk = max(1, RAYS_AT_ONCE // per_frame)
    pieces = [
        _render_frames(rooms, bank, room[part], c2w[part], K[part], distortion[part], size, style)
        for part in (slice(i, i + chunk) for i in range(0, len(room), chunk))
    ]
    return torch.cat([p[0] for p in pieces]), torch.cat([p[1] for p in pieces])


def _render_frames(
    rooms: Rooms,
    bank: TextureBank,
    room: Tensor,
    c2w: Tensor,
    K: Tensor,
    distortion: Tensor,
    size: tuple[int, int],
    style: ClipStyle,
) -> tuple[Tensor, Tensor]:
    tiles = (size[0] // TILE) * (size[1] // TILE)
    room_of_tile = room.repeat_interleave(tiles)
    origin = c2w[:, :3, 3].repeat_interleave(tiles, dim=0)
    pixel = (1 / K[:, 0, 0]).repeat_interleave(tiles)

    def colours(rays: Tensor, hits: Hits, chosen: Tensor | slice = slice(None)) -> Tensor:
        light = shade(rooms, bank, room_of_tile[chosen], origin[chosen], rays, hits, pixel[chosen])
        return light.clamp(0, BRIGHTEST) if style.sensor is not None else develop(light, style.exposure)

    def beside(offset: tuple[float, float]) -> Tensor:
        return _rays(c2w, K, distortion, size, offset)

    centres = beside((0.0, 0.0))
    hits = cast(rooms, room_of_tile, origin, centres)
    if style.antialias == "edges":
        shown = colours(centres, hits)
        edges = (hits.part != hits.part[:, :1]).any(1).nonzero().squeeze(1)
        for rays in (beside(offset)[edges] for offset in _AROUND):
            shown[edges] += colours(rays, cast(rooms, room_of_tile[edges], origin[edges], rays), edges)
        shown[edges] /= 1 + len(_AROUND)
    elif style.antialias:
        samples = [beside(offset) for offset in _SUBPIXELS]
        shown = torch.stack([colours(rays, cast(rooms, room_of_tile, origin, rays)) for rays in samples]).mean(0)
    else:
        shown = colours(centres, hits)
    # rays have camera z = 1, so the distance along them is z-depth
    depth = _untile(hits.distance.unsqueeze(-1), size).squeeze(-1)
    return _untile(shown, size).permute(0, 3, 1, 2).contiguous(), depth


def _rays(c2w: Tensor, K: Tensor, distortion: Tensor, size: tuple[int, int], offset: tuple[float, float]) -> Tensor:
    """World directions with camera z = 1 through the lenses, by tile: [n · tiles, TILE², 3]."""
    width, height = size
    n = len(c2w)
    fx, cx, fy, cy = (K[:, i, j].view(-1, 1, 1, 1, 1) for i, j in ((0, 0), (0, 2), (1, 1), (1, 2)))
    x = (torch.arange(width, device=c2w.device) + offset[0]).view(1, 1, width // TILE, 1, TILE) - cx
    y = (torch.arange(height, device=c2w.device) + offset[1]).view(1, height // TILE, 1, TILE, 1) - cy
    shape = (n, height // TILE, width // TILE, TILE, TILE)
    seen = torch.stack([(x / fx).expand(shape), (y / fy).expand(shape)], -1).view(n, -1, 2)
    if bool(distortion.any()):
        seen = undistort(seen, distortion)
    camera = torch.cat([seen, torch.ones_like(seen[..., :1])], -1)
    world = camera @ c2w[:, :3, :3].transpose(1, 2)
    return world.view(-1, TILE * TILE, 3)


def _untile(values: Tensor, size: tuple[int, int]) -> Tensor:
    """[n · tiles, TILE², c] -> [n, H, W, c]."""
    width, height = size
    c = values.shape[-1]
    grid = values.view(-1, height // TILE, width // TILE, TILE, TILE, c)
    return grid.permute(0, 1, 3, 2, 4, 5).reshape(-1, height, width, c)
