"""Which pictures to compare, and comparing them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt
import torch

from threer.pipelines.classical.colmap import quiet
from threer.pipelines.classical.features import FeatureStore
from threer.pipelines.sessions import Progress
from threer.types import FloatArray

Pair = tuple[int, int]
PAIRS_AT_ONCE = 1000
OVERLAP = 10
"""A frame of a video is compared with so many after it, and with those 16, 32, 64 … after it."""
WORDS = 64
SAMPLE = 60_000
STEPS = 10
MAX_ERROR_PX = 4.0
RATIO = 0.8
"""A feature matches if its nearest one is so much nearer than the second (Lowe 2004)."""


def choose_pairs(
    store: FeatureStore, images: Sequence[int], *, in_order: bool, all_up_to: int, similar: int
) -> list[Pair]:
    """Pairs of ``images`` worth comparing.

    images     ids in the order of the frames; repetitions are ignored
    in_order   whether they follow each other in time
    all_up_to  so many pictures are all compared with each other; of more, each with its neighbours in time and
    similar    with so many that look most like it
    """
    distinct = list(dict.fromkeys(images))
    if len(distinct) <= all_up_to:
        return list(combinations(distinct, 2))
    pairs = set(neighbours_in_time(distinct)) if in_order else set()
    pooled = pool(store, distinct)
    likeness = pooled @ pooled.T
    np.fill_diagonal(likeness, -np.inf)
    for i, row in enumerate(likeness):
        best = np.argsort(-row, kind="stable")[:similar]
        pairs |= {(distinct[min(i, j)], distinct[max(i, j)]) for j in best}
    rank = {image: k for k, image in enumerate(distinct)}
    return sorted(pairs, key=lambda pair: (rank[pair[0]], rank[pair[1]]))


def neighbours_in_time(images: Sequence[int]) -> list[Pair]:
    """Each image with the next ones, and with some further ahead at doubling distances."""
    steps = [*range(1, OVERLAP + 1), *(2**k for k in range(1, len(images).bit_length()) if 2**k > OVERLAP)]
    return [(images[i], images[i + s]) for i in range(len(images)) for s in steps if i + s < len(images)]


def pool(store: FeatureStore, images: Sequence[int], *, seed: int = 0) -> FloatArray:
    """One unit vector [N, WORDS · 128] for each image, close where they look alike (VLAD, Jégou et al. 2010)."""
    words = find_words([store.descriptors(image) for image in images], seed=seed)
    return np.stack([describe(store.descriptors(image), words) for image in images])


def find_words(descriptors: Sequence[npt.NDArray[np.uint8]], *, seed: int = 0) -> torch.Tensor:
    """[≤ WORDS, 128] what a sample of the features [F, 128] of some images clusters around."""
    generator = np.random.default_rng(seed)
    share = max(1, SAMPLE // max(1, len(descriptors)))
    sample = [found[generator.permutation(len(found))[:share]] for found in descriptors]
    return _cluster(torch.from_numpy(np.concatenate(sample)).float(), generator)


def describe(descriptors: npt.NDArray[np.uint8], words: torch.Tensor) -> FloatArray:
    """[words · 128] the unit vector of an image with these features [F, 128]; zero without any."""
    found = torch.from_numpy(descriptors).float()
    if not len(found) or not len(words):
        return np.zeros(len(words) * 128, np.float32)
    nearest = torch.cdist(found, words).argmin(dim=1)
    sums = torch.zeros_like(words).index_add_(0, nearest, found - words[nearest])
    sums = torch.nn.functional.normalize(sums, dim=1).flatten()
    return np.asarray(torch.nn.functional.normalize(sums, dim=0).numpy())


def _cluster(points: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
    """k-means centres [≤ WORDS, 128]."""
    start = generator.permutation(len(points))[:WORDS]
    centres = points[torch.from_numpy(start)]
    for _ in range(STEPS):
        nearest = torch.cdist(points, centres).argmin(dim=1) if len(centres) else torch.empty(0, dtype=torch.long)
        counts = torch.bincount(nearest, minlength=len(centres)).float()
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        centres = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp(min=1), centres)
    return centres


def match(store: FeatureStore, pairs: Sequence[Pair], *, seed: int = 0, progress: Progress | None = None) -> None:
    """Compare pictures and keep what a common geometry confirms; pairs compared before are passed over.

    progress  is told how many pairs were done, some at a time
    """
    waiting = [pair for pair in pairs if not store.compared(*pair)]
    names = {image: store.name(image) for image in {image for pair in waiting for image in pair}}
    listed = store.folder / "pairs.txt"
    with quiet() as colmap:
        matching = colmap.FeatureMatchingOptions()
        matching.num_threads = store.threads
        verification = colmap.TwoViewGeometryOptions()
        verification.ransac.random_seed = seed
        verification.ransac.max_error = MAX_ERROR_PX
        pairing = colmap.ImportedPairingOptions()
        pairing.match_list_path = str(listed)
        try:
            for begin in range(0, len(waiting), PAIRS_AT_ONCE):  # so that Ctrl-C does not wait for all
                part = waiting[begin : begin + PAIRS_AT_ONCE]
                listed.write_text("".join(f"{names[a]} {names[b]}\n" for a, b in part))
                colmap.set_random_seed(seed)
                colmap.match_image_pairs(store.path, matching, pairing, verification, colmap.Device.cpu)
                if progress:
                    progress("matches", begin + len(part), len(waiting))
        finally:
            listed.unlink(missing_ok=True)


def mutual_matches(
    mine: npt.NDArray[np.uint8], theirs: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows of both sets of root-SIFT [F, 128] that are each other's nearest, clearly nearer than the second one."""
    nothing = np.zeros(0, np.int64)
    if len(mine) < 2 or len(theirs) < 2:
        return nothing, nothing
    a, b = (torch.nn.functional.normalize(torch.from_numpy(d).float(), dim=1) for d in (mine, theirs))
    likeness = a @ b.T
    best, nearest = likeness.topk(2, dim=1)
    distance = (2 - 2 * best).clamp(min=0).sqrt()
    back = likeness.argmax(dim=0)[nearest[:, 0]]
    good = (back == torch.arange(len(a))) & (distance[:, 0] < RATIO * distance[:, 1])
    return good.nonzero()[:, 0].numpy(), nearest[good, 0].numpy()
