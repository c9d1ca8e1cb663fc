"""What a layer of a model says about each image, computed in pieces: a large set's never lie in memory as a whole."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from bascule.core.ahead import read_batches
from bascule.core.errors import RequestError, nearest
from bascule.core.images import Images
from bascule.core.inference import chunks
from bascule.core.restore import evaluating

IN_MEMORY_BYTES = 2**29
"""Features that fit into this are computed once and kept while they are worked on; others are computed at each pass."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """One vector of floats per image: the output of a layer, or the input of the last linear layer.

    Made by `features`. Nothing is computed before `chunks`, `matrix` or `in_memory` is called, and each pass over
    `chunks` runs the model again unless the features are in memory.
    """

    model: nn.Module
    images: Images
    layer: str
    """Name of the module inside the model."""
    of_input: bool
    """Whether the vectors are the module's input, not its output."""
    shape: tuple[int, ...]
    """Shape of one image's output before it is flattened: (C, H, W) for maps, (D,) for vectors."""
    batch_size: int
    rows: Tensor | None = None
    """The vectors themselves where they are held."""

    def __len__(self) -> int:
        return len(self.images)

    @property
    def width(self) -> int:
        """Length D of an image's vector."""
        return math.prod(self.shape)

    @property
    def labels(self) -> Tensor:
        """int64, shape (N,), on the images' device."""
        return self.images.labels

    def at(self, index: Tensor) -> Features:
        """The features of the images at these positions, in this order."""
        return replace(self, images=self.images.at(index), rows=None if self.rows is None else self.rows[index])

    def by_class(self) -> Iterator[tuple[int, Tensor, Features]]:
        """For each label that occurs, rising: the label, the positions of its images, and their features."""
        for label in self.labels.unique().tolist():
            index = (self.labels == label).nonzero().squeeze(1)
            yield label, index, self.at(index)

    def chunks(self) -> Iterator[Tensor]:
        """The vectors in order, float32, at most `batch_size` x D at a time, on the images' device.

        Raises:
            RequestError: The layer's output is no longer a tensor with a row per image, or is not finite.
        """
        if self.rows is not None:
            yield from self.rows.split(self.batch_size)
            return
        for _, x in read_batches(self.images, chunks(len(self), self.batch_size, self.images.device)):
            # Hook and mode are set for one batch at a time: whoever stops in the middle leaves no trace.
            with torch.no_grad():
                part = self.of(x)
            yield part

    def of(self, x: Tensor) -> Tensor:
        """The vectors of other images, float32, B x D; with a gradient by the images where gradients are enabled.

        Args:
            x: Floats in [0, 1], B x C x H x W, on the device of the model.

        Raises:
            RequestError: As for `chunks`.
        """
        watched = {self.layer: self.model.get_submodule(self.layer)}
        part = _only(_seen(self.model, watched, x, of_input=self.of_input), self.layer)
        if tuple(part.shape[1:]) != self.shape:
            raise RequestError(f"layer {self.layer!r} gives {tuple(part.shape[1:])} after {self.shape}")
        if not bool(part.isfinite().all()):
            raise RequestError(f"layer {self.layer!r} gives values that are not finite: the model is broken")
        return part.flatten(1)

    def matrix(self) -> Tensor:
        """All vectors at once, float32, N x D, on the images' device."""
        if self.rows is not None:
            return self.rows
        matrix = torch.empty(len(self), self.width, device=self.images.device)
        start = 0
        for part in self.chunks():
            matrix[start : start + len(part)] = part
            start += len(part)
        return matrix

    def in_memory(self, limit: int = IN_MEMORY_BYTES) -> Features:
        """The same, computed now and kept if it takes at most `limit` bytes; otherwise computed at each pass."""
        if self.rows is not None or 4 * len(self) * self.width > limit:
            return self
        return replace(self, rows=self.matrix())


