"""What a run writes for people: a table, curves, pictures, a progress bar."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor

from threer.render.pictures import GAP_PX, ByteImage, colorize, panels, save_png
from threer.training.batch import Batch

LOG = "log.csv"
PICTURES = "pictures"
SHOWN_PX = 112


class Log:
    """`log.csv`, one row for each validation, and TensorBoard's curves in `curves/` where it is installed.

    The columns are those of the first row; a run that goes on keeps them.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOG
        self._writer: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._writer = SummaryWriter(str(folder / "curves"))

    def add(self, row: Mapping[str, float | int]) -> None:
        columns = list(row)
        fresh = not self._path.exists() or self._path.stat().st_size == 0
        if not fresh:
            with self._path.open(newline="") as file:
                columns = next(csv.reader(file))
        with self._path.open("a", newline="") as file:
            writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
            if fresh:
                writer.writeheader()
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
        if self._writer is not None:
            for name, value in row.items():
                self._writer.add_scalar(name, value, row["step"])
            self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def readable(row: Mapping[str, Any]) -> str:
    return "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())


class Bar:
    """A progress bar of the run; nothing where there is no terminal."""

    def __init__(self, console: Console, shown: bool) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:5.1f} %"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not (shown and console.is_terminal),
        )
        self._task = self._bar.add_task("training", total=1.0)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def update(self, done: float, text: str) -> None:
        self._bar.update(self._task, completed=done, description=text)


def contact_sheet(path: Path, part: Batch, points: Tensor, confidence: Tensor, rows: int = 4) -> None:
    """Samples of a batch below each other: image, predicted depth, true depth, confidence of the first view.

    points [B, V, H, W, 3] and confidence [B, V, H, W] as predicted. Depths share the colours of the true one, after
    the ratio of medians; near is blue.
    """
    sheet: list[ByteImage] = []
    enlarged = max(1, SHOWN_PX // part.images.shape[-2])
    for b in range(min(rows, len(part))):
        image = ((part.images[b, 0].permute(1, 2, 0).float().cpu().numpy() + 1) * 127.5).round().clip(0, 255)
        valid = part.valid[b, 0].cpu().numpy()
        truth = np.where(valid, part.depth[b, 0].double().cpu().numpy(), np.nan)
        depth = points[b, 0, ..., 2].double().cpu().numpy()
        if valid.any():
            middle = np.median(depth[valid])
            depth = depth * (np.nanmedian(truth) / middle if abs(middle) > 1e-9 else np.nan)
        low, high = np.nanpercentile(truth, (2, 98)) if valid.any() else (0.0, 1.0)
        log_confidence = np.log(confidence[b, 0].double().cpu().numpy().clip(min=1e-9))
        row = panels(
            [
                image.astype(np.uint8),
                colorize(depth, float(low), float(high)),
                colorize(truth, float(low), float(high)),
                colorize(log_confidence),
            ]
        )
        row = row.repeat(enlarged, 0).repeat(enlarged, 1)
        sheet += [row, np.full((GAP_PX, row.shape[1], 3), 255, np.uint8)]
    path.parent.mkdir(parents=True, exist_ok=True)
    save_png(path, np.concatenate(sheet[:-1]))
