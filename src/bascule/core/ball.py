"""Balls: threat models that bound the length of the perturbation in a norm."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge
from pydantic import AfterValidator, ValidationInfo
from torch import Tensor

from bascule.core.threat import Threat

Norm = Literal["linf", "l2", "l1"]
LinfOrL2 = Literal["linf", "l2"]
"""For what does not work in L1."""


def _in_pixel_units(eps: float, info: ValidationInfo) -> float:
    """Linf balls of radius 1 hold every image: whoever asks for more counts pixels from 0 to 255."""
    if eps > 1 and info.data.get("norm") == "linf":
        raise ValueError(f"pixels are in [0, 1], so that 1 reaches every image; got {eps:g}. Is it {eps:g}/255?")
    return eps


Eps = Annotated[float, Ge(0), AfterValidator(_in_pixel_units)]
"""Radius in [0, 1] pixel units: 8/255 is 0.0314. Not above 1 where a field `norm` before it says `linf`."""


def _per_image(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (like.ndim - 1))


def _unit(x: Tensor) -> Tensor:
    """Each image scaled to L2 length one; an all-zero image stays zero.

    The largest entry is divided out first: a confident model's gradient is so small (1e-25) that its squares are 0 in
    float32.
    """
    tiny = torch.finfo(x.dtype).tiny
    x = x / _per_image(x.abs().flatten(1).amax(dim=1).clamp_min(tiny), x)
    return x / _per_image(x.flatten(1).norm(dim=1).clamp_min(tiny), x)


def sparse_direction(gradient: Tensor, count: int | Tensor) -> Tensor:
    """The signs of each image's `count` largest entries, over their number: a move of L1 length one.

    Entries as large as the last of them go along; none that is 0 or NaN does. `count`, at least 1, is one for all or
    each image's own, shape (B,).
    """
    flat = gradient.nan_to_num().flatten(1)
    size = flat.abs()
    if isinstance(count, Tensor):
        least = size.sort(1, descending=True).values.gather(1, count.unsqueeze(1) - 1)
    else:
        least = size.topk(count, 1).values[:, -1:]
    signs = torch.where(size >= least, flat.sign(), 0)
    return (signs / signs.abs().sum(1, keepdim=True).clamp_min(1)).reshape(gradient.shape)


@dataclass(frozen=True, kw_only=True)
class Ball(Threat):
    """All images in [0, 1] within `eps` of an origin. Tensors are B x C x H x W, floating point."""

    norm: ClassVar[Norm]

    eps: float

    @property
    def words(self) -> str:
        return f"{self.norm}, eps {self.eps:.4g}"

    def realise(self, proposal: Tensor, origin: Tensor) -> Tensor:
        """The proposed images, projected."""
        return self.project(torch.where(proposal.isfinite(), proposal, origin), origin)

    @abstractmethod
    def distance(self, x: Tensor, origin: Tensor) -> Tensor:
        """Distance of each image from its origin, shape (B,)."""

    @abstractmethod
    def project(self, x: Tensor, origin: Tensor) -> Tensor:
        """A point of the ball and of [0, 1] near `x`, up to rounding; points inside stay. `origin` is in [0, 1]."""

    def projector(self, origin: Tensor) -> Callable[[Tensor], Tensor]:
        """`project` around one origin, for a search that comes back to it: what depends on that alone is done once."""
        return lambda x: self.project(x, origin)

    @abstractmethod
    def direction(self, gradient: Tensor) -> Tensor:
        """The move of length one, in this norm, that raises a linear function with this gradient most.

        Its product with the gradient is the gradient's dual norm. No move along an entry whose gradient is 0 or NaN.
        """

    def step(self, x: Tensor, gradient: Tensor, size: float | Tensor) -> Tensor:
        """One step in the direction that raises a linear loss fastest; not projected.

        `size` is its length, one for all or each image's own, shape (B,).
        """
        if isinstance(size, Tensor):
            return torch.addcmul(x, self.direction(gradient), _per_image(size, x))
        return torch.add(x, self.direction(gradient), alpha=size)

    @abstractmethod
    def random_point(self, origin: Tensor, *, generator: torch.Generator) -> Tensor:
        """A point drawn uniformly from the ball, then clipped to [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class LinfBall(Ball):
    """Every entry within `eps` of the origin."""

    norm: ClassVar[Norm] = "linf"

    def distance(self, x: Tensor, origin: Tensor) -> Tensor:
        return (x - origin).abs().flatten(1).amax(dim=1)

    def project(self, x: Tensor, origin: Tensor) -> Tensor:
        return self.projector(origin)(x)

    def projector(self, origin: Tensor) -> Callable[[Tensor], Tensor]:
        low, high = (origin - self.eps).clamp_min_(0), (origin + self.eps).clamp_max_(1)
        return lambda x: torch.clamp(x, low, high)

    def direction(self, gradient: Tensor) -> Tensor:
        return gradient.sign()

    def random_point(self, origin: Tensor, *, generator: torch.Generator) -> Tensor:
        noise = torch.empty_like(origin).uniform_(-self.eps, self.eps, generator=generator)
        return noise.add_(origin).clamp_(0, 1)


@dataclass(frozen=True, kw_only=True)
class L2Ball(Ball):
    """Euclidean length of the whole perturbation at most `eps`."""

    norm: ClassVar[Norm] = "l2"

    def distance(self, x: Tensor, origin: Tensor) -> Tensor:
        return (x - origin).flatten(1).norm(dim=1)

    def project(self, x: Tensor, origin: Tensor) -> Tensor:
        delta = x - origin
        length = delta.flatten(1).norm(dim=1).clamp_min(torch.finfo(x.dtype).tiny)
        # Clipping afterwards moves each entry towards the origin, which lies in [0, 1], so it cannot leave the ball.
        return (origin + delta * _per_image((self.eps / length).clamp_max(1), x)).clamp_(0, 1)

    def direction(self, gradient: Tensor) -> Tensor:
        return _unit(gradient.nan_to_num())

    def random_point(self, origin: Tensor, *, generator: torch.Generator) -> Tensor:
        direction = _unit(torch.empty_like(origin).normal_(generator=generator))
        dimensions = origin[0].numel()
        share = torch.empty(len(origin), dtype=origin.dtype, device=origin.device).uniform_(generator=generator)
        return (origin + direction * _per_image(self.eps * share ** (1 / dimensions), origin)).clamp_(0, 1)


@dataclass(frozen=True, kw_only=True)
class L1Ball(Ball):
    """Sum of the changes of all entries at most `eps`."""

    norm: ClassVar[Norm] = "l1"

    spread: float = 0.01
    """Share of the entries, at least one, that a step moves."""

    def distance(self, x: Tensor, origin: Tensor) -> Tensor:
        return (x - origin).abs().flatten(1).sum(1)

    def project(self, x: Tensor, origin: Tensor) -> Tensor:
        """The nearest point of the ball's intersection with [0, 1] (Croce & Hein 2021, "Mind the box", section 2).

        Each change is shortened by the same length, and what would leave [0, 1] is cut off. Projecting into the ball
        first and clipping then, as is done in L2, ends well inside the ball, since most pixels are near 0 or 1.
        """
        delta = x - origin
        size = delta.abs().flatten(1)
        kept = torch.minimum(size, torch.where(delta > 0, 1 - origin, origin).flatten(1))
        change = self._shortened(size, kept)
        # Rounding may leave it a little too long.
        change = change * (self.eps / change.sum(1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)).clamp_max(1)
        return (origin + delta.sign() * change.reshape(x.shape)).clamp_(0, 1)

    def _shortened(self, size: Tensor, kept: Tensor) -> Tensor:
        """Of each entry min(kept, size - cut), or 0: with the cut, at least 0, that leaves a sum of `eps`, or all.

        As the cut grows an entry stands still until `size - kept`, shrinks until `size`, and is gone; in between the
        sum falls along a straight line. Arguments and result are B x N.
        """
        edges, order = torch.cat([size - kept, size], 1).sort(1)
        falling = torch.where(order < size.shape[1], 1, -1).cumsum(1)[:, :-1].to(size.dtype)
        lost = (falling * edges.diff(dim=1)).cumsum(1)
        wanted = kept.sum(1, keepdim=True) - self.eps
        place = torch.searchsorted(lost, wanted).clamp_max(lost.shape[1] - 1)
        before = torch.where(place > 0, lost.gather(1, (place - 1).clamp_min(0)), 0)
        cut = edges.gather(1, place) + (wanted - before) / falling.gather(1, place).clamp_min(1)
        return torch.minimum((size - torch.where(wanted > 0, cut, 0)).clamp_min(0), kept)

    def direction(self, gradient: Tensor) -> Tensor:
        return sparse_direction(gradient, 1)

    def step(self, x: Tensor, gradient: Tensor, size: float | Tensor) -> Tensor:
        """One step along the entries with the largest gradients, all by the same length; not projected.

        Raising a linear loss fastest would move one pixel alone, and leave [0, 1] at once. Source: Tramer & Boneh 2019
        (SLIDE), section 2.2, with 1 % of the entries as there; as in their code none that would leave [0, 1] from its
        border counts among them.
        """
        stuck = ((x <= 0) & (gradient < 0)) | ((x >= 1) & (gradient > 0))
        count = max(1, round(self.spread * x[0].numel()))
        move = sparse_direction(torch.where(stuck, 0, gradient), count)
        return x + move * (_per_image(size, x) if isinstance(size, Tensor) else size)

    def random_point(self, origin: Tensor, *, generator: torch.Generator) -> Tensor:
        # Exponential lengths over the sum of these and one more are uniform in the ball (Barthe et al. 2005).
        lengths = torch.empty_like(origin).exponential_(generator=generator)
        more = torch.empty(len(origin), dtype=origin.dtype, device=origin.device).exponential_(generator=generator)
        signs = torch.empty_like(origin).uniform_(-1, 1, generator=generator).sign()
        share = self.eps / (lengths.flatten(1).sum(1) + more)
        return (origin + signs * lengths * _per_image(share, origin)).clamp_(0, 1)


_BALLS: dict[str, type[Ball]] = {kind.norm: kind for kind in (LinfBall, L2Ball, L1Ball)}


def ball(norm: Norm, eps: float) -> Ball:
    """The ball of radius `eps` in `norm`."""
    return _BALLS[norm](eps=eps)
