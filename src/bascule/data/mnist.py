"""MNIST, and any set of the same four IDX files, gzipped or not."""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.core.fingerprint import file_digest
from bascule.core.images import Images, Splits
from bascule.data import Facts, Source, find, named_classes

_STEMS = {"train": "train", "test": "t10k"}


@component
class Mnist(Source):
    """MNIST in the IDX format of its authors: 60,000 / 10,000 images, 1 x 28 x 28, 10 classes.

    Reads `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte` and `t10k-labels-idx1-ubyte`,
    each plain or with `.gz`. Fashion-MNIST and other sets in these files are read with another `path`.
    Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits", 1998.
    """

    path: str | None = None
    """Folder of the four files; by default `MNIST/raw`, `mnist/raw`, `MNIST` or `mnist` under the data folder."""
    classes: tuple[str, ...] | None = None
    """Class names in label order; by default the label numbers."""

    def read(self, roots: Sequence[Path]) -> Splits:
        folder = self._folder(roots)
        return Splits(*(self._split(folder, stem) for stem in _STEMS.values()))

    def peek(self, roots: Sequence[Path]) -> Facts:
        folder = self._folder(roots)
        labels = {split: torch.from_numpy(_labels(folder, stem)) for split, stem in _STEMS.items()}
        files = [_file(folder, f"{stem}-{part}") for stem in _STEMS.values() for part in _PARTS]
        images = _file(folder, f"{_STEMS['train']}-images-idx3-ubyte")
        with _open(images) as file:
            header = file.read(16)
        _, height, width = _shape(images, header, 3)
        return Facts(
            size=(1, height, width),
            classes=self._classes(max(int(part.max()) for part in labels.values())),
            train_labels=labels["train"],
            test_labels=labels["test"],
            digest=hashlib.sha256(" ".join(map(file_digest, files)).encode()).hexdigest(),
        )

    def _folder(self, roots: Sequence[Path]) -> Path:
        return find(roots, *([self.path] if self.path else ["MNIST/raw", "mnist/raw", "MNIST", "mnist"]))

    def _classes(self, highest: int) -> tuple[str, ...]:
        return named_classes(highest + 1, self.classes)

    def _split(self, folder: Path, stem: str) -> Images:
        images, labels = _idx(_file(folder, f"{stem}-images-idx3-ubyte"), 3), _labels(folder, stem)
        if len(images) != len(labels):
            raise RequestError(f"{folder}: {len(images)} {stem} images but {len(labels)} labels")
        return Images(
            pixels=torch.from_numpy(images).unsqueeze(1),
            labels=torch.from_numpy(labels),
            ids=torch.arange(len(labels)),
            classes=self._classes(int(labels.max())),
        )


_PARTS = ("images-idx3-ubyte", "labels-idx1-ubyte")


def _labels(folder: Path, stem: str) -> np.ndarray:
    return _idx(_file(folder, f"{stem}-labels-idx1-ubyte"), 1).astype(np.int64)


def _file(folder: Path, name: str) -> Path:
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.is_file():
            return candidate
    raise RequestError(f"{folder}: neither {name} nor {name}.gz is there")


def _open(path: Path) -> gzip.GzipFile:
    # GzipFile and a plain file read alike; only the reading side is used.
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def _shape(path: Path, header: bytes, dimensions: int) -> tuple[int, ...]:
    """Sizes from an IDX header: two zero bytes, type 8 (unsigned byte), number of dimensions, big-endian sizes."""
    if len(header) < 4 + 4 * dimensions or header[:4] != bytes([0, 0, 8, dimensions]):
        raise RequestError(f"{path}: not an IDX file of unsigned bytes with {dimensions} dimension(s)")
    return tuple(int.from_bytes(header[4 + 4 * i : 8 + 4 * i], "big") for i in range(dimensions))


def _idx(path: Path, dimensions: int) -> np.ndarray:
    try:
        with _open(path) as file:
            content = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise RequestError(f"{path}: damaged file ({error})") from error
    start = 4 + 4 * dimensions
    shape = _shape(path, content[:start], dimensions)
    if len(content) - start != math.prod(shape):
        raise RequestError(f"{path}: header announces {math.prod(shape)} bytes, file holds {len(content) - start}")
    return np.frombuffer(bytearray(content), np.uint8, offset=start).reshape(shape)
