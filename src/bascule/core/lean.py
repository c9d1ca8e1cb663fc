"""Gradients by the images on a processor: the way back through a frozen network, for less where it costs too much.

Two layers cost torch more than they need when no gradient of their weights is wanted:

- a convolution of one to four channels, the first one: up to ten times its forward pass (`core.pixel_blocks`);
- batch norm in eval mode: a multiplication by a number per channel, for which torch also sums over the batch.

The forward passes stay as they are, to the bit, and the gradients are the same to rounding. Which shapes gain was
measured (`benchmarks/layout.py`); the shape alone decides, so that a study goes the same way on every machine.
"""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bascule.core.pixel_blocks import SIDES, Pair, input_gradient

_LEAST_WORK = 3 * 2**20
"""Multiplications of a convolution below which setting up costs more than is gained."""
_LEAST_TAPS = 16
"""Taps of a kernel below which nothing is gained: blocks of pixels reach further than a small kernel does."""
_LEAST_NUMBERS = 2**18
"""Entries of a batch norm's maps below which setting up costs more than is gained."""


@contextmanager
def lean_input_gradients(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Inside the block, layers among `modules` give the gradient by their input the short way.

    Each call decides: the short way is for tensors on the processor that want a gradient where the weights want none,
    and for shapes that gain. What a call answers is the same bits as ever, second derivatives are right, hooks see what
    they saw. Only torch's own layers are touched, none with a `forward` of another class or of its own, and no model
    that is compiled.

    Args:
        modules: All modules of a model.
    """
    lent = {}
    if not any(map(is_compiled, modules)):
        lent = {module: types.MethodType(short, module) for module in modules if (short := _short_way_of(module))}
    for module, method in lent.items():
        vars(module)["forward"] = method
    try:
        yield
    finally:
        for module, method in lent.items():
            if vars(module).get("forward") is method:
                del vars(module)["forward"]


def is_compiled(module: nn.Module) -> bool:
    """Whether `torch.compile` was there."""
    return module._compiled_call_impl is not None or "_orig_mod" in module._modules


def _short_way_of(module: nn.Module) -> Callable[..., Tensor] | None:
    """What can stand in for the module's `forward`, if anything."""
    if not isinstance(module, (nn.Conv2d, _BatchNorm)) or "forward" in vars(module):
        return None
    if isinstance(module, _BatchNorm):
        return _normalise if type(module).forward is _BatchNorm.forward else None
    plain = (
        module.in_channels in SIDES
        and math.prod(module.kernel_size) >= _LEAST_TAPS
        and module.groups == 1
        and module.dilation == (1, 1)
        and module.padding_mode == "zeros"
        and type(module).forward is nn.Conv2d.forward
        and type(module)._conv_forward is nn.Conv2d._conv_forward
        and "_conv_forward" not in vars(module)
    )
    return _convolve if plain else None


def _convolve(self: nn.Conv2d, input: Tensor) -> Tensor:  # noqa: A002 (called like the one it stands in for)
    weight, bias = self.weight, self.bias  # once: a parametrised weight is computed, and may count its calls
    stride, padding = (self.stride[0], self.stride[1]), _padding(self)
    if (
        padding is None
        or not _asks_for_the_input_gradient(input, weight, bias)
        or input.dim() != 4
        or input.dtype not in (torch.float32, torch.bfloat16)
        or not _is_much(input, weight, stride, padding)
    ):
        return self._conv_forward(input, weight, bias)
    answer: Tensor = _Convolution.apply(input, weight, bias, stride, padding)  # type: ignore[no-untyped-call]
    return answer


def _normalise(self: _BatchNorm, input: Tensor) -> Tensor:  # noqa: A002 (called like the one it stands in for)
    mean, variance = self.running_mean, self.running_var
    if (
        self.training
        or mean is None
        or variance is None
        or not _asks_for_the_input_gradient(input, mean, variance, self.weight, self.bias)
        or input.dtype != torch.float32
        or input.dim() < 3
        or input.shape[1] != self.num_features
        or input.numel() < _LEAST_NUMBERS
    ):
        return _BatchNorm.forward(self, input)
    self._check_input_dim(input)
    values = input, mean, variance, self.weight, self.bias, self.eps
    answer: Tensor = _Normalisation.apply(*values)  # type: ignore[no-untyped-call]
    return answer


# Their name in a pickle: a copy made inside a block finds the ordinary one again.
_convolve.__name__ = _normalise.__name__ = "forward"


def computes_as_ever(layer: nn.Module) -> bool:
    """Whether one of torch's own layers has the `forward` of its class, or one that is lent to it here."""
    lent = getattr(vars(layer).get("forward"), "__func__", None)
    own = "forward" not in vars(layer) or lent in (_convolve, _normalise)
    return own and "_conv_forward" not in vars(layer)


def _padding(module: nn.Conv2d) -> Pair | None:
    """Zeros on either side by axis; None where the two sides may differ."""
    if not isinstance(module.padding, str):
        return module.padding[0], module.padding[1]
    height, width = module.kernel_size
    if module.padding == "valid":
        return 0, 0
    return (height // 2, width // 2) if height % 2 and width % 2 else None


def _asks_for_the_input_gradient(x: Tensor, *others: Tensor | None) -> bool:
    """Whether the gradient by `x` is wanted, and no other, of tensors on the processor."""
    return (
        type(x) in (Tensor, nn.Parameter)
        and x.requires_grad
        and torch.is_grad_enabled()
        and x.device.type == "cpu"
        and x.layout is torch.strided
        and not any(other.requires_grad or other.device != x.device for other in others if other is not None)
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
    )


def _is_much(x: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> bool:
    """Whether a convolution has enough to do."""
    if x.shape[1] != weight.shape[1]:
        return False  # torch says what is wrong
    answers = len(x)
    for size, kernel, s, p in zip(x.shape[2:], weight.shape[2:], stride, padding, strict=True):
        answers *= max(0, (size + 2 * p - kernel) // s + 1)
    return answers * weight.numel() >= _LEAST_WORK


class _Convolution(torch.autograd.Function):
    """`F.conv2d`, with a way back of its own."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair) -> Tensor:
        return F.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, _, ctx.stride, ctx.padding = inputs
        ctx.save_for_backward(weight)
        ctx.save_for_forward(x, weight)
        ctx.size, ctx.dtype = (x.shape[-2], x.shape[-1]), x.dtype
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[Tensor | None, ...]:
        if gradient is None:
            return (None,) * 5
        (weight,) = ctx.saved_tensors
        # As the ordinary way back: in the type of the answer, inside a block of mixed precision and outside.
        with torch.autocast("cpu", enabled=False):
            found = input_gradient(
                gradient, weight.to(gradient.dtype), ctx.size, stride=ctx.stride, padding=ctx.padding
            )
        return found.to(ctx.dtype), None, None, None, None

    @staticmethod
    def jvp(ctx: Any, x: Tensor | None, weight: Tensor | None, bias: Tensor | None, *_: None) -> Tensor:
        at, kernels = ctx.saved_tensors
        found = torch.zeros(()) if x is None else F.conv2d(x, kernels, None, ctx.stride, ctx.padding)
        if weight is not None:
            found = found + F.conv2d(at, weight, None, ctx.stride, ctx.padding)
        return found if bias is None else found + bias[:, None, None]


class _Normalisation(torch.autograd.Function):
    """`F.batch_norm` by running statistics, with a way back of its own."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, mean: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> Tensor:
        return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, mean, variance, weight, _, ctx.eps = inputs
        ctx.save_for_backward(variance, weight)
        ctx.save_for_forward(x, mean, variance, weight)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[Tensor | None, ...]:
        if gradient is None:
            return (None,) * 6
        variance, weight = ctx.saved_tensors
        scale = (variance + ctx.eps).rsqrt()
        scale = scale if weight is None else scale * weight
        return gradient * _by_channel(scale, gradient), None, None, None, None, None

    @staticmethod
    def jvp(
        ctx: Any,
        x: Tensor | None,
        mean: Tensor | None,
        variance: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        _: None,
    ) -> Tensor:
        if mean is not None or variance is not None:
            raise RuntimeError("batch_norm has no forward derivative by its running statistics")  # nor in torch
        at, center, spread, scale = ctx.saved_tensors
        inverse = (spread + ctx.eps).rsqrt()
        slope = inverse if scale is None else scale * inverse
        found = torch.zeros_like(at) if x is None else x * _by_channel(slope, at)
        if weight is not None:
            found = found + (at - _by_channel(center, at)) * _by_channel(inverse * weight, at)
        return found if bias is None else found + _by_channel(bias, at)


# torch asks for the signature in every call, which takes longer than all else here where it has to be worked out.
for _function in (_Convolution, _Normalisation):
    vars(_function.forward)["__signature__"] = inspect.signature(_function.forward)


def _by_channel(values: Tensor, like: Tensor) -> Tensor:
    """A number for each channel, to be multiplied with B x C x ..."""
    return values.view(-1, *[1] * (like.dim() - 2))
