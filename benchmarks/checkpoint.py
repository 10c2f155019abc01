"""The scores that a compact checkpoint's card shows: unseen rendered walks, and a recorded one.

    python benchmarks/checkpoint.py src/threer/weights/slam3r-mini [--write]

Walks: 20 rooms and paths that no training draws (their seeds stand in the table's caption), 36 frames each, seen
through the pipeline as a user would run it; and from each of them one window for the network alone, with other
views and with copies of its first frame in their place. Recorded: `benchmarks/office.py`'s walk in segments of 60
frames, if it is at hand. Everything beside a constant depth and the mean training pointmap on a straight path.
`--write` puts the tables into the card beside the weights.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import torch
from office import score_office
from office_data import find_office
from PIL import Image

from threer.config import ReconstructConfig
from threer.data.synthetic import HAND_HELD, Lens
from threer.data.synthetic.clips import Clip, render_clip
from threer.errors import ThreerError
from threer.evaluation.scores import Collector, Score, Truth, score_run, score_table, true_depth
from threer.geometry.projection import transform_intrinsics
from threer.io.atomic import replacing
from threer.models.checkpoints import Model, family_of
from threer.models.registry import load_model
from threer.pipelines.reconstruct import reconstruct
from threer.training.batch import Batch, cat
from threer.training.scores import load_mean_pointmap, predict, reference_scores
from threer.types import FloatArray

FIRST_SEED, FRAMES, SIZE = 3_000_000_000, 36, (160, 120)
STYLE = replace(HAND_HELD, lens=Lens(k1=(0.0, 0.0), k2=(0.0, 0.0)))  # the scores know pinholes only
CLOUD = 20_000
"""Points of each cloud that are compared."""
SPREAD = 3
"""Frames from one view of a window to the next."""
HEADING = "\n## On walks it has not seen\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("weights", type=Path, help="folder of the checkpoint")
    parser.add_argument("--clips", type=int, default=20)
    at_hand = str(find_office() or "")
    parser.add_argument("--office", default=at_hand, help="folder of the recorded walk; empty for none")
    parser.add_argument("--write", action="store_true", help="put the tables into the card")
    args = parser.parse_args()
    mean = load_mean_pointmap(args.weights).numpy()
    model = load_model(args.weights)
    runs = []
    for seed in range(FIRST_SEED, FIRST_SEED + args.clips):
        runs.append(film_and_reconstruct(seed, args.weights, method_of(model)))
        print(f"{seed}: {len(runs[-1][0].frames)} frames", file=sys.stderr, flush=True)
    walks = average([score_run(run, truth, mean, cloud_points=CLOUD) for run, truth in runs])
    windows = cat([window(run, truth, 2 if family_of(model) == "dust3r" else 5) for run, truth in runs])
    text = f"""{HEADING}
`python benchmarks/checkpoint.py {args.weights.as_posix()}`. {args.clips} hand-held walks of {FRAMES} frames through
furnished rooms (seeds {FIRST_SEED} to {FIRST_SEED + args.clips - 1}), {SIZE[0]}×{SIZE[1]}, by `reconstruct`:

{score_table(walks)}

One window of {windows.views} views from each, by the network alone; errors of the first view's pointmap:

