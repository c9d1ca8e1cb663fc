"""What somebody has in Python, as the rooms want it: images with labels, a model, a component."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from bascule.attacks.two_precisions import Precision, precision_named
from bascule.core.catalog import build
from bascule.core.errors import RequestError, placed
from bascule.core.gather import gather, is_data_set
from bascule.core.images import Floats, as_floats, only_marks
from bascule.core.restore import evaluating
from bascule.models.checks import check_logits

Data: TypeAlias = Tensor | NDArray[Any] | Dataset[Any] | DataLoader[Any] | Sequence[tuple[Any, Any]]
"""Images N x C x H x W, floats in [0, 1] or uint8; or what gives images with their labels."""
Labels: TypeAlias = Tensor | NDArray[Any] | Sequence[int]
"""Whole numbers, shape (N,)."""


def part_of(room: str, given: str | Mapping[str, Any] | Any, settings: Mapping[str, Any], *, argument: str = "") -> Any:
    """The component that is meant by a name with settings, by a mapping, or by itself.

    Args:
        room: Whose it is.
        given: The argument called `argument`, by default like the room.
        settings: Of a component that is given by its name.

    Raises:
        RequestError: There is none like that.
    """
    with placed(argument or room):
        if settings and not isinstance(given, str):
            raise RequestError(f"settings ({', '.join(settings)}) go with a name; put them into the {room} itself")
        return build(room, {"name": given, **settings} if isinstance(given, str) else given)


def precision_of(given: str) -> Precision:
    """Of the attacks' searches.

    Raises:
        RequestError: There is none of this name.
    """
    with placed("attack_precision"):
        return precision_named(given)


def floats_for(model: nn.Module, x: Any, y: Any, seed: int) -> tuple[Floats, int]:
    """The images where the model is and as it takes them, and the number of its classes, tried on a few of them."""
    if not isinstance(model, nn.Module):
        raise RequestError(f"expected a torch.nn.Module, got {type(model).__name__}", place=("model",))
    if is_data_set(x):
        if y is not None:
            raise RequestError(f"{type(x).__name__} brings its labels along: leave `y` out", place=("y",))
        x, y = gather(x, seed=seed)
    elif y is None:
        what = "a tensor" if isinstance(x, Tensor) else type(x).__name__
        raise RequestError(f"labels are needed: `x` is {what}, not a data set or loader that has them", place=("y",))
    x, y = torch.as_tensor(x).detach(), torch.as_tensor(y)
    if y.is_floating_point() or y.dtype == torch.bool:
        raise RequestError(f"labels are whole numbers, int64; got {str(y.dtype).removeprefix('torch.')}", place=("y",))
    weight = next((part for part in model.parameters() if part.is_floating_point()), None)
    device = x.device if weight is None else weight.device
    if x.dtype == torch.uint8:
        problem = only_marks(x) if x.numel() else None
        if problem is not None:
            warnings.warn(f"x: {problem}", stacklevel=4)
        x = as_floats(x)
    if x.is_floating_point():
        # As the model has it, but never in 16 bits: what is rounded to them does not stay in its ball.
        x = x.to(torch.promote_types(torch.float32, x.dtype if weight is None else weight.dtype))
    images = Floats(x=x.to(device), labels=y.to(device, torch.int64))
    few = images.x[:2]
    with placed("model"):
        try:
            with evaluating(model), torch.no_grad():
                logits = model(few)
        except RequestError:
            raise
        except Exception as error:  # somebody's code may raise anything
            size = " x ".join(map(str, few.shape[1:]))
            raise RequestError(f"cannot take images of {size}: {type(error).__name__}: {error}") from error
        classes = logits.shape[1] if isinstance(logits, Tensor) and logits.ndim == 2 else 0
        check_logits(type(model).__name__, logits, len(few), classes)
    highest = int(images.labels.max())
    if highest >= classes:
        raise RequestError(f"labels go up to {highest}, but the model has the classes 0..{classes - 1}", place=("y",))
    return images, classes
