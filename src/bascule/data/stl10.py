"""STL-10 in its authors' binary files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.core.images import Images, Splits
from bascule.core.text import count
from bascule.data._files import content_digest, contents_of, reading
from bascule.data.contract import Facts, Source, find

_CLASSES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
_SIZE = (3, 96, 96)
_BYTES = 3 * 96 * 96
_FOLDER, _ARCHIVE = "stl10_binary", "stl10_binary.tar.gz"
_SPLITS = ("train", "test")
_NAMES = "class_names.txt"


@component
class Stl10(Source):
    """STL-10: 5,000 / 8,000 images, 3 x 96 x 96, 10 classes.

    Reads `train_X.bin`, `train_y.bin`, `test_X.bin` and `test_y.bin` (MD5 918c2871b30a85fa023e0c44e0bee87f,
    5a34089d4802c674881badbb80307741, 7f263ba9f9e0b06b93213547f721ac82, 36f9794fa4beb8a2c72628de14fa638e) of the
    unpacked `stl10_binary.tar.gz` (2,640,397,119 bytes, MD5 91f7769df0f17e558f3565bffb0c7dfb): pictures column by
    column, labels from 1. The 100,000 images without labels are not used.
    Source: A. Coates, H. Lee, A. Y. Ng, "An Analysis of Single-Layer Networks in Unsupervised Feature Learning",
    AISTATS 2011, https://cs.stanford.edu/~acoates/stl10; the pictures come from ImageNet.
    """

    path: str | None = None
    """Folder of the files, or one that holds `stl10_binary`; by default `stl10_binary`, `stl10` or `STL10` under the
    data folder."""

    def read(self, roots: Sequence[Path]) -> Splits:
        folder = self._folder(roots)
        return Splits(*(_images(folder, split) for split in _SPLITS))

    def peek(self, roots: Sequence[Path]) -> Facts:
        folder = self._folder(roots)
        labels = [_labels(folder, split) for split in _SPLITS]
        for split, part in zip(_SPLITS, labels, strict=True):
            _check(folder / f"{split}_X.bin", part)
        return Facts(
            size=_SIZE,
            classes=_CLASSES,
            train_labels=labels[0],
            test_labels=labels[1],
            digest=content_digest([folder / f"{split}_{part}.bin" for split in _SPLITS for part in "Xy"]),
        )

    def _folder(self, roots: Sequence[Path]) -> Path:
        given = find(roots, *((self.path,) if self.path else (_FOLDER, "stl10", "STL10", _ARCHIVE)))
        folder = given / _FOLDER if (given / _FOLDER).is_dir() else given
        needed = [f"{split}_{part}.bin" for split in _SPLITS for part in "Xy"]
        missing = [name for name in needed if not (folder / name).is_file()]
        if missing:
            packed = folder.is_file() or (folder / _ARCHIVE).is_file()
            what = f"unpack the archive first: tar -xzf {_ARCHIVE}" if packed else contents_of(folder)
            raise RequestError(f"{folder}: {', '.join(missing)} not found; {what}")
        _check_names(folder / _NAMES)
        return folder


def _check_names(path: Path) -> None:
    if path.is_file():
        with reading(path, "text file"):
            names = tuple(path.read_text().split())
        if names != _CLASSES:
            raise RequestError(f"{path}: the classes are {', '.join(names[:10])}: not STL-10")


def _images(folder: Path, split: str) -> Images:
    labels, path = _labels(folder, split), folder / f"{split}_X.bin"
    _check(path, labels)
    with reading(path, "file"):
        columns = np.fromfile(path, np.uint8).reshape(-1, *_SIZE)  # N x C x W x H
    pixels = torch.from_numpy(np.ascontiguousarray(columns.transpose(0, 1, 3, 2)))
    return Images(pixels=pixels, labels=labels, ids=torch.arange(len(labels)), classes=_CLASSES)


def _labels(folder: Path, split: str) -> Tensor:
    """int64, shape (N,), from 0."""
    path = folder / f"{split}_y.bin"
    with reading(path, "file"):
        labels = np.fromfile(path, np.uint8)
    if not len(labels):
        raise RequestError(f"{path}: the file is empty")
    if not labels.all() or labels.max() > len(_CLASSES):
        raise RequestError(f"{path}: labels range from {labels.min()} to {labels.max()}; those of STL-10 lie in 1..10")
    return torch.from_numpy(labels.astype(np.int64) - 1)


def _check(path: Path, labels: Tensor) -> None:
    size = path.stat().st_size
    if size != _BYTES * len(labels):
        raise RequestError(
            f"{path}: {size:,} bytes, which is not {count(len(labels), 'image')} (one for each label) of 96 x 96 x 3: "
            "cut short, or not a file of STL-10"
        )
