"""SVHN, the cropped digits, in its authors' MATLAB files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.core.images import Images, Splits
from bascule.core.text import count
from bascule.data._files import content_digest, contents_of, reading
from bascule.data.contract import Facts, Source, class_names, find, named_classes
from bascule.data.download import Remote

_TRAIN, _TEST = "train_32x32.mat", "test_32x32.mat"
_CLASSES = named_classes(10)
_SIZE = (3, 32, 32)
_FILES = (
    (_TRAIN, 182_040_794, "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8"),
    (_TEST, 64_275_384, "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b"),
)
"""Name, bytes and SHA-256 of the files as their authors published them."""


@component
class Svhn(Source):
    """SVHN, format 2 (cropped digits): 73,257 / 26,032 images, 3 x 32 x 32, 10 classes.

    Reads `train_32x32.mat` (MD5 e26dedcc434d2e4c54c9b2d4a06d8373) and `test_32x32.mat` (MD5
    eb5a983be6a315427106f1b164d9cef3); their label 10 is the digit 0, and class 0 here. The 531,131 images of
    `extra_32x32.mat` are not used.
    Source: Y. Netzer, T. Wang, A. Coates, A. Bissacco, B. Wu, A. Y. Ng, "Reading Digits in Natural Images with
    Unsupervised Feature Learning", NIPS Workshop on Deep Learning and Unsupervised Feature Learning, 2011,
    http://ufldl.stanford.edu/housenumbers; "for non-commercial use only".
    """

    remote: ClassVar[tuple[Remote, ...] | None] = tuple(
        Remote(path=f"svhn/{name}", places=("http://ufldl.stanford.edu/housenumbers",), size=size, sha256=sha256)
        for name, size, sha256 in _FILES
    )

    path: str | None = None
    """Folder of the two files; by default `svhn`, `SVHN` or the data folder itself."""

    def read(self, roots: Sequence[Path]) -> Splits:
        return Splits(*map(_images, self._files(roots)))

    def peek(self, roots: Sequence[Path]) -> Facts:
        files = self._files(roots)
        labels = []
        for path in files:
            labels.append(_labels(path, _read(path, "y")))
            _check(path, _shape(path), labels[-1])
        class_names(files[0].parent, labels, _CLASSES)
        return Facts(
            size=_SIZE,
            classes=_CLASSES,
            train_labels=labels[0],
            test_labels=labels[1],
            digest=content_digest(files),
        )

    def _files(self, roots: Sequence[Path]) -> tuple[Path, Path]:
        if self.path:
            folder = find(roots, self.path)
        else:
            found = find(roots, f"svhn/{_TRAIN}", f"SVHN/{_TRAIN}", _TRAIN, "svhn", "SVHN", download="svhn")
            folder = found if found.is_dir() else found.parent
        for name in (_TRAIN, _TEST):
            if not (folder / name).is_file():
                raise RequestError(f"{folder}: {name} is not there; {contents_of(folder)}")
        return folder / _TRAIN, folder / _TEST


def _images(path: Path) -> Images:
    content = _read(path, "X", "y")
    labels = _labels(path, content)
    _check(path, content["X"].shape, labels)
    x = content["X"]
    if x.dtype != np.uint8:
        raise RequestError(f"{path}: X holds {x.dtype}, not bytes: not a file of SVHN")
    pixels = torch.from_numpy(np.ascontiguousarray(x.transpose(3, 2, 0, 1)))
    return Images(pixels=pixels, labels=labels, ids=torch.arange(len(labels)), classes=_CLASSES)


def _read(path: Path, *names: str) -> dict[str, Any]:
    """These arrays of the file."""
    from scipy.io import loadmat  # takes longer to import than finished studies take

    with reading(path, "MATLAB file"):
        content: dict[str, Any] = loadmat(path, variable_names=names)
    missing = [name for name in names if not isinstance(content.get(name), np.ndarray)]
    if missing:
        raise RequestError(f"{path}: no array {' or '.join(missing)}, or cut short; the file holds {_contents(path)}")
    return content


def _shape(path: Path) -> tuple[int, ...]:
    """Shape of the images, from the header."""
    return next((shape for name, shape, _ in _headers(path) if name == "X"), ())


def _contents(path: Path) -> str:
    listed = [f"{name} of shape {' x '.join(map(str, shape))}" for name, shape, _ in _headers(path)]
    return ", ".join(listed) or "nothing"


def _headers(path: Path) -> list[tuple[str, tuple[int, ...], str]]:
    from scipy.io import whosmat

    with reading(path, "MATLAB file"):
        headers: list[tuple[str, tuple[int, ...], str]] = whosmat(path)
    return headers


def _labels(path: Path, content: dict[str, Any]) -> Tensor:
    """int64, shape (N,), with 0 where the file has 10."""
    y = content["y"].reshape(-1)
    if y.dtype.kind not in "iuf" or not len(y) or not np.isin(y, np.arange(1, 11)).all():
        what = f"values from {y.min()} to {y.max()}" if y.dtype.kind in "iuf" and len(y) else f"{len(y)} of {y.dtype}"
        raise RequestError(f"{path}: y holds {what}; labels of SVHN are whole numbers in 1..10 (10: the digit 0)")
    return torch.from_numpy(y.astype(np.int64) % 10)


def _check(path: Path, shape: tuple[int, ...], labels: Tensor) -> None:
    if len(shape) != 4 or shape[:3] != (32, 32, 3):
        raise RequestError(f"{path}: X has the shape {shape}, not (32, 32, 3, N): not a file of SVHN's format 2")
    if shape[3] != len(labels):
        raise RequestError(f"{path}: {count(shape[3], 'image')} but {count(len(labels), 'label')}")
