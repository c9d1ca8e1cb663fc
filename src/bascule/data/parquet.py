"""Any set of pictures in Hugging Face style parquet files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import torch
from annotated_types import Ge

from bascule.core.catalog import component, name_of
from bascule.core.images import Images, Splits
from bascule.data import LOOKED, Facts, Source, class_names, find, look_for_darkness
from bascule.data._parquet import ParquetFiles, digest, find_splits


@component
class Parquet(Source):
    """Parquet files as found on the Hugging Face hub, decoded into memory.

    Training files are `train*.parquet`, test files `test*.parquet` or else `validation*.parquet` or `val*.parquet`, in
    the folder, in its sub-folder `data`, or else in the only sub-folder that has training files; `train/*.parquet` and
    `test/*.parquet` do as well. A picture is a cell of bytes (PNG, JPEG, ...) or a struct with `bytes`.
    Format: https://huggingface.co/docs/datasets/about_dataset_features (Image, ClassLabel).
    """

    path: str
    """Folder of the files, under the data folder or absolute."""
    image: str | None = None
    """Column of the pictures; by default `image` or `img`."""
    label: str | None = None
    """Column of the labels, integers from 0; by default `label`, `labels` or `fine_label`."""
    classes: tuple[str, ...] | None = None
    """Class names in label order; by default those annotated in the files, or else the label numbers."""
    size: Annotated[int, Ge(1)] | None = None
    """Height and width in pixels: the short side is resized to it (bilinear, antialiased), then the centre is cut out.
    By default pictures stay as they are and must all have one size."""
    channels: Literal[1, 3] = 3
    """1: pictures are converted to grey; 3: to RGB."""

    def read(self, roots: Sequence[Path]) -> Splits:
        train, test, classes = self._open(roots)
        size = train.first_size(channels=self.channels, resize=self.size)
        return Splits(*(self._images(split, size, classes) for split in (train, test)))

    def peek(self, roots: Sequence[Path]) -> Facts:
        train, test, classes = self._open(roots)
        return Facts(
            size=train.first_size(channels=self.channels, resize=self.size),
            classes=classes,
            train_labels=train.labels,
            test_labels=test.labels,
            digest=digest(train, test),
        )

    def check(self, roots: Sequence[Path], *, deep: bool = False) -> None:
        train, test, _ = self._open(roots)
        size = train.first_size(channels=self.channels, resize=self.size)
        for split in (train, test):
            split.check(None if self.size else size[1:])
        if deep:
            super().check(roots, deep=True)
        else:
            look_for_darkness(name_of(self), train.first(LOOKED, size, resize=self.size))

    def _open(self, roots: Sequence[Path]) -> tuple[ParquetFiles, ParquetFiles, tuple[str, ...]]:
        folder = find(roots, self.path)
        train, test = find_splits(folder, "data", image=self.image, label=self.label)
        annotated = train.names or test.names
        names = annotated if self.classes is None else self.classes
        return train, test, class_names(folder, [train.labels, test.labels], names)

    def _images(self, split: ParquetFiles, size: tuple[int, int, int], classes: tuple[str, ...]) -> Images:
        return Images(
            pixels=split.pixels(size, resize=self.size),
            labels=split.labels,
            ids=torch.arange(len(split.labels)),
            classes=classes,
        )
