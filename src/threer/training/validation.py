"""Scores on samples that training never sees, the same for any number of processes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from threer.training.batch import Batch
from threer.training.held_out import Samples
from threer.training.networks import Network
from threer.training.recipes.recipe import Recipe
from threer.training.scores import SCORES, PerSample, Scores, Scoring, score_name, slopes

K = TypeVar("K", bound=Hashable)
Run = Callable[[Callable[[Network], PerSample]], PerSample]

MEAN = "mean training pointmap"
CONSTANT = "constant depth"
UNMOVED = "true key pointmaps, left unmoved"


class Validation:
    """Scores of a recipe's held-out samples, named by `score_name`.

    sources  samples by the name of their source, see `threer.training.held_out.held_out`
    """

    def __init__(self, recipe: Recipe, sources: Mapping[str, Samples]) -> None:
        self.recipe, self.sources = recipe, dict(sources)
        self._scoring = Scoring.of(recipe)

    def network(self, run: Run) -> Scores:
        """Scores of a network. ``run`` calls what it is given with the network, in evaluation mode.

        Each process takes its share of the samples; all of them get the same scores.
        """
        scoring = self._scoring
        found: dict[str, float] = {}
        for source, samples in self.sources.items():
            means = _means(samples, lambda part: run(lambda model: scoring.network(model, part)))
            found |= {score_name(self.recipe, source, name): float(mean) for name, mean in means.items()}
        return found

    def baselines(self, mean_pointmap: Tensor | None) -> dict[str, Scores]:
        """Scores of the answers that need no network, by what a table calls them.

        mean_pointmap  [H, W, 3] of training, if there is one

        Constant depth is seen through the mean field of view of each source.
        """
        scoring = self._scoring
        found: dict[str, dict[str, float]] = {}
        for source, samples in self.sources.items():
            mean_slopes = _means(samples, lambda part: {"": slopes(part)})[""].float()

            def answers(part: Batch, mean_slopes: Tensor = mean_slopes) -> dict[tuple[str, str], Tensor]:
                by_name = {
                    MEAN: {} if mean_pointmap is None else scoring.mean_pointmap(mean_pointmap, part),
                    CONSTANT: scoring.constant_depth(mean_slopes, part),
                    UNMOVED: scoring.unmoved_keys(part),
                }
                return {(who, name): x for who, scores in by_name.items() for name, x in scores.items()}

            for (who, name), mean in _means(samples, answers).items():
                found.setdefault(who, {})[score_name(self.recipe, source, name)] = float(mean)
        return dict(found)

    @property
    def described(self) -> dict[str, str]:
        """What the samples of each source are."""
        return {source: samples.description for source, samples in self.sources.items()}

    def covered_by(self, baselines: Mapping[str, Scores]) -> bool:
        """Whether every source has been scored there."""
        scored = baselines.get(CONSTANT, {})
        return all(score_name(self.recipe, source, "error") in scored for source in self.sources)

    def by_source(self, scores: Scores) -> dict[str, Scores]:
        """The scores of each source, under their plain names."""
        named = {s: {n: score_name(self.recipe, s, n) for n in SCORES} for s in self.sources}
        return {
            source: {name: scores[long] for name, long in names.items() if long in scores}
            for source, names in named.items()
        }

    def pictured(self, most: int = 4) -> Iterator[tuple[str, Batch]]:
        """A few samples of each source, for pictures: the same in all processes."""
        for source, samples in self.sources.items():
            numbers = range(min(most, samples.at_once, len(samples)))
            yield from ((source, batch) for batch in samples.batches([numbers]))


def _means(samples: Samples, values: Callable[[Batch], Mapping[K, Tensor]]) -> dict[K, Tensor]:
    """Means over all samples of what ``values`` finds for each, [n, ...]: float64, in all processes."""
    world = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    rank = dist.get_rank() if world > 1 else 0
    shares = shares_of(len(samples), samples.at_once, world, rank)
    totals: dict[K, Tensor] = {}
    with torch.no_grad():
        for (_, counts), batch in zip(shares, samples.batches([numbers for numbers, _ in shares]), strict=True):
            for key, found in values(batch).items():
                total = found.double().sum(0)
                total = total if counts else torch.zeros_like(total)
                totals[key] = totals[key] + total if key in totals else total
    if world > 1:
        for total in totals.values():
            dist.all_reduce(total)
    return {key: total / len(samples) for key, total in totals.items()}


def shares_of(samples: int, at_once: int, world: int, rank: int) -> list[tuple[range, bool]]:
    """The samples that a process takes, part by part, and whether they count.

    All processes go through the same number of parts, because a sharded network needs all of them each time. Where
    fewer samples are left than there are processes, the others repeat the first of them, and it does not count.
    """
    parts = [range(k, min(k + at_once * world, samples)) for k in range(0, samples, at_once * world)]
    return [(part[rank::world], True) if rank < len(part) else (part[:1], False) for part in parts]