def features(model: nn.Module, images: Images, *, layer: str | None = None, batch_size: int = 500) -> Features:
    """The features of `images` at a named layer of `model`, in eval mode, without gradients.

    Outputs of more than one dimension per image (maps, tokens) are flattened in their order, without pooling. The model
    is left as it was found: hooks and modes are set for one batch at a time.

    Args:
        model: From [0, 1] images to logits, on the images' device.
        images: The set.
        layer: Name of a module inside the model, as in `model.named_modules()`, whose output is taken; by default the
            input of the linear layer that runs last.
        batch_size: Images per pass; has no effect on the result but rounding.

    Raises:
        RequestError: There is no such layer, it does not run or runs more than once, or its output is not a tensor
            with one row per image.
    """
    modules = {name: module for name, module in model.named_modules() if name}
    first = images.batch(torch.zeros(1, dtype=torch.int64, device=images.device))
    of_input = layer is None
    if layer is None:
        layer = last_linear(model, first)
    elif layer not in modules:
        raise RequestError(_unknown_layer(layer, list(modules)))
    with torch.no_grad():
        shape = tuple(_only(_seen(model, {layer: modules[layer]}, first, of_input=of_input), layer).shape[1:])
    return Features(model=model, images=images, layer=layer, of_input=of_input, shape=shape, batch_size=batch_size)


@torch.no_grad()
def last_linear(model: nn.Module, x: Tensor) -> str:
    """Name of the linear layer that runs last on images `x`; of the others, however they work, nothing is asked.

    Raises:
        RequestError: None runs.
    """
    ran: list[str] = []
    with ExitStack() as stack:
        stack.enter_context(evaluating(model))
        for name, module in model.named_modules():
            if name and isinstance(module, nn.Linear):
                handle = module.register_forward_pre_hook(lambda module, args, name=name: ran.append(name))
                stack.callback(handle.remove)
        model(x)
    if not ran:
        raise RequestError("no linear layer runs in this model, whose input would be the features; name a layer")
    return ran[-1]


def _seen(model: nn.Module, watched: Mapping[str, nn.Module], x: Tensor, *, of_input: bool) -> list[tuple[str, Tensor]]:
    """Outputs (or inputs) of the watched modules in one pass, float32 copies, in the order in which they ran."""
    seen: list[tuple[str, Tensor]] = []

    def keep(name: str, value: Any) -> None:
        if not isinstance(value, Tensor):
            raise RequestError(f"layer {name!r} gives a {type(value).__name__}, not a tensor; name another layer")
        if value.ndim < 2 or len(value) != len(x):
            shape = tuple(value.shape)
            raise RequestError(f"layer {name!r} gives shape {shape} for {len(x)} images, not a row for each")
        # A copy: a layer that works in place may follow.
        seen.append((name, value.to(torch.float32, copy=True, memory_format=torch.contiguous_format)))

    def hook(name: str, module: nn.Module) -> RemovableHandle:
        if of_input:
            return module.register_forward_pre_hook(
                lambda _, args, kwargs: keep(name, next(iter((*args, *kwargs.values())), None)), with_kwargs=True
            )
        return module.register_forward_hook(lambda _, args, output: keep(name, output))

    with ExitStack() as stack:
        stack.enter_context(evaluating(model))
        for name, module in watched.items():
            stack.callback(hook(name, module).remove)
        model(x)
    return seen


def _only(outputs: list[tuple[str, Tensor]], layer: str) -> Tensor:
    if len(outputs) == 1:
        return outputs[0][1]
    times = f"runs {len(outputs)} times in one pass" if outputs else "does not run when the model is used"
    raise RequestError(f"layer {layer!r} {times}; name another layer")


def _unknown_layer(layer: str, names: list[str]) -> str:
    near = nearest(layer, names, most=5)
    return f"the model has no layer {layer!r}. The nearest of its {len(names)} names: {', '.join(near) or 'none'}."
