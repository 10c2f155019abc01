"""What a run leaves behind so that it can go on after a crash, and which runs may."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from threer.errors import RunError
from threer.io.atomic import plain
from threer.io.runs import Progress, RunWriter
from threer.io.runs.layout import RESUME
from threer.io.runs.snapshot import Snapshots
from threer.pipelines.streaming.resume import restore_session, save_session
from threer.pipelines.streaming.session import StreamingSession

VALUES_PER_TENSOR = 1024
INCIDENTAL = ("source", "resume", "overwrite", "save_every", "refine")
"""Settings that do not change what is reconstructed; whether the source is the same, its fingerprint tells."""


@dataclass(frozen=True)
class SavePoint:
    """Where a run can go on; the default is the beginning.

    progress  what was written
    taken     frames taken from the source
    seconds   spent so far, by part of the work
    session   as `save_session` gives it, with its ``tensors``
    """

    progress: Progress = field(default_factory=Progress)
    taken: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    session: Mapping[str, Any] | None = None
    tensors: list[Tensor] = field(default_factory=list)

    def restore(self, session: StreamingSession) -> None:
        """Make a new ``session`` go on from here. Raises `RunError` if that is impossible."""
        if self.session is not None:
            restore_session(session, self.session, self.tensors)


class RunSaver:
    """Saves a run every so many seconds; None never does."""

    def __init__(self, out: Path, every: float | None) -> None:
        self._snapshots = Snapshots(out / RESUME)
        self._every = every
        self._latest = time.monotonic()

    @property
    def due(self) -> bool:
        return self._every is not None and time.monotonic() >= self._latest + self._every

    def save(self, session: StreamingSession, writer: RunWriter, taken: int, seconds: Mapping[str, float]) -> None:
        """Save everything as it is now; all updates of ``session`` must have been given to ``writer``.

        The frames are written first, so whenever the process dies, those on disk are at least the ones that the
        state counts on. Raises `RunError`.
        """
        progress = writer.sync()
        state, tensors = save_session(session)
        self._snapshots.write(
            {"progress": asdict(progress), "taken": taken, "seconds": dict(seconds), "session": state}, tensors
        )
        self._latest = time.monotonic()

    def latest(self) -> SavePoint:
        """Where the run in the folder can go on. Raises `RunError` if what is there is damaged."""
        found = self._snapshots.read()
        if found is None:
            return SavePoint()
        state, tensors = found
        return SavePoint(Progress(**state["progress"]), state["taken"], state["seconds"], state["session"], tensors)

    def clear(self) -> None:
        """The run is complete: nothing to go on with."""
        self._snapshots.clear()


def check_same(out: Path, run: Mapping[str, Any], settings: Mapping[str, Any], weights: Mapping[str, Any]) -> None:
    """Make sure that the ``run`` in ``out`` was begun with the same source, settings and weights as now.

    A source that cannot be read again is known by its name only, and its run is only accepted if it is complete.
    Raises `RunError` naming the first difference.
    """
    advice = f"give what {out} was begun with, or choose another folder"
    live = settings["fingerprint"] is None
    if live and run["state"] != "complete":
        raise RunError(
            "a live source cannot be read again, so the run cannot be resumed; reconstruct its recording"
        )
    identity = "source" if live and run["settings"].get("fingerprint") is None else "fingerprint"
    if run["settings"].get(identity) != settings[identity]:
        raise RunError(f"{settings['source']} is not, or no longer, the source of the run; {advice}")
    if (run.get("weights") or {}).get("fingerprint") != weights["fingerprint"]:
        raise RunError(f"the weights {weights['name']} are not those of the run; {advice}")
    before, now = _flat(run["settings"]), _flat(json.loads(json.dumps(plain(settings))))
    for name in sorted(before.keys() | now.keys()):
        if name not in INCIDENTAL and before.get(name) != now.get(name):
            raise RunError(f"{name} is {now.get(name)}, the run was begun with {before.get(name)}; {advice}")


def weights_fingerprint(model: nn.Module) -> str:
    """Of the names, sizes and evenly spaced values of all tensors: telling, and quick for large networks."""
    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        values = tensor.flatten()[:: max(1, tensor.numel() // VALUES_PER_TENSOR)]
        found.update(f"{name}{list(tensor.shape)}".encode())
        found.update(values.double().cpu().numpy().tobytes())
    return found.hexdigest()


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
