"""The operations a bounded network is made of: how each carries intervals forward and linear bounds backward.

Every operation acts on each image by itself. Values are B x shape; coefficients of linear bounds are B x S x shape, for
S linear functions per image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Box(NamedTuple):
    """All values between two tensors, entry by entry."""

    lower: Tensor
    upper: Tensor

    def split(self) -> tuple[Tensor, Tensor]:
        """Centre of each interval, and half its width."""
        middle = (self.lower + self.upper) * 0.5
        return middle, self.upper - middle


@dataclass(frozen=True, eq=False)
class Ref:
    """A value inside the network that depends on the image."""

    index: int
    like: Tensor
    """A tensor of its shape, type and device."""
    nominal: Tensor | None
    """Its value for the images themselves, where computed."""

    @property
    def shape(self) -> torch.Size:
        """B x shape."""
        return self.like.shape


class Network(Protocol):
    """What operations are added to, one after the other."""

    def add(self, op: Op, *inputs: Ref, nominal: Tensor | None = None) -> Ref:
        """One more operation; its result for the images themselves is `nominal` where that is known already."""


class Rows(NamedTuple):
    """The rows of an affine map from the image to a value, each the weights of one entry of it."""

    length: Tensor
    """At least their Euclidean lengths, 1 x shape or B x shape of the value."""
    exact: bool = True
    """Whether these are the lengths."""
    apart: bool = True
    """Whether each row has one weight at most, and no two rows have theirs at the same entry of the image."""


class UnsupportedError(Exception):
    """An operation that no bound is known for here; the caller says which one and where."""


class Line(NamedTuple):
    """A linear function of an operation's inputs."""

    coefficients: tuple[Tensor, ...]
    """One per input, B x S x shape of the input."""
    constant: Tensor | None = None
    """B x S."""


def around(middle: Tensor, half: Tensor) -> Box:
    """The box with this centre."""
    return Box(middle - half, middle + half)


def dot(coefficients: Tensor, values: Tensor) -> Tensor:
    """Sum of coefficient times value: B x S x shape with B x shape, to B x S."""
    return torch.bmm(coefficients.flatten(2), values.flatten(1).unsqueeze(2)).squeeze(2)


class Op(ABC):
    """One operation."""

    affine: ClassVar[bool] = True
    """Whether `pull` is exact rather than a bound."""

    @abstractmethod
    def value(self, *inputs: Tensor) -> Tensor:
        """The result for these inputs."""

    @abstractmethod
    def push(self, *inputs: Box) -> Box:
        """Interval bounds of the result for inputs in these boxes."""

    @abstractmethod
    def pull(self, coefficients: Tensor, *inputs: Box) -> Line:
        """A linear function of the inputs that bounds `coefficients . result` from below on these boxes."""

    def rows(self, *inputs: Rows) -> Rows:
        """Of an affine operation: its result's rows, from those of its inputs.

        By the triangle inequality, as if all inputs were between minus and plus their rows' lengths.
        """
        _, half = self.push(*(Box(-rows.length, rows.length) for rows in inputs)).split()
        return Rows(half, exact=False, apart=False)


def _summed_squares(rows: Rows, squared: Callable[[Tensor], Tensor]) -> Rows:
    """Rows combined of rows that are apart, and so orthogonal; `squared` is the operation with its weights squared."""
    return Rows(squared(rows.length.square()).sqrt(), exact=rows.exact, apart=False)


def _bias_term(coefficients: Tensor, bias: Tensor | None) -> Tensor | None:
    return None if bias is None else (coefficients * bias).flatten(2).sum(2)


@dataclass(frozen=True, eq=False)
class Dense(Op):
    """A linear layer over the last dimension."""

    weight: Tensor
    bias: Tensor | None

    def value(self, *inputs: Tensor) -> Tensor:
        return F.linear(inputs[0], self.weight, self.bias)

    def push(self, *inputs: Box) -> Box:
        middle, half = inputs[0].split()
        return around(self.value(middle), F.linear(half, self.weight.abs()))

    def pull(self, coefficients: Tensor, *inputs: Box) -> Line:
        return Line((coefficients @ self.weight,), _bias_term(coefficients, self.bias))

    def rows(self, *inputs: Rows) -> Rows:
        if not inputs[0].apart:
            return super().rows(*inputs)
        return _summed_squares(inputs[0], lambda squares: F.linear(squares, self.weight.square()))


