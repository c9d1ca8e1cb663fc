"""CIFAR-10, as parquet or in its authors' pickles."""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.core.images import Images, Splits
from bascule.core.text import count
from bascule.data import Facts, Source, class_names, find
from bascule.data._files import content_digest, contents_of, reading
from bascule.data._parquet import ParquetFiles, digest, find_splits
from bascule.data._unpickle import load_dict
from bascule.data.download import Remote

_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_SIZE = (3, 32, 32)
_FOLDER, _ARCHIVE = "cifar-10-batches-py", "cifar-10-python.tar.gz"
_TRAIN, _TEST = tuple(f"data_batch_{i}" for i in range(1, 6)), "test_batch"
_NAMES = "batches.meta"
_LARGEST = 2**28
"""Most bytes of a file taken from an archive; the real ones hold a ninth of it."""
_ANOTHER = "Use data/parquet for another set."


@component
class Cifar10(Source):
    """CIFAR-10: 50,000 / 10,000 images, 3 x 32 x 32, 10 classes.

    Reads parquet files (columns and file names as in `data/parquet`), the authors' folder `cifar-10-batches-py`, or
    their `cifar-10-python.tar.gz` without unpacking it. Nothing that the authors' pickles name is ever run.
    Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """

    remote: ClassVar[tuple[Remote, ...] | None] = (
        Remote(
            path=_ARCHIVE,
            places=("https://www.cs.toronto.edu/~kriz", "https://storage.googleapis.com/tensorflow/tf-keras-datasets"),
            size=170_498_071,
            sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        ),
    )

    path: str | None = None
    """Folder or archive; by default `cifar10`, `cifar-10-batches-py` or `cifar-10-python.tar.gz` under the data
    folder."""

    def read(self, roots: Sequence[Path]) -> Splits:
        place = self._place(roots)
        if splits := _parquet(place):
            return Splits(*(_images(split.pixels(_SIZE, remedy=_ANOTHER), split.labels) for split in splits))
        train, test = _batches(place)
        return Splits(_images(_joined(train.pixels), _joined(train.labels)), _images(*map(_joined, test)))

    def peek(self, roots: Sequence[Path]) -> Facts:
        place = self._place(roots)
        if splits := _parquet(place):
            labels, identity = [split.labels for split in splits], digest(*splits)
            if (size := splits[0].first_size(channels=3)) != _SIZE:
                raise RequestError(f"{place}: pictures of {size[1]} x {size[2]} pixels, not 32 x 32. {_ANOTHER}")
        else:
            labels = [_joined(part.labels) for part in _batches(place)]
            files = [place] if place.is_file() else [place / name for name in (*_TRAIN, _TEST)]
            identity = content_digest(files)
        return Facts(size=_SIZE, classes=_CLASSES, train_labels=labels[0], test_labels=labels[1], digest=identity)

    def _place(self, roots: Sequence[Path]) -> Path:
        """The folder of parquet files, the folder of pickles, or the archive."""
        given = find(roots, self.path) if self.path else find(roots, "cifar10", _FOLDER, _ARCHIVE, download="cifar10")
        inside = (given / _FOLDER, given / _ARCHIVE)
        return next((place for place in inside if place.exists()), given)


def _images(pixels: Tensor, labels: Tensor) -> Images:
    return Images(pixels=pixels, labels=labels, ids=torch.arange(len(labels)), classes=_CLASSES)


def _parquet(place: Path) -> tuple[ParquetFiles, ParquetFiles] | None:
    """The two splits if `place` is a folder of parquet files, None if it holds the authors' pickles."""
    inside = ("plain_text", "data")
    if not any(any((place / name).glob("*.parquet")) for name in ("", *inside)):
        return None
    train, test = find_splits(place, *inside)
    class_names(place, [train.labels, test.labels], _CLASSES)
    for split in (train, test):
        if split.names is not None and split.names != _CLASSES:
            named = ", ".join(split.names[:10])
            raise RequestError(f"{split.files[0]}: the classes are {named}: not CIFAR-10. {_ANOTHER}")
    return train, test


# --- the authors' pickles --------------------------------------------------------------------------------------------


class _Part(NamedTuple):
    """One split, as the arrays of its files."""

    pixels: tuple[np.ndarray, ...]
    """uint8, N x 3 x 32 x 32 each."""
    labels: tuple[np.ndarray, ...]
    """int64, shape (N,) each."""


def _joined(arrays: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate(arrays))


def _batches(place: Path) -> tuple[_Part, _Part]:
    """Training and test part of the authors' folder or archive."""
    batches = {}
    for path, content in _archived(place) if place.is_file() else _unpacked(place):
        loaded = load_dict(content, path)
        if path.name == _NAMES:
            _check_names(path, loaded.get(b"label_names"))
        else:
            pixels, labels = _pixels(path, loaded.get(b"data")), _labels(path, loaded.get(b"labels"))
            if len(pixels) != len(labels):
                raise RequestError(f"{path}: {count(len(pixels), 'image')} but {count(len(labels), 'label')}")
            batches[path.name] = pixels, labels
    missing = [name for name in (*_TRAIN, _TEST) if name not in batches]
    if missing:
        raise RequestError(
            f"{place}: {', '.join(missing)} not found. Give a folder of train*.parquet and test*.parquet, "
            f"the folder {_FOLDER} or the file {_ARCHIVE}; {contents_of(place)}."
        )
    train, test = ([batches[name] for name in names] for names in (_TRAIN, (_TEST,)))
    return _Part(*zip(*train, strict=True)), _Part(*zip(*test, strict=True))


def _unpacked(folder: Path) -> Iterator[tuple[Path, bytes]]:
    for path in (folder / name for name in (*_TRAIN, _TEST, _NAMES)):
        if path.is_file():
            with reading(path, "file"):
                content = path.read_bytes()
            yield path, content


def _archived(archive: Path) -> Iterator[tuple[Path, bytes]]:
    with reading(archive, "gzipped tar archive"), gzip.open(archive) as file:
        with tarfile.open(fileobj=file, mode="r|") as members:
            for member in members:
                path = archive / member.name
                if path.name in (*_TRAIN, _TEST, _NAMES) and (content := members.extractfile(member)):
                    if member.size > _LARGEST:
                        raise RequestError(f"{path}: {member.size} bytes, far more than a file of CIFAR-10 has")
                    yield path, content.read()
        while file.read(2**20):
            pass  # the checksum of the archive comes last


def _check_names(path: Path, names: Any) -> None:
    if names != [name.encode() for name in _CLASSES]:
        raise RequestError(f"{path}: the classes are {names!r}: not CIFAR-10")


def _pixels(path: Path, data: Any) -> np.ndarray:
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != 3 * 32 * 32:
        given = f"shape {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        raise RequestError(f"{path}: 'data' must be an array of bytes of shape (N, 3072), found {given}")
    return data.reshape(-1, *_SIZE)


def _labels(path: Path, labels: Any) -> np.ndarray:
    if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < 10 for label in labels):
        raise RequestError(f"{path}: 'labels' must be a list of integers in 0..9: not a file of CIFAR-10, or damaged")
    return np.array(labels, np.int64)
