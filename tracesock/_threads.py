"""tracesock's own threads in somebody else's process."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

# Sent to the thread at fault; where that blocks them, no handler hears of it.
_FAULTS = {"SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV", "SIGSYS", "SIGTRAP"}
_masks = hasattr(signal, "pthread_sigmask")  # not on Windows
_blocked = (
    {number for number in signal.valid_signals() if getattr(number, "name", "") not in _FAULTS}
    if _masks
    else set()
)
_saved: list[Any] = []  # the mask from before _block()


@contextmanager
def unsignalled() -> Iterator[None]:
    """Threads that begin in this block are sent no signals.

    The kernel gives a process's signal to any thread that does not block it (signal(7)). A program
    blocks one in all of its threads to wait for it, by sigwait(3) or signalfd(2): a thread that it
    knows nothing of would take it away, or end the process. The mask is that of the thread that
    starts another (pthread_create(3)).
    """
    if not _masks:
        yield
        return
    # Asked first: where a handler is due, the call that blocks raises what that raises.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, _blocked)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start(thread: Thread) -> None:
    """Start a thread that is sent no signals."""
    with unsignalled():
        thread.start()


@contextmanager
def unsignalled_after_fork() -> Iterator[None]:
    """As `unsignalled`, and for the threads that what is made in this block starts anew in a forked
    child, by os.register_at_fork(), whose functions run in the order of their registration."""
    with unsignalled():
        if _masks:
            os.register_at_fork(after_in_child=_block)
        try:
            yield
        finally:
            if _masks:
                os.register_at_fork(after_in_child=_unblock)


def _block() -> None:
    _saved.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    signal.pthread_sigmask(signal.SIG_BLOCK, _blocked)


def _unblock() -> None:
    while _saved:
        signal.pthread_sigmask(signal.SIG_SETMASK, _saved.pop())
