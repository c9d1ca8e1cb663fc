"""Sources of images. One file per source or format; each gives a training and a test set of the same size and classes.

A source reads from folders searched in order (`roots`), never from the network: that is for `bascule data get`. It
checks what it reads: shape, range, labels, damaged files. `peek` answers what can be known without decoding the
pictures, so that a study is refused before any work.
"""

from __future__ import annotations

import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Self

import numpy as np
import torch
from annotated_types import Ge
from numpy.typing import NDArray
from torch import Tensor

from bascule.core import catalog, rng
from bascule.core.errors import RequestError
from bascule.core.files import readable
from bascule.core.images import NEARLY_BLACK, Images, Pixels, Splits, brightest
from bascule.core.returned import returned
from bascule.core.text import count, quote
from bascule.data.download import Remote

_BATCH = 256
"""Pictures decoded at once when all are looked at."""
LOOKED = 64
"""Most pictures decoded to tell whether a set is dark, when not all are."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Facts:
    """What is known of a source without decoding its pictures."""

    size: tuple[int, int, int]
    """Channels, height, width."""
    classes: tuple[str, ...]
    train_labels: Tensor
    """int64, shape (N,)."""
    test_labels: Tensor
    digest: str
    """Identity of the content: the same data in another folder have the same digest, changed data another."""
    train_ids: Tensor | None = None
    """int64, ids of the training images; None: 0, 1, ..., as many as there are labels."""
    test_ids: Tensor | None = None
    """The same of the test images."""
    left_out: Tensor | None = None
    """int64, ids of training images that are held out, or that `max_train` cuts off; None: there are none."""


@catalog.contract("data")
@catalog.component
class Source(ABC):
    """A source of labelled images, split into training and test."""

    remote: ClassVar[tuple[Remote, ...] | None] = None
    """What `bascule data get` fetches for it: () where nothing is needed, None where the files are the user's own."""

    max_train: Annotated[int, Ge(1)] | None = None
    """Use only this many training images, a fixed random subset; all when absent."""
    max_test: Annotated[int, Ge(1)] | None = None
    """Use only this many test images, a fixed random subset; all when absent."""
    held_out: Annotated[int, Ge(0)] = 0
    """Training images set aside for defenders, a fixed random subset: never poisoned, never trained on."""

    @abstractmethod
    def read(self, roots: Sequence[Path]) -> Splits:
        """The whole source. Raises RequestError naming the file and what is wrong with it."""

    @abstractmethod
    def peek(self, roots: Sequence[Path]) -> Facts:
        """Facts about the whole source. Raises RequestError like `read`, but need not look into every picture."""

    def read_train(self, roots: Sequence[Path]) -> Images:
        """The training images of `read` alone; a source that may be without test images needs none for it."""
        return self.read(roots).train

    def without_test(self) -> Self:
        """This source for who needs no test images: where no split is given, all images are for training."""
        return self

    def names(self, roots: Sequence[Path]) -> Sequence[str] | None:
        """File of each training image, by id; None for a source whose images have no files of their own."""
        return None

    def check(self, roots: Sequence[Path], *, deep: bool = False) -> None:
        """Look for damage that `peek` does not see, before any training: in the headers of pictures, or in all pixels.

        Args:
            roots: Folders searched for data.
            deep: Every picture is decoded, in batches where they are streamed.

        Raises:
            RequestError: As `read`.
        """
        if not deep:
            return
        splits = self.read(roots)
        largest = [_largest(images.pixels) for images in splits]
        if largest[0] <= 1:
            warn_of_darkness(catalog.name_of(self))

    def load(self, roots: Sequence[Path] | None = None) -> Splits:
        """What a study uses: the source without `held_out`, cut to `max_train` and `max_test`.

        Args:
            roots: Folders searched for data; by default $BASCULE_DATA, ./data, ~/.cache/bascule and the current one.

        Raises:
            RequestError: What `read` refuses, a source whose two splits do not fit each other, or more images held out
                than there are.
        """
        found = self.read(default_roots() if roots is None else roots)
        train, test = returned(found, tuple, who=self, method="read")  # of two Images
        check_same_size(catalog.name_of(self), train.size, test.size)
        if train.classes != test.classes:
            raise RequestError(f"{catalog.name_of(self)}: training and test images have different classes")
        return Splits(self._used(train), _cut(test, self.max_test))

    def load_train(self, roots: Sequence[Path]) -> Images:
        """The training images of `load` alone; a source that may be without test images needs none for it.

        Raises:
            RequestError: What `read_train` refuses, or more images held out than there are.
        """
        return self._used(self.read_train(roots))

    def load_held_out(self, roots: Sequence[Path]) -> Images:
        """The images set aside by `held_out`, clean and with their true labels.

        Raises:
            RequestError: As `load`, or none are set aside.
        """
        if not self.held_out:
            raise RequestError("no images are set aside for defenders: give a number", place=("held_out",))
        train, _ = self.read(roots)
        return train.at(self._shared(len(train))[1])

    def facts(self, roots: Sequence[Path]) -> Facts:
        """`peek`, of the images that `load` gives."""
        whole = returned(self.peek(roots), Facts, who=self, method="peek")
        used, _ = self._shared(len(whole.train_labels))
        tested = _subset(len(whole.test_labels), self.max_test)
        train_ids, test_ids = (
            torch.arange(len(labels)) if ids is None else ids
            for labels, ids in ((whole.train_labels, whole.train_ids), (whole.test_labels, whole.test_ids))
        )
        unused = torch.ones(len(train_ids), dtype=torch.bool).index_fill(0, used, value=False)
        return Facts(
            size=whole.size,
            classes=whole.classes,
            train_labels=whole.train_labels[used],
            test_labels=whole.test_labels[tested],
            digest=whole.digest,
            train_ids=train_ids[used],
            test_ids=test_ids[tested],
            left_out=train_ids[unused],
        )

    def _used(self, train: Images) -> Images:
        """Those that are trained on."""
        if isinstance(train.pixels, Tensor):
            if brightest(train.pixels) <= 1:
                warn_of_darkness(catalog.name_of(self))
        else:
            look_for_darkness(catalog.name_of(self), train.pixels)
        used, _ = self._shared(len(train))
        return train if len(used) == len(train) else train.at(used)

    def _shared(self, total: int) -> tuple[Tensor, Tensor]:
        """Positions of the training images that are trained on, and of those held out, of `total` in all."""
        if self.held_out >= total:
            raise RequestError(
                f"{self.held_out} of {count(total, 'training image')} leave none to train on", place=("held_out",)
            )
        order = torch.randperm(total, generator=rng.stream(0, "held-out", total))
        reserved, rest = order[: self.held_out].sort().values, order[self.held_out :].sort().values
        return rest[_subset(len(rest), self.max_train)], reserved


