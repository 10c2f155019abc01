"""Global alignment: threer's solver against the published schedule, and sixty photos on a sparse graph.

Generated rooms seen by walking cameras; the pairs' predictions are their true points with smooth errors, outliers
and a unit of each pair's own, so the answer is known and no network is needed.

    python benchmarks/alignment.py                     # 6 photos, both solvers in full
    python benchmarks/alignment.py --photos 60 --window 4 --published-steps 5

Processor time is measured, not the clock's. With fewer steps than the schedule's 300 its time is scaled up: see
`steps`.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from threer.data.synthetic import WALK, render_clip
from threer.geometry.procrustes import align_cameras
from threer.geometry.projection import unproject
from threer.pipelines.alignment import pairs as graphs
from threer.pipelines.alignment.optimise import optimise
from threer.pipelines.alignment.predictions import Pairs
from threer.pipelines.alignment.published import optimise_published
from threer.pipelines.alignment.scene import Aligned, Known, alignment_loss
from threer.pipelines.alignment.spanning_tree import grow_scene
from threer.pipelines.cost import peak_memory_mib
from threer.types import FloatArray, Pointmap

SCHEDULE = 300


def predictions(count: int, size: int, window: int | None, noise: float, seed: int) -> tuple[Pairs, FloatArray]:
    """Pairs of a walk through a room, and its true cameras [N, 4, 4]."""
    clip = render_clip(seed, count, (size, size), WALK)
    own = unproject(clip.depth.double(), clip.K.double())
    graph = graphs.complete(count) if window is None else graphs.sliding_window(count, window, cyclic=False)
    generator = np.random.default_rng(seed)
    edges = np.array(graphs.symmetrized(graph))
    v, u = torch.meshgrid(torch.linspace(0, 3, size), torch.linspace(0, 3, size), indexing="ij")
    maps: tuple[list[Pointmap], list[Pointmap]] = ([], [])
    for i, j in edges.tolist():
        unit = generator.uniform(0.5, 2)
        relative = torch.linalg.inv(clip.c2w[i].double()) @ clip.c2w[j].double()
        for kept, points in zip(maps, (own[i], own[j] @ relative[:3, :3].T + relative[:3, 3]), strict=True):
            a, b, c = generator.uniform(-1, 1, 3)
            error = noise * torch.sin(3 * a * u + 3 * b * v + 6 * c)
            bad = torch.from_numpy(generator.random((size, size)) < 0.03)
            error = torch.where(bad, torch.from_numpy(generator.uniform(-0.5, 1, (size, size))), error)
            conf = 1 + 4 * torch.exp(-error.abs() / noise) + torch.from_numpy(generator.random((size, size)))
            kept.append(Pointmap((unit * points * (1 + error)[..., None]).float(), conf.float()))
    return Pairs(edges, *maps, [(size, size)] * count), clip.c2w.double().numpy()


def ate(scene: Aligned, truth: FloatArray) -> float:
    """Root mean square of the camera positions' errors after a similarity, as a share of the path."""
    move = align_cameras(scene.c2w.numpy(), truth)
    if move is None:
        return float("nan")
    apart = move.apply_to_cameras(scene.c2w.numpy())[:, :3, 3] - truth[:, :3, 3]
    path = np.linalg.norm(np.diff(truth[:, :3, 3], axis=0), axis=1).sum()
    return float(np.sqrt(np.square(apart).sum(axis=1).mean()) / path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=6)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--window", type=int, default=None, help="sliding window; all pairs if not given")
    parser.add_argument("--noise", type=float, default=0.03)
    parser.add_argument("--published-steps", type=int, default=SCHEDULE)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--json", type=Path, default=None)
    given = parser.parse_args()
    pairs, truth = predictions(given.photos, given.size, given.window, given.noise, given.seed)
    middle = torch.full((given.photos, 2), (given.size - 1) / 2, dtype=torch.float64)
    known = Known.nothing(given.photos)
    result: dict[str, object] = {"photos": given.photos, "pairs": len(pairs), "size": given.size}

    begun = time.process_time()
    start = grow_scene(pairs, known, middle)
    result["start"] = measured(start, pairs, truth, time.process_time() - begun)
    begun = time.process_time()
    own, how = optimise(start, pairs, known)
    spent = time.process_time() - begun
    result["own"] = {**measured(own, pairs, truth, spent), "steps": len(how.losses) - 1}
    result["peak_memory_mib_before_published"] = peak_memory_mib()
    if given.published_steps:
        begun = time.process_time()
        final, _ = optimise_published(start, pairs, known, iterations=given.published_steps)
        whole = (time.process_time() - begun) * SCHEDULE / given.published_steps
        result["published"] = {**measured(final, pairs, truth, whole), "steps": given.published_steps}
        result["time_ratio"] = round(spent / whole, 4)
    text = json.dumps(result, indent=2)
    print(text)
    if given.json:
        given.json.write_text(text + "\n")


def measured(scene: Aligned, pairs: Pairs, truth: FloatArray, seconds: float) -> dict[str, float]:
    return {
        "loss": round(alignment_loss(scene, pairs), 6),
        "ate_share_of_path": round(ate(scene, truth), 5),
        "cpu_seconds": round(seconds, 2),
    }


if __name__ == "__main__":
    main()
