"""Which layers, functions and methods can be bounded, and what operations each one is."""

from __future__ import annotations

import builtins
import inspect
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from bascule.certifiers import _arithmetic, _reshaping
from bascule.certifiers._ops import LeakyRelu, MaxPool, Network, Ref, UnsupportedError, pair
from bascule.core.lending import is_ours


def _relu(net: Network, input: Ref, inplace: bool = False) -> Ref:  # noqa: A002
    return net.add(LeakyRelu(0.0), input)


def _leaky_relu(net: Network, input: Ref, negative_slope: float = 0.01, inplace: bool = False) -> Ref:  # noqa: A002
    if not 0 <= negative_slope <= 1:
        raise UnsupportedError(f"its slope is {negative_slope}, allowed are 0 to 1")
    return net.add(LeakyRelu(float(negative_slope)), input)


def _max_pool2d(
    net: Network,
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
    kernel = pair(kernel_size)
    op = MaxPool(kernel, pair(stride) if stride else kernel, pair(padding), pair(dilation), bool(ceil_mode))
    return net.add(op, input)


_Handler = Callable[..., Any]

LAYERS: dict[type[nn.Module], _Handler] = {
    nn.Conv2d: _arithmetic.conv2d_layer,
    nn.Linear: lambda net, layer, x: _arithmetic.linear(net, x, layer.weight, layer.bias),
    nn.BatchNorm1d: _arithmetic.batch_norm_layer,
    nn.BatchNorm2d: _arithmetic.batch_norm_layer,
    nn.ReLU: lambda net, layer, x: _relu(net, x),
    nn.LeakyReLU: lambda net, layer, x: _leaky_relu(net, x, layer.negative_slope),
    nn.AvgPool2d: lambda net, layer, x: _reshaping.avg_pool2d(
        net,
        x,
        layer.kernel_size,
        layer.stride,
        layer.padding,
        layer.ceil_mode,
        layer.count_include_pad,
        layer.divisor_override,
    ),
    nn.AdaptiveAvgPool2d: lambda net, layer, x: _reshaping.adaptive_avg_pool2d(net, x, layer.output_size),
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
    nn.Flatten: lambda net, layer, x: _reshaping.by_shape(torch.flatten)(net, x, layer.start_dim, layer.end_dim),
    nn.Identity: lambda net, layer, x: x,
    nn.Dropout: _arithmetic.dropout_layer,
    nn.Dropout2d: _arithmetic.dropout_layer,
    nn.ZeroPad2d: lambda net, layer, x: _reshaping.pad(net, x, layer.padding),
    nn.ConstantPad2d: lambda net, layer, x: _reshaping.pad(net, x, layer.padding, value=layer.value),
    nn.ReflectionPad2d: lambda net, layer, x: _reshaping.pad(net, x, layer.padding, "reflect"),
    nn.ReplicationPad2d: lambda net, layer, x: _reshaping.pad(net, x, layer.padding, "replicate"),
}
"""(bounds, layer, input) -> result, by the exact class of the layer."""

FUNCTIONS: dict[Any, _Handler] = {
    F.conv2d: _arithmetic.conv2d,
    torch.conv2d: _arithmetic.conv2d,
    F.linear: _arithmetic.linear,
    F.batch_norm: _arithmetic.batch_norm,
    F.dropout: _arithmetic.dropout,
    F.relu: _relu,
    torch.relu: _relu,
    F.leaky_relu: _leaky_relu,
    F.max_pool2d: _max_pool2d,
    torch.max_pool2d: _max_pool2d,
    F.avg_pool2d: _reshaping.avg_pool2d,
    F.adaptive_avg_pool2d: _reshaping.adaptive_avg_pool2d,
    F.pad: _reshaping.pad,
    torch.add: _arithmetic.add,
    operator.add: _arithmetic.add,
    operator.iadd: _arithmetic.add,
    torch.sub: _arithmetic.sub,
    operator.sub: _arithmetic.sub,
    operator.isub: _arithmetic.sub,
    torch.mul: _arithmetic.mul,
    operator.mul: _arithmetic.mul,
    operator.imul: _arithmetic.mul,
    torch.div: _arithmetic.div,
    operator.truediv: _arithmetic.div,
    operator.itruediv: _arithmetic.div,
    operator.neg: _arithmetic.neg,
    torch.neg: _arithmetic.neg,
    torch.mean: _reshaping.by_dimensions(torch.mean),
    torch.sum: _reshaping.by_dimensions(torch.sum),
    torch.flatten: _reshaping.by_shape(torch.flatten),
    torch.reshape: _reshaping.by_shape(torch.reshape),
    torch.squeeze: _reshaping.by_shape(torch.squeeze),
    torch.unsqueeze: _reshaping.by_shape(torch.unsqueeze),
    torch.permute: _reshaping.permute,
    torch.transpose: _reshaping.transpose,
    torch.cat: _reshaping.cat,
    operator.getitem: _reshaping.getitem,
    builtins.getattr: _reshaping.attribute,
}
"""(bounds, *arguments) -> result, for functions."""

METHODS: dict[str, _Handler] = {
    "relu": _relu,
    "add": _arithmetic.add,
    "sub": _arithmetic.sub,
    "mul": _arithmetic.mul,
    "div": _arithmetic.div,
    "neg": _arithmetic.neg,
    "mean": _reshaping.by_dimensions(torch.mean),
    "sum": _reshaping.by_dimensions(torch.sum),
    "flatten": _reshaping.by_shape(torch.flatten),
    "view": _reshaping.by_shape(Tensor.reshape),
    "reshape": _reshaping.by_shape(Tensor.reshape),
    "squeeze": _reshaping.by_shape(Tensor.squeeze),
    "unsqueeze": _reshaping.by_shape(Tensor.unsqueeze),
    "permute": _reshaping.permute,
    "transpose": _reshaping.transpose,
    "contiguous": _reshaping.unchanged,
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


def of_module(net: Network, layer: nn.Module, args: Sequence[Any], kwargs: dict[str, Any]) -> Ref:
    """The result of a layer.

    Raises:
        UnsupportedError: No bound is known for it.
    """
    kind = type(layer).__bases__[0] if parametrize.is_parametrized(layer) else type(layer)
    if kind not in LAYERS:
        raise UnsupportedError("no bound is known for it")
    # A hook may compute a weight anew or change a result: neither would be seen.
    if not all(map(is_ours, (*layer._forward_pre_hooks.values(), *layer._forward_hooks.values()))):
        raise UnsupportedError("it has forward hooks (an old-style weight_norm or spectral_norm?)")
    return _bind(LAYERS[kind], net, layer, *args, **kwargs)


def of_call(net: Network, node: fx.Node, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """The result of a function or method; for a question about shapes a plain value.

    Raises:
        UnsupportedError: No bound is known for it.
    """
    handler = METHODS.get(str(node.target)) if node.op == "call_method" else FUNCTIONS.get(node.target)
    if handler is None:
        raise UnsupportedError("no bound is known for it")
    return _bind(handler, net, *args, **kwargs)
