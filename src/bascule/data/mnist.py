"""MNIST, and any set of the same four IDX files, gzipped or not."""

from __future__ import annotations

import gzip
import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.core.images import Images, Splits
from bascule.core.text import count
from bascule.data._files import content_digest, contents_of, reading
from bascule.data.contract import Facts, Source, check_same_size, class_names, find
from bascule.data.download import Remote

_STEMS = ("train", "t10k")
_PARTS = ("images-idx3-ubyte", "labels-idx1-ubyte")
_PLACES = ("https://ossci-datasets.s3.amazonaws.com/mnist", "https://storage.googleapis.com/cvdf-datasets/mnist")
_FILES = (
    ("train-images-idx3-ubyte.gz", 9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
    ("train-labels-idx1-ubyte.gz", 28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
    ("t10k-images-idx3-ubyte.gz", 1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
    ("t10k-labels-idx1-ubyte.gz", 4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
)
"""Name, bytes and SHA-256 of the files as their authors published them."""


@component
class Mnist(Source):
    """MNIST in the IDX format of its authors: 60,000 / 10,000 images, 1 x 28 x 28, 10 classes.

    Reads `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte` and `t10k-labels-idx1-ubyte`,
    each plain or with `.gz`. Fashion-MNIST and other sets in these files are read with another `path`.
    Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits", 1998.
    """

    remote: ClassVar[tuple[Remote, ...] | None] = tuple(
        Remote(path=f"MNIST/raw/{name}", places=_PLACES, size=size, sha256=sha256) for name, size, sha256 in _FILES
    )

    path: str | None = None
    """Folder of the four files; by default `MNIST/raw`, `mnist/raw`, `MNIST` or `mnist` under the data folder."""
    classes: tuple[str, ...] | None = None
    """Class names in label order; by default the label numbers."""

    def read(self, roots: Sequence[Path]) -> Splits:
        folder = self._folder(roots)
        labels = [_labels(folder, stem) for stem in _STEMS]
        classes = class_names(folder, labels, self.classes)
        images = [_idx(_file(folder, stem, "images-idx3-ubyte"), 3) for stem in _STEMS]
        _check(folder, [image.shape for image in images], labels)
        return Splits(*(_images(x, y, classes) for x, y in zip(images, labels, strict=True)))

    def peek(self, roots: Sequence[Path]) -> Facts:
        folder = self._folder(roots)
        labels = [_labels(folder, stem) for stem in _STEMS]
        shapes = [_header(_file(folder, stem, "images-idx3-ubyte"), 3) for stem in _STEMS]
        _check(folder, shapes, labels)
        return Facts(
            size=(1, shapes[0][1], shapes[0][2]),
            classes=class_names(folder, labels, self.classes),
            train_labels=labels[0],
            test_labels=labels[1],
            digest=content_digest([_file(folder, stem, part) for stem in _STEMS for part in _PARTS]),
        )

    def _folder(self, roots: Sequence[Path]) -> Path:
        if self.path:
            return find(roots, self.path)
        return find(roots, "MNIST/raw", "mnist/raw", "MNIST", "mnist", download="mnist")


def _images(pixels: np.ndarray, labels: Tensor, classes: tuple[str, ...]) -> Images:
    x = torch.from_numpy(pixels).unsqueeze(1)
    return Images(pixels=x, labels=labels, ids=torch.arange(len(labels)), classes=classes)


def _check(folder: Path, shapes: Sequence[tuple[int, ...]], labels: Sequence[Tensor]) -> None:
    for stem, shape, part in zip(_STEMS, shapes, labels, strict=True):
        if shape[0] != len(part):
            raise RequestError(f"{folder}: {count(shape[0], f'{stem} image')} but {count(len(part), 'label')}")
    train, test = ((1, shape[1], shape[2]) for shape in shapes)
    check_same_size(folder, train, test)


# --- IDX files -------------------------------------------------------------------------------------------------------


def _labels(folder: Path, stem: str) -> Tensor:
    """int64, shape (N,)."""
    return torch.from_numpy(_idx(_file(folder, stem, "labels-idx1-ubyte"), 1).astype(np.int64))


def _file(folder: Path, stem: str, part: str) -> Path:
    name = f"{stem}-{part}"
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.is_file():
            return candidate
    raise RequestError(f"{folder}: neither {name} nor {name}.gz is there; {contents_of(folder)}")


def _open(path: Path) -> io.BufferedIOBase:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def _header(path: Path, dimensions: int) -> tuple[int, ...]:
    """Sizes from the header, which the file's length must fit."""
    start = 4 + 4 * dimensions
    with reading(path, "IDX file"):
        with _open(path) as file:
            shape = _shape(path, file.read(start), dimensions)
        expected = start + math.prod(shape)
        if _length(path) != (expected % 2**32 if path.suffix == ".gz" else expected):
            _idx(path, dimensions)  # says what is wrong, unless it is a rare gzip file, of several parts
    return shape


def _length(path: Path) -> int:
    """Bytes of the file; of a gzip file what its last four bytes say that it holds, modulo 2**32."""
    if path.suffix != ".gz":
        return path.stat().st_size
    with path.open("rb") as file:
        file.seek(-4, os.SEEK_END)
        return int.from_bytes(file.read(4), "little")


def _shape(path: Path, header: bytes, dimensions: int) -> tuple[int, ...]:
    """Sizes from an IDX header: two zero bytes, type 8 (unsigned byte), number of dimensions, big-endian sizes."""
    if len(header) < 4 + 4 * dimensions or header[:4] != bytes([0, 0, 8, dimensions]):
        raise RequestError(f"{path}: not an IDX file of unsigned bytes with {dimensions} dimension(s)")
    shape = tuple(int.from_bytes(header[4 + 4 * i : 8 + 4 * i], "big") for i in range(dimensions))
    if 0 in shape:
        raise RequestError(f"{path}: header announces no data (sizes {' x '.join(map(str, shape))})")
    return shape


def _idx(path: Path, dimensions: int) -> np.ndarray:
    with reading(path, "IDX file"), _open(path) as file:
        content = bytearray(file.read())
    start = 4 + 4 * dimensions
    shape = _shape(path, bytes(content[:start]), dimensions)
    if len(content) - start != math.prod(shape):
        raise RequestError(f"{path}: header announces {math.prod(shape)} bytes, file holds {len(content) - start}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
