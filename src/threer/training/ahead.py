"""Rounds of clips made ahead of time by processes of their own, so that training never waits for a room."""

from __future__ import annotations

import os
import pickle
import signal
import threading
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process

import torch

from threer.data.synthetic.clips import Scenes
from threer.errors import ThreerError
from threer.training.rounds import Kept, Rounds

EACH = 2  # rounds that a process is ahead


class Ahead:
    """The next rounds, drawn by ``processes`` processes; where a CPU trains, rendered by them as well.

    They are those that a process would make for itself, whatever their number. They end when this object is closed,
    and when the process that made it is killed.
    """

    def __init__(self, rounds: Rounds, device: torch.device, processes: int) -> None:
        self._rounds, self._device = rounds, device
        self.depth = EACH * processes
        self._work = _rendered if device.type == "cpu" else _drawn
        # a fork would share the threads and the GPU of this process
        self._executor = ProcessPoolExecutor(processes, get_context("spawn"), _begin, (rounds,))
        self._made: dict[int, Future[bytes]] = {}

    def take(self, number: int) -> Kept:
        """Round ``number``; the ones after it are begun, those before it are forgotten.

        Raises `ThreerError` when a process was killed.
        """
        for passed in [made for made in self._made if made < number]:
            self._made.pop(passed).cancel()
        try:
            for coming in range(number, number + 1 + self.depth):
                if coming not in self._made:
                    self._made[coming] = self._executor.submit(self._work, coming)
            made = pickle.loads(self._made.pop(number).result())
        except BrokenProcessPool:
            raise ThreerError(
                "a process that draws rooms ahead was killed, perhaps for want of memory; "
                "run the same command again with fewer --workers, or with --workers 0"
            ) from None
        return made if isinstance(made, Kept) else self._rounds.render(number, made, self._device)

    def close(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)


_mine: Rounds | None = None  # of a process that works ahead


def _begin(rounds: Rounds) -> None:
    global _mine
    _mine = rounds
    torch.set_num_threads(1)
    for ignored in (signal.SIGINT, signal.SIGTERM):  # the trainer ends in good order and then closes
        signal.signal(ignored, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="end with the trainer", daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _drawn(number: int) -> bytes:
    """`Scenes` of a round. As bytes: tensors would travel by shared memory, a file descriptor each."""
    assert _mine is not None
    scenes: Scenes = _mine.draw(number)
    return pickle.dumps(scenes)


def _rendered(number: int) -> bytes:
    """`Kept` of a round."""
    assert _mine is not None
    return pickle.dumps(_mine.render(number, _mine.draw(number), torch.device("cpu")))
