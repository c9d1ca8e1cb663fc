"""Any set of pictures in tar files as WebDataset writes them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self

import numpy as np
import torch
from annotated_types import Ge, Lt
from torch import Tensor

from bascule.core.catalog import component, name_of
from bascule.core.errors import RequestError
from bascule.core.images import Images, Splits
from bascule.data._files import check_parts, content_digest, contents_of, is_hashed, reading
from bascule.data._listing import TESTS, TRAINS, named
from bascule.data._remembered import stated
from bascule.data._share import drawn_for_test
from bascule.data._streamed import Streamed, first_size
from bascule.data._tar import Samples, read_samples
from bascule.data.contract import TEST_SHARE_UNSET, Facts, Source, class_names, find, look_for_darkness, numbered

_DEEPEST = 5
"""Most folders that are gone down, each the only one in the last."""
_PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_NUMBER = re.compile(r"-?[0-9]{1,9}")


class _Part(NamedTuple):
    """A split: some of the samples of its files."""

    name: str
    samples: Samples
    labels: Tensor
    chosen: Tensor | None
    """Positions; None for all."""

    @property
    def chosen_labels(self) -> Tensor:
        """int64, of each image."""
        return self.labels if self.chosen is None else self.labels[self.chosen]


@component
class Shards(Source):
    """Tar files as WebDataset writes them: for each picture `KEY.jpg` (`png`, ...) and its label, `KEY.cls`.

    Training files are those whose name says `train` or `training` (`imagenet1k-train-{0000..1023}.tar`), test files
    those that say `test`, or else `val`, `validation`, `valid` or `testing`; or all that lie in folders of these names.
    The label is a whole number from 0 or the name of a class, in the member `cls`, or else in the entry `label`, `cls`
    or `class` of the member `json`. Files are taken in the order of their names, pictures in that of the members; this
    position is their id. A split that takes more than 1 GiB as uint8 is decoded batch by batch, each picture read at
    its place. Nothing is unpacked, and links are left out. Compressed tar files are refused.
    Format: https://github.com/webdataset/webdataset.
    """

    path: str
    """Folder of the tar files, under the data folder or absolute."""
    image: str | None = None
    """Ending of the pictures, where a sample has several; by default of whatever is one."""
    label: str | None = None
    """Ending of the labels, `txt` for instance, or `json.KEY`; by default `cls`, or else `json`."""
    classes: tuple[str, ...] | None = None
    """Class names in label order; by default the names that are the labels, sorted, or else the label numbers."""
    size: Annotated[int, Ge(1)] | None = None
    """Height and width in pixels: the short side is resized to it (bilinear, antialiased), then the centre is cut out.
    By default pictures stay as they are and must all have one size."""
    channels: Literal[1, 3] = 3
    """1: pictures are converted to grey; 3: to RGB."""
    test_share: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Where no files are for tests, this share of each class, drawn by a fixed seed, is the test set; 0: none."""

    def read(self, roots: Sequence[Path]) -> Splits:
        (train, test), classes = self._both(roots)
        size = self._size(train)
        return Splits(*(self._images(part, size, classes) for part in (train, test)))

    def read_train(self, roots: Sequence[Path]) -> Images:
        parts, classes = self._parts(roots)
        return self._images(parts[0], self._size(parts[0]), classes)

    def without_test(self) -> Self:
        return replace(self, test_share=0.0)

    def peek(self, roots: Sequence[Path]) -> Facts:
        parts, classes = self._both(roots)
        return Facts(
            size=self._size(parts[0]),
            classes=classes,
            train_labels=parts[0].chosen_labels,
            test_labels=parts[1].chosen_labels,
            digest=_digest(parts),
        )

    def names(self, roots: Sequence[Path]) -> Sequence[str]:
        (train, *_), _ = self._parts(roots)
        places = range(len(train.labels)) if train.chosen is None else train.chosen.tolist()
        return [train.samples.name(place) for place in places]

    def check(self, roots: Sequence[Path], *, deep: bool = False) -> None:
        parts, _ = self._both(roots)
        size = self._size(parts[0])
        for part in parts:
            self._check(part.samples, size)
        if deep:
            super().check(roots, deep=True)
        else:
            look_for_darkness(name_of(self), Streamed(parts[0].samples, size, self.size))

    def _both(self, roots: Sequence[Path]) -> tuple[list[_Part], tuple[str, ...]]:
        parts, classes = self._parts(roots)
        if len(parts) == 1:
            place = parts[0].samples.files[0].parent
            raise RequestError(
                f"{place}: no tar files of test pictures ({', '.join(TESTS[:2])} or {TESTS[2]} in their names); "
                f"{contents_of(place)}. Add them, {TEST_SHARE_UNSET}"
            )
        return parts, classes

    def _parts(self, roots: Sequence[Path]) -> tuple[list[_Part], tuple[str, ...]]:
        """Training images and, where there are any, test images; the classes."""
        folder = find(roots, self.path)
        files = [files for files in _find_files(folder) if files]
        samples = [read_samples(some, image=self.image, label=self.label) for some in files]
        labels, classes = _labels(folder, samples, self.classes)
        parts = [_Part(*one, None) for one in zip(("train", "test"), samples, labels, strict=False)]
        if len(parts) == 2 or not self.test_share:
            return parts, classes
        drawn = drawn_for_test(folder, labels[0], classes, self.test_share, "file name")
        return [
            _Part(name, samples[0], labels[0], chosen.nonzero().flatten())
            for name, chosen in (("train", ~drawn), ("test", drawn))
        ], classes

    def _size(self, train: _Part) -> tuple[int, int, int]:
        return first_size(train.samples, channels=self.channels, resize=self.size)

    def _check(self, samples: Samples, size: tuple[int, int, int]) -> None:
        """Read the header of every picture; of large files, once."""
        Streamed(samples, size, self.size).check(f"{self.image} {self.label}", stated(samples.files))

    def _images(self, part: _Part, size: tuple[int, int, int], classes: tuple[str, ...]) -> Images:
        streamed = Streamed(part.samples, size, self.size)
        pixels = streamed.kept()
        if pixels is streamed:
            self._check(part.samples, size)
        ids = torch.arange(len(part.labels))
        whole = Images(pixels=pixels, labels=part.labels, ids=ids, classes=classes)
        if part.chosen is None:
            return whole
        return replace(whole.at(part.chosen), ids=torch.arange(len(part.chosen)))


