"""Data that are read once and sent to the workers of a cluster, which may share no folder with this machine."""

from __future__ import annotations

import socket
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bascule.core.catalog import name_of
from bascule.core.errors import RequestError
from bascule.core.images import Exact, Images, Splits
from bascule.data.contract import Source, default_roots
from bascule.running.context import Reader


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
