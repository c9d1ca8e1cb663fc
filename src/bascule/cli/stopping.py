"""How a command is stopped: by Ctrl-C, or by SIGTERM, with which queues and containers end a program."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PATIENCE = 8.0
"""Seconds that a process may take to end by itself; containers are killed after 10, jobs of Slurm after 30."""


@contextmanager
def stoppable() -> Iterator[list[int]]:
    """Inside the block SIGTERM does what Ctrl-C does, unless either has come just before: a queue may send it to a
    group and to each process of it, and to what is ending already. After `PATIENCE` it does so again, since what was
    done when it came may have passed over it.

    Yields:
        What has come, in its order.
    """
    came: list[int] = []
    last = float("-inf")

    def stop(number: int, _: object) -> None:
        nonlocal last
        came.append(number)
        if number == signal.SIGINT or time.monotonic() - last > PATIENCE:
            last = time.monotonic()
            raise KeyboardInterrupt

    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    handled = {number: how for number, how in usual.items() if _is_main() and signal.getsignal(number) == how}
    for number in handled:
        signal.signal(number, stop)
    try:
        yield came
    finally:
        for number, how in handled.items():
            signal.signal(number, how)


@contextmanager
def stoppable_while_waiting() -> Iterator[None]:
    """Inside the block this process ends `PATIENCE` after Ctrl-C or SIGTERM also where it waits outside of Python, for
    another process that is lost without a word. What is kept is written whole."""
    if not _is_main():
        yield
        return
    heard, told = socket.socketpair()
    told.setblocking(False)
    before = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_end_after_signal, args=(heard,), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        told.close()


def _end_after_signal(heard: socket.socket) -> None:
    """Follow the numbers of signals until the other end is closed."""
    with heard, suppress(OSError):
        while number := heard.recv(1):
            if number[0] not in (signal.SIGINT, signal.SIGTERM):
                continue
            heard.settimeout(PATIENCE)
            try:
                while heard.recv(1):
                    pass
            except TimeoutError:
                os._exit(128 + number[0])
            return


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()
