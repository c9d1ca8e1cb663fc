"""What others store of an attack: pictures that replace training images, and stamped test images, by number.

Numbers are the ids of the data source, for most sources the positions in it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from bascule.core.errors import RequestError
from bascule.core.images import channel_axis, channels_first, only_marks
from bascule.core.text import quote

_LARGEST = 2**31
"""Largest number or label of an image; anything above is damage."""

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, eq=False)
class Pictures:
    """N pictures of images of a data set."""

    index: Tensor | None
    """int64, shape (N,), ascending, each once: which images. None where nobody says: then those that are not of the
    target class, in order."""
    pixels: Tensor
    """uint8, N x C x H x W."""
    after: Tensor | None = None
    """int64, shape (N,): the labels that the pictures are given; None where that is the target's."""
    before: Tensor | None = None
    """int64, shape (N,): the labels of the images that they were made from, where they are told."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Stored:
    """What is stored of an attack."""

    train: Pictures | None = None
    """What training images are replaced with."""
    test: Pictures | None = None
    """Stamped test images."""
    poisoned: Tensor | None = None
    """int64, ascending: training images that are poisoned in the data set itself."""

    def target(self) -> int | None:
        """The class that is aimed at; None where it is not told.

        Raises:
            RequestError: Several classes are.
        """
        part = self.test if self.test is not None and self.test.after is not None else self.train
        if part is None or part.after is None:
            return None
        changed = part.after if part.before is None else part.after[part.after != part.before]
        found = (changed if len(changed) else part.after).unique().tolist()
        if len(found) > 1:
            few = ", ".join(map(str, found[:5]))
            raise RequestError(
                f"the attack aims at {len(found)} classes ({few}{', ...' if len(found) > 5 else ''}), as all-to-all "
                "attacks do. What is measured here is about one: give the pictures of one alone",
                place=("target",),
            )
        return int(found[0])


# --- pictures -------------------------------------------------------------------------------------------------------


def read_picture_file(file: Path) -> Bytes:
    """One picture, C x H x W."""
    with Image.open(file, formats=("PNG", "JPEG", "BMP")) as picture:
        picture.load()
        shown = picture.convert("RGB") if picture.mode == "P" else picture
        return as_channels(shown.tobytes(), shown.mode, shown.size, str(file))


def as_channels(content: bytes, mode: str, size: tuple[int, int], what: str) -> Bytes:
    """The bytes of a picture as Pillow has them, as C x H x W.

    Raises:
        RequestError: They are no grey or RGB picture of this size (width, height).
    """
    channels = {"L": 1, "RGB": 3}.get(mode)
    if channels is None:
        raise RequestError(f"{what} is a picture of mode {quote(mode)}; needed is L (grey) or RGB")
    width, height = size
    if min(width, height) < 1 or len(content) != width * height * channels:
        raise RequestError(f"{what} announces {width} x {height} pixels and holds {len(content)} bytes: it is damaged")
    return np.frombuffer(content, np.uint8).reshape(height, width, channels).transpose(2, 0, 1)


def pictures_of(entries: Mapping[int, tuple[Bytes, int | None, int | None]]) -> Pictures | None:
    """Pictures by number, each with its label after and before, where these are known; None where there are none.

    Raises:
        RequestError: They are not all of one size, or a number or label cannot be.
    """
    if not entries:
        return None
    ordered = sorted(entries)
    shapes = {entries[number][0].shape: number for number in reversed(ordered)}
    if len(shapes) > 1:
        (one, first), (other, second) = list(shapes.items())[:2]
        sizes = " and ".join(
            f"image {number} {' x '.join(map(str, shape))}" for shape, number in ((one, first), (other, second))
        )
        raise RequestError(f"the pictures have different sizes (channels x height x width): {sizes}")
    columns: list[Tensor | None] = []
    for place in (1, 2):
        labels = [entries[number][place] for number in ordered]
        known = [label for label in labels if label is not None]
        columns.append(torch.tensor(known) if len(known) == len(ordered) else None)
    pixels = torch.from_numpy(np.stack([entries[number][0] for number in ordered]))
    made = Pictures(index=torch.tensor(ordered), pixels=pixels, after=columns[0], before=columns[1])
    return checked(made)


def checked(pictures: Pictures) -> Pictures:
    """The same, ordered by number.

    Raises:
        RequestError: Lengths differ, a number comes twice, or a number or label cannot be.
    """
    count = len(pictures.pixels)
    for name, values in (("numbers", pictures.index), ("labels", pictures.after), ("labels", pictures.before)):
        if values is None:
            continue
        if values.shape != (count,):
            raise RequestError(f"{count} pictures but {len(values)} {name}")
        if count and (int(values.min()) < 0 or int(values.max()) >= _LARGEST):
            raise RequestError(f"{name} from {int(values.min())} to {int(values.max())} cannot be")
    if pictures.index is None:
        return pictures
    index, order = pictures.index.sort()
    twice = index[1:][index[1:] == index[:-1]]
    if len(twice):
        raise RequestError(f"image {int(twice[0])} comes twice")
    after, before = (None if part is None else part[order] for part in (pictures.after, pictures.before))
    return replace(pictures, index=index, pixels=pictures.pixels[order], after=after, before=before)


def pixels_of(images: NDArray[Any], what: str) -> Tensor:
    """N x C x H x W uint8 of images in one of the usual layouts: bytes, or floats from 0 to 1 or from 0 to 255.

    Raises:
        RequestError: Another shape, type or range.
    """
    axis = channel_axis(images.shape, first=1)  # of BackdoorBench's tensors it is never the last
    if (images.ndim != 3 and axis is None) or 0 in images.shape:
        raise RequestError(f"{what} has shape {images.shape}; needed is N x H x W, N x H x W x C or N x C x H x W")
    images = channels_first(images, axis)
    if images.dtype.kind not in "iuf":
        raise RequestError(f"{what} holds {images.dtype}; needed are bytes, or floats in [0, 1]")
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 255):  # NaN too
        raise RequestError(f"{what} ranges from {low:g} to {high:g}; needed is 0 to 255, or 0 to 1")
    floats = images.dtype.kind == "f"
    if floats:
        images = np.rint(images.astype(np.float64) * (255 if high <= 1 else 1))
    pixels = torch.from_numpy(np.ascontiguousarray(images.astype(np.uint8)))
    if not floats and (note := only_marks(pixels)):
        warnings.warn(f"{what}: {note}", stacklevel=2)
    return pixels


# --- lists of numbers -------------------------------------------------------------------------------------------------


def read_numbers(path: str) -> Tensor:
    """The numbers in a text file, one a line, ascending; int64.

    Raises:
        RequestError: A line is no number, a number comes twice, or there is none; its place is `indices`.
    """
    try:
        lines = Path(path).expanduser().read_text(encoding="utf-8").split("\n")
        numbers = []
        for place, line in enumerate(lines, 1):
            if line.strip() and not line.strip().isdecimal():
                raise RequestError(f"line {place} is {quote(line.strip())}; needed is the number of an image a line")
            numbers += [int(line)] if line.strip() else []
        return numbers_of(numbers)
    except RequestError as error:
        raise RequestError(f"{path!r}: {error.problem}", place=("indices",)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"cannot read {path!r}: {error}", place=("indices",)) from error


def numbers_of(numbers: Iterable[int]) -> Tensor:
    """Numbers of images, ascending; int64.

    Raises:
        RequestError: There are none, one comes twice, or one cannot be.
    """
    ordered: Sequence[int] = sorted(numbers)
    if not ordered:
        raise RequestError("there are no numbers in it")
    if not all(isinstance(number, int) for number in ordered) or ordered[0] < 0 or ordered[-1] >= _LARGEST:
        raise RequestError(f"numbers of images from {ordered[0]} to {ordered[-1]} cannot be")
    if len(set(ordered)) < len(ordered):
        raise RequestError("a number comes twice")
    return torch.tensor(ordered, dtype=torch.int64)


# --- beside the data --------------------------------------------------------------------------------------------------


def places_of(index: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Where each of `ids` stands in `index` (ascending, each once), and whether it does; shape of `ids`."""
    places = torch.searchsorted(index, ids).clamp(max=max(0, len(index) - 1))
    return places, index[places] == ids


