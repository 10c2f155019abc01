"""Rendered clips kept in memory, and windows drawn from them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from threer.data.synthetic import ClipStyle, render_clips
from threer.data.synthetic.photometric import augment
from threer.training.batch import Batch

VALIDATION_SEED = 1_000_000_000  # training seeds count up from below and never get there


class ClipPool:
    """A ring of clips as 8-bit colour and 16-bit depth; `grow` adds the next seeds and drops the oldest clips."""

    def __init__(
        self,
        capacity: int,
        frames: int,
        size: int,
        style: ClipStyle,
        first_seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        self.style = style
        self.next_seed = first_seed
        self.filled = 0
        self._device = torch.device(device)
        self._images = torch.empty(capacity, frames, 3, size, size, dtype=torch.uint8, device=device)
        self._depth = torch.empty(capacity, frames, size, size, dtype=torch.float16, device=device)
        self._c2w = torch.empty(capacity, frames, 4, 4, device=device)
        self._K = torch.empty(capacity, frames, 3, 3, device=device)
        self._slot = 0

    def __len__(self) -> int:
        return self.filled

    @property
    def frames(self) -> int:
        return self._images.shape[1]

    def grow(self, count: int) -> None:
        """Render ``count`` further clips."""
        capacity, _, _, height, width = self._images.shape
        seeds = range(self.next_seed, self.next_seed + count)
        clips = render_clips(seeds, self.frames, (width, height), self.style, self._device)
        slots = (self._slot + torch.arange(count, device=self._device)) % capacity
        self._images[slots] = (clips.images * 255).round().to(torch.uint8)
        self._depth[slots] = clips.depth.half()
        self._c2w[slots] = clips.c2w
        self._K[slots] = clips.K
        self.next_seed += count
        self._slot = (self._slot + count) % capacity
        self.filled = min(self.filled + count, capacity)

    def windows(self, clips: Tensor, frames: Tensor, world: Tensor) -> Batch:
        """The windows of given clips [B], frames [B, V] and world frames [B] (indices)."""
        rows = clips.unsqueeze(1)
        images = self._images[rows, frames].float() / 127.5 - 1
        depth = self._depth[rows, frames].float()
        return Batch.of(
            images, depth, self._c2w[rows, frames], self._K[rows, frames], world=self._c2w[clips, world]
        )

    def draw(self, batch: int, views: int, generator: torch.Generator, colour: float) -> Batch:
        """Random windows: V distinct frames within a random span, the reference often in their middle.

        The world is the camera of one of the frames or of any frame of the clip, half of the time each.
        ``generator`` lives on the CPU.
        """
        clips = torch.randint(self.filled, (batch,), generator=generator)
        rows, worlds = [], []
        for _ in range(batch):
            rows.append(self._window_frames(views, generator))
            from_window = bool(torch.rand((), generator=generator) < 0.5)
            pick = int(torch.randint(views if from_window else self.frames, (), generator=generator))
            worlds.append(int(rows[-1][pick]) if from_window else pick)
        drawn = self.windows(
            clips.to(self._device), torch.stack(rows).to(self._device), torch.tensor(worlds, device=self._device)
        )
        if colour == 0:
            return drawn
        seed = int(torch.randint(2**62, (), generator=generator))
        local = torch.Generator(self._device).manual_seed(seed)
        images = augment((drawn.images + 1) / 2, local, colour) * 2 - 1
        return replace(drawn, images=images)

    def _window_frames(self, views: int, generator: torch.Generator) -> Tensor:
        span = int(torch.randint(views, self.frames + 1, (), generator=generator))
        start = int(torch.randint(self.frames - span + 1, (), generator=generator))
        chosen = (start + torch.randperm(span, generator=generator)[:views]).sort().values
        middle = bool(torch.rand((), generator=generator) < 0.6)
        reference = views // 2 if middle else int(torch.randint(views, (), generator=generator))
        return torch.cat([chosen[reference : reference + 1], chosen[:reference], chosen[reference + 1 :]])
