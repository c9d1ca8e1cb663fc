"""One fault and what came of it, in a process with a limit on time and memory."""

from __future__ import annotations

import multiprocessing
import resource
import signal
import traceback
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

SECONDS = 10.0
"""No request may compute for longer."""
WAITING = 120.0
"""Nor take longer in all, which on a busy machine is mostly waiting for a processor."""
MEMORY = 1 << 30
"""Bytes that a request may need beyond an idle process."""


class Trial(NamedTuple):
    """What came of one fault."""

    outcome: str
    """`served` (as if nothing had happened), `refused` (one message), or one of `BAD`."""
    fault: str
    """What was done."""
    note: str = ""


BAD = ("wrong", "traceback", "slow", "big", "crash")
"""Other numbers or a message that misleads; no message but a traceback; over the limits; a process that died."""


class Overtime(BaseException):
    """A request took too long; not for `except Exception`."""


def attempt(request: Callable[[], str]) -> tuple[str, str]:
    """Carry out a request; its own verdict, `refused` with the message, or what went wrong."""
    from bascule.core.errors import RequestError

    def stop(*_: object) -> None:
        raise Overtime

    # Again and again, since some callbacks swallow what is raised in them.
    signal.signal(signal.SIGPROF, stop)
    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS, 0.5)
    signal.setitimer(signal.ITIMER_REAL, WAITING, 0.5)
    try:
        return request(), ""
    except RequestError as error:
        message = str(error)
        if message.count("\n") > 3:
            return "wrong", f"a message of {message.count(chr(10)) + 1} lines: {message[:100]!r}"
        if any(unicodedata.category(letter) in ("Cc", "Cf") and letter != "\n" for letter in message):
            return "wrong", f"control characters in the message: {message[:200]!r}"
        return "refused", message[:300]
    except Overtime:
        return "slow", f"over {SECONDS:.0f} s of computing or {WAITING:.0f} s in all"
    except MemoryError:
        return "big", f"over {MEMORY >> 20} MiB"
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return "traceback", f"{type(error).__name__}: {error} ({Path(frame.filename).name}:{frame.lineno})"[:300]
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)


def limit_memory() -> None:
    """Of this process, to what it has now and `MEMORY`."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def settle() -> None:
    """A child's start: one thread, quiet, limited."""
    import warnings

    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    limit_memory()


def try_all(experiment: Callable[[int], Trial], seeds: Iterable[int], *, workers: int) -> Iterator[Trial]:
    """Every trial, in processes of their own; a crash is a trial too."""
    waiting = list(seeds)
    context = multiprocessing.get_context("fork")
    while waiting:
        done: list[int] = []
        with ProcessPoolExecutor(workers, mp_context=context, initializer=settle) as pool:
            futures = {seed: pool.submit(experiment, seed) for seed in waiting}
            try:
                for seed, future in futures.items():
                    yield future.result()
                    done.append(seed)
            except BrokenProcessPool:
                yield Trial("crash", f"seed {waiting[len(done)]}", "the process died")
                done.append(waiting[len(done)])
        waiting = waiting[len(done) :]