def fitted(pixels: Tensor, size: tuple[int, int, int], what: str) -> Tensor:
    """Pictures with the channels of the data: grey ones become RGB, and RGB ones grey where their channels are equal.

    Raises:
        RequestError: They are not of this size.
    """
    channels, *sides = size
    if list(pixels.shape[2:]) != sides:
        given, wanted = (" x ".join(map(str, pair)) for pair in (pixels.shape[2:], sides))
        raise RequestError(
            f"the pictures in {what} are of {given} pixels, the data of {wanted}; they are not resized. Give the data "
            "in the size that the attack had (folders and parquet files: `size`)",
            place=("path",),
        )
    if pixels.shape[1] == channels:
        return pixels
    if channels == 3:
        return pixels.expand(-1, 3, -1, -1)
    if bool((pixels == pixels[:, :1]).all()):
        return pixels[:, :1]
    raise RequestError(f"the pictures in {what} are coloured, the data are grey", place=("path",))


def check_labels(told: Tensor, labels: Tensor, ids: Tensor, what: str) -> None:
    """Pictures must tell the labels that the data have, or they belong to other data.

    Raises:
        RequestError: They do not.
    """
    wrong = (told != labels).nonzero().squeeze(1)
    if len(wrong):
        first = wrong[0]
        raise RequestError(
            f"{what} image {int(ids[first])} is said to be of class {int(told[first])}, and is of class "
            f"{int(labels[first])} in the data; so are {len(wrong)} of {len(told)}. These are other data, or in "
            "another order",
            place=("path",),
        )
