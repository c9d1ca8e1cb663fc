"""Any set in one NumPy archive."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from bascule.core import catalog
from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.core.images import Images, Splits
from bascule.core.text import count
from bascule.data import Facts, Source, check_same_size, class_names, find, warn_of_darkness
from bascule.data._files import content_digest, reading
from bascule.data.decode import allocate

_KEYS = (("x_train", "y_train", "x_test", "y_test"), ("train_images", "train_labels", "test_images", "test_labels"))
_BLOCK = 2**24
"""Bytes of an array converted at once."""


@component
class Npz(Source):
    """One `.npz` file with `x_train, y_train, x_test, y_test` (Keras) or `train_images, train_labels, ...` (MedMNIST).

    Images are N x H x W, N x H x W x C or N x C x H x W with 1 or 3 channels: integers in 0..255, or floats that either
    all lie in [0, 1] (spread over 0..255 and rounded) or are whole numbers in 0..255. Labels are integers of shape (N,)
    or (N, 1). `val_images` and other arrays are not used. Pickled objects are refused.
    """

    path: str
    """The file, under the data folder or absolute."""
    classes: tuple[str, ...] | None = None
    """Class names in label order; by default the label numbers."""

    def read(self, roots: Sequence[Path]) -> Splits:
        path = find(roots, self.path)
        train, test = _open(path)
        scale = _scale(path, [part.images for part in (train, test)])
        labels = [part.read_labels() for part in (train, test)]
        classes = class_names(path, labels, self.classes)
        return Splits(*(_images(part, y, classes, scale) for part, y in zip((train, test), labels, strict=True)))

    def peek(self, roots: Sequence[Path]) -> Facts:
        path = find(roots, self.path)
        train, test = _open(path)
        labels = [part.read_labels() for part in (train, test)]
        _scale(path, [part.images for part in (train, test)])
        largest = [_largest(part.images) for part in (train, test)]
        if largest[0] <= 1:
            warn_of_darkness(catalog.name_of(self))
        return Facts(
            size=train.size,
            classes=class_names(path, labels, self.classes),
            train_labels=labels[0],
            test_labels=labels[1],
            digest=content_digest([path]),
        )


@dataclass(frozen=True, kw_only=True)
class _Array:
    """An array inside the file, of which only the header has been read."""

    path: Path
    key: str
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool

    def __str__(self) -> str:
        return f"{self.path}: {self.key}"

    def blocks(self) -> Iterator[np.ndarray]:
        """The array in pieces along its first axis, so that wide types are never held whole."""
        row = self.dtype.itemsize * prod(self.shape[1:])
        rows = len(self) if self.fortran else max(1, _BLOCK // row)
        member = f"{self.key}.npy"
        with reading(self.path, ".npz file"), zipfile.ZipFile(self.path) as archive, archive.open(member) as file:
            _header(file)
            for start in range(0, len(self), rows):
                shape = (min(rows, len(self) - start), *self.shape[1:])
                content = file.read(shape[0] * row)
                yield np.frombuffer(content, self.dtype).reshape(shape, order="F" if self.fortran else "C")

    def __len__(self) -> int:
        return self.shape[0]


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Images and labels of one split."""

    images: _Array
    labels: _Array

    @property
    def size(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        _, *sides = self.images.shape
        if len(sides) == 2:
            return 1, sides[0], sides[1]
        return (sides[2], sides[0], sides[1]) if self.channels_last else (sides[0], sides[1], sides[2])

    @property
    def channels_last(self) -> bool:
        return self.images.shape[-1] in (1, 3)

    def read_labels(self) -> Tensor:
        """int64, shape (N,)."""
        return torch.from_numpy(np.concatenate([block.reshape(-1).astype(np.int64) for block in self.labels.blocks()]))


def _open(path: Path) -> tuple[_Part, _Part]:
    with reading(path, ".npz file"), zipfile.ZipFile(path) as archive:
        there = [name.removesuffix(".npy") for name in archive.namelist()]
        keys = next((keys for keys in _KEYS if set(keys) <= set(there)), None)
        if keys is None:
            wanted = " or ".join(", ".join(keys) for keys in _KEYS)
            raise RequestError(f"{path}: needs the arrays {wanted}; it holds {', '.join(there) or 'none'}")
        x_train, y_train, x_test, y_test = (_array(path, archive, key) for key in keys)
    train, test = _Part(images=x_train, labels=y_train), _Part(images=x_test, labels=y_test)
    for part in (train, test):
        _check(part)
    check_same_size(path, train.size, test.size)
    return train, test


def _array(path: Path, archive: zipfile.ZipFile, key: str) -> _Array:
    member = archive.getinfo(f"{key}.npy")
    with archive.open(member) as file:
        shape, fortran, dtype = _header(file)
        start = file.tell()
    if min(shape, default=0) < 0:
        raise RequestError(f"{path}: {key} announces shape {shape}: it is damaged")
    if dtype.hasobject:
        raise RequestError(
            f"{path}: {key} holds Python objects, which may run code; save it as a plain array of numbers"
        )
    if start + dtype.itemsize * prod(shape) != member.file_size:
        raise RequestError(f"{path}: {key} announces shape {shape}, which is not what the file holds: it is damaged")
    return _Array(path=path, key=key, shape=shape, dtype=dtype, fortran=fortran)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether in Fortran order, and type of an array in NumPy's format."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    raise ValueError(f"array format {version}")


def _check(part: _Part) -> None:
    images, labels = part.images, part.labels
    shape = images.shape
    channelled = len(shape) == 4 and (shape[-1] in (1, 3) or shape[1] in (1, 3))
    if not (len(shape) == 3 or channelled) or 0 in shape[1:]:
        raise RequestError(
            f"{images} has shape {shape}; images must be N x H x W, N x H x W x C or N x C x H x W with 1 or 3 channels"
        )
    if images.dtype.kind not in "iuf":
        raise RequestError(f"{images} holds {images.dtype}; images must be uint8, or floats in [0, 1]")
    if labels.dtype.kind not in "iu":
        raise RequestError(f"{labels} holds {labels.dtype}; labels must be integers from 0")
    if labels.shape[1:] not in ((), (1,)) or not labels.shape:
        raise RequestError(f"{labels} has shape {labels.shape}; give one class number per image, shape (N,) or (N, 1)")
    if len(images) != len(labels):
        raise RequestError(
            f"{images} holds {count(len(images), 'image')} but {labels.key} {count(len(labels), 'label')}"
        )
    if len(images) == 0:
        raise RequestError(f"{images} holds no images")


def _scale(path: Path, arrays: Sequence[_Array]) -> int:
    """What float images are multiplied with to lie in 0..255, the same for training and test images."""
    floats = [array for array in arrays if array.dtype.kind == "f"]
    low, high, whole = 0.0, 0.0, True
    for array in floats:
        for block in array.blocks():
            if not np.isfinite(block).all():
                raise RequestError(f"{array} holds NaN or infinite values; images must be uint8, or floats in [0, 1]")
            low, high = min(low, float(block.min())), max(high, float(block.max()))
            whole = whole and bool((block == np.rint(block)).all())
    if low >= 0 and high <= 1:
        return 255
    if low >= 0 and high <= 255 and whole:
        return 1
    raise RequestError(
        f"{path}: {' and '.join(array.key for array in floats)} range from {low:g} to {high:g}"
        f"{'' if whole else ', with fractions'}; images must be uint8, floats in [0, 1] or whole numbers in 0..255. "
        "Save them before they are normalised."
    )


def _largest(array: _Array) -> int:
    """The largest value of integers, or 255 for floats; of bytes, a value above 1 will do.

    Raises:
        RequestError: An integer outside 0..255.
    """
    if array.dtype.kind == "f":
        return 255
    largest = 0
    for block in array.blocks():
        if block.min() < 0 or block.max() > 255:
            raise _range_error(array, block)
        largest = max(largest, int(block.max()))
        if largest > 1 and array.dtype == np.uint8:
            break
    return largest


def _range_error(array: _Array, block: np.ndarray) -> RequestError:
    return RequestError(f"{array} ranges from {block.min()} to {block.max()}; integers must lie in 0..255")


def _images(part: _Part, labels: Tensor, classes: tuple[str, ...], scale: int) -> Images:
    out = allocate(len(labels), *part.size)
    start = 0
    for block in part.images.blocks():
        if block.dtype.kind == "f":
            block = np.rint(block.astype(np.float64) * scale)
        elif block.dtype != np.uint8 and (block.min() < 0 or block.max() > 255):
            raise _range_error(part.images, block)
        if block.ndim == 3:
            block = block[:, None]
        elif part.channels_last:
            block = block.transpose(0, 3, 1, 2)
        out[start : start + len(block)] = block
        start += len(block)
    return Images(pixels=torch.from_numpy(out), labels=labels, ids=torch.arange(len(labels)), classes=classes)
