"""Images and labels out of what somebody has in Python: a torch data set, a data loader, anything like them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import IterableDataset

from bascule.core.errors import RequestError
from bascule.core.images import channel_axis
from bascule.core.rng import borrowed_global_stream

_IMAGE_KEYS = ("image", "img", "images", "pixel_values")
"""Keys of the image where the items are mappings."""
_LABEL_KEYS = ("label", "labels", "fine_label", "target")
_DEEP = 8
"""Sets in each other that are looked through for the names of classes."""


def native(array: NDArray[Any]) -> NDArray[Any]:
    """The array as torch takes it: the same memory, or a copy where it is flipped, read-only or of foreign bytes."""
    if array.dtype.isnative and array.flags.writeable and all(step >= 0 for step in array.strides):
        return array
    return array.astype(array.dtype.newbyteorder("="), order="C")


def is_data_set(x: Any) -> bool:
    """Whether `x` gives images with their labels, rather than being the images."""
    if isinstance(x, (Tensor, np.ndarray, str, bytes, Path)) or hasattr(x, "__array__"):
        return False
    if isinstance(x, (list, tuple)):
        return bool(x) and isinstance(x[0], (tuple, Mapping))
    return hasattr(x, "__iter__") or hasattr(x, "__getitem__")


def class_names(data: Any) -> tuple[str, ...] | None:
    """The names of a data set's classes by label, where it says them: torchvision's `classes`, the `features` of the
    `datasets` library; also of the set behind a loader or a part of a set. None where nothing says them."""
    for _ in range(_DEEP):
        names: Any = getattr(data, "classes", None)
        features = getattr(data, "features", None)
        if names is None and isinstance(features, Mapping):
            names = next((features[key].names for key in _LABEL_KEYS if hasattr(features.get(key), "names")), None)
        if isinstance(names, (list, tuple)) and names and all(isinstance(name, str) for name in names):
            return tuple(names)
        data = getattr(data, "dataset", None)
    return None


def gather(data: Any, *, seed: int) -> tuple[Tensor, Tensor]:
    """All images and labels of a data set or loader, gone through once.

    Args:
        data: Gives pairs (image, label, ...) or mappings of them, one by one or in batches. An image is a picture of
            Pillow, an array H x W or H x W x C, or a tensor C x H x W or H x W.
        seed: Of what the data set draws from torch's global generator (order, augmentation), which is put back.

    Returns:
        uint8 or floats in [0, 1], N x C x H x W, and int64, shape (N,).

    Raises:
        RequestError: It gives something else, images of several sizes or types or outside of their range, or labels
            that are no whole numbers; or reading it fails.
    """
    name = type(data).__name__
    if isinstance(data, Mapping):
        raise _wrong(f"{name} with {', '.join(map(str, list(data)[:8]))}; give one of them")
    images: list[Tensor] = []
    labels: list[Tensor] = []
    with borrowed_global_stream(seed, "data set"):
        for at, item in _items(data, name):
            image, label = _pair(item, name, at)
            x = _batch(image, name, at)
            _check(x, images, data, name, at)
            images.append(x)
            labels.append(_labels(label, len(x), name, at))
    if not images:
        raise _wrong(f"{name} gives no images")
    try:
        return torch.cat(images), torch.cat(labels)
    except (RuntimeError, MemoryError) as error:
        raise _wrong(f"not enough memory for all of {name}: give a part of it, torch.utils.data.Subset") from error


def stacked(pictures: Sequence[Any]) -> Tensor:
    """N x C x H x W of pictures of Pillow, or of tensors C x H x W or H x W.

    Raises:
        RequestError: They are of several sizes or types, or floats outside of [0, 1].
    """
    images, name = list[Tensor](), type(pictures).__name__
    for at, picture in enumerate(pictures):
        x = _batch(picture, name, at)
        _check(x, images, None, name, at)
        images.append(x)
    return torch.cat(images)


def are_pictures(x: Any) -> bool:
    """Whether this is a list of images alone, one by one: pictures of Pillow, or tensors."""
    single = isinstance(x, (list, tuple)) and bool(x)
    return single and (isinstance(x[0], Image.Image) or (isinstance(x[0], Tensor) and x[0].ndim in (2, 3)))


def _items(data: Any, name: str) -> Iterator[tuple[int, Any]]:
    """What the data set gives, with its number."""
    at = 0
    try:
        # Data sets of torch need not say when they end, but how many they are.
        by_number = hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, IterableDataset)
        for item in (data[i] for i in range(len(data))) if by_number else data:
            yield at, item
            at += 1
    except RequestError:
        raise
    except Exception as error:  # somebody's code may raise anything
        raise _wrong(f"{name}: item {at} cannot be read: {type(error).__name__}: {error}") from error


def _pair(item: Any, name: str, at: int) -> tuple[Any, Any]:
    if isinstance(item, Mapping):
        keys = [next((key for key in usual if key in item), None) for usual in (_IMAGE_KEYS, _LABEL_KEYS)]
        if None not in keys:
            return item[keys[0]], item[keys[1]]
        there = ", ".join(map(str, item))
        raise _wrong(f"{name}: item {at} needs an `image` or `img` and a `label`; it has {there}")
    if isinstance(item, (tuple, list)) and len(item) >= 2:
        return item[0], item[1]
    raise _wrong(f"{name}: item {at} is {_kind(item)}; (image, label) is needed")


def _batch(image: Any, name: str, at: int) -> Tensor:
    """N x C x H x W, of one image or several."""
    if isinstance(image, Image.Image):
        image = _pixels(image, name, at)
    if isinstance(image, np.ndarray):
        image = torch.from_numpy(native(np.array(image if image.ndim != 3 else image.transpose(2, 0, 1))))
    if not isinstance(image, Tensor) or image.ndim not in (2, 3, 4):
        raise _wrong(f"{name}: the image of item {at} is {_kind(image)}; a picture or a tensor C x H x W is needed")
    x = image.detach().cpu()
    if x.ndim == 2:
        x = x[None]
    if x.ndim == 3:
        x = x[None]
    if channel_axis(x.shape, first=1) == 3:
        raise _wrong(f"{name}: item {at} has the shape {tuple(image.shape)}, channels last; tensors are C x H x W")
    if not (x.dtype == torch.uint8 or x.is_floating_point()):
        raise _wrong(f"{name}: item {at} holds {x.dtype}; images are uint8 or floats in [0, 1]")
    return x


def _pixels(image: Image.Image, name: str, at: int) -> np.ndarray:
    if image.mode.startswith(("I", "F")):
        raise _wrong(f"{name}: item {at} is a picture with more than 8 bits per channel (mode {image.mode})")
    if image.mode == "P":
        image = image.convert("RGBA")  # transparency goes with it
    return np.array(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))


def _check(x: Tensor, before: list[Tensor], data: Any, name: str, at: int) -> None:
    """Size and type must be those of the first, floats must lie in [0, 1]."""
    if before and x.shape[1:] != before[0].shape[1:]:
        sizes = [" x ".join(map(str, one.shape[1:])) for one in (x, before[0])]
        raise _wrong(f"{name}: item {at} is {sizes[0]}, the first {sizes[1]} (C x H x W); bring all to one size")
    if before and x.dtype != before[0].dtype:
        raise _wrong(f"{name}: item {at} holds {x.dtype}, the first {before[0].dtype}; all must have one type")
    if x.dtype == torch.uint8 or not x.numel():
        return
    low, high = float(x.min()), float(x.max())
    if low >= 0 and high <= 1:
        return
    remedy = "some are NaN" if low != low else "give pixels from 0 to 255 as uint8"
    if low < 0:
        what = "its transform has a Normalize, which" if _normalises(data) else "they look normalised, which"
        remedy = f"{what} belongs inside the model, as its first layer: give them without"
    raise _wrong(f"{name}: item {at} ranges from {low:.4g} to {high:.4g}; images must lie in [0, 1]; {remedy}")


def _normalises(data: Any) -> bool:
    """Whether a data set's own transform ends in what torchvision and others call Normalize."""
    while hasattr(data, "dataset"):  # loaders and subsets
        data = data.dataset
    transform = getattr(data, "transform", None)
    parts = getattr(transform, "transforms", (transform,))
    return any(type(part).__name__ == "Normalize" for part in parts)


def _labels(label: Any, count: int, name: str, at: int) -> Tensor:
    """int64, shape (count,)."""
    try:
        y = torch.as_tensor(label)
    except (TypeError, ValueError, RuntimeError):
        y = torch.empty(0)
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise _wrong(f"{name}: the label of item {at} is {_kind(label)}; labels are whole numbers")
    if y.numel() != count:
        raise _wrong(f"{name}: item {at} has labels of shape {tuple(y.shape)}; one whole number per image is needed")
    return y.detach().cpu().reshape(-1).to(torch.int64)


def _kind(value: Any) -> str:
    if isinstance(value, (Tensor, np.ndarray)):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    shown = repr(value)
    return f"{type(value).__name__} {shown}" if len(shown) <= 40 else type(value).__name__


def _wrong(problem: str) -> RequestError:
    return RequestError(problem, place=("x",))
