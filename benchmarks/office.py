"""Score a checkpoint on a real hand-held walk with sensor depth and poses.

    python benchmarks/office.py [--weights slam3r-mini] [--folder ../shared/data/office] [--out out/office]

Prints a Markdown table: depth in each frame's own camera (median-scaled per frame), camera error and cloud
distances after a similarity per segment of 60 frames, beside a constant depth and the mean training pointmap on a
straight path at constant speed. A camera error near the straight path's is no tracking.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from office_data import find_office, load_walk

from threer.config import ReconstructConfig, StreamingConfig
from threer.errors import ThreerError
from threer.evaluation.scores import Collector, Score, Truth, score_run, score_table
from threer.io.atomic import write_json
from threer.io.runs import Scene
from threer.models.registry import packaged_folder
from threer.pipelines.reconstruct import reconstruct
from threer.training.scores import load_mean_pointmap
from threer.types import FloatArray


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=find_office(), help="the recorded walk")
    parser.add_argument("--weights", default="slam3r-mini")
    parser.add_argument("--known-intrinsics", action="store_true", help="use the recorded focal length")
    parser.add_argument("--stride", type=int, help="keyframe stride instead of the search")
    parser.add_argument("--out", type=Path, default=Path("out/office"))
    args = parser.parse_args()
    if args.folder is None:
        print("no recorded walk at hand: name its folder with --folder or $THREER_OFFICE", file=sys.stderr)
        return 1
    intrinsics = load_walk(args.folder).K[[0, 1, 0, 1], [0, 1, 2, 2]] if args.known_intrinsics else None
    config = ReconstructConfig(
        weights=args.weights,
        overwrite=True,
        intrinsics=None if intrinsics is None else tuple(intrinsics.tolist()),
        streaming=StreamingConfig(stride=args.stride or "auto"),
    )
    mean = load_mean_pointmap(packaged_folder() / "slam3r-mini").numpy()
    scores, scene = score_office(args.folder, args.out, config, mean)
    write_json(args.out / "scores.json", {"weights": args.weights, "scores": scores, "report": scene.report})
    seconds = scene.report["seconds"]["total"]
    print(score_table(scores))
    print(f"\n{len(scene)} frames in {seconds:.1f} s, stride {scene.report['stride']}, "
          f"peak memory {scene.report['peak_memory_mib']:.0f} MiB")  # fmt: skip
    return 0


def score_office(folder: Path, out: Path, config: ReconstructConfig, mean: FloatArray) -> tuple[list[Score], Scene]:
    """Reconstruct the recorded walk into ``out`` and score it beside ``mean`` [h, w, 3], the mean pointmap."""
    walk, collector = load_walk(folder), Collector()
    scene = reconstruct(folder / "color", out, config, observers=[collector])
    truth = Truth(np.nan_to_num(np.stack([walk.depth(i) for i in range(len(walk))])), walk.c2w, walk.K)
    return score_run(collector, truth, mean), scene


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ThreerError as error:
        sys.exit(f"office: {error}")
