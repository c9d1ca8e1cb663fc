"""CIFAR-10 and CIFAR-100: the same pictures' format twice, as parquet or in their authors' pickles."""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bascule.core.errors import RequestError
from bascule.core.images import Images, Splits
from bascule.core.text import count
from bascule.data._files import content_digest, contents_of, reading
from bascule.data._parquet import ParquetFiles, digest, find_both
from bascule.data._unpickle import load_dict
from bascule.data.contract import Facts, class_names

_SIZE = (3, 32, 32)
_LARGEST = 2**28
"""Most bytes of a file taken from an archive; the real ones hold at most 156 million."""
_ANOTHER = "Use data/parquet for another set."
_PARQUET = ("plain_text", "data", "cifar10", "cifar100")
"""Sub-folders of clones that hold the parquet files."""


@dataclass(frozen=True, kw_only=True)
class Cifar:
    """One of the two sets: what its files and labels are called."""

    title: str
    folder: str
    """The authors' folder, unpacked."""
    archive: str
    """The same packed."""
    train: tuple[str, ...]
    """Training files in the folder, in order."""
    test: str
    meta: str
    """The file with the names of classes."""
    labels: str
    """Key of the labels in the pickles."""
    names: str
    """Key of the names of classes in `meta`."""
    column: str | None = None
    """Column of the labels in parquet files; None: as in `data/parquet`."""
    classes: tuple[str, ...]
    misspelt: tuple[tuple[str, str], ...] = ()
    """Names that copies of the set have for a class, and what the class is called."""

    def inside(self, given: Path) -> Path:
        """The folder of parquet files, the folder of pickles, or the archive, in or at what was given."""
        places = (given / self.folder, given / self.archive)
        return next((place for place in places if place.exists()), given)

    def read(self, place: Path) -> Splits:
        """The whole set. Raises RequestError."""
        if splits := self._parquet(place):
            return Splits(*(self._images(split.pixels(_SIZE, remedy=_ANOTHER), split.labels) for split in splits))
        train, test = self._batches(place)
        return Splits(self._images(_joined(train.pixels), _joined(train.labels)), self._images(*map(_joined, test)))

    def facts(self, place: Path) -> Facts:
        """Facts about the set. Raises RequestError."""
        if splits := self._parquet(place):
            labels, identity = [split.labels for split in splits], digest(*splits)
            if (size := splits[0].first_size(channels=3)) != _SIZE:
                raise RequestError(f"{place}: pictures of {size[1]} x {size[2]} pixels, not 32 x 32. {_ANOTHER}")
        else:
            labels = [_joined(part.labels) for part in self._batches(place)]
            files = [place] if place.is_file() else [place / name for name in (*self.train, self.test)]
            identity = content_digest(files)
        return Facts(size=_SIZE, classes=self.classes, train_labels=labels[0], test_labels=labels[1], digest=identity)

    def _images(self, pixels: Tensor, labels: Tensor) -> Images:
        return Images(pixels=pixels, labels=labels, ids=torch.arange(len(labels)), classes=self.classes)

    def _parquet(self, place: Path) -> tuple[ParquetFiles, ParquetFiles] | None:
        """The two splits if `place` is a folder of parquet files, None if it holds the authors' pickles."""
        if not any(any((place / name).glob("*.parquet")) for name in ("", *_PARQUET)):
            return None
        train, test = find_both(place, *_PARQUET, label=self.column)
        class_names(place, [train.labels, test.labels], self.classes)
        for split in (train, test):
            if split.names is not None and self._spelt(split.names) != self.classes:
                named = ", ".join(split.names[:10])
                raise RequestError(f"{split.files[0]}: the classes are {named}: not {self.title}. {_ANOTHER}")
        return train, test

    def _spelt(self, names: Sequence[str]) -> tuple[str, ...]:
        right = dict(self.misspelt)
        return tuple(right.get(name, name) for name in names)

    def _batches(self, place: Path) -> tuple[_Part, _Part]:
        """Training and test part of the authors' folder or archive."""
        batches = {}
        for path, content in self._archived(place) if place.is_file() else self._unpacked(place):
            loaded = load_dict(content, path)
            if path.name == self.meta:
                self._check_names(path, loaded.get(self.names.encode()))
            else:
                pixels = _pixels(path, loaded.get(b"data"))
                labels = self._labels(path, loaded.get(self.labels.encode()))
                if len(pixels) != len(labels):
                    raise RequestError(f"{path}: {count(len(pixels), 'image')} but {count(len(labels), 'label')}")
                batches[path.name] = pixels, labels
        missing = [name for name in (*self.train, self.test) if name not in batches]
        if missing:
            raise RequestError(
                f"{place}: {', '.join(missing)} not found. Give a folder of train*.parquet and test*.parquet, "
                f"the folder {self.folder} or the file {self.archive}; {contents_of(place)}."
            )
        train, test = ([batches[name] for name in names] for names in (self.train, (self.test,)))
        return _Part(*zip(*train, strict=True)), _Part(*zip(*test, strict=True))

    @property
    def _files(self) -> tuple[str, ...]:
        return (*self.train, self.test, self.meta)

    def _unpacked(self, folder: Path) -> Iterator[tuple[Path, bytes]]:
        for path in (folder / name for name in self._files):
            if path.is_file():
                with reading(path, "file"):
                    content = path.read_bytes()
                yield path, content

    def _archived(self, archive: Path) -> Iterator[tuple[Path, bytes]]:
        with reading(archive, "gzipped tar archive"), gzip.open(archive) as file:
            with tarfile.open(fileobj=file, mode="r|") as members:
                for member in members:
                    path = archive / member.name
                    if path.name in self._files and (content := members.extractfile(member)):
                        if member.size > _LARGEST:
                            problem = f"{member.size} bytes, far more than a file of {self.title} has"
                            raise RequestError(f"{path}: {problem}")
                        yield path, content.read()
            while file.read(2**20):
                pass  # the checksum of the archive comes last

    def _check_names(self, path: Path, names: Any) -> None:
        if names != [name.encode() for name in self.classes]:
            raise RequestError(f"{path}: the classes are {_some(names)}: not {self.title}")

    def _labels(self, path: Path, labels: Any) -> np.ndarray:
        total = len(self.classes)
        if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < total for label in labels):
            raise RequestError(
                f"{path}: {self.labels!r} must be a list of integers in 0..{total - 1}: not a file of {self.title}, "
                "or damaged"
            )
        return np.array(labels, np.int64)


def _some(names: Any) -> str:
    """The first three names of classes, and how many more there are."""
    if not isinstance(names, list) or not names:
        return repr(names)[:80]
    texts = [name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in names]
    more = f" and {len(texts) - 3} more" if len(texts) > 3 else ""
    return f"{', '.join(texts[:3])}{more}"


class _Part(NamedTuple):
    """One split, as the arrays of its files."""

    pixels: tuple[np.ndarray, ...]
    """uint8, N x 3 x 32 x 32 each."""
    labels: tuple[np.ndarray, ...]
    """int64, shape (N,) each."""


def _joined(arrays: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate(arrays))


def _pixels(path: Path, data: Any) -> np.ndarray:
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != 3 * 32 * 32:
        given = f"shape {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        raise RequestError(f"{path}: 'data' must be an array of bytes of shape (N, 3072), found {given}")
    return data.reshape(-1, *_SIZE)
