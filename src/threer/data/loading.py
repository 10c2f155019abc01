"""From a draw to a sample: files read, cropped to the network's size, colours changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from threer.data.augment import ColourChange, Jitter
from threer.data.crops import UnusableViewError, fit, upright_size
from threer.data.datasets.format import Dataset
from threer.data.samples import RawView, Sample, normalised
from threer.data.sampling import Draw, Draws, NoRoomError, ViewPlan
from threer.errors import SourceError
from threer.geometry.transforms import is_pose
from threer.types import FloatArray

TRIES = 20


@dataclass(frozen=True)
class Look:
    """How views are changed on their way to the network.

    jitter       of colours; None leaves them
    together     one draw of the jitter for all views of a sample
    portrait     store standing pictures transposed in lying batches
    background, crop_jitter   as in `Traits`, whose values None takes
    """

    jitter: Jitter | None = (0.5, 0.5, 0.5, 0.1)
    together: bool = False
    portrait: bool = False
    background: float | None = None
    crop_jitter: int | None = None


class ViewSource:
    """Samples of one data set by one plan."""

    def __init__(self, dataset: Dataset, plan: ViewPlan, fewest: int, look: Look | None = None) -> None:
        self.dataset, self.look = dataset, look or Look()
        self.draws = Draws(dataset, plan, fewest)

    def __len__(self) -> int:
        return len(self.draws)

    def sample(self, index: int, views: int, size: tuple[int, int], seed: Sequence[int] = (0,)) -> Sample:
        """Draw ``index`` with ``views`` views at ``size`` (W, H); the same arguments give the same sample.

        A draw without room for the views, or with a view that is of no use (no depth, no pose, the principal point
        at the border), is replaced by another one. Raises `SourceError` for files that cannot be read, and after 20
        draws of no use.
        """
        rng = np.random.default_rng(list(seed))
        problem: Exception | None = None
        for _ in range(TRIES):
            try:
                return self._sample(self.draws.draw(index, views, rng), size, rng, tuple(seed))
            except (NoRoomError, UnusableViewError) as error:
                problem = error
                index = int(rng.integers(len(self)))
        raise SourceError(f"{TRIES} draws of {self.dataset.name} in a row were of no use; the last: {problem}")

    def _sample(self, draw: Draw, size: tuple[int, int], rng: np.random.Generator, seed: tuple[int, ...]) -> Sample:
        traits, look = self.dataset.traits, self.look
        share = traits.background if look.background is None else look.background
        masked = bool(rng.random() < share)
        change = None if look.jitter is None else ColourChange.draw(look.jitter, rng)
        ready: list[RawView] = []
        shapes = []
        for scene, number in draw.views:
            raw = self.dataset.read(scene, number, rng)
            view, shape = self._fitted(raw, size, rng)
            if masked and view.foreground is not None:
                view = _with_depth(view, np.where(view.foreground, view.depth, 0))
            if not traits.camera_only and not (view.depth > 0).any():
                raise UnusableViewError(f"{view.name} has no depth")
            if change is not None and look.jitter is not None:
                change = change if look.together else ColourChange.draw(look.jitter, rng)
                view = RawView(change(view.image), view.depth, view.c2w, view.K, view.foreground, view.name)
            ready.append(view)
            shapes.append(shape)
        depth = torch.from_numpy(np.stack([view.depth for view in ready]))
        if traits.camera_only:
            depth = torch.ones_like(depth)
        return Sample(
            images=torch.stack([normalised(view.image) for view in ready]),
            depth=depth.clamp(min=0),
            valid=depth > 0,
            sky=depth < 0,
            c2w=torch.from_numpy(self._poses(ready)).float(),
            K=torch.from_numpy(np.stack([view.K for view in ready])).float(),
            true_shape=torch.tensor(shapes),
            seen=torch.tensor(draw.seen),
            rays=torch.tensor(draw.rays),
            traits=traits,
            source=", ".join(view.name for view in ready),
            seed=seed,
        )

    def _fitted(
        self, raw: RawView, size: tuple[int, int], rng: np.random.Generator
    ) -> tuple[RawView, tuple[int, int]]:
        """A view at the batch's size, and its upright (height, width)."""
        jitter = self.dataset.traits.crop_jitter if self.look.crop_jitter is None else self.look.crop_jitter
        target = upright_size(raw.size, size, rng) if self.look.portrait else size
        view = fit(raw, target, enlarge=int(rng.integers(jitter)) if jitter > 1 else 0)
        shape = (target[1], target[0])
        if target == size:
            return view, shape
        foreground = None if view.foreground is None else view.foreground.T
        # K stays that of the upright image: the batch says which views are stored transposed
        return RawView(
            view.image.transpose(1, 0, 2), view.depth.T, view.c2w, view.K, foreground, view.name
        ), shape  # fmt: skip

    def _poses(self, views: Sequence[RawView]) -> FloatArray:
        """Camera-to-world in the frame of the first view: large coordinates would be lost in single precision."""
        if self.dataset.traits.single_view:
            return np.tile(np.eye(4), (len(views), 1, 1))
        for view in views:
            if not is_pose(view.c2w):
                raise UnusableViewError(f"{view.name}: the pose is no rigid motion")
        first = np.linalg.inv(views[0].c2w)
        return np.stack([first @ view.c2w for view in views])


def _with_depth(view: RawView, depth: Any) -> RawView:
    return RawView(view.image, depth.astype(np.float32), view.c2w, view.K, view.foreground, view.name)
