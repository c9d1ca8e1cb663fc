"""Labelled images behind one interface, in memory, memory-mapped or decoded batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bascule.core.errors import RequestError
from bascule.core.text import count


class Shown(Protocol):
    """What a model is shown: labelled images that come out as floats, batch by batch."""

    @property
    def labels(self) -> Tensor:
        """int64, shape (N,)."""

    @property
    def ids(self) -> Tensor:
        """int64, shape (N,), unique."""

    @property
    def device(self) -> torch.device:
        """Where batches come out."""

    @property
    def size(self) -> tuple[int, int, int]:
        """Channels, height and width."""

    def __len__(self) -> int: ...

    def batch(self, index: Tensor) -> Tensor:
        """The images at these positions as floats in [0, 1], B x C x H x W."""


class Pixels(Protocol):
    """What holds the pictures: a uint8 tensor (in memory or memory-mapped), or anything that decodes on demand."""

    @property
    def shape(self) -> torch.Size:
        """N, C, H, W."""

    def __getitem__(self, index: Tensor, /) -> Tensor:
        """The pictures at these positions (int64, any order), len(index) x C x H x W: uint8, or of `Exact` floats."""


class Exact:
    """Pictures in memory that are no whole bytes: floats in [0, 1], N x C x H x W, of 32 bits."""

    def __init__(self, x: Tensor) -> None:
        self.x, self.shape = x, x.shape

    def __getitem__(self, index: Tensor, /) -> Tensor:
        return self.x[index.to(self.x.device)]


@dataclass(frozen=True, kw_only=True, eq=False)
class Images:
    """N labelled images.

    Args:
        pixels: uint8, N x C x H x W.
        labels: int64, shape (N,), values in [0, len(classes)).
        ids: int64, shape (N,), unique and stable: the same image keeps its id through every stage.
        classes: Class names in label order.

    Raises:
        RequestError: A shape, type or label that does not fit.
    """

    pixels: Pixels
    labels: Tensor
    ids: Tensor
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        shape = self.pixels.shape
        if len(shape) != 4 or shape[1] not in (1, 3):
            raise RequestError(
                f"images must be N x C x H x W with 1 or 3 channels, got shape {tuple(shape)}{_turned(shape)}"
            )
        if isinstance(self.pixels, Tensor) and self.pixels.dtype != torch.uint8:
            raise RequestError(f"images must be stored as uint8 (0 to 255), got {self.pixels.dtype}")
        if shape[0] == 0:
            raise RequestError("the set holds no images")
        for name, value in (("labels", self.labels), ("ids", self.ids)):
            if value.shape != (shape[0],):
                raise RequestError(f"{count(shape[0], 'image')} but {name} of shape {tuple(value.shape)}")
            if value.dtype != torch.int64:
                raise RequestError(f"{name} must be int64, got {value.dtype}")
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= len(self.classes):
            raise RequestError(f"labels must lie in 0..{len(self.classes) - 1}, found {low}..{high}")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def size(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        _, channels, height, width = self.pixels.shape
        return channels, height, width

    @property
    def device(self) -> torch.device:
        """Where batches come out."""
        return self.labels.device

    @property
    def is_decoded(self) -> bool:
        """Whether pictures are decoded when they are asked for, and so worth asking for early (`core/ahead.py`)."""
        return _is_decoded(self.pixels)

    def batch(self, index: Tensor) -> Tensor:
        """The images at these positions as floats in [0, 1], B x C x H x W, on this set's device."""
        if isinstance(self.pixels, Tensor):
            # Copies whole pictures; `pixels[index]` copies value by value.
            return self.on_device(self.pixels.index_select(0, index.to(self.pixels.device)))
        return self.on_device(self.pixels[index])

    def on_device(self, pixels: Tensor) -> Tensor:
        """Pictures out of `pixels` as `batch` gives them."""
        pixels = pixels.to(self.device, non_blocking=True)
        return pixels if pixels.is_floating_point() else as_floats(pixels)

    def at(self, index: Tensor) -> Images:
        """The subset at these positions, in this order, ids kept."""
        pixels = self.pixels[index] if isinstance(self.pixels, Tensor) else _Selected(self.pixels, index)
        return replace(self, pixels=pixels, labels=self.labels[index], ids=self.ids[index])

    def to(self, device: torch.device) -> Images:
        """This set with labels, and pixels that fit in memory, on `device`."""
        pixels = self.pixels.to(device) if isinstance(self.pixels, Tensor) else self.pixels
        return replace(self, pixels=pixels, labels=self.labels.to(device), ids=self.ids.to(device))

    def with_replaced(self, index: Tensor, pixels: Tensor, labels: Tensor) -> Images:
        """A copy in which the images at these positions have other pixels (uint8) and labels; ids are kept."""
        new_labels = self.labels.clone()
        new_labels[index] = labels
        if not isinstance(self.pixels, Tensor):
            return replace(self, pixels=_Overlaid(self.pixels, index, pixels), labels=new_labels)
        new_pixels = self.pixels.clone()
        new_pixels[index] = pixels
        return replace(self, pixels=new_pixels, labels=new_labels)


