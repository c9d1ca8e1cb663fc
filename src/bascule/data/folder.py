"""Any set of pictures in folders named after their classes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

import torch
from annotated_types import Ge, Lt

from bascule.core.catalog import component, name_of
from bascule.core.errors import RequestError
from bascule.core.images import Images, Splits
from bascule.data._files import content_digest, is_hashed
from bascule.data._listing import Split, find_splits
from bascule.data._streamed import Streamed, first_size
from bascule.data.contract import TEST_SHARE_UNSET, Facts, Source, find, look_for_darkness

_LINES = 1000
"""Files that go into the digest at once."""


@component
class Folder(Source):
    """Folders of pictures, `split/class/*.{png,jpg,jpeg,bmp,webp,gif,tif,ppm}`, as ImageNet and many others have them.

    Training pictures are in `train` or `training`, test pictures in `test`, or else `val`, `validation`, `valid` or
    `testing`, in any case of letters, also as `training_set`, `images-test`, `Final_Test`. `train` alone, or
    `class/picture` without a split, is split: 20 % of each class, drawn by a fixed seed, are the test set, and a
    warning says so. All that may lie deeper, in the only folder there is, and the pictures of each class in one
    sub-folder of it. Test pictures without folders of classes are labelled by a list there or above, as in
    Tiny-ImageNet (`val_annotations.txt`) and GTSRB (`GT-final_test.csv`); those without labels are passed over.
    The classes are the sub-folders in sorted order, the same in both. Pictures are sorted by class and name; this
    position is their id. Whatever else lies there (other sub-folders of a class, links that lead nowhere, hidden files,
    other endings) is left out and counted in a warning. A split that takes more than 1 GiB as uint8 is decoded batch by
    batch. Orientation tags are not applied and transparency is dropped, as in torchvision's `ImageFolder`.
    """

    later: ClassVar[tuple[str, ...]] = ("test_share",)

    path: str
    """Folder that holds `train` and `test`, or the classes, under the data folder or absolute."""
    size: Annotated[int, Ge(1)] | None = None
    """Height and width in pixels: the short side is resized to it (bilinear, antialiased), then the centre is cut out.
    By default pictures stay as they are and must all have one size."""
    channels: Literal[1, 3] = 3
    """1: pictures are converted to grey; 3: to RGB."""
    test_share: Annotated[float, Ge(0), Lt(1)] = 0.2
    """Where no folder is for tests, this share of each class, drawn by a fixed seed, is the test set; 0: none."""

    def read(self, roots: Sequence[Path]) -> Splits:
        train, test = self._both(roots)
        size = self._first_size(train)
        return Splits(*(self._images(split, size) for split in (train, test)))

    def read_train(self, roots: Sequence[Path]) -> Images:
        train, _ = self._splits(roots)
        return self._images(train, self._first_size(train))

    def without_test(self) -> Self:
        return replace(self, test_share=0.0)

    def peek(self, roots: Sequence[Path]) -> Facts:
        train, test = self._both(roots)
        return Facts(
            size=self._first_size(train),
            classes=train.classes,
            train_labels=train.labels,
            test_labels=test.labels,
            digest=_digest(train, test),
        )

    def names(self, roots: Sequence[Path]) -> Sequence[str]:
        train, _ = self._splits(roots)
        return [str(train.folder / file) for file in train.files]

    def check(self, roots: Sequence[Path], *, deep: bool = False) -> None:
        train, test = self._both(roots)
        size = self._first_size(train)
        for split in (train, test):
            self._streamed(split, size).check("", split.stated)
        if deep:
            super().check(roots, deep=True)
        else:
            look_for_darkness(name_of(self), self._streamed(train, size))

    def _splits(self, roots: Sequence[Path]) -> tuple[Split, Split | None]:
        return find_splits(find(roots, self.path), self.test_share)

    def _both(self, roots: Sequence[Path]) -> tuple[Split, Split]:
        train, test = self._splits(roots)
        if test is None:
            raise RequestError(f"{train.folder}: no folder of test pictures; add one, {TEST_SHARE_UNSET}")
        return train, test

    def _streamed(self, split: Split, size: tuple[int, int, int]) -> Streamed:
        return Streamed(_Files(split), size, self.size)

    def _first_size(self, split: Split) -> tuple[int, int, int]:
        return first_size(_Files(split), channels=self.channels, resize=self.size)

    def _images(self, split: Split, size: tuple[int, int, int]) -> Images:
        streamed = self._streamed(split, size)
        pixels = streamed.kept()
        if pixels is streamed:
            streamed.check("", split.stated)
        ids = torch.arange(len(split.files))
        return Images(pixels=pixels, labels=split.labels, ids=ids, classes=split.classes)


class _Files:
    """The picture files of a split."""

    def __init__(self, split: Split) -> None:
        self._folder, self._files = split.folder, split.files

    def __len__(self) -> int:
        return len(self._files)

    def take(self, places: Sequence[int]) -> Sequence[Path]:
        return [self._folder / self._files[place] for place in places]

    heads = take

    def name(self, place: int) -> str:
        return str(self._folder / self._files[place])


def _digest(*splits: Split) -> str:
    """Identity of the files: relative paths and sizes, and the content of a set that is not too large for it."""
    known = hashlib.sha256()
    for split in splits:
        sizes = split.sizes.tolist()
        for start in range(0, len(sizes), _LINES):
            some = slice(start, start + _LINES)
            pairs = zip(split.files[some], sizes[some], strict=True)
            known.update(os.fsencode("".join(f"{split.name}/{file}\0{size}\n" for file, size in pairs)))
        if split.listed:  # elsewhere the paths say the labels
            known.update(split.labels.numpy().tobytes())
    if is_hashed(sum(int(split.sizes.sum()) for split in splits)):
        for split in splits:
            known.update(content_digest([split.folder / file for file in split.files]).encode())
    return known.hexdigest()