Pair = tuple[int, int]


def pair(value: Any) -> Pair:
    """Rows and columns; one number stands for both."""
    first, second = (value, value) if isinstance(value, int) else value
    return int(first), int(second)


@dataclass(frozen=True, eq=False)
class Convolution(Op):
    """A two-dimensional convolution with symmetric zero padding."""

    weight: Tensor
    bias: Tensor | None
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def value(self, *inputs: Tensor) -> Tensor:
        return self._convolve(inputs[0], self.weight, self.bias)

    def push(self, *inputs: Box) -> Box:
        middle, half = inputs[0].split()
        return around(self.value(middle), self._convolve(half, self.weight.abs(), None))

    def pull(self, coefficients: Tensor, *inputs: Box) -> Line:
        size, out = inputs[0].lower.shape[2:], coefficients.shape[3:]
        kernel = self.weight.shape[2:]
        # Rows and columns at the far edge that no position of the kernel reached.
        rest = [
            size[i] - ((out[i] - 1) * self.stride[i] - 2 * self.padding[i] + self.dilation[i] * (kernel[i] - 1) + 1)
            for i in range(2)
        ]
        flat = coefficients.flatten(0, 1)
        pulled = F.conv_transpose2d(
            flat, self.weight, None, self.stride, self.padding, rest, self.groups, self.dilation
        )
        bias = None if self.bias is None else self.bias.reshape(-1, 1, 1)
        return Line((pulled.unflatten(0, coefficients.shape[:2]),), _bias_term(coefficients, bias))

    def rows(self, *inputs: Rows) -> Rows:
        if not inputs[0].apart:
            return super().rows(*inputs)
        return _summed_squares(inputs[0], lambda squares: self._convolve(squares, self.weight.square(), None))


@dataclass(frozen=True, eq=False)
class Scale(Op):
    """Entry by entry `scale * x + shift`; both have as many dimensions as x, the first of size 1 or B."""

    scale: Tensor
    shift: Tensor | None = None

    def value(self, *inputs: Tensor) -> Tensor:
        scaled = inputs[0] * self.scale
        return scaled if self.shift is None else scaled + self.shift

    def push(self, *inputs: Box) -> Box:
        middle, half = inputs[0].split()
        return around(self.value(middle), half * self.scale.abs())

    def pull(self, coefficients: Tensor, *inputs: Box) -> Line:
        shift = None if self.shift is None else self.shift.unsqueeze(1)
        return Line((coefficients * self.scale.unsqueeze(1),), _bias_term(coefficients, shift))

    def rows(self, *inputs: Rows) -> Rows:
        return inputs[0]._replace(length=inputs[0].length * self.scale.abs())


@dataclass(frozen=True, eq=False)
class Positive(Op):
    """A linear map of each image without negative entries: reshape, zero padding, slice, average."""

    map: Callable[[Tensor], Tensor]
    """For any number of images."""

    def value(self, *inputs: Tensor) -> Tensor:
        return self.map(inputs[0])

    def push(self, *inputs: Box) -> Box:
        (box,) = inputs
        return Box(self.map(box.lower), self.map(box.upper))

    def pull(self, coefficients: Tensor, *inputs: Box) -> Line:
        flat = coefficients.flatten(0, 1)
        with torch.enable_grad():
            at = flat.new_zeros((len(flat), *inputs[0].lower.shape[1:])).requires_grad_(True)
            (pulled,) = torch.autograd.grad(self.map(at), at, flat, create_graph=flat.requires_grad)
        return Line((pulled.unflatten(0, coefficients.shape[:2]),))

    def rows(self, *inputs: Rows) -> Rows:
        (rows,) = inputs
        picked = self._picked(rows.length.shape[1:])
        exact = rows.exact and picked is not None
        apart = rows.apart and picked is not None and len(picked) == len(picked.unique())
        return Rows(self.map(rows.length), exact=exact, apart=apart)

    def _picked(self, shape: torch.Size) -> Tensor | None:
        """The places that entries of the result are taken from, those that are 0 left out; None where some are mixed.

        With no weight below 0, weights that add up to 1 take a strictly concave function to its value at their mean
        only where they are all at one place.
        """
        places = torch.arange(1, shape.numel() + 1, dtype=torch.float64).reshape(1, *shape)
        weights, picked, roots = (
            self.map(probe).flatten() for probe in (torch.ones_like(places), places, places.sqrt())
        )
        nothing = weights == 0
        alone = (weights == 1) & (picked == picked.round()) & (roots == picked.sqrt())
        return picked[~nothing] if bool((nothing | alone).all()) else None


