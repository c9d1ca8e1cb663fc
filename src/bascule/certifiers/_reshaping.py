"""Operations that move, repeat, select or average the entries of each image: linear maps without negative entries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bascule.certifiers._ops import Network, Positive, Ref, Scale, Sum, UnsupportedError


def map_images(net: Network, x: Ref, function: Callable[[Tensor], Tensor]) -> Ref:
    """A reshaping, selection or average of each image, checked to leave images apart."""
    try:
        shape = function(x.like.detach()).shape
    except (RuntimeError, IndexError) as error:
        raise UnsupportedError(str(error).partition("\n")[0]) from None
    if not shape or shape[0] != x.shape[0]:
        raise UnsupportedError(f"it mixes images (from {tuple(x.shape)} to {tuple(shape)})")
    return net.add(Positive(function), x)


def _reshaped(net: Network, x: Ref, shape: Sequence[int]) -> Ref:
    if not shape or shape[0] != x.shape[0]:
        raise UnsupportedError(f"it mixes images (from {tuple(x.shape)} to {tuple(shape)})")
    rest = tuple(shape[1:])
    return net.add(Positive(lambda t: t.reshape(len(t), *rest)), x)


def by_shape(how: Callable[..., Tensor]) -> Callable[..., Ref]:
    """The handler for a function that only changes the shape."""

    def handler(net: Network, x: Ref, *args: Any, **kwargs: Any) -> Ref:
        try:
            return _reshaped(net, x, how(x.like.detach(), *args, **kwargs).shape)
        except (RuntimeError, TypeError, IndexError) as error:
            raise UnsupportedError(str(error).partition("\n")[0]) from None

    return handler


def by_dimensions(how: Callable[..., Tensor]) -> Callable[..., Ref]:
    """The handler for a mean or sum over dimensions."""

    def handler(net: Network, input: Ref, dim: Any = None, keepdim: bool = False) -> Ref:  # noqa: A002
        count = len(input.shape)
        dims = [d % count for d in ([dim] if isinstance(dim, int) else dim or range(count))]
        if 0 in dims:
            raise UnsupportedError("it mixes images")
        return map_images(net, input, lambda t: how(t, dims, keepdim))

    return handler


def avg_pool2d(
    net: Network,
    input: Ref,  # noqa: A002
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Ref:
    if divisor_override is not None and divisor_override < 0:
        raise UnsupportedError("with a negative divisor")
    settings = (kernel_size, stride or kernel_size, padding, ceil_mode, count_include_pad, divisor_override)
    return map_images(net, input, lambda t: F.avg_pool2d(t, *settings))


def adaptive_avg_pool2d(net: Network, input: Ref, output_size: Any) -> Ref:  # noqa: A002
    return map_images(net, input, lambda t: F.adaptive_avg_pool2d(t, output_size))


def pad(net: Network, input: Ref, pad: Any, mode: str = "constant", value: float | None = None) -> Ref:  # noqa: A002
    pad = [int(side) for side in pad]
    if len(pad) > 2 * (len(input.shape) - 1):
        raise UnsupportedError("it pads the dimension of the images")
    if mode != "constant":
        return map_images(net, input, lambda t: F.pad(t, pad, mode=mode))
    padded = map_images(net, input, lambda t: F.pad(t, pad))
    if not value:
        return padded
    frame = F.pad(torch.zeros_like(input.like[:1]), pad, value=value)
    return net.add(Scale(torch.ones_like(frame), frame), padded)


def getitem(net: Network, x: Ref, index: Any) -> Ref:
    index = index if isinstance(index, tuple) else (index,)
    plain = all(isinstance(entry, (slice, int)) or entry is Ellipsis for entry in index)
    first = index[0] if index else None
    whole = first == slice(None) or (first is Ellipsis and len(index) - 1 < len(x.shape))
    if not plain or not whole:
        raise UnsupportedError(f"the index {index!r}: all images, and numbers or slices of the rest, can be taken")
    return map_images(net, x, lambda t: t[index])


def permute(net: Network, input: Ref, *dims: Any) -> Ref:  # noqa: A002
    flat = list(dims[0]) if dims and not isinstance(dims[0], int) else list(dims)
    if not flat or flat[0] != 0:
        raise UnsupportedError("the images must stay the first dimension")
    return map_images(net, input, lambda t: t.permute(flat))


def transpose(net: Network, input: Ref, dim0: int, dim1: int) -> Ref:  # noqa: A002
    if 0 in (dim0 % len(input.shape), dim1 % len(input.shape)):
        raise UnsupportedError("the images must stay the first dimension")
    return map_images(net, input, lambda t: t.transpose(dim0, dim1))


def cat(net: Network, tensors: Sequence[Any], dim: int = 0) -> Ref:
    if not all(isinstance(part, Ref) for part in tensors):
        raise UnsupportedError("every part must depend on the image")
    count = len(tensors[0].shape)
    dim %= count
    if dim == 0:
        raise UnsupportedError("it mixes images")
    sizes = [part.shape[dim] for part in tensors]
    sides = [[0, 0] * (count - 1 - dim) + [sum(sizes[:i]), sum(sizes[i + 1 :])] for i in range(len(sizes))]
    parts = [pad(net, part, side) for part, side in zip(tensors, sides, strict=True)]
    return net.add(Sum((1.0,) * len(parts)), *parts)


def unchanged(net: Network, x: Ref, *args: Any, **kwargs: Any) -> Ref:
    return x


def attribute(net: Network, x: Ref, name: str) -> Any:
    if name not in ("shape", "ndim", "dtype", "device"):
        raise UnsupportedError(f"the attribute {name!r}")
    return getattr(x.like, name)
