"""What a run has under it: where, how fast, how much is free."""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from threer.errors import ThreerError


@dataclass(frozen=True)
class Device:
    """A measured device.

    rate   floating-point operations a second of a square matrix product in the run's precision
    free   bytes of its memory that are free;  disk: bytes free where the run is written
    """

    name: str
    rate: float
    free: int
    disk: int

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.rate / 1e12:.3g} Tflop/s in a matrix product, {self.free / 2**30:.1f} GiB free, "
            f"disk {self.disk / 2**30:.1f} GiB free"
        )


def examine(device: torch.device, half: bool, folder: Path) -> Device:
    """Measure ``device``, in bfloat16 if ``half``. Raises ThreerError for one that cannot compute."""
    try:
        rate = matmul_rate(device, torch.bfloat16 if half else torch.float32)
        parameter = torch.ones(8, device=device, requires_grad=True)
        torch.autograd.backward((parameter * parameter).sum())
    except RuntimeError as error:
        raise ThreerError(f"the device {device} does not compute: {str(error).partition(chr(10))[0]}") from None
    if device.type == "cuda":
        name = f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    else:
        name = f"{device.type} ({platform.machine()}, {torch.get_num_threads()} threads), torch {torch.__version__}"
    return Device(name, rate, free_memory(device), shutil.disk_usage(folder).free)


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of a large matrix product."""
    size, times = (8192, 20) if device.type == "cuda" else (512, 3)
    a = torch.ones(size, size, device=device, dtype=dtype)
    a @ a
    seconds = timed(device, lambda: [a @ a for _ in range(times)])
    return 2 * size**3 * times / seconds


def timed(device: torch.device, action: Callable[[], object]) -> float:
    """Seconds of ``action``, what it queued on the device included."""
    synchronize(device)
    before = time.perf_counter()
    action()
    synchronize(device)
    return max(time.perf_counter() - before, 1e-9)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def free_memory(device: torch.device) -> int:
    """Bytes; on the CPU of the machine, or 4 GiB where it does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 4 * 2**30
