"""Images and labels as somebody has them in Python, as tensors."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bascule.core.errors import RequestError
from bascule.core.gather import are_pictures, gather, is_data_set, native, stacked
from bascule.core.images import Floats, Images, Splits, as_floats, only_marks

Data: TypeAlias = Tensor | NDArray[Any] | Dataset[Any] | DataLoader[Any] | Iterable[Any] | Images
"""Images N x C x H x W, floats in [0, 1] or uint8 (0 to 255); or a data set or loader that gives (image, label).

`Images` are what `bascule.data.Digits().load().train` is.
"""
Labels: TypeAlias = Tensor | NDArray[Any] | Sequence[int]
"""Whole numbers from 0, shape (N,)."""
_PACKAGE = str(Path(__file__).parents[1])


def labelled(x: Data, y: Labels | None, *, seed: int) -> Floats:
    """Images with their labels, where they are, floats in [0, 1] of at least 32 bits.

    Args:
        x: The argument called `x`.
        y: The argument called `y`; None with a data set.
        seed: Of what a data set draws.

    Raises:
        RequestError: A wrong type, shape, range or label; its place is the argument.
    """
    _check_split(x)
    if isinstance(x, Images) or is_data_set(x):
        if y is not None:
            raise RequestError(f"{type(x).__name__} brings its labels along: leave `y` out", place=("y",))
        x, y = (_held(x), x.labels) if isinstance(x, Images) else gather(x, seed=seed)
    elif y is None:
        what = "a tensor" if isinstance(x, Tensor) else type(x).__name__
        raise RequestError(f"labels are needed: `x` is {what}, not a data set or loader that has them", place=("y",))
    x, y = _pixels(x), _tensor(y, "y")
    if y.numel() and (y.is_floating_point() or y.is_complex() or y.dtype == torch.bool):
        hot = f" of shape {tuple(y.shape)}: of one-hot labels give y.argmax(1)" if y.ndim == 2 else ""
        kind = str(y.dtype).removeprefix("torch.")
        raise RequestError(f"labels are whole numbers, int64; got {kind}{hot}", place=("y",))
    return Floats(x=x, labels=y.to(x.device, torch.int64))


def unlabelled(x: Data) -> Tensor:
    """Images where they are, floats in [0, 1] of at least 32 bits; what a data set says of labels is left out.

    Raises:
        RequestError: A wrong type, shape or range; its place is `x`.
    """
    _check_split(x)
    if isinstance(x, Images):
        x = _held(x)
    elif is_data_set(x):
        x, _ = gather(x, seed=0)
    x = _pixels(x)
    if x.ndim == 4 and len(x) == 0:
        return x
    return Floats(x=x, labels=torch.zeros(len(x) if x.ndim else 0, dtype=torch.int64, device=x.device)).x


def _held(images: Images) -> Tensor:
    """All pictures of a set, in memory."""
    pixels = images.pixels
    return pixels if isinstance(pixels, Tensor) else pixels[torch.arange(len(images))]


def _check_split(x: object) -> None:
    if isinstance(x, Splits):
        raise RequestError("training and test images together; give `.train` or `.test` of them", place=("x",))


def _pixels(given: Any) -> Tensor:
    x = stacked(given) if are_pictures(given) else _tensor(given, "x").detach()
    if x.dtype == torch.uint8:
        problem = only_marks(x) if x.numel() else None
        if problem is not None:
            warnings.warn(f"x: {problem}", stacklevel=outside())
        return as_floats(x)
    return x.to(torch.promote_types(torch.float32, x.dtype)) if x.is_floating_point() else x


def _tensor(given: Any, place: str) -> Tensor:
    try:
        tensor = torch.as_tensor(native(given) if isinstance(given, np.ndarray) else given)
    except (TypeError, ValueError, RuntimeError) as error:
        if place == "y" and _are_names(given):
            how = "give the number of each, as of numpy.unique(y, return_inverse=True)[1]"
            raise RequestError(f"labels are whole numbers, and these are names: {how}", place=(place,)) from None
        what = {"x": "images are a tensor or an array, or a data set or loader", "y": "labels are whole numbers"}[place]
        raise RequestError(f"{what}; got {type(given).__name__} ({error})", place=(place,)) from error
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
        kind = "without values (meta)" if tensor.is_meta else "quantized" if tensor.is_quantized else "sparse"
        raise RequestError(f"an ordinary tensor is needed; this one is {kind}", place=(place,))
    return tensor


def _are_names(given: Any) -> bool:
    try:
        return np.asarray(given).dtype.kind in "US"
    except ValueError:  # ragged
        return False


def outside() -> int:
    """The level, for a warning of the function that asks, of the first caller that is no code of this package."""
    level, frame = 0, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    return level + 1
