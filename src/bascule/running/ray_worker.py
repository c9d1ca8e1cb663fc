"""A worker of a Ray cluster: one cell after another, in the run's folder or, where that is not, one of its own."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch

from bascule.core.errors import RequestError
from bascule.core.files import write_atomically
from bascule.record.lock import is_locked, lock_run
from bascule.record.run import RunRecord
from bascule.running.mirror import Mirror
from bascule.running.sent import Sent, SentReader
from bascule.running.worker import Ended, Refused, done, telling_of_it
from bascule.running.workplace import Workplace

_ROOM = 256 * 2**20
"""Bytes below which a disk counts as full."""
_PREFIX = "bascule-worker-"
_NEW = 60.0
"""Seconds before a folder that nobody holds is nobody's."""


@dataclass(frozen=True)
class Here:
    """A worker is ready."""

    node: str
    """Its machine, for people."""
    node_id: str
    shared: bool
    """Whether it works in the run's own folder."""


@dataclass(frozen=True)
class Full:
    """The worker's disk is full, and nothing can be done there; perhaps it was in the middle of a cell."""

    here: Here
    folder: str
    reason: str

    def __str__(self) -> str:
        return f"{self.folder} on {self.here.node}: {self.reason}"


class RayWorker:
    """Lives in a process of the cluster, as Ray's actor. What it says is a list of words at a time."""

    def __init__(self, place: Workplace, token: tuple[str, str], made_by: str, threads: int) -> None:
        """Work for a run.

        Args:
            place: The workplace; its device is the kind, of which Ray gives one.
            token: Name and content of a file in the run's folder.
            made_by: Version of the package of whoever holds the run.
            threads: Of torch.
        """
        self._place, self._token, self._made_by, self._threads = place, token, made_by, threads
        self._reader = SentReader()
        self._words: SimpleQueue[Any] = SimpleQueue()
        self._own: Path | None = None
        self._held = ExitStack()
        self._here = Here(socket.gethostname(), _node_id(), shared=False)

    def arrive(self) -> Here | Full | Refused:
        """Look around."""
        try:
            self._check()
        except RequestError as error:
            return Refused(error)
        torch.set_num_threads(self._threads)
        speed = self._place.run.speed
        speed = speed.with_reading(speed.reading.on(self._threads))
        self._place = replace(self._place, run=replace(self._place.run, reader=self._reader, speed=speed))
        if _sees(self._place.run.record.path, self._token):
            self._here = replace(self._here, shared=True)
            return self._here
        try:
            self._own = self._held.enter_context(own_folder())
        except OSError as error:
            return Full(self._here, tempfile.gettempdir(), str(error.strerror or error))
        return self._full() or self._here

    def do(self, sent: Sent) -> list[Any]:
        """Begin a cell; the first words about it."""
        threading.Thread(target=self._work, args=(sent,), daemon=True).start()
        return self.listen()

    def listen(self) -> list[Any]:
        """The next words: how far the cell is, what changed in its folder, and in the end how it ended."""
        words = [self._words.get()]
        while not self._words.empty():
            words.append(self._words.get())
        return words

    def leave(self) -> None:
        """Clear up."""
        self._held.close()

    def _check(self) -> None:
        run, node = self._place.run, socket.gethostname()
        if (here := version("bascule")) != self._made_by:
            raise RequestError(
                f"bascule is {self._made_by} here and {here} on {node}; install the same version on every node",
                place=("engine",),
            )
        if run.device.type == "cuda" and not torch.cuda.is_available():
            raise RequestError(
                f"{node} has a GPU for Ray, but its torch sees no CUDA device: install torch with CUDA there, or ask "
                "for cpu",
                place=("device",),
            )
        run.speed.check(run.device)

    def _work(self, sent: Sent) -> None:
        try:
            self._words.put(self._done(sent))
        except BaseException as error:  # nobody else hears of it: no room for what was sent, say
            ended = Ended(0.0, f"{type(error).__name__}: {error}", type(error).__name__)
            self._words.put(self._unless_full(ended) or ended)
        if self._place.run.device.type == "cuda":
            torch.cuda.empty_cache()  # others may work on the same device

    def _done(self, sent: Sent) -> Ended | Refused | Full:
        self._reader.learn(sent.data)
        if self._own is None:
            return done(telling_of_it(self._place, self._words.put), sent.order)
        shutil.rmtree(self._own / "cells", ignore_errors=True)
        record = RunRecord(self._own)
        for fingerprint, fetch in sent.files.items():
            fetch().carry_out(record.cell(fingerprint).path)
        mirror = Mirror(record.cell(sent.fingerprint).path)

        def say(word: Any) -> None:
            if changes := mirror.changes():
                self._words.put(changes)
            self._words.put(word)

        place = replace(self._place, run=replace(self._place.run, record=record))
        ended = done(telling_of_it(place, say), sent.order)
        if isinstance(ended, Ended) and ended.failure is not None and (full := self._unless_full(ended)) is not None:
            return full
        if changes := mirror.changes():
            self._words.put(changes)
        return ended

    def _unless_full(self, ended: Ended) -> Full | None:
        """What is to be said instead of a failure that a full disk is the reason of."""
        return self._full(f" ({ended.failure})")

    def _full(self, why: str = "") -> Full | None:
        """Whether the disk of its own folder is full."""
        if self._own is None:
            return None
        try:
            free = shutil.disk_usage(self._own).free
        except OSError as error:
            return Full(self._here, str(self._own), f"{error.strerror or error}{why}")
        return Full(self._here, str(self._own), f"{free / 2**20:.0f} MiB are free{why}") if free < _ROOM else None


def _sees(folder: Path, token: tuple[str, str]) -> bool:
    """Whether the run's folder is the same one here, and can be written to."""
    name, content = token
    try:
        if (folder / name).read_text() != content:
            return False
        probe = folder / f".seen.{os.getpid()}-{secrets.token_hex(4)}"  # named as what is cleared away if it is left
        write_atomically(probe, lambda temporary: temporary.touch())
        probe.unlink()
    except OSError:
        return False
    return True


def _node_id() -> str:
    """Ray's name of this node."""
    import ray

    return str(ray.get_runtime_context().get_node_id()) if ray.is_initialized() else ""


@contextmanager
def own_folder() -> Iterator[Path]:
    """A folder of this process alone, removed after the block; what killed ones left is removed too.

    Raises:
        OSError: None can be made.
    """
    base = Path(tempfile.gettempdir())
    for left in base.glob(f"{_PREFIX}*"):
        try:
            if time.time() - left.stat().st_mtime > _NEW and not is_locked(left):
                shutil.rmtree(left, ignore_errors=True)
        except OSError:
            continue  # another one's, or gone in between
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    try:
        with lock_run(folder, "bascule run"):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
