"""What half precision of the stored tokens and maps saves, and what it changes.

    python benchmarks/storage.py SOURCE [--weights slam3r-mini] [--frames 70] [--stride 3]

Runs the same frames with `storage` float32 and float16 and prints the memory of what is kept at the end, and how
far the points are from each other, relative to the mean distance of the points from the origin.
"""

from __future__ import annotations

import argparse
import sys

import torch

from threer.config import SourceConfig, StreamingConfig
from threer.errors import ThreerError
from threer.io.sources import open_source, to_frame
from threer.models import SLAM3R, load_model
from threer.pipelines.streaming import StreamingSession


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", help="a video or a folder of images")
    parser.add_argument("--weights", default="slam3r-mini")
    parser.add_argument("--frames", type=int, default=70)
    parser.add_argument("--stride", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = load_model(args.weights, device=args.device)
    if not isinstance(model, SLAM3R):
        raise ThreerError(f"the weights {args.weights!r} are not SLAM3R's")
    raw = open_source(args.source, SourceConfig(max_frames=args.frames))
    frames = [to_frame(frame, model.input) for frame in raw]
    points, mebibytes = {}, {}
    for storage in ("float32", "float16"):
        session = StreamingSession(model, StreamingConfig(stride=args.stride, storage=storage))  # type: ignore[arg-type]
        updates = [u for frame in frames for u in session.push(frame)]
        mebibytes[storage] = session.stored_bytes / 2**20
        updates += session.finish()
        points[storage] = torch.stack([u.points.xyz for u in updates if u.points is not None])
    distance = (points["float16"] - points["float32"]).norm(dim=-1) / points["float32"].norm(dim=-1).mean()
    some = distance.flatten()[:: max(1, distance.numel() // 1_000_000)]
    print("| kept in float32 | in float16 | points differ: median | mean | 99 % | mean of the last 10 frames |")
    print("|---|---|---|---|---|---|")
    print(
        f"| {mebibytes['float32']:.2f} MiB | {mebibytes['float16']:.2f} MiB "
        f"| {some.median():.1e} | {some.mean():.1e} | {some.quantile(0.99):.1e} | {distance[-10:].mean():.1e} |"
    )
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ThreerError as error:
        sys.exit(f"storage: {error}")
