"""Gradients by the images on a processor: the way back through a first convolution, for little more than its way forth.

The gradient of a convolution by its input is a convolution from many channels to few, and the processor's library
(oneDNN) fills the few up to sixteen: with one channel the way back costs up to ten times the way forth. Here blocks of
pixels stand as channels, 4 x 4 of them for one channel and 2 x 2 for two to four: one ordinary convolution, with a
stride, computes all pixels of a block at once, and rearranging gives the image (the sub-pixel convolution of Shi et al.
2016). The numbers are the same to rounding. Which shapes gain was measured (`benchmarks/layout.py`); the shape alone
decides, so that a study goes the same way on every machine.
"""

from __future__ import annotations

import math
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SIDES = {1: 4, 2: 2, 3: 2, 4: 2}
"""Side of a block of pixels by the number of channels, so that a block stands for about sixteen."""
_LEAST_WORK = 2**19
"""Multiplications of the way forth below which setting up costs more than is gained."""
_LEAST_TAPS = 16
"""Taps of a kernel below which nothing is gained: blocks of pixels reach further than a small kernel does."""

Pair = tuple[int, int]


@contextmanager
def lean_input_gradients(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Inside the block, convolutions of few channels among `modules` give the gradient by their input the short way.

    Each call decides: the short way is for images on the processor in float32 or bfloat16 that want a gradient where
    the weights want none, and for shapes that gain. What a call answers is the same bits as ever, second derivatives
    are right, hooks see what they saw. Only plain convolutions are touched, none with a `forward` of another class or
    of its own, and no model that is compiled.

    Args:
        modules: All modules of a model.
    """
    plain = [] if any(map(_is_compiled, modules)) else [m for m in modules if _is_plain(m)]
    lent = {module: types.MethodType(forward, module) for module in plain}
    for module, method in lent.items():
        vars(module)["forward"] = method
    try:
        yield
    finally:
        for module, method in lent.items():
            if vars(module).get("forward") is method:
                del vars(module)["forward"]


def _is_compiled(module: nn.Module) -> bool:
    return module._compiled_call_impl is not None or "_orig_mod" in module._modules


def _is_plain(module: nn.Module) -> bool:
    """Whether a call of `module` is `nn.Conv2d`'s own, and could gain."""
    return (
        isinstance(module, nn.Conv2d)
        and module.in_channels in _SIDES
        and math.prod(module.kernel_size) >= _LEAST_TAPS
        and module.groups == 1
        and module.dilation == (1, 1)
        and module.padding_mode == "zeros"
        and type(module).forward is nn.Conv2d.forward
        and type(module)._conv_forward is nn.Conv2d._conv_forward
        and not vars(module).keys() & {"forward", "_conv_forward"}
    )


def forward(self: nn.Conv2d, input: Tensor) -> Tensor:  # noqa: A002 (called like the one it stands in for)
    """Stands in for `nn.Conv2d.forward`, under its name: a copy pickled inside a block finds the ordinary one again."""
    weight, bias = self.weight, self.bias  # once: a parametrised weight is computed, and may count its calls
    stride, padding = (self.stride[0], self.stride[1]), _padding(self)
    if padding is None or not (_is_asked_for(input, weight, bias) and _gains(input, weight, stride, padding)):
        return self._conv_forward(input, weight, bias)
    answer: Tensor = _Convolution.apply(input, weight, bias, stride, padding)  # type: ignore[no-untyped-call]
    return answer


def _padding(module: nn.Conv2d) -> Pair | None:
    """Zeros on either side by axis; None where the two sides may differ."""
    if not isinstance(module.padding, str):
        return module.padding[0], module.padding[1]
    height, width = module.kernel_size
    if module.padding == "valid":
        return 0, 0
    return (height // 2, width // 2) if height % 2 and width % 2 else None


def _is_asked_for(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether the gradient by `x` is wanted, and no other."""
    return (
        type(x) in (Tensor, nn.Parameter)
        and x.requires_grad
        and torch.is_grad_enabled()
        and not weight.requires_grad
        and not (bias is not None and bias.requires_grad)
        and x.device.type == weight.device.type == "cpu"
        and x.layout is torch.strided
        and x.dim() == 4
        and x.dtype in (torch.float32, torch.bfloat16)
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
    )


def _gains(x: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> bool:
    """Whether there is enough to do."""
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

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
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


class _Axis(NamedTuple):
    """How the blocks of one axis come about.

    Answer o saw pixel s * o - padding + t through tap t of its kernel, s being the stride. So in block j, b = step * s
    pixels wide, pixel r gets from answer step * j + q what tap r + padding - s * q lets through, the same in all.
    """

    taps: npt.NDArray[np.int64]
    """b x n: the tap, by pixel of a block and by answer that reaches the block; beyond the kernel where none is."""
    step: int
    """Answers from one block to the next."""
    padding: int
    """Zeros around the answers, on either side."""
    first: int
    """Blocks that this padding brings before those of the image."""
    blocks: int
    """Blocks of the image; the last may stick out."""


def _axis(kernel: int, stride: int, padding: int, size: int, answers: int, channels: int) -> _Axis:
    side = stride * max(1, _SIDES[channels] // stride)
    step, blocks = side // stride, -(-size // side)
    low, high = -((kernel - 1 - padding) // stride), (side - 1 + padding) // stride
    around = max(0, -low, step * (blocks - 1) + high - (answers - 1))
    around += (-low - around) % step  # so that the image begins with a block
    taps = np.arange(side)[:, None] + padding - stride * np.arange(low, high + 1)
    return _Axis(taps, step, around, (around + low) // step, blocks)


@lru_cache(maxsize=64)
def _plan(
    channels: int, kernel: Pair, size: Pair, answers: Pair, stride: Pair, padding: Pair
) -> tuple[npt.NDArray[np.int64], _Axis, _Axis]:
    """Where the new kernels' entries come from, and the axes.

    The entries go by channel, row and column of a block, then by row and column of the n x n answers: for each its
    number among channels x taps of the old kernels, or the number after the last one for zero.
    """
    axes = [_axis(*axis, channels) for axis in zip(kernel, stride, padding, size, answers, strict=True)]
    down, across = (axis.taps for axis in axes)
    inside = [(taps >= 0) & (taps < length) for taps, length in zip((down, across), kernel, strict=True)]
    number = np.arange(channels * kernel[0] * kernel[1]).reshape(channels, *kernel)
    taken = number[:, (down % kernel[0])[:, None, :, None], (across % kernel[1])[None, :, None, :]]
    source = np.where(inside[0][:, None, :, None] & inside[1][None, :, None, :], taken, number.size)
    return source.reshape(-1), axes[0], axes[1]


def input_gradient(gradient: Tensor, weight: Tensor, size: Pair, *, stride: Pair, padding: Pair) -> Tensor:
    """The gradient of `F.conv2d(x, weight, None, stride, padding)` by `x`, given that by its answer.

    Args:
        gradient: B x O x h x w.
        weight: O x C x kernel.
        size: Height and width of the images.
        stride: By axis.
        padding: By axis.

    Returns:
        B x C x H x W, contiguous; itself differentiable by `gradient` and `weight`.
    """
    outer, channels, *kernel = weight.shape
    answers = gradient.shape[-2], gradient.shape[-1]
    source, down, across = _plan(channels, (kernel[0], kernel[1]), size, answers, stride, padding)
    rows = F.pad(weight.permute(1, 2, 3, 0).reshape(-1, outer), (0, 0, 0, 1))
    kernels = rows.index_select(0, torch.from_numpy(source))
    kernels = kernels.view(-1, down.taps.shape[1], across.taps.shape[1], outer).permute(0, 3, 1, 2)  # channels-last
    found = F.conv2d(gradient, kernels, None, (down.step, across.step), (down.padding, across.padding))
    found = found.narrow(-2, down.first, down.blocks).narrow(-1, across.first, across.blocks)
    height, width = len(down.taps), len(across.taps)
    found = found.reshape(-1, channels, height, width, down.blocks, across.blocks).permute(0, 1, 4, 2, 5, 3)
    found = found.reshape(-1, channels, down.blocks * height, across.blocks * width)
    return found.narrow(-2, 0, size[0]).narrow(-1, 0, size[1]).contiguous()
