"""Any set in one NumPy archive."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import IO, Annotated, ClassVar, Self

import numpy as np
import torch
from annotated_types import Ge, Lt
from torch import Tensor

from bascule.core import catalog
from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.core.images import Images, Splits, channel_axis, channels_first
from bascule.core.text import count
from bascule.data._files import content_digest, reading
from bascule.data._share import drawn_for_test
from bascule.data.contract import (
    TEST_SHARE_UNSET,
    Facts,
    Source,
    check_same_size,
    class_names,
    find,
    numbered,
    warn_of_darkness,
)
from bascule.data.decode import allocate

_TRAINS = ("train", "training")
"""Names of the training split in names of arrays, in any case of letters."""
_TESTS = ("test", "testing", "val", "valid", "validation")
"""Names of the test split; the first there is counts."""
_IMAGES = ("x_{}", "{}_images", "{}_x", "x{}", "{}x", "images_{}", "{}_image", "{}_data", "data_{}")
_LABELS = ("y_{}", "{}_labels", "{}_y", "y{}", "{}y", "labels_{}", "{}_label", "{}_targets", "targets_{}")
_ALL_IMAGES = ("x", "images", "image", "data")
"""Names of the images where there is no split."""
_ALL_LABELS = ("y", "labels", "label", "targets", "target")
_NEEDED = "needs the arrays x_train, y_train, x_test, y_test or train_images, train_labels, test_images, test_labels"
_BLOCK = 2**24
"""Bytes of an array converted at once."""


@component
class Npz(Source):
    """One `.npz` file with `x_train, y_train, x_test, y_test` (Keras) or `train_images, train_labels, ...` (MedMNIST).

    Images are N x H x W, N x H x W x C or N x C x H x W with 1 or 3 channels: integers in 0..255, or floats that either
    all lie in [0, 1] (spread over 0..255 and rounded) or are whole numbers in 0..255. Labels are integers of shape (N,)
    or (N, 1), or the names of classes as texts. The arrays may also be called `train_x`, `X_train`, `xtrain`,
    `images_train`, `train_data`, ... with `y` and `labels` likewise; in place of `test`, where there is none, `val` is
    used, or, of `x, y` or `images, labels` alone, what `test_share` draws. Other arrays are not used. Pickled objects
    are refused.
    """

    later: ClassVar[tuple[str, ...]] = ("test_share",)

    path: str
    """The file, under the data folder or absolute."""
    classes: tuple[str, ...] | None = None
    """Class names in label order; by default the label numbers, or the texts that are the labels, sorted."""
    test_share: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Where no arrays are for tests, this share of each class, drawn by a fixed seed, is the test set; 0: none."""

    def read(self, roots: Sequence[Path]) -> Splits:
        train, test = self._both(find(roots, self.path))
        return Splits(train.images(), test.images())

    def read_train(self, roots: Sequence[Path]) -> Images:
        train, _ = self._splits(find(roots, self.path))
        return train.images()

    def without_test(self) -> Self:
        return replace(self, test_share=0.0)

    def peek(self, roots: Sequence[Path]) -> Facts:
        path = find(roots, self.path)
        train, test = self._both(path)
        largest = [_largest(split.part.images) for split in (train, test)]
        if largest[0] <= 1:
            warn_of_darkness(catalog.name_of(self))
        return Facts(
            size=train.part.size,
            classes=train.classes,
            train_labels=train.chosen_labels,
            test_labels=test.chosen_labels,
            digest=content_digest([path]),
        )

    def _both(self, path: Path) -> tuple[_Split, _Split]:
        train, test = self._splits(path)
        if test is None:
            x, y = train.part.images, train.part.labels
            raise RequestError(
                f"{path}: {_NEEDED}; it holds {x.key}, {y.key} of shapes {x.shape}, {y.shape}. Add the test images, "
                f"{TEST_SHARE_UNSET}"
            )
        return train, test

    def _splits(self, path: Path) -> tuple[_Split, _Split | None]:
        """What is trained on and, where there is any, what is tested on."""
        parts = _open(path)
        labels, classes = _labels(path, parts, self.classes)
        scale = _scale(path, [part.images for part in parts])
        whole = [_Split(part, y, classes, scale) for part, y in zip(parts, labels, strict=True)]
        if len(whole) == 2:
            return whole[0], whole[1]
        if not self.test_share:
            return whole[0], None
        drawn = drawn_for_test(path, labels[0], classes, self.test_share, "array")
        return replace(whole[0], chosen=~drawn), replace(whole[0], chosen=drawn)


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
        shape = list(self.images.shape[1:])
        channels = 1 if self.channel_axis is None else shape.pop(self.channel_axis - 1)
        return channels, shape[0], shape[1]

    @property
    def channel_axis(self) -> int | None:
        return channel_axis(self.images.shape)

    @property
    def named(self) -> bool:
        """Whether the labels are texts."""
        return self.labels.dtype.kind in "US"

    def read_labels(self) -> np.ndarray:
        """int64 or texts, shape (N,)."""
        kind = np.str_ if self.named else np.int64
        with reading(self.labels.path, ".npz file"):  # bytes that are no text
            return np.concatenate([block.reshape(-1).astype(kind) for block in self.labels.blocks()])