def _is_decoded(pixels: Pixels) -> bool:
    if isinstance(pixels, (_Selected, _Overlaid)):
        return _is_decoded(pixels.base)
    return not isinstance(pixels, (Tensor, Exact))


class _Selected:
    """A subset of pictures that are decoded on demand."""

    def __init__(self, base: Pixels, index: Tensor) -> None:
        self.base, self.index = base, index.cpu()
        self.shape = torch.Size((len(index), *base.shape[1:]))

    def __getitem__(self, index: Tensor, /) -> Tensor:
        return self.base[self.index[index.cpu()]]


class _Overlaid:
    """Pictures decoded on demand, some of which are replaced by stored ones."""

    def __init__(self, base: Pixels, index: Tensor, pixels: Tensor) -> None:
        self.base, self.pixels = base, pixels.cpu()
        self.shape = base.shape
        self.slot = torch.full((base.shape[0],), -1)
        self.slot[index.cpu()] = torch.arange(len(index))

    def __getitem__(self, index: Tensor, /) -> Tensor:
        index = index.cpu()
        batch = self.base[index]
        slot = self.slot[index]
        stored = self.pixels[slot[slot >= 0]]
        batch[slot >= 0] = as_floats(stored).to(batch) if batch.is_floating_point() else stored
        return batch


