"""What Ctrl-C does to a run: end a source without an end, or interrupt; never disturb what must be whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from types import FrameType


@contextmanager
def first_interrupt_calls(stop: Callable[[], None]) -> Iterator[None]:
    """Inside the block the first SIGINT only calls ``stop``, in a thread of its own; a second one interrupts.

    Nothing changes outside the main thread, or where somebody has a handler of their own (or ignores the signal).
    """
    usual = signal.default_int_handler
    if not _in_main_thread() or signal.getsignal(signal.SIGINT) is not usual:
        yield
        return
    # A handler runs between any two steps of the main thread, which may hold the lock that `stop` wants: so it only
    # wakes another thread, by the one kind of queue that is made for this.
    asked = SimpleQueue[bool]()

    def wait() -> None:
        if asked.get():
            stop()

    def handler(*_: object) -> None:
        signal.signal(signal.SIGINT, usual)
        asked.put(True)

    threading.Thread(target=wait, name="first interrupt", daemon=True).start()
    signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is handler:
            signal.signal(signal.SIGINT, usual)
        asked.put(False)


@contextmanager
def not_interrupted() -> Iterator[None]:
    """Further Ctrl-C are too late here: the run is being closed, which takes a moment."""
    before = signal.getsignal(signal.SIGINT)  # None: something that is not Python, and could not be put back
    if not _in_main_thread() or before is None:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """A Ctrl-C inside the block takes effect when it ends: for short steps that must be whole."""
    usual = signal.getsignal(signal.SIGINT)
    if not _in_main_thread() or not callable(usual):
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda *signalled: came.append(signalled))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
        if came:
            usual(*came[0])


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