@dataclass(frozen=True)
class _Split:
    """The images of one split: all of a part or some."""

    part: _Part
    labels: Tensor
    """int64, of all images of the part."""
    classes: tuple[str, ...]
    scale: int
    """What floats are multiplied with to lie in 0..255."""
    chosen: Tensor | None = None
    """bool, which of the part's images are of the split; None: all."""

    @property
    def chosen_labels(self) -> Tensor:
        return self.labels if self.chosen is None else self.labels[self.chosen]

    def images(self) -> Images:
        pixels, labels = _pixels(self.part, self.scale), self.chosen_labels
        if self.chosen is not None:
            pixels = pixels[self.chosen]
        return Images(pixels=pixels, labels=labels, ids=torch.arange(len(labels)), classes=self.classes)


def _open(path: Path) -> list[_Part]:
    """Training arrays and, where there are any, test arrays."""
    with reading(path, ".npz file"), zipfile.ZipFile(path) as archive:
        there = [name.removesuffix(".npy") for name in archive.namelist()]
        train = _keys(there, _TRAINS) or _pair(there, _ALL_IMAGES, _ALL_LABELS)
        if train is None:
            raise RequestError(f"{path}: {_NEEDED}; it holds {', '.join(there) or 'none'}")
        pairs = filter(None, (train, _keys(there, _TESTS)))
        parts = [_Part(images=_array(path, archive, x), labels=_array(path, archive, y)) for x, y in pairs]
    for part in parts:
        _check(part)
        check_same_size(path, parts[0].size, part.size)
    return parts


def _keys(there: Sequence[str], splits: Sequence[str]) -> tuple[str, str] | None:
    """Names of the images and the labels of the first of these splits that has both; None where none has."""
    return next(filter(None, (_pair(there, _named(_IMAGES, split), _named(_LABELS, split)) for split in splits)), None)


def _named(patterns: Sequence[str], split: str) -> list[str]:
    return [pattern.format(split) for pattern in patterns]


def _pair(there: Sequence[str], images: Sequence[str], labels: Sequence[str]) -> tuple[str, str] | None:
    pair = _first(there, images), _first(there, labels)
    return pair if all(pair) else None


def _first(there: Sequence[str], names: Sequence[str]) -> str:
    """The array with the first of the names, as it is written rather than in another case; "" where there is none."""
    written = [name for name in names if name in there]
    return next(iter((*written, *(key for name in names for key in there if key.lower() == name))), "")


def _labels(
    path: Path, parts: Sequence[_Part], classes: tuple[str, ...] | None
) -> tuple[list[Tensor], tuple[str, ...]]:
    """int64, shape (N,), for each part, and the names of the classes."""
    if len({part.named for part in parts}) > 1:
        kinds = " but ".join(f"{part.labels.key} holds {'texts' if part.named else 'numbers'}" for part in parts)
        raise RequestError(f"{path}: {kinds}; labels must be numbers in both, or texts in both")
    labels = [part.read_labels() for part in parts]
    if not parts[0].named:
        numbers = [torch.from_numpy(one) for one in labels]
        return numbers, class_names(path, [numbers[0], numbers[-1]], classes)
    return numbered(f"{path}: {parts[0].labels.key}", labels, classes)


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
    if not (len(shape) == 3 or channel_axis(shape) is not None) or 0 in shape[1:]:
        raise RequestError(
            f"{images} has shape {shape}; images must be N x H x W, N x H x W x C or N x C x H x W with 1 or 3 channels"
        )
    if images.dtype.kind not in "iuf":
        raise RequestError(f"{images} holds {images.dtype}; images must be uint8, or floats in [0, 1]")
    if labels.dtype.kind not in "iuUS" or not labels.dtype.itemsize:
        wide = len(labels.shape) == 2 and labels.shape[1] > 1
        one_hot = ". One-hot labels are not taken: save their argmax(1)" if wide else ""
        raise RequestError(f"{labels} holds {labels.dtype}; labels must be integers from 0, or texts{one_hot}")
    if labels.shape[1:] not in ((), (1,)) or not labels.shape:
        raise RequestError(
            f"{labels} has shape {labels.shape}; give one class number per image, shape (N,) or (N, 1). Several labels "
            "per image, as ChestMNIST has, are not taken"
        )
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


def _pixels(part: _Part, scale: int) -> Tensor:
    """uint8, N x C x H x W."""
    out = allocate(len(part.images), *part.size)
    start = 0
    for block in part.images.blocks():
        if block.dtype.kind == "f":
            block = np.rint(block.astype(np.float64) * scale)
        elif block.dtype != np.uint8 and (block.min() < 0 or block.max() > 255):
            raise _range_error(part.images, block)
        out[start : start + len(block)] = channels_first(block, part.channel_axis)
        start += len(block)
    return torch.from_numpy(out)