@dataclass(frozen=True, eq=False)
class Sum(Op):
    """Several branches of equal shape, each times a number, added."""

    weights: tuple[float, ...]

    def value(self, *inputs: Tensor) -> Tensor:
        return _total([weight * x for weight, x in zip(self.weights, inputs, strict=True)])

    def push(self, *inputs: Box) -> Box:
        pairs = [Box(w * b.lower, w * b.upper) for w, b in zip(self.weights, inputs, strict=True)]
        lower, upper = (
            _total([pair[side if w >= 0 else 1 - side] for w, pair in zip(self.weights, pairs, strict=True)])
            for side in (0, 1)
        )
        return Box(lower, upper)

    def pull(self, coefficients: Tensor, *inputs: Box) -> Line:
        return Line(tuple(weight * coefficients for weight in self.weights))


def _total(parts: list[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


@dataclass(frozen=True, eq=False)
class LeakyRelu(Op):
    """x where positive, `slope * x` elsewhere; 0 <= slope <= 1. ReLU has the slope 0."""

    affine = False
    slope: float

    def value(self, *inputs: Tensor) -> Tensor:
        return F.leaky_relu(inputs[0], self.slope) if self.slope else F.relu(inputs[0])

    def push(self, *inputs: Box) -> Box:
        (box,) = inputs
        return Box(self.value(box.lower), self.value(box.upper))

    def pull(self, coefficients: Tensor, *inputs: Box) -> Line:
        """Zhang et al. 2018 (CROWN), section 3.3: the chord from above, from below the line that wastes less area."""
        lower, upper = inputs[0]
        bent = (lower < 0) & (upper > 0)
        width = torch.where(bent, upper - lower, 1)
        slope = torch.full_like(lower, self.slope)  # a tensor, since `where` would round a number to float32
        straight = slope.masked_fill(lower >= 0, 1)
        chord = torch.where(bent, (upper - self.slope * lower) / width, straight)
        below = torch.where(bent, slope.masked_fill(upper > -lower, 1), straight)
        height = torch.where(bent, upper * (1 - chord), 0)
        negative = coefficients.clamp_max(0)
        pulled = torch.addcmul(coefficients * below.unsqueeze(1), negative, (chord - below).unsqueeze(1))
        return Line((pulled,), dot(negative, height))


@dataclass(frozen=True, eq=False)
class MaxPool(Op):
    """The largest entry of each window."""

    affine = False
    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    ceil_mode: bool

    def value(self, *inputs: Tensor) -> Tensor:
        return F.max_pool2d(inputs[0], self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode)

    def push(self, *inputs: Box) -> Box:
        (box,) = inputs
        return Box(self.value(box.lower), self.value(box.upper))

    def pull(self, coefficients: Tensor, *inputs: Box) -> Line:
        """From below the entry with the highest lower bound; from above that entry where it is sure to be the largest.

        Elsewhere, and everywhere when windows overlap, the highest upper bound, a constant.
        """
        lower, upper = inputs[0]
        best, index = F.max_pool2d(
            lower, self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode, return_indices=True
        )
        index = index.flatten(2)
        apart = all(self.stride[i] > self.dilation[i] * (self.kernel[i] - 1) for i in range(2))
        if apart:
            rivals = upper.detach().flatten(2).scatter(2, index, -torch.inf).reshape(upper.shape)
            sure = self.value(rivals) <= best
        else:
            sure = torch.zeros_like(best, dtype=torch.bool)
        negative = coefficients.clamp_max(0)
        through = torch.where(sure.unsqueeze(1), coefficients, coefficients.clamp_min(0)).flatten(3)
        batch, count, channels = coefficients.shape[:3]
        pulled = coefficients.new_zeros((batch, count, channels, lower.shape[2] * lower.shape[3]))
        pulled = pulled.scatter_add(3, index.unsqueeze(1).expand(through.shape), through)
        constant = dot(negative, torch.where(sure, 0, self.value(upper)))
        return Line((pulled.reshape(batch, count, *lower.shape[1:]),), constant)
