"""The moves of Square Attack: where it starts and what a square does, per norm."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor

from bascule.core.ball import L1Ball, L2Ball


@dataclass(frozen=True, kw_only=True)
class Squares(ABC):
    """Moves inside the ball of radius `eps`. Images are B x C x H x W; uniform draws in [0, 1) decide everything."""

    eps: float

    @abstractmethod
    def start(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        """The first perturbed images."""

    @abstractmethod
    def draws(self, x: Tensor) -> int:
        """Numbers that `propose` needs per image."""

    @abstractmethod
    def propose(self, best: Tensor, x: Tensor, draws: Tensor, *, share: float) -> Tensor:
        """`best` with one square changed; a square covers about `share` of the pixels. `draws` is B x `self.draws`."""


class LinfSquares(Squares):
    """Every entry of a square at the same end of its range, per channel (algorithm 2 of the paper)."""

    def start(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        """Vertical stripes one pixel wide."""
        batch, channels, _, width = x.shape
        up = torch.rand(batch, channels, 1, width, generator=generator, device=x.device) < 0.5
        return torch.where(up, *self._range(x))

    def draws(self, x: Tensor) -> int:
        return 3 + x.shape[1]

    def propose(self, best: Tensor, x: Tensor, draws: Tensor, *, share: float) -> Tensor:
        _, channels, height, width = x.shape
        side = min(max(round((share * height * width) ** 0.5), 1), height, width)
        up, inside = draws[:, 3:] < 0.5, _inside(draws[:, :2], side, x)
        # Only what is inside is looked at, B x side x side x C: most squares are a few pixels of many.
        old, (high, low) = best[inside], self._range(x[inside])
        up = up[:, None, None]
        # The one choice of signs that may change nothing is replaced by another one, all others being equally likely.
        idle = (torch.where(up, high, low) == old).flatten(1).all(1)[:, None, None, None]
        if channels > 1:
            turned = 1 + (draws[:, 2] * (2**channels - 1)).long()
            bits = turned[:, None, None, None] >> torch.arange(channels, device=x.device) & 1
            idle = bits.bool() & idle
        found = best.clone()
        found[inside] = torch.where(up ^ idle, high, low)
        return found

    def _range(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return (x + self.eps).clamp_max_(1), (x - self.eps).clamp_min_(0)


class PyramidSquares(Squares):
    """A pair of opposite pyramids in one window, paid for by setting another window to zero (algorithm 3)."""

    falloff: ClassVar[int]
    """Height of a pyramid's k-th ring from the top: 1 / k to this power."""
    power: ClassVar[int]
    """Of an entry's size, in what the perturbation costs: a sum over all entries."""

    def start(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        """A grid of about 5 x 5 tiles with a pair of pyramids of random sign each."""
        batch, channels, height, width = x.shape
        side = max(min(height, width) // 5, 1)
        rows, columns = height // side, width // side
        turned = (torch.rand(batch, rows, columns, generator=generator, device=x.device) < 0.5).long()
        sign = _signs(torch.rand(batch, channels, rows, columns, generator=generator, device=x.device))
        # (B, rows, columns, side, side) with the tiles' rows and columns of pixels brought beside those of the grid.
        tiles = self._pyramids(side, x)[turned].permute(0, 1, 3, 2, 4)
        tiles = tiles.reshape(batch, 1, rows * side, columns * side)
        tiles = tiles * sign.repeat_interleave(side, 2).repeat_interleave(side, 3)
        top, left = (height - rows * side) // 2, (width - columns * side) // 2
        delta = torch.zeros_like(x)
        delta[:, :, top : top + rows * side, left : left + columns * side] = tiles
        return self._fitted(x, delta)

    def draws(self, x: Tensor) -> int:
        return 5 + x.shape[1]

    def propose(self, best: Tensor, x: Tensor, draws: Tensor, *, share: float) -> Tensor:
        _, channels, height, width = x.shape
        side = _odd(max(round((share * height * width) ** 0.5), 3), height, width)
        changed, emptied = _window(draws[:, :2], side, x), _window(draws[:, 2:4], side, x)
        sign = _signs(draws[:, 5:])[:, :, None, None]
        delta = best - x
        costs = self._costs(delta)
        unused = (self.eps**self.power - costs.sum((1, 2, 3), keepdim=True)).clamp_min(0)
        freed = (costs * (changed | emptied)).sum((2, 3), keepdim=True)
        before = self._length((costs * changed).sum((2, 3), keepdim=True))
        pyramids = _placed(self._pyramids(side, x), draws[:, :2], draws[:, 4] < 0.5, x) * sign
        update = pyramids + delta * changed / before.clamp_min(1e-12)
        length = self._length(self._costs(update).sum((2, 3), keepdim=True)).clamp_min(1e-12)
        update = update / length * self._length(self._spent(unused, freed, channels))
        return self._fitted(x, torch.where(changed, update, delta * ~emptied))

    def _pyramids(self, side: int, x: Tensor) -> Tensor:
        return _pyramids(side, falloff=self.falloff, power=self.power).to(x)

    @abstractmethod
    def _costs(self, delta: Tensor) -> Tensor:
        """Of each entry, its size to `power`."""

    @abstractmethod
    def _length(self, cost: Tensor) -> Tensor:
        """The length that costs so much."""

    @abstractmethod
    def _spent(self, unused: Tensor, freed: Tensor, channels: int) -> Tensor:
        """What the window of a channel may cost, from what is not used yet and what its own two windows free."""

    @abstractmethod
    def _fitted(self, x: Tensor, delta: Tensor) -> Tensor:
        """The images with this perturbation, brought into the ball and [0, 1]."""


class L2Squares(PyramidSquares):
    """As the paper has it; what is left is scaled to the whole radius, then clipped."""

    falloff: ClassVar[int] = 2
    power: ClassVar[int] = 2

    def _costs(self, delta: Tensor) -> Tensor:
        return delta.square()

    def _length(self, cost: Tensor) -> Tensor:
        return cost.sqrt()

    def _spent(self, unused: Tensor, freed: Tensor, channels: int) -> Tensor:
        return unused / channels + freed

    def _fitted(self, x: Tensor, delta: Tensor) -> Tensor:
        return L2Ball(eps=self.eps).step(x, delta, self.eps).clamp_(0, 1)


class L1Squares(PyramidSquares):
    """The same with steeper pyramids and lengths in L1, projected onto the ball within [0, 1] (Croce & Hein 2021).

    With several channels more is spent than there is, as in the authors' code: the projection shortens all entries by
    one length, so that the small ones vanish and the perturbation becomes sparse. For the same reason the first tiles
    have length one whatever the radius.
    """

    falloff: ClassVar[int] = 4
    power: ClassVar[int] = 1

    def _costs(self, delta: Tensor) -> Tensor:
        return delta.abs()

    def _length(self, cost: Tensor) -> Tensor:
        return cost

    def _spent(self, unused: Tensor, freed: Tensor, channels: int) -> Tensor:
        return unused + channels * freed

    def _fitted(self, x: Tensor, delta: Tensor) -> Tensor:
        return L1Ball(eps=self.eps).project(x + delta, x)


SQUARES: dict[str, type[Squares]] = {"linf": LinfSquares, "l2": L2Squares, "l1": L1Squares}


def _signs(draws: Tensor) -> Tensor:
    return torch.where(draws < 0.5, 1.0, -1.0)


def _odd(side: int, height: int, width: int) -> int:
    """The next odd number from `side` on, or the largest that fits into the image."""
    return min(side + 1 - side % 2, *((length - 1) // 2 * 2 + 1 for length in (height, width)))


def _inside(place: Tensor, side: int, x: Tensor) -> tuple[Tensor, slice, Tensor, Tensor]:
    """Index of the squares that two uniform draws (B x 2) stand for: it gives B x side x side x C."""
    height, width = x.shape[2:]
    steps = torch.arange(side, device=x.device)
    rows = (place[:, :1] * (height - side + 1)).long() + steps
    columns = (place[:, 1:] * (width - side + 1)).long() + steps
    images = torch.arange(len(x), device=x.device)
    return images[:, None, None], slice(None), rows.unsqueeze(2), columns.unsqueeze(1)


def _offsets(place: Tensor, side: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """Each pixel row's (B x H) and column's (B x W) position in the square that two uniform draws (B x 2) stand for.

    It is in 0..side-1 inside the square.
    """
    height, width = x.shape[2:]
    top = (place[:, :1] * (height - side + 1)).long()
    left = (place[:, 1:] * (width - side + 1)).long()
    return torch.arange(height, device=x.device) - top, torch.arange(width, device=x.device) - left


def _window(place: Tensor, side: int, x: Tensor) -> Tensor:
    """Which pixels are in the square, B x 1 x H x W."""
    down, across = ((offset >= 0) & (offset < side) for offset in _offsets(place, side, x))
    return (down.unsqueeze(2) & across.unsqueeze(1)).unsqueeze(1)


def _placed(shapes: Tensor, place: Tensor, turned: Tensor, x: Tensor) -> Tensor:
    """One of two shapes (2 x side x side) in each image's square, 0 elsewhere, B x 1 x H x W."""
    side = shapes.shape[-1]
    down, across = (offset.clamp(0, side - 1) for offset in _offsets(place, side, x))
    canvas = shapes[turned.long()[:, None, None], down.unsqueeze(2), across.unsqueeze(1)].unsqueeze(1)
    return canvas * _window(place, side, x)


@cache
def _pyramids(side: int, *, falloff: int = 2, power: int = 2) -> Tensor:
    """Two pyramids of opposite sign, one above the other, and the same turned by 90 degrees; 2 x side x side, length 1.

    Each half counts the nested rectangles around its centre that a pixel is in, the k-th with weight 1 / k ** falloff
    (section 3.3 of the paper). Lengths are those of the norm L`power`.
    """
    upper, lower = _pyramid(side // 2, side, falloff, power), _pyramid(side - side // 2, side, falloff, power)
    shape = torch.cat([upper, -lower])
    shape /= shape.norm(power)
    return torch.stack([shape, shape.T])


def _pyramid(height: int, width: int, falloff: int, power: int) -> Tensor:
    """One pyramid of length 1, height x width."""
    down, across = (torch.arange(length) - length // 2 for length in (height, width))
    ring = torch.maximum(down.abs().unsqueeze(1), across.abs())
    weight = torch.arange(1, max(height, width) // 2 + 2).double().pow(-falloff)
    shape = weight.flip(0).cumsum(0).flip(0)[ring]
    return shape / shape.norm(power).clamp_min(1e-12)
