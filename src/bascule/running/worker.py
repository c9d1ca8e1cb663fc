"""A process that does the cells it is sent, one after another, until whoever started it stops sending."""

from __future__ import annotations

import functools
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import IO, Any

import torch

from bascule.core.errors import RequestError
from bascule.core.progress import Progress
from bascule.plan.plan import Cell
from bascule.running.telling import Telling
from bascule.running.workplace import Workplace

_EVERY = 0.5
"""Seconds between two words on how far a stage is."""


@dataclass(frozen=True)
class Order:
    """A cell to do, as `Workplace.do` wants it."""

    content: bytes
    code: Mapping[str, str]


@dataclass(frozen=True)
class Reached:
    """How far the current cell is; no stage between two of them."""

    stage: str
    total: int
    done: int
    note: str


@dataclass(frozen=True)
class Epoch:
    """An epoch of the cell's training has ended, with this point of its curve."""

    values: Mapping[str, float]


@dataclass(frozen=True)
class Ended:
    """The cell has ended: well, or with this failure, which is recorded unless it has a `kind`."""

    seconds: float
    failure: str | None = None
    kind: str = ""
    """Name of the error that kept the failure from being recorded."""


@dataclass(frozen=True)
class Refused:
    """The request itself is wrong."""

    error: RequestError


def serve() -> None:
    """Do what comes through standard input, a `Workplace` and then orders; answers go through standard output.

    What the work prints goes to standard error. When the input ends, so does the process, at once: whoever started it
    has gone or wants nothing more, and everything that is kept was written whole.
    """
    torch.set_num_threads(1)
    given, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    try:
        place: Workplace = pickle.load(given)
    except EOFError:
        return
    place = telling_of_it(place, functools.partial(_say, answers))
    orders: SimpleQueue[Order] = SimpleQueue()
    threading.Thread(target=_read, args=(given, orders), daemon=True).start()
    while True:
        _say(answers, done(place, orders.get()))
        if place.run.device.type == "cuda":
            torch.cuda.empty_cache()  # others work on the same device


def _read(given: IO[bytes], orders: SimpleQueue[Order]) -> None:
    try:
        while True:
            orders.put(pickle.load(given))
    finally:
        os._exit(0)


def _say(answers: IO[bytes], word: Any) -> None:
    try:
        pickle.dump(word, answers)
        answers.flush()
    except OSError:
        os._exit(1)  # nobody is there


def telling_of_it(place: Workplace, say: Callable[[Any], object]) -> Workplace:
    """The same workplace, whose work tells `say` how far it is."""
    told = replace(place.run, progress=_Progress(say), telling=_Epochs(say, place.run.telling.names))
    return replace(place, run=told)


def done(place: Workplace, order: Order) -> Ended | Refused:
    """Do what is ordered; how it ended."""
    began = time.monotonic()
    try:
        failure, kind = place.do(order.content, order.code), ""
    except RequestError as error:
        return Refused(error)
    except Exception as error:  # such as a cell that cannot be unpacked
        failure, kind = f"{type(error).__name__}: {error}", type(error).__name__
    return Ended(time.monotonic() - began, failure, kind)


class _Epochs(Telling):
    """Tells whoever sent the cell of the epochs of its training."""

    def __init__(self, say: Callable[[Any], object], names: tuple[str, ...]) -> None:
        super().__init__(names)
        self._say = say

    def epoch(self, cell: Cell, values: Mapping[str, float]) -> None:
        self._say(Epoch(dict(values)))


class _Progress(Progress):
    """Tells whoever sent the cell how far it is, now and then."""

    def __init__(self, say: Callable[[Any], object]) -> None:
        super().__init__()
        self._say, self._name, self._total = say, "", 0
        self._told = 0.0

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[None]:
        self._name, self._total = name, total
        self._tell(0, "")
        yield
        self._name, self._total = "", 0
        self._tell(0, "")

    def update(self, done: int, note: str = "") -> None:
        if time.monotonic() - self._told >= _EVERY:
            self._tell(done, note)

    def _tell(self, done: int, note: str) -> None:
        self._told = time.monotonic()
        self._say(Reached(self._name, self._total, done, note))
