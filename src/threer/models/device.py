"""Where to compute."""

from __future__ import annotations

import torch

from threer.errors import ThreerError


def find_device(name: str) -> str:
    """The device called ``name``; the best one here for "auto". Raises ThreerError for one that is not here."""
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return next(device for device in ("cuda", "mps", "cpu") if present[device])
    kind, _, number = name.partition(":")
    if kind not in present or (number and not (kind == "cuda" and number.isdecimal())):
        raise ThreerError(f"unknown device {name!r}; valid: auto, cpu, cuda, cuda:0, cuda:1 …, mps")
    if not present[kind] or (number and int(number) >= torch.cuda.device_count()):
        raise ThreerError(f"the device {name!r} is not on this machine; use --device auto or cpu")
    return name
