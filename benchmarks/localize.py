"""Find held-back frames of a real hand-held walk in a classical run of the others.

    python benchmarks/localize.py [--known-intrinsics] [--method sfm] [--out out/localize] [--again]

Every 7th frame is held back (20 of 150). The run is brought onto the true poses by one similarity; then each found
camera's position and angle are held against the truth. Pictures of made-up rooms must not be found. A median below
5 cm and 2° is the target. ``--again`` uses the run that is there already.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from office_data import RgbdWalk, find_office, load_walk

from threer.config import ClassicalConfig, LocalizeConfig, ReconstructConfig
from threer.data.synthetic.clips import WALK, render_clip
from threer.errors import ThreerError
from threer.evaluation.trajectory import AteResult, ate
from threer.io.atomic import write_json
from threer.io.runs import Scene
from threer.pipelines.localization import LocalizedCamera, localize
from threer.pipelines.reconstruct import reconstruct
from threer.types import Trajectory

EVERY, HELD_BACK = 7, 20
TARGET_CM, TARGET_DEG = 5.0, 2.0
LIMITS = ((10, 1), (25, 2), (50, 5))
"""Shares within so many centimetres and degrees."""
ROOMS = range(8)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=find_office(), help="the recorded walk")
    parser.add_argument("--method", default="sfm")
    parser.add_argument("--known-intrinsics", action="store_true", help="use the recorded focal length")
    parser.add_argument("--out", type=Path, default=Path("out/localize"))
    parser.add_argument("--again", action="store_true", help="use the run in --out")
    parser.add_argument("--pictures", choices=["source", "run"], default="source")
    parser.add_argument("--camera", choices=["auto", "run", "unknown"], default="auto")
    args = parser.parse_args()
    if args.folder is None:
        print("no recorded walk at hand: name its folder with --folder or $THREER_OFFICE", file=sys.stderr)
        return 1
    walk = load_walk(args.folder)
    queries = list(range(EVERY, EVERY * (HELD_BACK + 1), EVERY))
    others = [i for i in range(len(walk)) if i not in queries]
    K = walk.K
    config = ReconstructConfig(
        method=args.method,
        overwrite=True,
        intrinsics=(K[0, 0], K[1, 1], K[0, 2], K[1, 2]) if args.known_intrinsics else None,
        classical=ClassicalConfig(depth_size=96, depth_planes=16, depth_partners=2),  # it is not asked for here
    )
    scene = (
        Scene.open(args.out) if args.again else reconstruct([walk.color_path(i) for i in others], args.out, config)
    )
    path = aligned(scene, walk, others)
    own = [
        errors(c, walk.c2w[others[i]], path) for c, i in zip(scene.cameras.c2w, scene.table.indices, strict=True)
    ]
    own_cm, own_deg = np.nanmedian(np.array(own), axis=0)
    print(f"run       {path.coverage.matched} of {len(others)} frames, ATE {1000 * path.rmse_m:.0f} mm")
    print(f"          median of its own frames {own_cm:.1f} cm, {own_deg:.2f}°")
    begun = time.process_time()
    settings = LocalizeConfig(pictures=args.pictures, camera=args.camera)
    answers = localize(scene, [walk.color_path(i) for i in queries], settings)
    spent = (time.process_time() - begun) / len(queries)
    rows = [score(answer, walk, i, path) for answer, i in zip(answers, queries, strict=True)]
    for row in rows:
        print(f"  {row['name']}  {row['status']:<9}{row['inliers']:5d} inliers  {row['cm']:6.1f} cm "
              f"{row['deg']:5.2f}°  ±{row['sigma_cm']:.1f} cm  {row['why']}")  # fmt: skip
    cm, deg = (np.array([row[k] for row in rows]) for k in ("cm", "deg"))  # infinite where not found
    print(f"found     {sum(a.found for a in answers)} of {len(answers)}, {spent:.1f} s of CPU each")
    print(f"median    {np.median(cm):.1f} cm, {np.median(deg):.2f}° (target {TARGET_CM:g} cm, {TARGET_DEG:g}°)")
    shares = {f"{a} cm, {b}°": float(np.mean((cm < a) & (deg < b))) for a, b in LIMITS}
    print("within    " + ";  ".join(f"{name}: {share:.0%}" for name, share in shares.items()))
    elsewhere = localize(scene, [made_up(seed, walk.size) for seed in ROOMS], settings)
    wrong = sum(answer.status == "found" for answer in elsewhere)
    print(f"elsewhere {wrong} of {len(elsewhere)} pictures of made-up rooms were found, none should be")
    write_json(args.out / "localization.json", {"frames": rows, "within": shares, "wrong": wrong})
    return 0


def aligned(scene: Scene, walk: RgbdWalk, frames: list[int]) -> AteResult:
    """The run against the true poses of its frames."""
    times = np.array(frames, dtype=float)
    truth = Trajectory(times, walk.c2w[frames])
    return ate(Trajectory(times[scene.table.indices], scene.cameras.c2w), truth)


def score(answer: LocalizedCamera, walk: RgbdWalk, index: int, path: AteResult) -> dict:
    """Position error in centimetres and angle in degrees, infinite where nothing was found."""
    cm, deg = errors(answer.c2w, walk.c2w[index], path) if answer.found else (float("inf"), float("inf"))
    return {
        "name": answer.name,
        "status": answer.status,
        "why": answer.why,
        "inliers": answer.inliers,
        "cm": cm,
        "deg": deg,
        "sigma_cm": 100 * path.sim3.scale * answer.position_sigma,
    }


def errors(c2w: np.ndarray, truth: np.ndarray, path: AteResult) -> tuple[float, float]:
    """Centimetres and degrees from the truth, NaN for a camera that was not found."""
    found = path.sim3.apply_to_cameras(c2w[None])[0]
    cosine = (np.trace(found[:3, :3].T @ truth[:3, :3]) - 1) / 2
    return 100 * float(np.linalg.norm(found[:3, 3] - truth[:3, 3])), float(
        np.degrees(np.arccos(np.minimum(1.0, cosine)))
    )


def made_up(seed: int, size: tuple[int, int]) -> np.ndarray:
    """A picture [H, W, 3] of a generated room."""
    width, height = (-(-side // 8) * 8 for side in size)  # the renderer works in tiles
    image = render_clip(100 + seed, 1, (width, height), WALK).images[0, :, : size[1], : size[0]]
    return (image.permute(1, 2, 0) * 255).round().byte().numpy().copy()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ThreerError as error:
        sys.exit(f"localize: {error}")
