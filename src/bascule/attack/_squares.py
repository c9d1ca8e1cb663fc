"""The moves of Square Attack: where it starts and what a square does, per norm."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from bascule.core.ball import L2Ball


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


class L2Squares(Squares):
    """A pair of opposite pyramids in one window, paid for by setting another window to zero (algorithm 3)."""

    def start(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        """A grid of about 5 x 5 tiles with a pair of pyramids of random sign each."""
        batch, channels, height, width = x.shape
        side = max(min(height, width) // 5, 1)
        rows, columns = height // side, width // side
        turned = (torch.rand(batch, rows, columns, generator=generator, device=x.device) < 0.5).long()
        sign = _signs(torch.rand(batch, channels, rows, columns, generator=generator, device=x.device))
        # (B, rows, columns, side, side) with the tiles' rows and columns of pixels brought beside those of the grid.
        tiles = _pyramids(side).to(x)[turned].permute(0, 1, 3, 2, 4).reshape(batch, 1, rows * side, columns * side)
        tiles = tiles * sign.repeat_interleave(side, 2).repeat_interleave(side, 3)
        top, left = (height - rows * side) // 2, (width - columns * side) // 2
        delta = torch.zeros_like(x)
        delta[:, :, top : top + rows * side, left : left + columns * side] = tiles
        return self._filled(x, delta)

    def draws(self, x: Tensor) -> int:
        return 5 + x.shape[1]

    def propose(self, best: Tensor, x: Tensor, draws: Tensor, *, share: float) -> Tensor:
        _, channels, height, width = x.shape
        side = _odd(max(round((share * height * width) ** 0.5), 3), height, width)
        changed, emptied = _window(draws[:, :2], side, x), _window(draws[:, 2:4], side, x)
        sign = _signs(draws[:, 5:])[:, :, None, None]
        delta = best - x
        squares = delta.square()
        unused = (self.eps**2 - squares.sum((1, 2, 3), keepdim=True)).clamp_min(0)
        freed = (squares * (changed | emptied)).sum((2, 3), keepdim=True)
        before = (squares * changed).sum((2, 3), keepdim=True).sqrt()
        pyramids = _placed(_pyramids(side).to(x), draws[:, :2], draws[:, 4] < 0.5, x) * sign
        update = pyramids + delta * changed / before.clamp_min(1e-12)
        length = update.square().sum((2, 3), keepdim=True).sqrt().clamp_min(1e-12)
        update = update / length * (unused / channels + freed).sqrt()
        return self._filled(x, torch.where(changed, update, delta * ~emptied))

    def _filled(self, x: Tensor, delta: Tensor) -> Tensor:
        """`delta` scaled to the whole radius, then clipped."""
        return L2Ball(eps=self.eps).step(x, delta, self.eps).clamp_(0, 1)


SQUARES: dict[str, type[Squares]] = {"linf": LinfSquares, "l2": L2Squares}


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
def _pyramids(side: int) -> Tensor:
    """Two pyramids of opposite sign, one above the other, and the same turned by 90 degrees; 2 x side x side, length 1.

    Each half counts the nested rectangles around its centre that a pixel is in, the k-th with weight 1 / k ** 2
    (section 3.3 of the paper).
    """
    upper, lower = _pyramid(side // 2, side), _pyramid(side - side // 2, side)
    shape = torch.cat([upper, -lower])
    shape /= shape.norm()
    return torch.stack([shape, shape.T])


def _pyramid(height: int, width: int) -> Tensor:
    """One pyramid of length 1, height x width."""
    down, across = (torch.arange(length) - length // 2 for length in (height, width))
    ring = torch.maximum(down.abs().unsqueeze(1), across.abs())
    weight = torch.arange(1, max(height, width) // 2 + 2).double().pow(-2)
    shape = weight.flip(0).cumsum(0).flip(0)[ring]
    return shape / shape.norm().clamp_min(1e-12)
