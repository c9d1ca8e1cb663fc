"""Pictures that are decoded on demand, decoded before they are asked for: while a step runs, the next ones are ready.

Nothing is drawn here and no pixel changes, so that results are the same with any number of workers and with none ahead.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from bascule.core.errors import RequestError
from bascule.core.host import available_cores
from bascule.core.images import Images, Shown

READ_AHEAD = 256
"""MiB of decoded pictures that wait at most, unless told otherwise."""
_PART = 16
"""Pictures that a worker decodes at a time."""
_MOST = 64
"""Batches that wait at most, however small they are."""


@dataclass(frozen=True)
class Reading:
    """How pictures are read: for speed and memory, and so no setting of a study.

    Raises:
        RequestError: No worker, or less than nothing ahead.
    """

    workers: int | None = None
    """Threads that decode; None: one for each core that this process may use."""
    read_ahead: int = READ_AHEAD
    """MiB of decoded pictures that may wait; 0: none is decoded before it is asked for."""

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise RequestError(f"at least one thread that decodes; got {self.workers}", place=("workers",))
        if self.read_ahead < 0:
            raise RequestError(f"MiB from 0 (nothing ahead) on; got {self.read_ahead}", place=("read_ahead",))

    @property
    def threads(self) -> int:
        """`workers`, counted."""
        return available_cores() if self.workers is None else self.workers

    def shared_by(self, processes: int) -> Reading:
        """As each of so many processes reads: they have the cores together."""
        return self.on(max(1, available_cores() // processes))

    def on(self, cores: int) -> Reading:
        """As a process reads that has so many cores."""
        return replace(self, workers=cores) if self.workers is None else self


_READING: ContextVar[Reading] = ContextVar("reading", default=Reading())  # noqa: B039  (frozen)


def threads() -> int:
    """Threads that decode here."""
    return _READING.get().threads


@contextmanager
def reading_as(reading: Reading) -> Iterator[None]:
    """Inside the block pictures are read in this way."""
    token = _READING.set(reading)
    try:
        yield
    finally:
        _READING.reset(token)


class Ahead:
    """The batches of a set in an order that is known beforehand; a context, whose workers end with it.

    Args:
        images: The set. Nothing of it is read ahead unless it is decoded on demand.
        places: Positions of the images of a batch, by its number from 0, int64 on the CPU; None where they are not
            known yet, or there is no such batch.
    """

    def __init__(self, images: Images, places: Callable[[int], Tensor | None]) -> None:
        self._images, self._places, self._reading = images, places, _READING.get()
        self._waiting: deque[tuple[int, _Decoding]] = deque()
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def batch(self, number: int, index: Tensor) -> Tensor:
        """The images of batch `number`, floats in [0, 1], B x C x H x W, on the set's device; the next ones are begun.

        Args:
            number: Of the batch.
            index: Its positions, on any device.

        Raises:
            RequestError: One of them is damaged.
        """
        if not self._images.is_decoded:
            return self._images.batch(index)
        while self._waiting and self._waiting[0][0] != number:  # another one than was expected
            self._waiting.popleft()[1].cancel()
        decoding = self._waiting.popleft()[1] if self._waiting else self._begin(index.cpu())
        self._begin_next(number + 1)
        return self._images.on_device(decoding.pixels())

    def close(self) -> None:
        """Stop at once: nobody waits for pictures that were not begun."""
        for _, decoding in self._waiting:
            decoding.cancel()
        self._waiting.clear()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def _begin_next(self, number: int) -> None:
        """Begin the batches from this number on, as far as they are known and there is room."""
        number += len(self._waiting)
        free = self._reading.read_ahead * 2**20 - sum(decoding.nbytes for _, decoding in self._waiting)
        while len(self._waiting) < _MOST and (index := self._places(number)) is not None:
            free -= len(index) * self._images.pixels.shape[1:].numel()
            if free < 0:
                break
            self._waiting.append((number, self._begin(index)))
            number += 1

    def _begin(self, index: Tensor) -> _Decoding:
        if self._pool is None:
            alone = Reading(workers=1)  # a worker decodes in no further threads
            self._pool = ThreadPoolExecutor(
                self._reading.threads, thread_name_prefix="decode", initializer=_READING.set, initargs=(alone,)
            )
        return _Decoding(self._images, index, self._pool)


class _Decoding:
    """A batch that is being decoded, part by part."""

    def __init__(self, images: Images, index: Tensor, pool: ThreadPoolExecutor) -> None:
        shape = len(index), *images.pixels.shape[1:]
        # From pinned memory the device copies while the processor goes on.
        self._pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=images.device.type == "cuda")
        self._parts: list[Future[None]] = [
            pool.submit(self._decode, images, index[start : start + _PART], start)
            for start in range(0, len(index), _PART)
        ]
        self.nbytes = self._pixels.nbytes

    def pixels(self) -> Tensor:
        """Wait for them. Raises what went wrong with the first part, in order, that something went wrong with."""
        for part in self._parts:
            part.result()
        return self._pixels

    def cancel(self) -> None:
        """What is not begun need not be done."""
        for part in self._parts:
            part.cancel()

    def _decode(self, images: Images, index: Tensor, start: int) -> None:
        # NumPy copies in this thread; torch would start more of them in each worker.
        self._pixels.numpy()[start : start + len(index)] = images.pixels[index].numpy()


def read_batches(images: Shown, parts: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Of each of these positions, in order, themselves and the images there as `images.batch` gives them.

    Those that are decoded on demand are decoded ahead.

    Args:
        images: The set.
        parts: Positions of the images of each batch, on the set's device.
    """
    if not (isinstance(images, Images) and images.is_decoded):
        for index in parts:
            yield index, images.batch(index)
        return
    places = list(parts)
    with Ahead(images, lambda number: places[number].cpu() if number < len(places) else None) as ahead:
        for number, index in enumerate(places):
            yield index, ahead.batch(number, index)
