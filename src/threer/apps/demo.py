"""`threer demo`: film a made-up room, reconstruct it with the packaged weights, and say how good that is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.markdown import Markdown

from threer.config import ReconstructConfig
from threer.data.synthetic import Clip, render_clip
from threer.evaluation.scores import Collector, Truth, score_run, score_table, true_depth
from threer.io.atomic import os_errors_as_run_errors, write_json
from threer.io.video import write_video
from threer.models.registry import packaged_folder
from threer.pipelines.reconstruct import reconstruct
from threer.render.pictures import colorize, panels, save_png
from threer.training.scores import load_mean_pointmap

FRAMES = 72
SIZE = (320, 240)
FPS = 10
WEIGHTS = "slam3r-mini"
CLOUD = 50_000
"""Points of each cloud that are compared: four times as many take a minute, and change the third digit."""
ENLARGED = 2
SHOWN = (0.1, 0.5, 0.9)
"""Where in the clip the frames of the comparison picture are taken."""


def demo(out: Path, seed: int) -> int:
    """Film, reconstruct, score, draw; everything goes into ``out``. Returns the exit code."""
    console = Console()
    with os_errors_as_run_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    console.print(f"1/4  filming {FRAMES} frames of a made-up room (seed {seed})")
    clip = render_clip(seed, FRAMES, SIZE)
    video = out / "walk.mp4"
    write_video(video, _as_bytes(clip), FPS)

    console.print(f"2/4  reconstructing {video} with {WEIGHTS}")
    collector = Collector()
    config = ReconstructConfig(weights=WEIGHTS, fps=None, overwrite=True)
    scene = reconstruct(video, out / "run", config, observers=[collector])

    console.print("3/4  comparing with the truth, and with answers that look at no image")
    truth = Truth(clip.depth.double().numpy(), clip.c2w.double().numpy(), clip.K[0].double().numpy())
    mean = load_mean_pointmap(packaged_folder() / WEIGHTS).numpy()
    scores = score_run(collector, truth, mean, cloud_points=CLOUD)
    write_json(out / "scores.json", {"weights": WEIGHTS, "seed": seed, "scores": scores})

    console.print("4/4  drawing pictures")
    save_png(out / "frames.png", _comparison(collector, truth))

    console.print(Markdown(score_table(scores)))
    found = int(scene.cameras.found.sum())
    console.print(
        f"\n{len(scene)} frames, {found} cameras, {scene.report['seconds']['total']:.0f} s. Look at:\n"
        f"  {out / 'run' / 'preview.png'}   the cloud and the camera path\n"
        f"  {out / 'frames.png'}   image, depth, true depth\n"
        f"  {out / 'run' / 'points.ply'}   the cloud, for any viewer\n"
        f"  {video}   what went in",
        highlight=False,
    )
    return 0


def _as_bytes(clip: Clip) -> npt.NDArray[np.uint8]:
    """[N, H, W, 3]."""
    return np.asarray((clip.images.permute(0, 2, 3, 1).clamp(0, 1) * 255).round().byte())


def _comparison(run: Collector, truth: Truth) -> npt.NDArray[np.uint8]:
    """Rows of: what the network saw, the depth it gave, the true depth, each depth in its own median."""
    rows = []
    for share in SHOWN:
        k = round(share * (len(run.frames) - 1))
        image = np.asarray((run.frames[k].image * 255).byte().permute(1, 2, 0))
        depths = [d / np.median(d[d > 0]) for d in (run.local_depth[k], true_depth(run.frames[k], truth))]
        pictures = [image] + [colorize(-d, low=-2.0, high=-0.4) for d in depths]
        rows.append(panels([p.repeat(ENLARGED, axis=0).repeat(ENLARGED, axis=1) for p in pictures]))
    return np.concatenate(rows)
