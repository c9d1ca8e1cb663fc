"""Which layer of a model still holds a picture: channels x height x width, in the proportions of the images."""

from __future__ import annotations

import math
from collections.abc import Collection
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bascule.core.errors import RequestError, unknown

_SLACK = 1.0
"""Rows or columns by which a map may miss the proportions of the images: padding and odd sizes."""
_ALWAYS = (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d, nn.AvgPool2d)
"""Layers whose output is B x C x H x W by definition, also where a stride differs between rows and columns."""


class _Event(NamedTuple):
    """A module began to run, or its output is there."""

    name: str
    module: nn.Module
    shape: tuple[int, ...] | None
    """Of the input, or of the output; None where that is no tensor."""
    over: bool


def is_picture(shape: tuple[int, ...] | None, images: tuple[int, ...], sides: Collection[tuple[int, ...]] = ()) -> bool:
    """Whether this is the shape of one picture of several pixels per image and channel.

    Args:
        shape: Of a module's output.
        images: B x C x H x W.
        sides: Heights and widths that are known to be of pictures, whatever the proportions of the images.
    """
    if shape is None or len(shape) != 4 or shape[0] != images[0]:
        return False
    (rows, columns), (height, width) = shape[2:], images[2:]
    fits = abs(rows * width - columns * height) <= _SLACK * max(height, width)
    return rows * columns > 1 and (fits or (rows, columns) in sides)


def _sides(events: list[_Event]) -> set[tuple[int, ...]]:
    """Heights and widths of all maps that are pictures by definition."""
    return {event.shape[2:] for event in events if event.over and isinstance(event.module, _ALWAYS) and event.shape}


def named_layer(model: nn.Module, name: str, x: Tensor) -> nn.Module:
    """The module of that name.

    Raises:
        RequestError: There is none, it does not run, or its output is no picture.
    """
    modules = dict(model.named_modules())
    if name not in modules:
        raise RequestError(unknown("layer", name, filter(None, modules)), place=("layer",))
    watched = {key: module for key, module in modules.items() if key == name or isinstance(module, _ALWAYS)}
    events = _run(model, watched, x)
    shapes = [event.shape for event in events if event.over and event.name == name]
    if not shapes:
        raise RequestError(f"layer {name!r} does not run when the model is used; name another one", place=("layer",))
    if not is_picture(shapes[-1], tuple(x.shape), _sides(events)):
        raise RequestError(_no_picture(name, shapes[-1], x), place=("layer",))
    return modules[name]


def _no_picture(name: str, shape: tuple[int, ...] | None, x: Tensor) -> str:
    if shape is None:
        return f"the output of {name!r} is no tensor; name a layer whose output is B x C x H x W"
    if len(shape) != 4:
        problem = f"the output of {name!r} has {len(shape)} dimensions, a heat map needs B x C x H x W"
        return f"{problem}; name a layer before the images are flattened"
    return (
        f"the output of {name!r} is {' x '.join(map(str, shape[1:]))} for each image; a heat map needs channels x "
        f"height x width, in the proportions of the images ({x.shape[2]} x {x.shape[3]}), with more than one pixel. "
        "Name another layer"
    )


def last_picture(model: nn.Module, x: Tensor) -> nn.Module:
    """The last Conv2d whose output is a picture; behind layers that work on tokens, the last module with a picture.

    A convolution that only cuts the image into patches, with all that the model thinks behind it, is not taken: there,
    heat would mean nothing.

    Raises:
        RequestError: There is no such layer.
    """
    size = tuple(x.shape)
    events = _run(model, {name: module for name, module in model.named_modules() if name}, x)
    sides = _sides(events)
    pictures = [place for place, event in enumerate(events) if event.over and is_picture(event.shape, size, sides)]
    convolutions = [place for place in pictures if isinstance(events[place].module, nn.Conv2d)]
    others = [place for place, event in enumerate(events) if not event.over and _works_elsewhere(event, size, sides)]
    behind = max(others, default=-1)
    candidates = pictures if convolutions and others and convolutions[-1] < behind else convolutions
    if candidates and candidates[-1] > behind:
        return events[candidates[-1]].module
    names = ", ".join(name for name, _ in model.named_modules() if name)
    if not any(isinstance(event.module, nn.Conv2d) for event in events):
        raise RequestError(f"the model has no Conv2d; name a layer of it: {names}", place=("layer",))
    if not convolutions:
        why = "no Conv2d of the model gives more than one pixel"
    else:
        why = (
            f"behind the model's last convolution with a picture ({events[convolutions[-1]].name!r}) its layers work "
            f"on tokens or on another order of the dimensions ({events[behind].name!r})"
        )
    raise RequestError(
        f"{why}; name a layer whose output is channels x height x width, or use an explanation by pixels, such as "
        f"saliency or integrated-gradients. Its layers: {names}",
        place=("layer",),
    )


def _works_elsewhere(event: _Event, images: tuple[int, ...], sides: Collection[tuple[int, ...]]) -> bool:
    """Whether a module with weights takes in positions that do not lie as a picture: tokens, windows, channels last."""
    if not event.module._parameters or isinstance(event.module, _ALWAYS) or event.shape is None:
        return False
    if event.shape[0] == images[0] and math.prod(event.shape[1:]) == max(event.shape[1:], default=1):
        return False  # one vector for each image, like what a classifier takes in: of 1 x 1 maps, in whatever order
    if isinstance(event.module, nn.Linear):
        return True
    return not is_picture(event.shape, images, sides) and event.shape[2:] != (1, 1)


def _run(model: nn.Module, watched: dict[str, nn.Module], x: Tensor) -> list[_Event]:
    """What happened in one pass, in order."""
    events: list[_Event] = []

    def note(name: str, module: nn.Module, value: Any, *, over: bool) -> None:
        shape = tuple(value.shape) if isinstance(value, Tensor) else None
        events.append(_Event(name, module, shape, over))

    def watch(name: str, module: nn.Module) -> None:
        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            note(name, module, next(iter((*args, *kwargs.values())), None), over=False)

        def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            note(name, module, output, over=True)

        for handle in (
            module.register_forward_pre_hook(before, with_kwargs=True),
            module.register_forward_hook(after),
        ):
            stack.callback(handle.remove)

    with ExitStack() as stack, torch.no_grad():
        for name, module in watched.items():
            watch(name, module)
        model(x)
    return events
