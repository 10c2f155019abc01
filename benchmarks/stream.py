"""Memory, time and latency of a stream, frame by frame.

    python benchmarks/stream.py [--network tiny|mini|full] [--frames 10000] [--storage float16] [--out out/stream]

Runs the packaged `mini` or random weights on a camera that goes round and round a picture: what is measured is the
event loop, the run store and what they keep, not the reconstruction. Memory is that of the process, with a run
being written into a folder that is removed at the end (`--no-store`: without); times are those of the event loop.
Writes `stream.csv` (a row per frame) and `stream.png` (the curves), and prints memory, time and latency for each
tenth of the stream.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from charts import binned, line_chart, stacked

from threer.config import StreamingConfig
from threer.errors import ThreerError
from threer.io.runs import RunWriter
from threer.models import load_model
from threer.models.checkpoints import Model
from threer.models.slam3r import SLAM3R, SLAM3RConfig
from threer.pipelines.cameras import CameraTracker
from threer.pipelines.streaming import StreamingSession
from threer.types import FloatArray, Frame, Update

TINY = SLAM3RConfig(
    image_size=32, enc_dim=16, enc_depth=1, enc_heads=2, dec_dim=16, dec_depth=2, dec_heads=2, ray_prior=0.6
)
NETWORKS: dict[str, Callable[[], Model]] = {
    "tiny": lambda: SLAM3R.from_config(TINY),
    "mini": lambda: load_model("slam3r-mini"),
    "full": lambda: SLAM3R.from_config(SLAM3RConfig()),
}
FIELDS = (
    "frame",
    "milliseconds",
    "cpu_milliseconds",
    "resident_mib",
    "alive",
    "final_latency",
    "provisional_latency",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", choices=NETWORKS, default="tiny", help="full: the published sizes, random")
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--stride", type=int, default=3)
    parser.add_argument("--radius", type=int, default=5)
    parser.add_argument("--buffer", type=int, default=100, help="scene frames kept")
    parser.add_argument("--storage", choices=("float32", "float16"), default="float32")
    parser.add_argument("--deadline", type=int, help="low-latency mode: frames until provisional points")
    parser.add_argument("--no-store", action="store_true", help="the event loop alone, nothing is written")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("out/stream"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = NETWORKS[args.network]().eval().to(args.device)
    assert isinstance(model, SLAM3R)
    config = StreamingConfig(
        stride=args.stride,
        radius=args.radius,
        buffer_size=args.buffer,
        storage=args.storage,
        deadline=args.deadline,
        duplicate_tolerance=0,
        init_min_conf=0,
    )
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.out) as folder:
        rows = measure(model, config, args.frames, None if args.no_store else Path(folder) / "run")
    with (args.out / "stream.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(FIELDS)
        writer.writerows(["" if np.isnan(v) else f"{v:.6g}" for v in row] for row in rows)
    draw(rows, args.out / "stream.png")
    print(summary(rows))
    return 0


def measure(model: SLAM3R, config: StreamingConfig, count: int, out: Path | None) -> FloatArray:
    """Reconstruct ``count`` frames into a run in ``out``, and tell of each what it cost.

    Returns [count, len(FIELDS)], NaN for the latency of frames after which nothing came out."""
    session = StreamingSession(model, config, tracker=CameraTracker())
    rows = np.full((count, len(FIELDS)), np.nan)
    writer = RunWriter(out, {"method": "benchmark"}) if out else None
    shown = time.perf_counter()
    for now, frame in enumerate(circling_frames(model.input.size, count)):
        begun, begun_cpu = time.perf_counter(), time.process_time()
        updates = session.push(frame)
        milliseconds = 1000 * (time.perf_counter() - begun)
        cpu_milliseconds = 1000 * (time.process_time() - begun_cpu)
        if writer:
            for update in updates:
                writer.on(update)
        rows[now] = (
            now,
            milliseconds,
            cpu_milliseconds,
            resident_mib(),
            session.alive,
            _latency(updates, "final", now),
            _latency(updates, "provisional", now),
        )
        if sys.stderr.isatty() and time.perf_counter() - shown > 2:
            shown = time.perf_counter()
            print(f"\rframe {now} of {count}", end="", file=sys.stderr, flush=True)
    if writer:
        writer.close()
    return rows


def circling_frames(size: int, count: int) -> Iterator[Frame]:
    """A window of ``size`` pixels that moves over a picture, two pixels a frame, for ever."""
    generator = torch.Generator().manual_seed(5)
    wide = torch.nn.functional.interpolate(
        torch.rand(1, 3, 8, 96, generator=generator), size=(size, 12 * size), mode="bilinear"
    )[0]
    wide = torch.cat([wide, wide[:, :, :size]], dim=2)
    for i in range(count):
        left = 2 * i % (12 * size)
        image = wide[:, :, left : left + size].clone()
        yield Frame(image, i, i / 30, f"{i}", (size, size), np.eye(2, 3))


def resident_mib() -> float:
    """Memory of this process that is in RAM now; where the system does not tell, its peak so far."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * 4096 / 2**20
    except OSError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 2**10)


def draw(rows: FloatArray, path: Path) -> None:
    """Memory, time and latency over the frame number."""
    frame, milliseconds, cpu_milliseconds, resident, alive, final, provisional = rows.T
    times = {"elapsed": binned(frame, milliseconds), "processor": binned(frame, cpu_milliseconds)}
    latencies = {}
    for name, values in (("final", final), ("provisional", provisional)):
        there = ~np.isnan(values)
        latencies[name] = (frame[there], values[there])
    charts = [
        line_chart("resident memory, MiB", "frame", {"process": (frame, resident)}),
        line_chart("frames of which anything is kept", "frame", {"frames": (frame, alive)}),
        line_chart("milliseconds per frame, mean of 1/200 of the stream", "frame", times),
        line_chart("latency, frames (the first value is the initial window)", "frame", latencies),
    ]
    stacked(charts).save(path)


def summary(rows: FloatArray) -> str:
    """A Markdown table of tenths of the stream."""
    lines = [
        "| frames | ms per frame | of the processor | MiB resident | frames kept | latency, at most |",
        "|---|---|---|---|---|---|",
    ]
    for part in np.array_split(rows, 10):
        latency = np.nanmax(part[:, 5]) if not np.isnan(part[:, 5]).all() else float("nan")
        lines.append(
            f"| {part[0, 0]:.0f} – {part[-1, 0]:.0f} | {part[:, 1].mean():.2f} | {part[:, 2].mean():.2f} "
            f"| {part[-1, 3]:.1f} | {part[:, 4].max():.0f} | {latency:.0f} |"
        )
    return "\n".join(lines)


def _latency(updates: list[Update], kind: str, now: int) -> float:
    return max((float(now - u.frame.index) for u in updates if u.kind == kind), default=float("nan"))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ThreerError as error:
        sys.exit(f"stream: {error}")
