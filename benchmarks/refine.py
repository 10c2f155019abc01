"""What `threer refine` makes of cameras that are off: on a recorded walk, of a run, and on rendered clips.

    python benchmarks/refine.py office [--folder ../shared/data/office] [--out out/refine]
    python benchmarks/refine.py run OUT [--folder ../shared/data/office]
    python benchmarks/refine.py clips [--count 20] [--out out/refine]

`office`: the recorded poses, each turned by 3° and moved by 5 % of the median depth (root mean square; a smooth
curve and jumps), known intrinsics. `run`: a finished run of that walk, by whatever method. `clips`: rendered walks
of 24 frames, cameras moved by 5 % of the path's extent, each depth map scaled by 10 % at random, intrinsics
unknown. Features found in an earlier run in --out are used again.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from office_data import find_office, load_walk
from PIL import Image
from scipy.spatial.transform import Rotation

from threer.config import RefineConfig
from threer.data.synthetic.clips import render_clip
from threer.errors import ThreerError
from threer.evaluation.trajectory import ate
from threer.io.atomic import write_json
from threer.io.runs import RunWriter, Scene
from threer.io.sources import open_source
from threer.pipelines.refine.apply import refine
from threer.types import FloatArray, Frame, Pointmap, Trajectory, Update

DEGREES, SHARE, DEPTH = 3.0, 0.05, 0.1
SHRINK = 4
FRAMES, SIZE = 24, (320, 240)


def disturbed(c2w: FloatArray, size: float, seed: int) -> FloatArray:
    """Cameras turned by 3° each, and moved by a smooth and a jumping part, 5 % of ``size`` together."""
    rng, n = np.random.default_rng(seed), len(c2w)
    smooth = sum(
        np.outer(np.sin(np.linspace(0, k, n) * np.pi + rng.uniform(0, 6)), rng.normal(size=3)) for k in (1, 2, 3)
    )
    way = smooth / smooth.std() + 0.3 * rng.normal(size=(n, 3))
    out = c2w.copy()
    out[:, :3, 3] += SHARE * size * way / np.sqrt(np.square(way).sum(axis=1).mean())
    turns = DEGREES / np.sqrt(3) * rng.normal(size=(n, 3))
    out[:, :3, :3] = out[:, :3, :3] @ Rotation.from_rotvec(np.radians(turns)).as_matrix()
    return out


def write_run(
    out: Path, pictures: Path, c2w: FloatArray, K: FloatArray, depth: list[FloatArray], *, known: bool
) -> Scene:
    """A run over ``pictures`` with these cameras, and the depths [h, w] a quarter as large in each."""
    source = open_source(pictures)
    settings = {
        "method": "disturbed truth",
        "source": str(pictures),
        "fingerprint": source.fingerprint(),
        "intrinsics": [K[0, 0], K[1, 1], K[0, 2], K[1, 2]] if known else None,
    }
    writer = RunWriter(out, settings, overwrite=True)
    for raw in source:
        seen = depth[raw.index].astype(np.float64)
        height, width = seen.shape
        full = raw.image.shape[1], raw.image.shape[0]
        sx, sy = full[0] / width, full[1] / height
        affine = np.array([[sx, 0, (sx - 1) / 2], [0, sy, (sy - 1) / 2]])
        v, u = np.mgrid[:height, :width]
        pixel = np.stack([u, v], axis=-1) @ affine[:, :2] + affine[:, 2]
        rays = np.concatenate([(pixel - K[:2, 2]) / K[[0, 1], [0, 1]], np.ones((height, width, 1))], axis=-1)
        pose = c2w[raw.index]
        points = torch.from_numpy((rays * seen[..., None]) @ pose[:3, :3].T + pose[:3, 3]).float()
        small = np.array(Image.fromarray(raw.image).resize((width, height)))
        frame = Frame(
            torch.from_numpy(small).permute(2, 0, 1).float() / 255, raw.index, raw.timestamp, raw.name, full, affine
        )
        conf = torch.from_numpy(np.isfinite(seen)).float() * 2
        writer.on(Update("final", frame, points=Pointmap(points.nan_to_num(), conf), c2w=pose, K=K))
    return writer.finish("complete", {"seconds": {"total": 0.0}, "skipped": [], "notes": []})


def score(scene: Scene, truth: FloatArray) -> tuple[float, float]:
    """Camera error after one similarity: metres, share of the path."""
    index = scene.table.indices.astype(float)
    found = ate(Trajectory(index, scene.cameras.c2w), Trajectory(np.arange(len(truth), dtype=float), truth))
    return found.rmse_m, found.share_of_path


def compare(scene: Scene, truth: FloatArray, name: str) -> dict:
    """Refine a run, print and return what it gives."""
    begun = time.process_time()
    done = refine(scene, config=RefineConfig(overwrite=True))
    spent = time.process_time() - begun
    before, after = score(scene, truth), score(done.scene, truth)
    found = done.verdict
    held = f"held back {found.held_back_px[0]:.2f} -> {found.held_back_px[1]:.2f} px"
    path = f"{100 * before[1]:.2f} -> {100 * after[1]:.2f} % of the path"
    print(f"{name}: ATE {1000 * before[0]:.1f} -> {1000 * after[0]:.1f} mm, {path}; {held}; "
          f"{found.why or 'accepted'}; {spent:.0f} s of CPU", flush=True)  # fmt: skip
    return {"before": before, "after": after, "verdict": found, "cpu_s": spent}


def office(folder: Path, out: Path) -> dict:
    walk = load_walk(folder)
    rng = np.random.default_rng(1)
    depth = [walk.depth(i)[::SHRINK, ::SHRINK] * np.exp(DEPTH * rng.normal()) for i in range(len(walk))]
    typical = float(np.nanmedian(np.stack(depth)))
    start = disturbed(walk.c2w, typical, 0)
    scene = write_run(out / "office", folder / "color", start, walk.K, depth, known=True)
    return compare(scene, walk.c2w, "office, disturbed truth")


def clips(count: int, out: Path) -> dict:
    results = []
    for seed in range(count):
        clip = render_clip(seed, FRAMES, SIZE)
        pictures = out / f"clip{seed}-pictures"
        pictures.mkdir(parents=True, exist_ok=True)
        for k, image in enumerate(clip.images):
            shown = (image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
            Image.fromarray(shown).save(pictures / f"{k:03d}.png")
        truth, rng = clip.c2w.double().numpy(), np.random.default_rng(seed)
        depth = [
            d.double().numpy()[::SHRINK, ::SHRINK] * np.exp(DEPTH * rng.normal() + 0.02 * rng.normal(size=(60, 80)))
            for d in clip.depth
        ]
        K = clip.K[0].double().numpy()
        extent = float(np.linalg.norm(np.ptp(truth[:, :3, 3], axis=0)))
        scene = write_run(out / f"clip{seed}", pictures, disturbed(truth, extent, seed), K, depth, known=False)
        results.append(compare(scene, truth, f"clip {seed}"))
    gain = [r["before"][0] / r["after"][0] for r in results]
    print(f"{count} clips: error cut {np.median(gain):.1f}x in the median, {min(gain):.2f}x at the least")
    return {"clips": results, "median_gain": float(np.median(gain)), "least_gain": min(gain)}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("office", "run", "clips"))
    parser.add_argument("run", type=Path, nargs="?", help="folder of a finished run, for `run`")
    parser.add_argument("--folder", type=Path, default=find_office(), help="the recorded walk")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("out/refine"))
    args = parser.parse_args()
    if args.what == "clips":
        result = clips(args.count, args.out)
    elif args.folder is None:
        print("no recorded walk at hand: name its folder with --folder or $THREER_OFFICE", file=sys.stderr)
        return 1
    elif args.what == "office":
        result = office(args.folder, args.out)
    else:
        if args.run is None:
            parser.error("name the folder of a finished run")
        result = compare(Scene.open(args.run), load_walk(args.folder).c2w, str(args.run))
    args.out.mkdir(parents=True, exist_ok=True)
    write_json(args.out / f"{args.what}.json", result)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ThreerError as error:
        sys.exit(f"refine: {error}")
