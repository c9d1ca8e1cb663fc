"""Operations with weights and constants: layers, normalisation, sums of branches, arithmetic with numbers."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bascule.certifiers import _reshaping
from bascule.certifiers._ops import Convolution, Dense, Network, Ref, Scale, Sum, UnsupportedError, pair


def _constant(value: Any, what: str) -> Any:
    if isinstance(value, Ref):
        raise UnsupportedError(f"{what} depends on the image")
    return value


def conv2d(
    net: Network,
    x: Ref,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Ref:
    weight, bias = _constant(weight, "the weight"), _constant(bias, "the bias")
    if isinstance(padding, str):
        if padding == "same":
            total = [d * (k - 1) for d, k in zip(pair(dilation), weight.shape[2:], strict=True)]
            x = _reshaping.pad(net, x, [p for t in reversed(total) for p in (t // 2, t - t // 2)])
        padding = 0
    op = Convolution(weight, bias, pair(stride), pair(padding), pair(dilation), groups)
    return net.add(op, x)


def conv2d_layer(net: Network, layer: nn.Conv2d, x: Ref) -> Ref:
    padding: Any = layer.padding
    if layer.padding_mode != "zeros":
        x = _reshaping.pad(net, x, layer._reversed_padding_repeated_twice, layer.padding_mode)
        padding = 0
    return conv2d(net, x, layer.weight, layer.bias, layer.stride, padding, layer.dilation, layer.groups)


def linear(net: Network, x: Ref, weight: Any, bias: Any = None) -> Ref:
    if len(x.shape) < 2:
        raise UnsupportedError("its input has no dimension beside that of the images")
    return net.add(Dense(_constant(weight, "the weight"), _constant(bias, "the bias")), x)


def _per_channel(values: Tensor, x: Ref) -> Tensor:
    return values.reshape(1, -1, *[1] * (len(x.shape) - 2))


def batch_norm_layer(net: Network, layer: _BatchNorm, x: Ref) -> Ref:
    nominal = None
    if layer.training or layer.running_mean is None or layer.running_var is None:
        if x.nominal is None:
            raise UnsupportedError(
                "it uses the statistics of the batch, so that an image's answer depends on other images"
            )
        dims = [d for d in range(len(x.shape)) if d != 1]
        variance, mean = torch.var_mean(x.nominal, dims, correction=0)
        nominal = layer(x.nominal)  # also updates the running statistics
    else:
        variance, mean = layer.running_var, layer.running_mean
    op = _normalisation(x, mean, variance, layer.weight, layer.bias, layer.eps)
    return net.add(op, x, nominal=nominal)


def _normalisation(x: Ref, mean: Any, variance: Any, weight: Tensor | None, bias: Tensor | None, eps: float) -> Scale:
    scale = torch.rsqrt(variance + eps)
    if weight is not None:
        scale = scale * weight
    shift = -mean * scale
    if bias is not None:
        shift = shift + bias
    return Scale(_per_channel(scale, x), _per_channel(shift, x))


def batch_norm(
    net: Network,
    x: Ref,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Ref:
    if training or running_mean is None:
        raise UnsupportedError("as a function it can be followed with running statistics only; use the layer")
    return net.add(_normalisation(x, running_mean, running_var, weight, bias, eps), x)


def dropout_layer(net: Network, layer: nn.Dropout, x: Ref) -> Ref:
    """In train mode the images themselves and the bounds share one draw."""
    return net.add(Scale(layer(torch.ones_like(x.like))), x) if layer.training else x


def dropout(net: Network, x: Ref, p: float = 0.5, training: bool = True, inplace: bool = False) -> Ref:
    return net.add(Scale(F.dropout(torch.ones_like(x.like), p, training)), x) if training else x


def _operand(net: Network, x: Ref, other: Any) -> tuple[Ref, Tensor]:
    """`other` as a tensor of as many dimensions as x, with x repeated where it is the one to be stretched."""
    values = torch.as_tensor(other, dtype=x.like.dtype, device=x.like.device)
    shape = torch.broadcast_shapes(x.shape, values.shape)
    values = values.reshape(*[1] * (len(shape) - values.ndim), *values.shape)
    if len(shape) != len(x.shape) or values.shape[0] != 1:
        raise UnsupportedError(f"a constant of shape {tuple(torch.as_tensor(other).shape)} for {tuple(x.shape)}")
    if shape != x.shape:
        rest = tuple(shape[1:])
        x = _reshaping.map_images(net, x, lambda t: t.expand(len(t), *rest))
    return x, values


def _weighted(net: Network, first: Any, second: Any, weights: tuple[float, float]) -> Ref:
    if isinstance(first, Ref) and isinstance(second, Ref):
        if first.shape != second.shape:
            shape = torch.broadcast_shapes(first.shape, second.shape)
            first, second = (
                ref if ref.shape == shape else _stretched(net, ref, tuple(shape)) for ref in (first, second)
            )
        return net.add(Sum(weights), first, second)
    x, other, own, of_other = (
        (first, second, *weights) if isinstance(first, Ref) else (second, first, weights[1], weights[0])
    )
    x, values = _operand(net, x, other)
    return net.add(Scale(torch.full_like(values, own), of_other * values), x)


def _stretched(net: Network, x: Ref, shape: tuple[int, ...]) -> Ref:
    if len(shape) != len(x.shape) or shape[0] != x.shape[0]:
        raise UnsupportedError(f"it stretches {tuple(x.shape)} to {shape}")
    return _reshaping.map_images(net, x, lambda t: t.expand(len(t), *shape[1:]))


def add(net: Network, input: Any, other: Any, *, alpha: float = 1.0) -> Ref:  # noqa: A002 - torch's name
    return _weighted(net, input, other, (1.0, float(alpha)))


def sub(net: Network, input: Any, other: Any, *, alpha: float = 1.0) -> Ref:  # noqa: A002
    return _weighted(net, input, other, (1.0, -float(alpha)))


def mul(net: Network, input: Any, other: Any) -> Ref:  # noqa: A002
    if isinstance(input, Ref) and isinstance(other, Ref):
        raise UnsupportedError("a product of two values that both depend on the image")
    x, values = _operand(net, *((input, other) if isinstance(input, Ref) else (other, input)))
    return net.add(Scale(values), x)


def div(net: Network, input: Any, other: Any) -> Ref:  # noqa: A002
    if isinstance(other, Ref):
        raise UnsupportedError("the divisor depends on the image")
    x, values = _operand(net, input, other)
    return net.add(Scale(1 / values), x)


def neg(net: Network, input: Ref) -> Ref:  # noqa: A002
    return mul(net, input, -1.0)
