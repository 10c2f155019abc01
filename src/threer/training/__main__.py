"""`python -m threer.training RECIPE OUT`: train, without the rest of the package's requirements.

Needs only torch, numpy, safetensors, rich, pillow and lightning.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from threer.errors import ThreerError
from threer.training.command import train
from threer.training.options import Options
from threer.training.recipes import recipe_names


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m threer.training", description="Train a recipe into a folder.")
    add = parser.add_argument
    add("recipe", help=f"{', '.join(recipe_names())}, or the path of a .toml file")
    add("out", type=Path, help="folder of the run; one that holds a state is continued")
    add("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    add("--minutes", type=float, help="length of the whole run on the clock; the schedule is squeezed into it")
    add("--session", type=float, metavar="MINUTES", help="stop this call cleanly; the next one goes on")
    add("--steps", type=int, help="length of the run in optimiser steps")
    add("--init", metavar="WEIGHTS", help='weights of the same family to start from, by path or name; or "none"')
    add("--strategy", default="ddp", choices=("ddp", "fsdp"), help="with several processes (default: ddp)")
    add("--precision", choices=("32", "bf16"), help="default: the recipe's; 32 on the CPU")
    add("--deterministic", action="store_true", help="torch's deterministic algorithms")
    add("--save-every", type=float, default=120.0, metavar="SECONDS", help="between two states (default: 120)")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="change a setting: batch.per_device=8")
    add("--published", action="store_true", help="the original's settings where ours differ")
    add("--data", type=Path, metavar="FOLDER", help="of the data sets on disk, if the recipe wants any")
    add("--threads", type=int, help="CPU threads")
    add("--workers", type=int, help="processes that make rooms ahead (default: on a GPU most of the cores, else 0)")
    add("--dry-run", action="store_true", help="every stage for a few steps, timed; what the run would come to")
    add("--package", type=Path, metavar="FOLDER", help="only copy the result of OUT to FOLDER, to ship it")
    a = parser.parse_args()
    try:
        options = Options(
            device=a.device,
            minutes=a.minutes,
            session=a.session,
            steps=a.steps,
            init=a.init,
            strategy=a.strategy,
            precision=a.precision,
            deterministic=a.deterministic,
            save_every=a.save_every,
            data=a.data,
            workers=a.workers,
        )
        train(
            a.recipe,
            a.out,
            options,
            settings=a.set,
            published=a.published,
            dry_run=a.dry_run,
            threads=a.threads,
            package_into=a.package,
        )
    except ThreerError as error:
        console = Console(stderr=True, soft_wrap=True, highlight=False)
        console.print(f"threer: {error}", style="red", markup=False)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
