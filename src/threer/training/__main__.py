"""`python -m threer.training FOLDER`: train the compact SLAM3R, and export what was trained.

Needs only torch, numpy, safetensors and rich.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import torch
from rich.console import Console

from threer.training.export import export
from threer.training.mini import SLAM3RMini
from threer.training.trainer import Trainer, readable


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m threer.training", description="Train slam3r-mini.")
    parser.add_argument("folder", type=Path, help="where the state and the log go; an existing state is continued")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads")
    numbers = [f for f in dataclasses.fields(SLAM3RMini) if f.type in ("int", "float")]
    for number in numbers:
        parser.add_argument(
            f"--{number.name.replace('_', '-')}",
            type=int if number.type == "int" else float,
            default=number.default,
            help=f"(default: {number.default})",
        )
    parser.add_argument(
        "--export", type=Path, metavar="FOLDER", help="write what was trained to a checkpoint folder"
    )
    parser.add_argument("--compute", default="one CPU core", help="for the exported card: what it was trained on")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    recipe = SLAM3RMini(**{n.name: getattr(arguments, n.name) for n in numbers})
    console = Console(soft_wrap=True, highlight=False)
    if arguments.export:
        for who, scores in export(arguments.folder, arguments.export, arguments.compute).items():
            console.print(f"{who}: {readable(scores.row())}")
        return
    Trainer(recipe, arguments.folder, arguments.device, console.print).run()


if __name__ == "__main__":
    main()
