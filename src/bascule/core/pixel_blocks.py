"""The gradient of a convolution of few channels by its input, with blocks of pixels for channels.

That gradient is a convolution from many channels to few, and the processor's library (oneDNN) fills the few up to
sixteen: with one channel the way back costs up to ten times the way forth. Here blocks of pixels stand as channels,
4 x 4 of them for one channel and 2 x 2 for two to four: one ordinary convolution, with a stride, computes all pixels of
a block at once, and rearranging gives the image (the sub-pixel convolution of Shi et al. 2016). The numbers are the
same to rounding.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

SIDES = {1: 4, 2: 2, 3: 2, 4: 2}
"""Side of a block of pixels by the number of channels, so that a block stands for about sixteen."""

Pair = tuple[int, int]


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
    side = stride * max(1, SIDES[channels] // stride)
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
