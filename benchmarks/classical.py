"""Score the classical baseline, `--method sfm`, on a real hand-held walk with sensor depth and poses.

    python benchmarks/classical.py [--known-intrinsics] [--folder ../shared/data/office] [--out out/classical]

Prints frames in the largest model, camera error after one similarity over the path, depth of the most confident
share of each frame's pixels (at the scale of that similarity), and CPU seconds. Features and matches in the folder
of an earlier run are used again, which the CPU seconds show: choose another folder to measure them.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from office_data import find_office, load_walk

from threer.config import ReconstructConfig
from threer.errors import ThreerError
from threer.evaluation.depth import DepthResult, depth_errors
from threer.evaluation.scores import Collector, Truth, true_depth
from threer.evaluation.trajectory import ate, rpe
from threer.io.atomic import write_json
from threer.pipelines.reconstruct import reconstruct

COVERAGES = (1.0, 0.8, 0.5)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=find_office(), help="the recorded walk")
    parser.add_argument("--known-intrinsics", action="store_true", help="use the recorded focal length")
    parser.add_argument("--every", type=int, default=1, help="score the depth of every so many frames")
    parser.add_argument("--out", type=Path, default=Path("out/classical"))
    args = parser.parse_args()
    if args.folder is None:
        print("no recorded walk at hand: name its folder with --folder or $THREER_OFFICE", file=sys.stderr)
        return 1
    walk = load_walk(args.folder)
    K = walk.K
    config = ReconstructConfig(
        method="sfm",
        overwrite=True,
        intrinsics=(K[0, 0], K[1, 1], K[0, 2], K[1, 2]) if args.known_intrinsics else None,
    )
    collector = Collector()
    begun = time.process_time()
    scene = reconstruct(args.folder / "color", args.out, config, observers=[collector])
    spent = time.process_time() - begun
    path, truth = scene.trajectory, walk.trajectory(1.0)
    path = type(path)(np.arange(len(path.timestamps), dtype=float), path.c2w)
    error, step = ate(path, truth), rpe(path, truth)
    focal = float(np.nanmedian(scene.cameras.K[:, 0, 0]) / K[0, 0] - 1)
    print(f"frames    {error.coverage.matched} of {len(scene)} in the largest model {scene.report['models']}")
    print(f"attempts  {'; '.join(_told(attempt) for attempt in scene.report['attempts'])}")
    print(f"cameras   ATE {1000 * error.rmse_m:.0f} mm, {100 * error.share_of_path:.2f} % of the path; "
          f"{step.rotation_median_deg:.2f}° a frame; focal length off by {100 * focal:+.1f} %")  # fmt: skip
    known = Truth(np.nan_to_num(np.stack([walk.depth(i) for i in range(len(walk))])), walk.c2w, K)
    for coverage in COVERAGES:
        found = depth_of(collector, known, error.sim3.scale, coverage, args.every)
        print(f"depth     most confident {100 * coverage:.0f} %: AbsRel {np.mean([r.abs_rel for r in found]):.3f}, "
              f"δ<1.25 {np.mean([r.delta_1_25 for r in found]):.3f} ({len(found)} frames)")  # fmt: skip
    print(f"cost      {spent:.0f} s of CPU, peak memory {scene.report['peak_memory_mib']:.0f} MiB")
    write_json(args.out / "scores.json", {"ate": error.share_of_path, "cpu_s": spent, "report": scene.report})
    return 0


def depth_of(run: Collector, truth: Truth, scale: float, coverage: float, every: int = 1) -> list[DepthResult]:
    """Errors of each frame over this share of its pixels with a true depth, the most confident ones."""
    results = []
    for frame, depth, conf in list(zip(run.frames, run.local_depth, run.conf, strict=True))[::every]:
        known = true_depth(frame, truth)
        if not np.isfinite(depth).any() or not (known > 0).any():
            continue
        sure = conf >= np.quantile(conf[known > 0], 1 - coverage)
        results.append(depth_errors(scale * depth, known, sure, align="none"))
    return results


def _told(attempt: dict) -> str:
    flaw = f": {', '.join(attempt['problems'])}" if attempt["problems"] else ""
    return f"{attempt['attempt']} {list(attempt['models'])} {attempt['error_px']} px{flaw}"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ThreerError as error:
        sys.exit(f"classical: {error}")