def _find_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Tar files for training and for tests, in the folder, in folders of these names or below the only one there is.

    Raises:
        RequestError: There are none for training, or one of several is missing.
    """
    place = folder
    for _ in range(_DEEPEST):
        with reading(place, "folder"):
            entries = sorted(entry for entry in place.iterdir() if not entry.name.startswith("."))
        tars = [entry for entry in entries if entry.suffix == ".tar" and entry.is_file()]
        folders = [entry for entry in entries if entry.is_dir()]
        found = _by_name(tars) if tars else _by_folder(folders)
        if found[0]:
            for files in found:
                check_parts(files)
                _check_numbers(files)
            return found
        if tars or len(folders) != 1:
            break
        place = folders[0]
    packed = next((entry.name for entry in entries if entry.name.endswith(_PACKED)), None)
    unpack = f"; {packed} is compressed, unpack it to a .tar first" if packed else ""
    raise RequestError(
        f"{folder}: needs tar files with {TRAINS[0]} in their names (train-000000.tar), or in a folder {TRAINS[0]}; "
        f"{contents_of(place)}{unpack}"
    )


def _by_name(tars: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Training and test files; all are for training where no name says anything."""
    words = {tar: re.split(r"[^a-z]+", tar.stem.lower()) for tar in tars}
    trains, tests = (
        next((found for name in names if (found := [tar for tar in tars if name in words[tar]])), [])
        for names in (TRAINS, TESTS)
    )
    return (trains, tests) if trains or tests else (list(tars), [])


def _by_folder(folders: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    trains, tests = (
        next((found for place in named([one.name for one in folders], names) if (found := _tars(folders, place))), [])
        for names in (TRAINS, TESTS)
    )
    return trains, tests


def _tars(folders: Sequence[Path], name: str) -> list[Path]:
    return sorted(next(one for one in folders if one.name == name).glob("[!.]*.tar"))


def _check_numbers(files: Sequence[Path]) -> None:
    """Numbered files must be there without a gap."""
    series: dict[str, dict[int, str]] = {}
    for path in files:
        if match := re.fullmatch(r"(.*?)([0-9]+)", path.stem):
            known = series.setdefault(match[1], {})
            if int(match[2]) in known:
                raise RequestError(f"{path.parent}: {known[int(match[2])]} and {path.name} have the same number")
            known[int(match[2])] = path.name
    for known in series.values():
        for before, number in pairwise(sorted(known)):
            if number > before + 1:
                raise RequestError(
                    f"{files[0].parent}: number {before + 1} is missing after {known[before]}; the set must be complete"
                )


def _labels(
    folder: Path, samples: Sequence[Samples], names: Sequence[str] | None
) -> tuple[list[Tensor], tuple[str, ...]]:
    """int64 labels of each split, and the class names.

    Raises:
        RequestError: Some are numbers and others are names, and `names` does not say that all are names.
    """
    texts = [one.texts for one in samples]
    there = [str(text) for one in texts for text in one]
    numbers = [text for text in there if _NUMBER.fullmatch(text)]
    if len(numbers) == len(there):
        labels = [torch.from_numpy(one.astype(np.int64)) for one in texts]
        labels = [of[one.label] for of, one in zip(labels, samples, strict=True)]
        return labels, class_names(folder, [labels[0], labels[-1]], names)
    if numbers and "" not in there and not set(numbers) <= set(names or ()):
        name = next(text for text in there if text not in numbers)
        one, other = _first(samples, numbers[0]), _first(samples, name)
        raise RequestError(
            f"{folder}: some labels are numbers and others are names of classes: {one}, {other}. Write numbers in all "
            "samples or names in all; where numbers are names here, list all names with `classes`"
        )
    labels, known = numbered(f"{folder}: a label", texts, names)
    return [of[one.label] for of, one in zip(labels, samples, strict=True)], known


def _first(samples: Sequence[Samples], text: str) -> str:
    """A label with the first picture that has it."""
    one = next(one for one in samples if text in one.texts)
    place = int(np.flatnonzero(one.texts[one.label] == text)[0])
    return f"{text!r} of {one.name(place)}"


def _digest(parts: Sequence[_Part]) -> str:
    """Identity of the samples: names, sizes and labels, and the content of files that are not too large for it."""
    known = hashlib.sha256()
    files: list[Path] = []
    for part in parts:
        of = part.samples
        places = range(len(of)) if part.chosen is None else part.chosen.tolist()
        sizes, texts, label = of.size.tolist(), of.texts.tolist(), of.label.tolist()
        for place in places:
            line = f"{part.name}/{of.names[place]}\0{sizes[place]}\0{texts[label[place]]}\n"
            known.update(line.encode(errors="surrogateescape"))
        files += [path for path in of.files if path not in files]
    if is_hashed(sum(path.stat().st_size for path in files)):
        known.update(content_digest(files).encode())
    return known.hexdigest()
