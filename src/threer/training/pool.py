"""Rendered rooms kept in memory, as a source of training batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from threer.data.synthetic.photometric import augment
from threer.errors import ThreerError
from threer.geometry.scale import normalize
from threer.training.ahead import Ahead
from threer.training.batch import Batch, Roles
from threer.training.recipes.recipe import Recipe
from threer.training.recipes.recipe import Source as SourceSettings
from threer.training.rounds import Rounds
from threer.training.sources import Request

VALIDATION_SEED = 1_000_000_000  # training seeds count up from below and never get there
SEEDS_OF_A_RUN = 10_000_000
_MODALITY = (0.8, 0.15, 0.05)  # of metric sets where nothing is said (CUT3R)


@dataclass(frozen=True)
class PoolPlan:
    """How much is rendered: decided once for a run, and kept with it.

    rounds  clips that a lane keeps
    first   of them, rendered before the first step
    """

    rounds: int
    first: int


class RoomPool:
    """A ring of clips for each lane, as 8-bit colour and 16-bit depth, all from seeds.

    A *round* is one further clip in every lane; it replaces the oldest. Which clips there are follows from the
    number of rounds alone, so that a run that goes on renders what it had. ``workers`` processes make rounds ahead.
    """

    on_disk = False

    def __init__(
        self,
        recipe: Recipe,
        plan: PoolPlan,
        lanes: int,
        own: Sequence[int],
        device: str | torch.device = "cpu",
        first_seed: int | None = None,
        workers: int = 0,
    ) -> None:
        self.settings, self.plan, self.lanes, self.own = recipe.synthetic, plan, lanes, list(own)
        self._views, self._source = recipe.views, _checked(recipe)
        self.size, self.device = recipe.resolution.sizes[0], torch.device(device)
        if first_seed is None:
            if not 0 <= recipe.seed < VALIDATION_SEED // SEEDS_OF_A_RUN:
                most = VALIDATION_SEED // SEEDS_OF_A_RUN - 1
                raise ThreerError(f"recipe {recipe.name}: seed must be from 0 to {most}, got {recipe.seed}")
            seed, rising = recipe.seed * SEEDS_OF_A_RUN, plan.first
        else:  # validation: no part of the run's course
            seed, rising = first_seed, None
        self.course = Rounds(recipe.synthetic, self.size, seed, lanes, tuple(own), rising)
        self._ahead = Ahead(self.course, self.device, workers) if workers else None
        self.rounds = 0
        width, height = self.size
        shape = (len(self.own), plan.rounds, recipe.synthetic.frames)
        self._images = torch.empty(*shape, 3, height, width, dtype=torch.uint8, device=device)
        self._depth = torch.empty(*shape, height, width, dtype=torch.float16, device=device)
        self._c2w = torch.empty(*shape, 4, 4, device=device)
        self._K = torch.empty(*shape, 3, 3, device=device)
        self._distortion = torch.zeros(*shape[:2], 2)  # on the CPU, as batches have it

    @property
    def frames(self) -> int:
        return self.settings.frames

    @property
    def filled(self) -> int:
        """Clips in each lane."""
        return min(self.rounds, self.plan.rounds)

    def due(self, samples: int) -> int:
        """Rounds that there are to be once ``samples`` samples were drawn."""
        return self.plan.first + int(samples / (self.settings.reuse * self.lanes))

    def advance(self, samples: int) -> None:
        due = self.due(samples)
        # A run that goes on needs only what would still be there.
        self.rounds = max(self.rounds, due - self.plan.rounds)
        while self.rounds < due:
            self.render_round()

    def render_round(self) -> None:
        number = self.rounds
        if self._ahead is not None:
            kept = self._ahead.take(number)
        else:
            kept = self.course.render(number, self.course.draw(number), self.device)
        slot = number % self.plan.rounds
        self._images[:, slot], self._depth[:, slot] = kept.images, kept.depth
        self._c2w[:, slot], self._K[:, slot], self._distortion[:, slot] = kept.c2w, kept.K, kept.distortion
        self.rounds += 1

    @property
    def ahead(self) -> int:
        """Rounds that are made ahead."""
        return 0 if self._ahead is None else self._ahead.depth

    def close(self) -> None:
        """End the processes that work ahead; later rounds are made by this one."""
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None

    def windows(self, lane: int, clips: Tensor, frames: Tensor, world: Tensor, request: Request) -> Batch:
        """The given clips [B], frames [B, V] and world frames [B] of the ``lane``-th own lane (indices)."""
        bent = self._distortion[lane, clips.cpu()].unsqueeze(1).repeat(1, frames.shape[1], 1)
        clips, frames, world = (x.to(self.device) for x in (clips, frames, world))
        rows = clips.unsqueeze(1)
        return Batch.of(
            self._images[lane, rows, frames].float() / 127.5 - 1,
            self._depth[lane, rows, frames].float(),
            self._c2w[lane, rows, frames],
            self._K[lane, rows, frames],
            roles=request.roles,
            world=self._c2w[lane, clips, world],
            metric=torch.ones(len(clips), dtype=torch.bool, device=self.device),
            distortion=bent,
        )

    def draw(self, count: int, request: Request, lane: int, generator: torch.Generator) -> Batch:
        """Random views of random clips, in colours of their own.

        The world is the camera of one of the views or of any frame of the clip, half of the time each, or that of
        the view in front if the recipe wants one.
        """
        if request.size != self.size:
            raise ThreerError(f"generated rooms are kept at one size, {self.size}; {request.size} was asked for")
        clips = torch.randint(self.filled, (count,), generator=generator)
        rows = self._frames(count, request.views + request.before, generator)
        if request.before:
            rows, world = rows[:, 1:], rows[:, 0]
        else:
            from_views = torch.rand(count, generator=generator) < 0.5
            pick = torch.randint(request.views, (count, 1), generator=generator)
            anywhere = torch.randint(self.frames, (count,), generator=generator)
            world = torch.where(from_views, rows.gather(1, pick)[:, 0], anywhere)
        batch = self.windows(self.own.index(lane), clips, rows, world, request)
        if self._views.sampling == "clip":
            batch = self._modalities(batch, generator)
        if self.settings.colour == 0:
            return batch
        seed = int(torch.randint(2**62, (), generator=generator))
        local = torch.Generator(self.device).manual_seed(seed)
        return replace(batch, images=augment((batch.images + 1) / 2, local, self.settings.colour) * 2 - 1)

    def _frames(self, count: int, views: int, generator: torch.Generator) -> Tensor:
        """[count, views] distinct frames of a clip, as the recipe's sampling has them."""
        sampling, source, most = self._views.sampling, self._source, self.frames
        span = torch.randint(views, most + 1, (count, 1), generator=generator)
        start = (torch.rand(count, 1, generator=generator) * (most - span + 1)).long()
        keys = torch.rand(count, most, generator=generator).masked_fill(torch.arange(most) >= span, 2.0)
        chosen = start + keys.argsort(dim=1)[:, :views]
        if sampling in ("pair", "set"):
            return chosen
        ordered = chosen.sort(dim=1).values
        longest = (most - 1) // max(views - 1, 1)
        if source.interval is not None:
            longest = min(longest, source.interval)
        gap = torch.randint(1, longest + 1, (count, 1), generator=generator)
        if sampling == "window" and source.interval is not None:
            gap = torch.full_like(gap, longest)
        begin = (torch.rand(count, 1, generator=generator) * (most - gap * (views - 1))).long()
        even = begin + gap * torch.arange(views)
        if sampling == "window":
            return ordered if source.interval is None else even
        in_order = torch.rand(count, 1, generator=generator) < _or(source.ordered, 0.5)
        steady = torch.rand(count, 1, generator=generator) < _or(source.steady, 0.5)
        return torch.where(in_order, torch.where(steady, even, ordered), chosen)

    def _modalities(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Some views after the first are given as rays, alone or along with the image."""
        image, rays, _ = self._source.modality or _MODALITY
        drawn = torch.rand(len(batch), batch.views, generator=generator)
        drawn[:, 0] = 0
        seen = ((drawn < image) | (drawn >= image + rays)).to(self.device)
        return replace(batch, seen=seen, rays=(drawn >= image).to(self.device))


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _checked(recipe: Recipe) -> SourceSettings:
    """The recipe's settings of `synthetic`; ThreerError for one that generated rooms have no use for."""
    if len(recipe.resolution.sizes) != 1:
        raise ThreerError(f"recipe {recipe.name}: generated rooms are kept at one size; give resolution.sizes one")
    source = recipe.data.sources.get("synthetic", SourceSettings())
    for name in ("crop_jitter", "background", "far", "overlap", "parallax"):
        if getattr(source, name) is not None:
            raise ThreerError(f"recipe {recipe.name}: data.sources.synthetic has no use for {name!r}")
    return source


def bytes_of_clip(recipe: Recipe) -> int:
    width, height = recipe.resolution.sizes[0]
    return recipe.synthetic.frames * width * height * 5


def mean_training_pointmap(pool: RoomPool, most: int = 64) -> Tensor:
    """[H, W, 3] sum over frames of the pointmap divided by its mean distance, divided by their number.

    Over at most ``most`` clips of each lane of this process.
    """
    width, height = pool.size
    total = torch.zeros(height, width, 3, device=pool.device)
    count = 0
    frames = torch.arange(pool.frames).unsqueeze(1)
    for lane in range(len(pool.own)):
        for clip in range(min(pool.filled, most)):
            clips = torch.full((pool.frames,), clip)
            batch = pool.windows(lane, clips, frames, frames[:, 0], Request(1, pool.size, _ALONE))
            total += normalize(batch.camera)[0].sum(dim=(0, 1))
            count += pool.frames
    return total / count


_ALONE = Roles()
