"""Which layers, functions and methods can be bounded, and what operations each one is."""

from __future__ import annotations

import builtins
import inspect
import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from bascule.certify._ops import Convolution, Dense, LeakyRelu, MaxPool, Pair, Positive, Ref, Scale, Sum

if TYPE_CHECKING:
    from bascule.certify.bounds import Bounds


class UnsupportedError(Exception):
    """An operation that no bound is known for here; the caller says which one and where."""


def _pair(value: Any) -> Pair:
    first, second = (value, value) if isinstance(value, int) else value
    return int(first), int(second)


def _constant(value: Any, what: str) -> Any:
    if isinstance(value, Ref):
        raise UnsupportedError(f"{what} depends on the image")
    return value


def _mapped(net: Bounds, x: Ref, function: Callable[[Tensor], Tensor]) -> Ref:
    """A reshaping, selection or average of each image, checked to leave images apart."""
    try:
        shape = function(x.like.detach()).shape
    except (RuntimeError, IndexError) as error:
        raise UnsupportedError(str(error).partition("\n")[0]) from None
    if not shape or shape[0] != x.shape[0]:
        raise UnsupportedError(f"it mixes images (from {tuple(x.shape)} to {tuple(shape)})")
    return net.add(Positive(function), x)


def _reshaped(net: Bounds, x: Ref, shape: Sequence[int]) -> Ref:
    if not shape or shape[0] != x.shape[0]:
        raise UnsupportedError(f"it mixes images (from {tuple(x.shape)} to {tuple(shape)})")
    rest = tuple(shape[1:])
    return net.add(Positive(lambda t: t.reshape(len(t), *rest)), x)


def _reshaping(how: Callable[..., Tensor]) -> Callable[..., Ref]:
    """The handler for a function that only changes the shape."""

    def handler(net: Bounds, x: Ref, *args: Any, **kwargs: Any) -> Ref:
        try:
            return _reshaped(net, x, how(x.like.detach(), *args, **kwargs).shape)
        except (RuntimeError, TypeError, IndexError) as error:
            raise UnsupportedError(str(error).partition("\n")[0]) from None

    return handler


# --- weights ---------------------------------------------------------------------------------------------------------


