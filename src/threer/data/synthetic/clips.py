"""Rendered clips: images, depth and cameras of a walk through a generated room, all from a seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from threer.data.synthetic.cameras import Motion, sample_paths
from threer.data.synthetic.photometric import augment, develop, soften
from threer.data.synthetic.raycast import Hits, cast
from threer.data.synthetic.rooms import Rooms, sample_room, stack_rooms
from threer.data.synthetic.shading import shade
from threer.data.synthetic.textures import TextureBank, texture_bank

TILE = 8
RAYS_AT_ONCE = 300_000
_SUBPIXELS = ((-0.125, -0.375), (0.375, -0.125), (0.125, 0.375), (-0.375, 0.125))  # rotated grid


@dataclass(frozen=True)
class ClipStyle:
    """What clips look like.

    fov         horizontal field of view in degrees: (smallest, largest), drawn once per clip
    motion      how the camera moves
    colour      strength of the photometric changes; 0 for none
    exposure    how bright: linear light that is shown at 63 % is 1 / exposure
    antialias   four rays a pixel instead of one
    """

    fov: tuple[float, float] = (42.0, 78.0)
    motion: Motion = field(default_factory=Motion)
    colour: float = 1.0
    exposure: float = 1.4
    antialias: bool = False


WALK = ClipStyle(
    fov=(60.0, 60.0),
    motion=Motion(step=(0.035, 0.05), gaze=(0.05, 0.08), eye=(1.3, 1.6), roll=0.5, shake=0.4, tries=48),
    colour=0.15,
    exposure=1.0,
    antialias=True,
)
"""A calm walk with a good camera, as the demo films it."""


@dataclass(frozen=True, eq=False)
class Clip:
    """N frames of one room.

    images  [N, 3, H, W] RGB 0..1
    depth   [N, H, W] z-depth in metres
    c2w     [N, 4, 4] OpenCV camera-to-world
    K       [N, 3, 3] pixels, pixel centres at integers
    """

    images: Tensor
    depth: Tensor
    c2w: Tensor
    K: Tensor

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, eq=False)
class ClipBatch:
    """B clips of N frames: images [B, N, 3, H, W], depth [B, N, H, W], c2w [B, N, 4, 4], K [B, N, 3, 3]."""

    images: Tensor
    depth: Tensor
    c2w: Tensor
    K: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def clip(self, index: int) -> Clip:
        return Clip(self.images[index], self.depth[index], self.c2w[index], self.K[index])


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
    width, height = size
    if width % TILE or height % TILE or min(width, height) < TILE:
        raise ValueError(f"size must be multiples of {TILE} pixels, got {width}x{height}")
    rooms = [sample_room(seed) for seed in seeds]
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    fov = [math.radians(_uniform(style.fov, g)) for g in generators]
    c2w = torch.cat([
        sample_paths(room, frames, torch.tensor([angle]), style.motion, g)
        for room, angle, g in zip(rooms, fov, generators, strict=True)
    ])  # fmt: skip
    focal = torch.tensor([width / 2 / math.tan(angle / 2) for angle in fov])
    K = torch.zeros(len(seeds), frames, 3, 3)
    K[..., 0, 0] = K[..., 1, 1] = focal.unsqueeze(1)
    K[..., 0, 2], K[..., 1, 2], K[..., 2, 2] = (width - 1) / 2, (height - 1) / 2, 1.0

    scene = stack_rooms(rooms).to(device)
    room = torch.arange(len(seeds), device=device).repeat_interleave(frames)
    images, depth = _render(
        scene,
        texture_bank(device=str(device)),
        room,
        c2w.flatten(0, 1).to(device),
        focal.to(device)[room],
        size,
        style,
    )
    images = images.view(len(seeds), frames, *images.shape[1:])
    finished = [
        augment(soften(clip, 0.6 * _uniform((0, 1), g)).unsqueeze(0), _on(g, device), style.colour)
        for clip, g in zip(images, generators, strict=True)
    ]
    return ClipBatch(
        torch.cat(finished), depth.view(len(seeds), frames, height, width), c2w.to(device), K.to(device)
    )


def render_path(seed: int, c2w: Tensor, fov: float, size: tuple[int, int], style: ClipStyle = WALK) -> Clip:
    """The room of a seed along a path of one's own: c2w [N, 4, 4] in the room, horizontal ``fov`` in degrees.

    Colours are as the room has them, without photometric changes. size is (W, H), multiples of 8; raises ValueError
    for other sizes.
    """
    width, height = size
    if width % TILE or height % TILE or min(width, height) < TILE:
        raise ValueError(f"size must be multiples of {TILE} pixels, got {width}x{height}")
    frames = len(c2w)
    focal = width / 2 / math.tan(math.radians(fov) / 2)
    K = torch.tensor([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]]).repeat(frames, 1, 1)
    rooms, number = stack_rooms([sample_room(seed)]), torch.zeros(frames, dtype=torch.int64)
    images, depth = _render(
        rooms, texture_bank(device="cpu"), number, c2w.float(), torch.full((frames,), focal), size, style
    )
    return Clip(images, depth, c2w.float(), K)


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
    focal: Tensor,
    size: tuple[int, int],
    style: ClipStyle,
) -> tuple[Tensor, Tensor]:
    """Images [n, 3, H, W] and depth [n, H, W] of n frames, a few frames at a time."""
    per_frame = size[0] * size[1] * (2 if style.antialias else 1)
    chunk = max(1, RAYS_AT_ONCE // per_frame)
    pieces = [
        _render_frames(rooms, bank, room[i : i + chunk], c2w[i : i + chunk], focal[i : i + chunk], size, style)
        for i in range(0, len(room), chunk)
    ]
    return torch.cat([p[0] for p in pieces]), torch.cat([p[1] for p in pieces])


def _render_frames(
    rooms: Rooms,
    bank: TextureBank,
    room: Tensor,
    c2w: Tensor,
    focal: Tensor,
    size: tuple[int, int],
    style: ClipStyle,
) -> tuple[Tensor, Tensor]:
    tiles = (size[0] // TILE) * (size[1] // TILE)
    room_of_tile = room.repeat_interleave(tiles)
    origin = c2w[:, :3, 3].repeat_interleave(tiles, dim=0)
    pixel = (1 / focal).repeat_interleave(tiles)

    def colours(rays: Tensor, hits: Hits) -> Tensor:
        return develop(shade(rooms, bank, room_of_tile, origin, rays, hits, pixel), style.exposure)

    centres = _rays(c2w, focal, size, (0.0, 0.0))
    hits = cast(rooms, room_of_tile, origin, centres)
    if style.antialias:
        samples = [_rays(c2w, focal, size, offset) for offset in _SUBPIXELS]
        shown = torch.stack([colours(rays, cast(rooms, room_of_tile, origin, rays)) for rays in samples]).mean(0)
    else:
        shown = colours(centres, hits)
    # rays have camera z = 1, so the distance along them is z-depth
    depth = _untile(hits.distance.unsqueeze(-1), size).squeeze(-1)
    return _untile(shown, size).permute(0, 3, 1, 2).contiguous(), depth


def _rays(c2w: Tensor, focal: Tensor, size: tuple[int, int], offset: tuple[float, float]) -> Tensor:
    """World directions with camera z = 1, by tile: [n · tiles, TILE², 3]."""
    width, height = size
    x = torch.arange(width, device=c2w.device) + offset[0] - (width - 1) / 2
    y = torch.arange(height, device=c2w.device) + offset[1] - (height - 1) / 2
    x = x.view(1, 1, width // TILE, 1, TILE)
    y = y.view(1, height // TILE, 1, TILE, 1)
    n = len(c2w)
    shape = (n, height // TILE, width // TILE, TILE, TILE)
    f = focal.view(-1, 1, 1, 1, 1)
    camera = torch.stack([(x / f).expand(shape), (y / f).expand(shape), torch.ones(shape, device=c2w.device)], -1)
    world = camera.view(n, -1, 3) @ c2w[:, :3, :3].transpose(1, 2)
    return world.view(-1, TILE * TILE, 3)


def _untile(values: Tensor, size: tuple[int, int]) -> Tensor:
    """[n · tiles, TILE², c] -> [n, H, W, c]."""
    width, height = size
    c = values.shape[-1]
    grid = values.view(-1, height // TILE, width // TILE, TILE, TILE, c)
    return grid.permute(0, 1, 3, 2, 4, 5).reshape(-1, height, width, c)
