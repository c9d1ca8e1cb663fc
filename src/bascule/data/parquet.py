"""Any set of pictures from the Hugging Face hub: parquet files, or the Arrow files of the `datasets` library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

import torch
from annotated_types import Ge, Lt
from torch import Tensor

from bascule.core.catalog import component, name_of
from bascule.core.images import Images, Pixels, Splits
from bascule.data._parquet import ParquetFiles, digest, find_splits, lacking_test
from bascule.data._share import drawn_for_test
from bascule.data._streamed import Streamed, is_held
from bascule.data.contract import LOOKED, TEST_SHARE_UNSET, Facts, Source, class_names, find, look_for_darkness


@component
class Parquet(Source):
    """Parquet files as found on the Hugging Face hub, or the cache of the `datasets` library.

    Training files are `train*.parquet`, test files `test*.parquet` or else `validation*.parquet` or `val*.parquet`, in
    the folder, in its sub-folder `data`, or else in the only sub-folder that has training files; `train/*.parquet` and
    `test/*.parquet` do as well. All may lie deeper, in the only folder there is, so that a clone or the hub's cache
    (`~/.cache/huggingface/hub/datasets--NAME`) is read as it is. In place of parquet, Arrow files are read, as
    `load_dataset` caches them (`NAME-train.arrow`, under `~/.cache/huggingface/datasets/NAME`) and `save_to_disk`
    writes them (`train/data-*.arrow`). A picture is a cell of bytes (PNG, JPEG, ...) or a struct with `bytes`. A split
    that takes more than 1 GiB as uint8 is decoded batch by batch; parquet files are then read a row group at a time.
    Format: https://huggingface.co/docs/datasets/about_dataset_features (Image, ClassLabel).
    """

    later: ClassVar[tuple[str, ...]] = ("test_share",)

    path: str
    """Folder of the files, under the data folder or absolute."""
    image: str | None = None
    """Column of the pictures; by default `image` or `img`."""
    label: str | None = None
    """Column of the labels, integers from 0 or names of classes; by default `label`, `labels` or `fine_label`."""
    classes: tuple[str, ...] | None = None
    """Class names in label order; by default those annotated in the files, the names that are the labels, sorted,
    or else the label numbers."""
    size: Annotated[int, Ge(1)] | None = None
    """Height and width in pixels: the short side is resized to it (bilinear, antialiased), then the centre is cut out.
    By default pictures stay as they are and must all have one size."""
    channels: Literal[1, 3] = 3
    """1: pictures are converted to grey; 3: to RGB."""

    test_share: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Where no files are for tests, this share of each class, drawn by a fixed seed, is the test set; 0: none."""

    def read(self, roots: Sequence[Path]) -> Splits:
        parts, classes = self._both(roots)
        size = self._size(parts[0])
        images = [self._images(part, size, classes) for part in parts]
        if len(images) == 2:
            return Splits(*images)
        drawn = self._drawn(parts[0], classes)
        return Splits(_some(images[0], ~drawn), _some(images[0], drawn))

    def read_train(self, roots: Sequence[Path]) -> Images:
        parts, classes = self._open(roots)
        if len(parts) == 1 and self.test_share:
            return self.read(roots).train
        return self._images(parts[0], self._size(parts[0]), classes)

    def without_test(self) -> Self:
        return replace(self, test_share=0.0)

    def peek(self, roots: Sequence[Path]) -> Facts:
        parts, classes = self._both(roots)
        labels = [part.labels for part in parts]
        if len(parts) == 1:
            drawn = self._drawn(parts[0], classes)
            labels = [labels[0][~drawn], labels[0][drawn]]
        return Facts(
            size=self._size(parts[0]),
            classes=classes,
            train_labels=labels[0],
            test_labels=labels[1],
            digest=digest(*parts),
        )

    def check(self, roots: Sequence[Path], *, deep: bool = False) -> None:
        parts, _ = self._both(roots)
        size = self._size(parts[0])
        for part in parts:
            part.check(None if self.size else size[1:])
        if deep:
            super().check(roots, deep=True)
        else:
            look_for_darkness(name_of(self), parts[0].first(LOOKED, size, resize=self.size))

    def _open(self, roots: Sequence[Path]) -> tuple[list[ParquetFiles], tuple[str, ...]]:
        """Training files and, where there are any, test files; the classes."""
        folder = find(roots, self.path)
        train, test = find_splits(folder, "data", image=self.image, label=self.label, classes=self.classes)
        parts = [train] if test is None else [train, test]
        annotated = next((part.names for part in parts if part.names), None)
        names = annotated if self.classes is None else self.classes
        return parts, class_names(folder, [train.labels, parts[-1].labels], names)

    def _both(self, roots: Sequence[Path]) -> tuple[list[ParquetFiles], tuple[str, ...]]:
        """As `_open`, with test files or a share of the training images to draw."""
        parts, classes = self._open(roots)
        if len(parts) == 1 and not self.test_share:
            raise lacking_test(parts[0], f". Add them, {TEST_SHARE_UNSET}")
        return parts, classes

    def _drawn(self, whole: ParquetFiles, classes: tuple[str, ...]) -> Tensor:
        return drawn_for_test(whole.files[0].parent, whole.labels, classes, self.test_share, "file")

    def _size(self, part: ParquetFiles) -> tuple[int, int, int]:
        return part.first_size(channels=self.channels, resize=self.size)

    def _images(self, split: ParquetFiles, size: tuple[int, int, int], classes: tuple[str, ...]) -> Images:
        pixels: Pixels
        if is_held(len(split.labels), size):
            pixels = split.pixels(size, resize=self.size)
        else:
            split.check(None if self.size else size[1:])
            pixels = Streamed(split.rows(), size, self.size)
        return Images(pixels=pixels, labels=split.labels, ids=torch.arange(len(split.labels)), classes=classes)


def _some(images: Images, chosen: Tensor) -> Images:
    return replace(images.at(chosen.nonzero().flatten()), ids=torch.arange(int(chosen.sum())))