def _largest(pixels: Pixels) -> int:
    """The largest byte of all pictures; those that are not in memory are decoded, batch by batch."""
    if isinstance(pixels, Tensor):
        return int(pixels.max())
    return max(int(pixels[index].max()) for index in torch.arange(pixels.shape[0]).split(_BATCH))


def warn_of_darkness(name: str, of: str = "") -> None:
    """Bytes that are all 0 or 1 are masks, or floats that somebody has cast; to a model they are black."""
    warnings.warn(f"{name}: {of}{NEARLY_BLACK}", stacklevel=1)  # at one place, so that Python says it once


def look_for_darkness(name: str, pixels: Pixels) -> None:
    """`warn_of_darkness` after a quick look at pictures from everywhere in a set, one at a time until one is bright.

    Raises:
        RequestError: One of those looked at is damaged.
    """
    places = torch.linspace(0, pixels.shape[0] - 1, min(pixels.shape[0], LOOKED)).long()
    if all(int(pixels[place].max()) <= 1 for place in places.split(1)):
        warn_of_darkness(name, f"in the {count(len(places), 'picture')} looked at, ")


def _subset(size: int, most: int | None) -> Tensor:
    if most is None or most >= size:
        return torch.arange(size)
    return torch.randperm(size, generator=rng.stream(0, "subset", size))[:most].sort().values


def _cut(images: Images, most: int | None) -> Images:
    return images if most is None or most >= len(images) else images.at(_subset(len(images), most))


def cache_folder() -> Path:
    """Where downloads go by default: ~/.cache/bascule."""
    return Path.home() / ".cache" / "bascule"


