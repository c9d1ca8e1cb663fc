"""Cells sent to the workers of a cluster, which may share no folder with this machine: with their data, read once, and
the files that they need."""

from __future__ import annotations

import pickle
import socket
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bascule.core.catalog import name_of
from bascule.core.errors import RequestError
from bascule.core.images import Exact, Images, Splits
from bascule.data.contract import Source, default_roots
from bascule.plan.plan import Cell
from bascule.running.context import Reader, RunContext
from bascule.running.mirror import Changes, needed, whole
from bascule.running.worker import Order
from bascule.running.workplace import code_of_cell


@dataclass(frozen=True)
class Arrays:
    """Images as arrays, which the processes of a node read from the same memory."""

    pixels: NDArray[Any]
    """uint8, or float32 in [0, 1], N x C x H x W."""
    labels: NDArray[np.int64]
    ids: NDArray[np.int64]
    classes: tuple[str, ...]

    def images(self) -> Images:
        """As they were. Their pixels may lie in memory that must not be written to, and nothing writes there."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
            pixels = torch.from_numpy(self.pixels)
        labels, ids = (torch.from_numpy(values.copy()) for values in (self.labels, self.ids))
        return Images(
            pixels=pixels if pixels.dtype == torch.uint8 else Exact(pixels),
            labels=labels,
            ids=ids,
            classes=self.classes,
        )


@dataclass(frozen=True)
class Data:
    """What a source gives."""

    train: Arrays
    test: Arrays
    held_out: Arrays | None = None


@dataclass(frozen=True)
class InPlace:
    """Data that are not sent: decoded batch by batch, or too many. Each node reads its own."""

    digest: str
    """Identity of their content."""
    why: str


def read_data(source: Source, roots: Sequence[Path], most: float) -> Data | InPlace:
    """The data of a source, to be sent, if they are in memory and have up to `most` bytes.

    Raises:
        RequestError: They cannot be read.
    """
    splits = source.load(roots)
    sets = [*splits, source.load_held_out(roots)] if source.held_out else [*splits]
    arrays = [_arrays(images) for images in sets]
    if any(one is None for one in arrays):
        return InPlace(source.facts(roots).digest, "which are decoded from their files batch by batch")
    there = [one for one in arrays if one is not None]
    if sum(one.pixels.nbytes for one in there) > most:
        return InPlace(source.facts(roots).digest, "which are too many for the memory that its nodes share with Ray")
    return Data(*there)


def _arrays(images: Images) -> Arrays | None:
    pixels = images.pixels.x if isinstance(images.pixels, Exact) else images.pixels
    if not isinstance(pixels, torch.Tensor):
        return None
    return Arrays(pixels.numpy(), images.labels.numpy(), images.ids.numpy(), images.classes)


class SentReader(Reader):
    """Gives a worker the data that it was sent, and reads on its own machine those that lie there."""

    def __init__(self) -> None:
        self._fetch: dict[str, Callable[[], Data] | InPlace] = {}

    def learn(self, sent: Mapping[str, Callable[[], Data] | InPlace]) -> None:
        """How to get data, by the `repr` of their source."""
        self._fetch.update(sent)

    def splits(self, source: Source, roots: Sequence[Path]) -> Splits:
        """Training and test images, on the CPU.

        Raises:
            RequestError: They are not on this machine, or others.
        """
        data = self._data(source)
        if isinstance(data, InPlace):
            return super().splits(source, _here(source, roots, data))
        return Splits(data.train.images(), data.test.images())

    def held_out(self, source: Source, roots: Sequence[Path]) -> Images:
        """The images that a source holds out, on the CPU.

        Raises:
            RequestError: As `splits`, or none are set aside.
        """
        data = self._data(source)
        if isinstance(data, InPlace):
            return super().held_out(source, _here(source, roots, data))
        if data.held_out is None:
            raise RequestError("no images are set aside for defenders: give a number", place=("held_out",))
        return data.held_out.images()

    def _data(self, source: Source) -> Data | InPlace:
        found = self._fetch[repr(source)]
        return found if isinstance(found, InPlace) else found()


def _here(source: Source, roots: Sequence[Path], wanted: InPlace) -> list[Path]:
    """The folders searched on this machine, once its data are known to be those wanted."""
    places = [*roots, *default_roots()]
    here = socket.gethostname()
    what = f"the images of {name_of(source)}, {wanted.why}, must lie on every node of the cluster; on {here}"
    try:
        digest = source.facts(places).digest
    except RequestError as error:
        raise RequestError(
            f"{what} they cannot be read: {error}. Copy them there, to the same place or below its $BASCULE_DATA",
            place=("data",),
        ) from error
    if digest != wanted.digest:
        raise RequestError(f"{what} there are others. Copy them from here", place=("data",))
    return places


# --- sending ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sent:
    """A cell to do, with what it needs."""

    order: Order
    fingerprint: str
    files: Mapping[str, Callable[[], Changes]] = field(default_factory=dict)
    """What is there of it and of the cells it needs, by fingerprint, for who does not see the run's folder."""
    data: Mapping[str, Callable[[], Data] | InPlace] = field(default_factory=dict)
    """By the `repr` of the source."""


@dataclass(frozen=True)
class _Ref:
    """Something in Ray's object store, for a worker to fetch."""

    ref: Any

    def __call__(self) -> Any:
        import ray

        return ray.get(self.ref)


class Sending:
    """What cells need, put into the object store once: from there each node fetches it once."""

    def __init__(self, ray: Any, run: RunContext, most: float) -> None:
        """Send the cells of a run.

        Args:
            ray: The cluster.
            run: Its record is here.
            most: Bytes of the data of one source.
        """
        self._ray, self._run, self._most = ray, run, most
        self._data: dict[str, _Ref | InPlace] = {}
        self._made: dict[str, _Ref] = {}

    def of(self, cell: Cell, *, files: bool) -> Sent:
        """The cell with the data that it needs, and with the files, if these are to be sent.

        Raises:
            RequestError: The data cannot be read.
        """
        there: dict[str, Any] = {}
        if files:
            there = {other.fingerprint: self._files(other) for other in cell.needs}
            there[cell.fingerprint] = _Ref(self._ray.put(whole(self._run.record.cell(cell.fingerprint).path)))
        sources = {repr(one.setup.data): one.setup.data for one in (cell, *cell.made_from)}
        data = {key: self._read(key, source) for key, source in sources.items()}
        return Sent(Order(pickle.dumps(cell), code_of_cell(cell)), cell.fingerprint, there, data)

    def _files(self, cell: Cell) -> _Ref:
        if cell.fingerprint not in self._made:
            found = needed(self._run.record.cell(cell.fingerprint))
            self._made[cell.fingerprint] = _Ref(self._ray.put(found))
        return self._made[cell.fingerprint]

    def _read(self, key: str, source: Source) -> _Ref | InPlace:
        if key not in self._data:
            found = read_data(source, self._run.roots, self._most)
            self._data[key] = found if isinstance(found, InPlace) else _Ref(self._ray.put(found))
        return self._data[key]