{window_table(model, windows, torch.from_numpy(mean))}
"""
    if args.office:
        with tempfile.TemporaryDirectory() as folder:
            scores, _ = score_office(
                Path(args.office), Path(folder) / "run", settings(args.weights, method_of(model)), mean
            )
        text += f"\nA recorded walk through an office, 150 frames, in segments of 60:\n\n{score_table(scores)}\n"
    print(text)
    if args.write:
        card = args.weights / "README.md"
        before, _, _ = card.read_text(encoding="utf-8").partition(HEADING)
        with replacing(card) as new:
            new.write_text(before + text, encoding="utf-8")
    return 0


def method_of(model: Model) -> str:
    family = family_of(model)
    return "dust3r-stream" if family == "dust3r" else family


def settings(weights: Path, method: str) -> ReconstructConfig:
    return ReconstructConfig(weights=str(weights), method=method, overwrite=True)


def film_and_reconstruct(seed: int, weights: Path, method: str) -> tuple[Collector, Truth]:
    """A hand-held walk, written as pictures and reconstructed as anyone's would be."""
    clip = render_clip(seed, FRAMES, SIZE, STYLE)
    collector = Collector()
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder) / "pictures"
        pictures.mkdir()
        for number, image in enumerate((clip.images * 255).round().byte().permute(0, 2, 3, 1).numpy()):
            Image.fromarray(image).save(pictures / f"{number:04d}.png")
        reconstruct(pictures, Path(folder) / "run", settings(weights, method), observers=[collector])
    return collector, truth_of(clip)


def truth_of(clip: Clip) -> Truth:
    return Truth(clip.depth.double().numpy(), clip.c2w.double().numpy(), clip.K[0].double().numpy())


def window(run: Collector, truth: Truth, views: int) -> Batch:
    """Some of the frames as one sample, as the network was shown them; the middle one is in front."""
    chosen = [SPREAD * i for i in range(views)]
    chosen.insert(0, chosen.pop(views // 2))
    frames = [next(f for f in run.frames if f.index == index) for index in chosen]
    to_network = [np.linalg.inv(np.vstack([f.to_original, [0, 0, 1]]))[:2] for f in frames]
    stacked = {
        "images": np.stack([f.image.numpy() * 2 - 1 for f in frames]),
        "depth": np.stack([true_depth(f, truth) for f in frames]),
        "c2w": truth.c2w[chosen],
        "K": np.stack([transform_intrinsics(truth.K, affine) for affine in to_network]),
    }
    return Batch.of(**{name: torch.from_numpy(array).float().unsqueeze(0) for name, array in stacked.items()})


@torch.no_grad()
def window_table(model: Model, windows: Batch, mean: torch.Tensor) -> str:
    """Markdown: pointmap error, AbsRel and δ of the network, of the network without other views, of no network."""
    height, width = windows.depth.shape[-2:]
    copies = replace(windows, images=windows.images[:, :1].expand_as(windows.images))
    answers = {
        "with the other views": predict(model, windows)[0][:, 0],
        "with copies of the first": predict(model, copies)[0][:, 0],
        "mean training pointmap": _resized(mean, (height, width)).expand(len(windows), -1, -1, -1),
        "constant depth": _flat(windows),
    }
    rows = []
    for name, points in answers.items():
        found = reference_scores(points, windows)
        rows.append(
            f"| {name} | " + " | ".join(f"{found[k].mean():.3f}" for k in ("error", "abs_rel", "inlier")) + " |"
        )
    return "\n".join(["| | pointmap error | AbsRel | δ<1.25 |", "|---|---|---|---|", *rows])


def _flat(windows: Batch) -> torch.Tensor:
    """Depth 1 through the mean field of view of all windows."""
    points = windows.camera[:, 0]
    slopes = (points[..., :2] / points[..., 2:]).nanmean(0)
    return torch.cat([slopes, torch.ones_like(slopes[..., :1])], -1).expand(len(windows), -1, -1, -1)


def _resized(mean: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    grid = mean.permute(2, 0, 1).unsqueeze(0)
    return torch.nn.functional.interpolate(grid, size, mode="bilinear")[0].permute(1, 2, 0)


def average(tables: Sequence[Sequence[Score]]) -> list[Score]:
    """The mean over walks of each answer's scores; a walk in which nothing was found does not count for it."""
    names = [f.name for f in fields(Score) if f.name != "name"]
    means = []
    for row in zip(*tables, strict=True):
        values: dict[str, FloatArray] = {name: np.array([getattr(s, name) for s in row]) for name in names}
        means.append(Score(row[0].name, **{k: float(np.nanmean(v)) for k, v in values.items()}))
    return means


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ThreerError as error:
        sys.exit(f"checkpoint: {error}")