def default_roots(data_dir: Path | None = None) -> list[Path]:
    """Folders searched for data, in order: `data_dir`, $BASCULE_DATA, ./data, ~/.cache/bascule, the current one."""
    given = [data_dir, os.environ.get("BASCULE_DATA"), "data", cache_folder(), "."]
    return [Path(root).expanduser() for root in given if root]


def find(roots: Sequence[Path], *candidates: str, download: str | None = None) -> Path:
    """The first existing path among `candidates` under the roots; an absolute candidate is taken as it is.

    Raises:
        RequestError: None exists; the text lists where was looked, and names `download` for `bascule data get`.
    """
    for root in roots:
        for candidate in candidates:
            path = root / Path(candidate).expanduser()
            try:
                if path.exists():
                    return path
            except OSError as error:  # no permission to look, a name that is too long
                raise RequestError(f"cannot look for {quote(str(path))}: {error.strerror}") from error
    if all(Path(candidate).expanduser().is_absolute() for candidate in candidates):
        raise RequestError(f"{' or '.join(candidates)} does not exist")
    wanted, places = " or ".join(map(quote, candidates)), ", ".join(dict.fromkeys(map(readable, roots)))
    raise RequestError(
        f"no {wanted} found in: {places}. Set `roots` or $BASCULE_DATA to the folder that holds it"
        + (f", or run: bascule data get {download}" if download else ".")
    )


def check_same_size(place: Path | str, train: tuple[int, int, int], test: tuple[int, int, int]) -> None:
    """Training and test images must have the same channels, height and width.

    Raises:
        RequestError: They differ; the text begins with `place`.
    """
    if train != test:
        sizes = (" x ".join(map(str, size)) for size in (train, test))
        raise RequestError(f"{place}: training images are {' but test images '.join(sizes)} (C x H x W)")


TEST_SHARE_UNSET = "or set `test_share`, so that a share of each class is drawn for it"
"""What can be done about a set without test images."""


def class_names(place: Path | str, labels: Sequence[Tensor], names: Sequence[str] | None = None) -> tuple[str, ...]:
    """Class names of a source: `names`, or else "0", "1", ... `labels` are those of its training and its test images.

    Raises:
        RequestError: A split is empty, or a label is negative, has no name or, without `names`, leaves a gap; the text
            begins with `place`.
    """
    for split, part in zip(("training", "test"), labels, strict=True):
        if len(part) == 0:
            raise RequestError(f"{place}: there are no {split} images")
        if (low := int(part.min())) < 0:
            at = int(part.argmin())
            raise RequestError(
                f"{place}: {split} image {at} has the label {low}; labels count from 0. Remove images without a class."
            )
    present = torch.cat(tuple(labels)).unique()
    highest = int(present[-1])
    if names is not None:
        if highest >= len(names):
            raise RequestError(
                f"{place}: labels go up to {highest}, but {count(len(names), 'class is', 'classes are')} named"
            )
        return tuple(names)
    if highest >= len(present):
        gap = int((present != torch.arange(len(present))).nonzero()[0])
        raise RequestError(
            f"{place}: labels go up to {highest}, but no image has the label {gap}. Number the classes without gaps, "
            "or name them all with `classes`."
        )
    return named_classes(highest + 1)


def numbered(
    place: Path | str, texts: Sequence[NDArray[np.str_]], names: Sequence[str] | None = None
) -> tuple[list[Tensor], tuple[str, ...]]:
    """Labels (int64, shape (N,)) and class names of splits whose labels are texts: `names`, or all there are, sorted.

    Raises:
        RequestError: A text is empty or not among `names`; the text begins with `place`.
    """
    there = np.unique(np.concatenate(texts))
    if there[0] == "":
        raise RequestError(f"{place} holds an empty text; give every image the name of its class")
    known = tuple(map(str, there)) if names is None else tuple(names)
    if unnamed := [str(name) for name in there if name not in known]:
        raise RequestError(f"{place}: {', '.join(unnamed[:8])} is not among the `classes`")
    order = torch.tensor([known.index(str(name)) for name in there])
    return [order[np.searchsorted(there, one)] for one in texts], known


def named_classes(count: int) -> tuple[str, ...]:
    """Names for classes that have none: "0", "1", ..."""
    return tuple(map(str, range(count)))
