"""What a run costs: seconds of each part of the work, and memory."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class Clock:
    """Seconds spent in each named part of the work."""

    def __init__(self) -> None:
        self._begun = time.perf_counter()
        self._parts: dict[str, float] = {}

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._parts[part] = self._parts.get(part, 0.0) + time.perf_counter() - begun

    def add(self, parts: Mapping[str, float]) -> None:
        """Count what an earlier process has spent, as `seconds` gave it."""
        self._begun -= parts.get("total", 0.0)
        for part, spent in parts.items():
            if part != "total":
                self._parts[part] = self._parts.get(part, 0.0) + spent

    def total(self) -> float:
        return time.perf_counter() - self._begun

    def seconds(self) -> dict[str, float]:
        return {**{k: round(v, 3) for k, v in self._parts.items()}, "total": round(self.total(), 3)}


def peak_memory_mib() -> float | None:
    """Largest resident size of this process so far; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1024 * 1024 if sys.platform == "darwin" else 1024), 1)