def _conv2d(
    net: Bounds,
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
            total = [d * (k - 1) for d, k in zip(_pair(dilation), weight.shape[2:], strict=True)]
            x = _pad(net, x, [p for t in reversed(total) for p in (t // 2, t - t // 2)])
        padding = 0
    op = Convolution(weight, bias, _pair(stride), _pair(padding), _pair(dilation), groups)
    return net.add(op, x)


def _conv2d_layer(net: Bounds, layer: nn.Conv2d, x: Ref) -> Ref:
    padding: Any = layer.padding
    if layer.padding_mode != "zeros":
        x = _pad(net, x, layer._reversed_padding_repeated_twice, layer.padding_mode)
        padding = 0
    return _conv2d(net, x, layer.weight, layer.bias, layer.stride, padding, layer.dilation, layer.groups)


def _linear(net: Bounds, x: Ref, weight: Any, bias: Any = None) -> Ref:
    if len(x.shape) < 2:
        raise UnsupportedError("its input has no dimension beside that of the images")
    return net.add(Dense(_constant(weight, "the weight"), _constant(bias, "the bias")), x)


# --- normalisation ---------------------------------------------------------------------------------------------------


def _per_channel(values: Tensor, x: Ref) -> Tensor:
    return values.reshape(1, -1, *[1] * (len(x.shape) - 2))


def _batch_norm_layer(net: Bounds, layer: _BatchNorm, x: Ref) -> Ref:
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


def _batch_norm(
    net: Bounds,
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


def _dropout_layer(net: Bounds, layer: nn.Dropout, x: Ref) -> Ref:
    """In train mode the images themselves and the bounds share one draw."""
    return net.add(Scale(layer(torch.ones_like(x.like))), x) if layer.training else x


def _dropout(net: Bounds, x: Ref, p: float = 0.5, training: bool = True, inplace: bool = False) -> Ref:
    return net.add(Scale(F.dropout(torch.ones_like(x.like), p, training)), x) if training else x


# --- arithmetic ------------------------------------------------------------------------------------------------------


def _operand(net: Bounds, x: Ref, other: Any) -> tuple[Ref, Tensor]:
    """`other` as a tensor of as many dimensions as x, with x repeated where it is the one to be stretched."""
    values = torch.as_tensor(other, dtype=x.like.dtype, device=x.like.device)
    shape = torch.broadcast_shapes(x.shape, values.shape)
    values = values.reshape(*[1] * (len(shape) - values.ndim), *values.shape)
    if len(shape) != len(x.shape) or values.shape[0] != 1:
        raise UnsupportedError(f"a constant of shape {tuple(torch.as_tensor(other).shape)} for {tuple(x.shape)}")
    if shape != x.shape:
        rest = tuple(shape[1:])
        x = _mapped(net, x, lambda t: t.expand(len(t), *rest))
    return x, values


def _weighted(net: Bounds, first: Any, second: Any, weights: tuple[float, float]) -> Ref:
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


def _stretched(net: Bounds, x: Ref, shape: tuple[int, ...]) -> Ref:
    if len(shape) != len(x.shape) or shape[0] != x.shape[0]:
        raise UnsupportedError(f"it stretches {tuple(x.shape)} to {shape}")
    return _mapped(net, x, lambda t: t.expand(len(t), *shape[1:]))


def _add(net: Bounds, input: Any, other: Any, *, alpha: float = 1.0) -> Ref:  # noqa: A002 - torch's name
    return _weighted(net, input, other, (1.0, float(alpha)))


def _sub(net: Bounds, input: Any, other: Any, *, alpha: float = 1.0) -> Ref:  # noqa: A002
    return _weighted(net, input, other, (1.0, -float(alpha)))


def _mul(net: Bounds, input: Any, other: Any) -> Ref:  # noqa: A002
    if isinstance(input, Ref) and isinstance(other, Ref):
        raise UnsupportedError("a product of two values that both depend on the image")
    x, values = _operand(net, *((input, other) if isinstance(input, Ref) else (other, input)))
    return net.add(Scale(values), x)


def _div(net: Bounds, input: Any, other: Any) -> Ref:  # noqa: A002
    if isinstance(other, Ref):
        raise UnsupportedError("the divisor depends on the image")
    x, values = _operand(net, input, other)
    return net.add(Scale(1 / values), x)


def _neg(net: Bounds, input: Ref) -> Ref:  # noqa: A002
    return _mul(net, input, -1.0)


# --- activations and pooling -----------------------------------------------------------------------------------------


def _relu(net: Bounds, input: Ref, inplace: bool = False) -> Ref:  # noqa: A002
    return net.add(LeakyRelu(0.0), input)


def _leaky_relu(net: Bounds, input: Ref, negative_slope: float = 0.01, inplace: bool = False) -> Ref:  # noqa: A002
    if not 0 <= negative_slope <= 1:
        raise UnsupportedError(f"its slope is {negative_slope}, allowed are 0 to 1")
    return net.add(LeakyRelu(float(negative_slope)), input)


def _max_pool2d(
    net: Bounds,
    input: Ref,  # noqa: A002
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Ref:
    if return_indices:
        raise UnsupportedError("with return_indices")
    kernel = _pair(kernel_size)
    op = MaxPool(kernel, _pair(stride) if stride else kernel, _pair(padding), _pair(dilation), bool(ceil_mode))
    return net.add(op, input)


def _avg_pool2d(
    net: Bounds,
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
    return _mapped(net, input, lambda t: F.avg_pool2d(t, *settings))


def _adaptive_avg_pool2d(net: Bounds, input: Ref, output_size: Any) -> Ref:  # noqa: A002
    return _mapped(net, input, lambda t: F.adaptive_avg_pool2d(t, output_size))


def _averaging(how: Callable[..., Tensor]) -> Callable[..., Ref]:
    """The handler for a mean or sum over dimensions."""

    def handler(net: Bounds, input: Ref, dim: Any = None, keepdim: bool = False) -> Ref:  # noqa: A002
        count = len(input.shape)
        dims = [d % count for d in ([dim] if isinstance(dim, int) else dim or range(count))]
        if 0 in dims:
            raise UnsupportedError("it mixes images")
        return _mapped(net, input, lambda t: how(t, dims, keepdim))

    return handler


# --- moving entries about --------------------------------------------------------------------------------------------


def _pad(net: Bounds, input: Ref, pad: Any, mode: str = "constant", value: float | None = None) -> Ref:  # noqa: A002
    pad = [int(side) for side in pad]
    if len(pad) > 2 * (len(input.shape) - 1):
        raise UnsupportedError("it pads the dimension of the images")
    if mode != "constant":
        return _mapped(net, input, lambda t: F.pad(t, pad, mode=mode))
    padded = _mapped(net, input, lambda t: F.pad(t, pad))
    if not value:
        return padded
    frame = F.pad(torch.zeros_like(input.like[:1]), pad, value=value)
    return net.add(Scale(torch.ones_like(frame), frame), padded)


def _getitem(net: Bounds, x: Ref, index: Any) -> Ref:
    index = index if isinstance(index, tuple) else (index,)
    plain = all(isinstance(entry, (slice, int)) or entry is Ellipsis for entry in index)
    first = index[0] if index else None
    whole = first == slice(None) or (first is Ellipsis and len(index) - 1 < len(x.shape))
    if not plain or not whole:
        raise UnsupportedError(f"the index {index!r}: all images, and numbers or slices of the rest, can be taken")
    return _mapped(net, x, lambda t: t[index])


def _permute(net: Bounds, input: Ref, *dims: Any) -> Ref:  # noqa: A002
    flat = list(dims[0]) if dims and not isinstance(dims[0], int) else list(dims)
    if not flat or flat[0] != 0:
        raise UnsupportedError("the images must stay the first dimension")
    return _mapped(net, input, lambda t: t.permute(flat))


def _transpose(net: Bounds, input: Ref, dim0: int, dim1: int) -> Ref:  # noqa: A002
    if 0 in (dim0 % len(input.shape), dim1 % len(input.shape)):
        raise UnsupportedError("the images must stay the first dimension")
    return _mapped(net, input, lambda t: t.transpose(dim0, dim1))


def _cat(net: Bounds, tensors: Sequence[Any], dim: int = 0) -> Ref:
    if not all(isinstance(part, Ref) for part in tensors):
        raise UnsupportedError("every part must depend on the image")
    count = len(tensors[0].shape)
    dim %= count
    if dim == 0:
        raise UnsupportedError("it mixes images")
    sizes = [part.shape[dim] for part in tensors]
    sides = [[0, 0] * (count - 1 - dim) + [sum(sizes[:i]), sum(sizes[i + 1 :])] for i in range(len(sizes))]
    parts = [_pad(net, part, side) for part, side in zip(tensors, sides, strict=True)]
    return net.add(Sum((1.0,) * len(parts)), *parts)


def _same(net: Bounds, x: Ref, *args: Any, **kwargs: Any) -> Ref:
    return x


def _attribute(net: Bounds, x: Ref, name: str) -> Any:
    if name not in ("shape", "ndim", "dtype", "device"):
        raise UnsupportedError(f"the attribute {name!r}")
    return getattr(x.like, name)


# --- tables ----------------------------------------------------------------------------------------------------------

_Handler = Callable[..., Any]

LAYERS: dict[type[nn.Module], _Handler] = {
    nn.Conv2d: _conv2d_layer,
    nn.Linear: lambda net, layer, x: _linear(net, x, layer.weight, layer.bias),
    nn.BatchNorm1d: _batch_norm_layer,
    nn.BatchNorm2d: _batch_norm_layer,
    nn.ReLU: lambda net, layer, x: _relu(net, x),
    nn.LeakyReLU: lambda net, layer, x: _leaky_relu(net, x, layer.negative_slope),
    nn.AvgPool2d: lambda net, layer, x: _avg_pool2d(
        net,
        x,
        layer.kernel_size,
        layer.stride,
        layer.padding,
        layer.ceil_mode,
        layer.count_include_pad,
        layer.divisor_override,
    ),
    nn.AdaptiveAvgPool2d: lambda net, layer, x: _adaptive_avg_pool2d(net, x, layer.output_size),
    nn.MaxPool2d: lambda net, layer, x: _max_pool2d(
        net,
        x,
        layer.kernel_size,
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.ceil_mode,
        layer.return_indices,
    ),
    nn.Flatten: lambda net, layer, x: _reshaping(torch.flatten)(net, x, layer.start_dim, layer.end_dim),
    nn.Identity: lambda net, layer, x: x,
    nn.Dropout: _dropout_layer,
    nn.Dropout2d: _dropout_layer,
    nn.ZeroPad2d: lambda net, layer, x: _pad(net, x, layer.padding),
    nn.ConstantPad2d: lambda net, layer, x: _pad(net, x, layer.padding, value=layer.value),
    nn.ReflectionPad2d: lambda net, layer, x: _pad(net, x, layer.padding, "reflect"),
    nn.ReplicationPad2d: lambda net, layer, x: _pad(net, x, layer.padding, "replicate"),
}
"""(bounds, layer, input) -> result, by the exact class of the layer."""

FUNCTIONS: dict[Any, _Handler] = {
    F.conv2d: _conv2d,
    torch.conv2d: _conv2d,
    F.linear: _linear,
    F.batch_norm: _batch_norm,
    F.dropout: _dropout,
    F.relu: _relu,
    torch.relu: _relu,
    F.leaky_relu: _leaky_relu,
    F.max_pool2d: _max_pool2d,
    torch.max_pool2d: _max_pool2d,
    F.avg_pool2d: _avg_pool2d,
    F.adaptive_avg_pool2d: _adaptive_avg_pool2d,
    F.pad: _pad,
    torch.add: _add,
    operator.add: _add,
    operator.iadd: _add,
    torch.sub: _sub,
    operator.sub: _sub,
    operator.isub: _sub,
    torch.mul: _mul,
    operator.mul: _mul,
    operator.imul: _mul,
    torch.div: _div,
    operator.truediv: _div,
    operator.itruediv: _div,
    operator.neg: _neg,
    torch.neg: _neg,
    torch.mean: _averaging(torch.mean),
    torch.sum: _averaging(torch.sum),
    torch.flatten: _reshaping(torch.flatten),
    torch.reshape: _reshaping(torch.reshape),
    torch.squeeze: _reshaping(torch.squeeze),
    torch.unsqueeze: _reshaping(torch.unsqueeze),
    torch.permute: _permute,
    torch.transpose: _transpose,
    torch.cat: _cat,
    operator.getitem: _getitem,
    builtins.getattr: _attribute,
}
"""(bounds, *arguments) -> result, for functions."""

METHODS: dict[str, _Handler] = {
    "relu": _relu,
    "add": _add,
    "sub": _sub,
    "mul": _mul,
    "div": _div,
    "neg": _neg,
    "mean": _averaging(torch.mean),
    "sum": _averaging(torch.sum),
    "flatten": _reshaping(torch.flatten),
    "view": _reshaping(Tensor.reshape),
    "reshape": _reshaping(Tensor.reshape),
    "squeeze": _reshaping(Tensor.squeeze),
    "unsqueeze": _reshaping(Tensor.unsqueeze),
    "permute": _permute,
    "transpose": _transpose,
    "contiguous": _same,
    "size": lambda net, x, *dim: x.like.size(*dim),
    "dim": lambda net, x: x.like.dim(),
}
"""The same for methods of tensors."""

SUPPORTED = (
    f"layers {', '.join(sorted(kind.__name__ for kind in LAYERS))}; "
    "+ and - of branches, + - * / with constants; "
    f"functions {', '.join(sorted({f.__name__ for f in FUNCTIONS if f.__module__ != '_operator'} - {'getattr'}))}; "
    f"methods {', '.join(sorted(METHODS))}"
)
"""For messages."""


def _bind(handler: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call `handler`; arguments it has no place for are unsupported."""
    try:
        inspect.signature(handler).bind(*args, **kwargs)
    except TypeError as error:
        raise UnsupportedError(f"with these arguments ({error})") from None
    return handler(*args, **kwargs)


def of_module(net: Bounds, layer: nn.Module, args: Sequence[Any], kwargs: dict[str, Any]) -> Ref:
    """The result of a layer.

    Raises:
        UnsupportedError: No bound is known for it.
    """
    kind = type(layer).__bases__[0] if parametrize.is_parametrized(layer) else type(layer)
    if kind not in LAYERS:
        raise UnsupportedError("no bound is known for it")
    # A hook may compute a weight anew or change a result: neither would be seen.
    if layer._forward_pre_hooks or layer._forward_hooks:
        raise UnsupportedError("it has forward hooks (an old-style weight_norm or spectral_norm?)")
    return _bind(LAYERS[kind], net, layer, *args, **kwargs)


def of_call(net: Bounds, node: fx.Node, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """The result of a function or method; for a question about shapes a plain value.

    Raises:
        UnsupportedError: No bound is known for it.
    """
    handler = METHODS.get(str(node.target)) if node.op == "call_method" else FUNCTIONS.get(node.target)
    if handler is None:
        raise UnsupportedError("no bound is known for it")
    return _bind(handler, net, *args, **kwargs)
