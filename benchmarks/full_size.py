"""Time and memory of every method at the published sizes, with random weights.

    python benchmarks/full_size.py FOLDER [--frames 20] [--methods slam3r cut3r fast3r dust3r] [--device cpu]

Each method runs in a process of its own, on the first frames of FOLDER (images or a video), prepared as its
published checkpoint wants them; DUSt3R gets the first two. Prints a Markdown table and writes it, with the figures
as JSON, to `--out`. Random weights take the time and memory of trained ones, except that a scene without sense may
end searches early or late: SLAM3R shrinks its initial window, and hardly a camera is found. Processor seconds count
all threads; with one thread they are what an idle machine would take, whoever else is at work. ``--tiny`` rehearses
with small networks.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from threer.config import ReconstructConfig, SourceConfig
from threer.errors import ThreerError
from threer.io.atomic import write_json
from threer.io.sources import open_source, to_frame
from threer.models import CUT3R, SLAM3R, CUT3RConfig, DUSt3R, DUSt3RConfig, Fast3R, Fast3RConfig, SLAM3RConfig
from threer.models.inspect import count_parameters
from threer.nn.dpt import DPTDims
from threer.pipelines.cost import peak_memory_mib
from threer.pipelines.methods import make_session

METHODS = ("slam3r", "cut3r", "fast3r", "dust3r")
MOST = {"dust3r": 2}
TINY: dict[str, Any] = {
    "enc_dim": 32,
    "enc_depth": 1,
    "enc_heads": 2,
    "dec_dim": 32,
    "dec_depth": 4,
    "dec_heads": 2,
}
TINY_DENSE = TINY | {"image_size": 240, "dpt": DPTDims(8, 4, (4, 4, 8, 8))}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", help="images or a video")
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--tiny", action="store_true", help="small networks, to rehearse")
    parser.add_argument("--out", type=Path, default=Path("out/full_size"))
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)  # a child: measure one, print JSON
    args = parser.parse_args()
    if args.one:
        torch.set_num_threads(args.threads)
        print(json.dumps(measure(args.methods[0], args.source, args.frames, args.device, args.tiny)))
        return 0
    rows = []
    for method in args.methods:
        row = _in_own_process(args, method)
        print(f"{method}: {row['error'] if 'error' in row else round(row['seconds'], 1)}", file=sys.stderr)
        rows.append(row)
    table = markdown(rows, args.device, args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "full_size.md").write_text(table + "\n", encoding="utf-8")
    write_json(args.out / "full_size.json", {"device": args.device, "threads": args.threads, "methods": rows})
    print(table)
    return int(any("error" in row for row in rows))


def measure(method: str, source: str, frames: int, device: str, tiny: bool) -> dict[str, Any]:
    """Figures of one method in this process: the peaks count everything from its start on."""
    torch.manual_seed(0)
    model = network(method, tiny).eval().to(device)
    frames = min(frames, MOST.get(method, frames))
    raw = list(islice(open_source(source, SourceConfig(max_frames=frames)), frames))
    prepared = [to_frame(picture, model.input) for picture in raw]
    loaded_mib = peak_memory_mib()
    session = make_session(method, model, ReconstructConfig())
    begun, begun_work = time.perf_counter(), time.process_time()
    kinds = [update.kind for frame in prepared for update in session.push(frame)]
    kinds += [update.kind for update in session.finish()]
    seconds, work = time.perf_counter() - begun, time.process_time() - begun_work
    return {
        "method": method,
        "size": "×".join(map(str, prepared[0].size)),
        "parameters": count_parameters(model),
        "frames": len(prepared),
        "answered": sum(kind in ("final", "failed") for kind in kinds),
        "seconds": seconds,
        "processor_seconds": work,
        "loaded_mib": loaded_mib,
        "peak_mib": peak_memory_mib(),
        "device_peak_mib": torch.cuda.max_memory_allocated() / 2**20 if device.startswith("cuda") else None,
    }


def network(method: str, tiny: bool) -> SLAM3R | CUT3R | Fast3R | DUSt3R:
    """The published architecture, or a small one of the same kind, with random weights."""
    if method == "slam3r":
        return SLAM3R.from_config(SLAM3RConfig(**TINY, image_size=32) if tiny else SLAM3RConfig())
    if method == "cut3r":
        small = {"state_size": 9, "state_heads": 2, "memory_size": 4, "ray_heads": 2}
        return CUT3R(CUT3RConfig(head="dpt", **TINY_DENSE | small) if tiny else CUT3RConfig(512, head="dpt"))
    if method == "fast3r":
        return Fast3R(Fast3RConfig(**TINY_DENSE) if tiny else Fast3RConfig())
    return DUSt3R(DUSt3RConfig(head="dpt", **TINY_DENSE) if tiny else DUSt3RConfig(512, head="dpt"))


def markdown(rows: list[dict[str, Any]], device: str, threads: int) -> str:
    """The table. "Loaded" is the peak before the first frame is looked at: weights, frames and the libraries."""
    lines = [
        f"Random weights on {device}, {threads} threads, torch {torch.__version__}.",
        "",
        "| method | input | parameters | frames | seconds | per frame | processor seconds "
        "| loaded MiB | peak MiB | device MiB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if "error" in row:
            lines.append(f"| {row['method']} | {row['error']} |" + " |" * 8)
            continue
        device_peak = "–" if row["device_peak_mib"] is None else f"{row['device_peak_mib']:,.0f}"
        cells = (
            row["method"],
            row["size"],
            f"{row['parameters'] / 1e6:,.0f} M",
            f"{row['answered']} of {row['frames']}",
            f"{row['seconds']:.1f}",
            f"{row['seconds'] / row['frames']:.2f}",
            f"{row['processor_seconds']:.1f}",
            f"{row['loaded_mib']:,.0f}",
            f"{row['peak_mib']:,.0f}",
            device_peak,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _in_own_process(args: argparse.Namespace, method: str) -> dict[str, Any]:
    command = [sys.executable, __file__, args.source, "--one", "--methods", method, "--frames", str(args.frames)]
    command += ["--device", args.device, "--threads", str(args.threads), *(["--tiny"] if args.tiny else [])]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:  # also one that was killed for memory
        last = done.stderr.strip().splitlines()
        return {"method": method, "error": last[-1] if last else f"ended with code {done.returncode}"}
    row: dict[str, Any] = json.loads(done.stdout)
    return row


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ThreerError as error:
        sys.exit(f"full_size: {error}")