@dataclass(frozen=True, kw_only=True, eq=False)
class Floats:
    """N labelled images that need not be whole bytes, as somebody has them in memory.

    Args:
        x: Floats in [0, 1], N x C x H x W.
        labels: int64, shape (N,), on the device of `x`.

    Raises:
        RequestError: A shape, type or range that does not fit.
    """

    x: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.x.ndim != 4 or not self.x.is_floating_point():
            raise RequestError(
                f"images must be N x C x H x W, floats in [0, 1] or uint8; got {_kind(self.x)}{_remedy(self.x)}",
                place=("x",),
            )
        if len(self.x) == 0:
            raise RequestError("there are no images", place=("x",))
        if turned := _turned(self.x.shape):
            raise RequestError(f"images must be N x C x H x W, got shape {tuple(self.x.shape)}{turned}", place=("x",))
        low, high = float(self.x.min()), float(self.x.max())
        if low != low:
            broken = int(self.x.isnan().flatten(1).any(1).sum())
            raise RequestError(
                f"images must lie in [0, 1], found nan..nan: {count(broken, 'image holds', 'images hold')} NaN",
                place=("x",),
            )
        if not (low >= 0 and high <= 1):
            raise RequestError(
                f"images must lie in [0, 1], found {low:.4g}..{high:.4g}. Normalisation belongs inside the model, as "
                "its first layer; pixels from 0 to 255 are given as uint8",
                place=("x",),
            )
        if self.labels.shape != (len(self.x),) or self.labels.dtype != torch.int64:
            raise RequestError(
                f"{count(len(self.x), 'image needs', 'images need')} as many labels, int64; got {_kind(self.labels)}",
                place=("y",),
            )
        if int(self.labels.min()) < 0:
            raise RequestError(f"labels count from 0, found {int(self.labels.min())}", place=("y",))

    @property
    def ids(self) -> Tensor:
        """int64, shape (N,): their positions, as nothing else is known of them."""
        return torch.arange(len(self.labels), device=self.device)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def size(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        _, channels, height, width = self.x.shape
        return channels, height, width

    @property
    def device(self) -> torch.device:
        """Where batches come out."""
        return self.labels.device

    def batch(self, index: Tensor) -> Tensor:
        """The images at these positions, B x C x H x W."""
        return self.x[index]


def _kind(value: Tensor) -> str:
    return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"


def _turned(shape: Sequence[int]) -> str:
    """What to say of images whose channels come last; nothing of others."""
    last = channel_axis(shape, first=1) == 3 and min(shape[1:3]) > shape[3]
    return ": the channels come last; give x.permute(0, 3, 1, 2), of an array x.transpose(0, 3, 1, 2)" if last else ""


def _remedy(x: Tensor) -> str:
    """How what is no batch of images may become one."""
    if x.ndim == 3:
        return ": give grey images as x[:, None], a single image as x[None]"
    if x.ndim == 2:
        return ": give rows of pixels as images, x.reshape(-1, C, H, W)"
    whole = x.ndim == 4 and not x.is_floating_point() and not x.is_complex()
    return ": give whole numbers from 0 to 255 as uint8, x.to(torch.uint8)" if whole else ""


class Splits(NamedTuple):
    """Training and test images of one source; same size and classes."""

    train: Images
    test: Images


def channel_axis(shape: Sequence[int], *, first: int = 3) -> int | None:
    """The axis of the channels, 1 or 3 of them, in N x H x W x C or N x C x H x W; None where there is none.

    Args:
        shape: Of stored images.
        first: The axis that counts, 3 or 1, where both may be it.
    """
    axes = (first, 4 - first)
    return next((axis for axis in axes if len(shape) == 4 and shape[axis] in (1, 3)), None)


def channels_first(images: NDArray[Any], axis: int | None) -> NDArray[Any]:
    """N x C x H x W of images with that axis of the channels, or of N x H x W; the same memory."""
    return images[:, None] if axis is None else np.moveaxis(images, axis, 1)


def as_floats(pixels: Tensor) -> Tensor:
    """uint8 0..255 to float32 in [0, 1]."""
    return pixels.to(torch.float32).div_(255)


NEARLY_BLACK = (
    "all pixels are 0 or 1 on a scale from 0 to 255: black to a model. If they stand for black and white, or were "
    "floats from 0 to 1, save them as floats or times 255"
)
"""Of bytes that are masks, or floats that somebody has cast."""


def only_marks(pixels: Tensor) -> str | None:
    """What to say of uint8 images that hold nothing but 0 and 1, which somebody meant for black and white; else None.

    Black throughout is nothing but black.
    """
    return NEARLY_BLACK if brightest(pixels) == 1 else None


def brightest(pixels: Tensor) -> int:
    """The largest byte; reads no further than to the first images that hold one above 1."""
    highest = 0
    for part in pixels.split(_PART):
        highest = max(highest, int(part.max()))
        if highest > 1:
            break
    return highest


_PART = 1000
"""Images read at a time."""


def as_bytes(x: Tensor) -> Tensor:
    """Floats in [0, 1] to the nearest uint8: what the image would be once saved to a file."""
    return x.mul(255).round_().clamp_(0, 255).to(torch.uint8)
