"""Memory and time of CUT3R on a stream, frame by frame.

    python benchmarks/recurrent.py [--network tiny|full] [--size 224] [--frames 2000] [--reset-every 64]

Runs random weights on a camera that goes round and round a picture: what is measured is what a stream costs, not
the reconstruction. Prints memory and time for each tenth of the stream.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
import torch
from stream import circling_frames, resident_mib

from threer.config import RecurrentConfig
from threer.errors import ThreerError
from threer.models.cut3r import CUT3R, CUT3RConfig
from threer.pipelines.recurrent import RecurrentSession
from threer.types import FloatArray

TINY = CUT3RConfig(
    image_size=32,
    enc_dim=32,
    enc_depth=2,
    enc_heads=2,
    dec_dim=32,
    dec_depth=2,
    dec_heads=2,
    state_size=64,
    state_heads=2,
    memory_size=16,
    ray_heads=2,
)
NETWORKS = {"tiny": TINY, "full": CUT3RConfig()}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", choices=NETWORKS, default="tiny", help="full: the published sizes")
    parser.add_argument("--size", type=int, help="side of a frame in pixels; by default what the network wants")
    parser.add_argument("--frames", type=int, default=2000)
    parser.add_argument("--reset-every", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = CUT3R(NETWORKS[args.network]).eval().to(args.device)
    session = RecurrentSession(model, RecurrentConfig(reset_every=args.reset_every))
    print(summary(measure(session, args.size or model.input.size, args.frames), args.device))
    return 0


def measure(session: RecurrentSession, size: int, count: int) -> FloatArray:
    """[count, 2] milliseconds spent on each frame, and MiB resident after it."""
    rows = np.empty((count, 2))
    for now, frame in enumerate(circling_frames(size, count)):
        begun = time.perf_counter()
        session.push(frame)
        rows[now] = 1000 * (time.perf_counter() - begun), resident_mib()
    return rows


def summary(rows: FloatArray, device: str) -> str:
    """A Markdown table of tenths of the stream."""
    lines = ["| frames | ms per frame | MiB resident |", "|---|---|---|"]
    for part in np.array_split(np.arange(len(rows)), min(10, len(rows))):
        milliseconds, resident = rows[part].T
        lines.append(f"| {part[0]} – {part[-1]} | {milliseconds.mean():.1f} | {resident[-1]:.1f} |")
    if device.startswith("cuda"):
        lines.append(f"\nlargest GPU memory: {torch.cuda.max_memory_allocated() / 2**20:.0f} MiB")
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ThreerError as error:
        sys.exit(f"recurrent: {error}")
