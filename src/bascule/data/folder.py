"""Any set of pictures in folders named after their classes."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.core.images import Images, Pixels, Splits
from bascule.data import Facts, Source, find
from bascule.data._files import content_digest, reading
from bascule.data.decode import ENDINGS, allocate, check_sizes, decode, picture

IN_MEMORY = 2**30
"""Bytes of decoded pictures up to which a split is held in memory; a larger one is decoded batch by batch."""
HASHED = 2**30
"""Bytes of picture files up to which the digest covers their content; beyond, their names and sizes."""

_TESTS = ("test", "val", "validation")


@component
class Folder(Source):
    """Folders of pictures, `split/class/*.{png,jpg,jpeg,bmp,webp,gif,tif,ppm}`, as ImageNet and many others have them.

    Training pictures are in `train`, test pictures in `test`, or else `val` or `validation`. The classes are the
    sub-folders in sorted order, the same in both. Pictures are sorted by class and name; this position is their id.
    A split that takes more than 1 GiB as uint8 is decoded batch by batch. Orientation tags are not applied and
    transparency is dropped, as in torchvision's `ImageFolder`.
    """

    path: str
    """Folder that holds `train` and `test`, under the data folder or absolute."""
    size: Annotated[int, Ge(1)] | None = None
    """Height and width in pixels: the short side is resized to it (bilinear, antialiased), then the centre is cut out.
    By default pictures stay as they are and must all have one size."""
    channels: Literal[1, 3] = 3
    """1: pictures are converted to grey; 3: to RGB."""

    def read(self, roots: Sequence[Path]) -> Splits:
        train, test = _find_splits(find(roots, self.path))
        size = self._first_size(train)
        return Splits(*(self._images(split, size) for split in (train, test)))

    def peek(self, roots: Sequence[Path]) -> Facts:
        train, test = _find_splits(find(roots, self.path))
        return Facts(
            size=self._first_size(train),
            classes=train.classes,
            train_labels=train.labels,
            test_labels=test.labels,
            digest=_digest(train, test),
        )

    def names(self, roots: Sequence[Path]) -> Sequence[str]:
        train, _ = _find_splits(find(roots, self.path))
        return [str(train.folder / file) for file in train.files]

    def _first_size(self, split: _Split) -> tuple[int, int, int]:
        path = split.folder / split.files[0]
        try:
            image = picture(path, channels=self.channels, resize=self.size)
        except RequestError as error:
            raise RequestError(f"{path}: {error.problem}") from error.__cause__
        return self.channels, image.height, image.width

    def _images(self, split: _Split, size: tuple[int, int, int]) -> Images:
        everything = torch.arange(len(split.files))
        streamed = _Streamed(split.folder, split.files, size, self.size)
        pixels: Pixels = streamed
        if streamed.shape.numel() <= IN_MEMORY:
            pixels = streamed[everything]
        elif self.size is None:
            streamed.check_sizes()
        return Images(pixels=pixels, labels=split.labels, ids=everything, classes=split.classes)


class _Streamed:
    """Pictures decoded when they are asked for."""

    def __init__(self, folder: Path, files: Sequence[str], size: tuple[int, int, int], resize: int | None) -> None:
        self.folder, self.files, self.resize = folder, files, resize
        self.shape = torch.Size((len(files), *size))

    def __getitem__(self, index: Tensor, /) -> Tensor:
        paths = [self.folder / self.files[i] for i in index.tolist()]
        out = allocate(len(paths), *self.shape[1:])
        decode(paths, out, name=lambda i: str(paths[i]), resize=self.resize)
        return torch.from_numpy(out)

    def check_sizes(self) -> None:
        """Find now, from the headers, the picture that would stop a training later because of its size."""
        check_sizes(self.folder, self.files, *self.shape[2:])


# --- listing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Split:
    """The picture files of one split."""

    folder: Path
    classes: tuple[str, ...]
    files: tuple[str, ...]
    """Paths below the folder, `class/name`, sorted by class, then name."""
    sizes: tuple[int, ...]
    """Bytes of each file."""
    labels: Tensor
    """int64, shape (N,)."""


def _find_splits(folder: Path) -> tuple[_Split, _Split]:
    """Training and test files of the image folder.

    Raises:
        RequestError: A split is missing, a class has no pictures, or the two splits have different classes.
    """
    tests = [name for name in _TESTS if (folder / name).is_dir()]
    if not (folder / "train").is_dir() or not tests:
        raise RequestError(
            f"{folder}: needs a folder train and a folder {', '.join(_TESTS[:-1])} or {_TESTS[-1]}, "
            "each with one sub-folder of pictures per class"
        )
    train, test = _split(folder / "train"), _split(folder / tests[0])
    for split, other in ((train, test), (test, train)):
        missing = [name for name in other.classes if name not in split.classes]
        if missing:
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            raise RequestError(
                f"{split.folder}: no sub-folder for {', '.join(missing[:5])}{more}, which {other.folder.name} has; "
                "both need the same classes"
            )
    return train, test


def _split(folder: Path) -> _Split:
    classes: list[str] = []
    files: list[str] = []
    sizes: list[int] = []
    labels: list[int] = []
    others: list[str] = []
    with reading(folder, "folder"):
        for name in sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != "."):
            with os.scandir(folder / name) as entries:
                inside = sorted((entry.name, entry.stat().st_size) for entry in entries if _is_file(entry))
            pictures = [(file, size) for file, size in inside if Path(file).suffix.lower() in ENDINGS]
            if not pictures:
                raise RequestError(
                    f"{folder / name}: no pictures in this folder; known endings: {', '.join(sorted(ENDINGS))}"
                )
            others += [f"{name}/{file}" for file, _ in inside if Path(file).suffix.lower() not in ENDINGS]
            labels += [len(classes)] * len(pictures)
            classes.append(name)
            files += [f"{name}/{file}" for file, _ in pictures]
            sizes += [size for _, size in pictures]
    if not classes:
        raise RequestError(f"{folder}: no sub-folders; the pictures of each class belong in a folder of its name")
    if others:
        warnings.warn(
            f"{folder}: {len(others)} files that are no pictures are left out, e.g. {others[0]}", stacklevel=2
        )
    return _Split(
        folder=folder, classes=tuple(classes), files=tuple(files), sizes=tuple(sizes), labels=torch.tensor(labels)
    )


def _is_file(entry: os.DirEntry[str]) -> bool:
    return entry.is_file() and entry.name[0] != "."


def _digest(*splits: _Split) -> str:
    """Identity of the files: relative paths and sizes, and the content of a set that is not too large for it."""
    known = hashlib.sha256()
    for split in splits:
        for file, size in zip(split.files, split.sizes, strict=True):
            known.update(os.fsencode(f"{split.folder.name}/{file}\0{size}\n"))
    if sum(sum(split.sizes) for split in splits) <= HASHED:
        for split in splits:
            known.update(content_digest([split.folder / file for file in split.files]).encode())
    return known.hexdigest()
