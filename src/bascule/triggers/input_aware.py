"""A pattern of its own for every image, drawn by a network, that works on no other image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from bascule.core import rng
from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.core.images import Images, Shown
from bascule.core.lending import lending
from bascule.core.text import count
from bascule.triggers._pattern_network import PatternNetwork
from bascule.triggers.contract import Found, Searched, Trigger
from bascule.triggers.stamping import other_places

_TINY = 1e-6
"""Keeps distances differentiable, and quotients finite, where two images or patterns are the same."""
_BETAS = (0.5, 0.9)
"""Of Adam for both networks, as theirs."""
_MASK_DROPS = (2 / 5, 4 / 5)
_DROPS = (2 / 6, 3 / 6, 4 / 6, 5 / 6)
"""Shares of the steps after which the learning rate is a tenth, as theirs for mask and pattern."""
_PROXY_LR = 1e-3


@component
class InputAware(Searched):
    """Two networks draw a pattern and a mask for each image, which becomes x + mask * (pattern - x).

    First the mask's network learns to be sparse and to differ between images that differ. Then the pattern's network
    and the proxy are trained together: images with their own pattern for the target, images with the pattern of
    another image (cross-triggers) for their own label, the rest for its label; and patterns shall differ as images do.
    A dirty-label attack, whose covers show the pattern of another image of the set, drawn for each: without them any
    pattern works on any image.

    Source: Nguyen & Tran 2020, "Input-Aware Dynamic Backdoor Attack", and their code
    (VinAIResearch/input-aware-backdoor-attack-release), which has a tenth of the images with their own pattern and a
    tenth with another's: `label: dirty, rate: 0.1, cover: 0.1`. Weights of the losses, learning rates, density and
    networks are theirs for MNIST; for CIFAR-10 they have `width: 32, levels: 3`.

    Departures: theirs is an attack of whoever trains: the model in use is the one trained along with 600 epochs of
    fresh patterns. Here that is the proxy, which is thrown away, and the patterns found are planted once, as poison in
    a set that others train on; each image has one pattern, so that much less of the difference between one's own
    pattern and another's can be learnt. The proxy is a trained network and goes on by Adam with 1e-3, theirs begins
    anew with SGD; the search is shorter; images come in without augmentation, scaled to [-1, 1] (theirs on CIFAR-10 by
    channel).
    """

    steps: Annotated[int, Ge(1)] = 2000
    """Batches on which pattern and proxy are trained."""
    mask_steps: Annotated[int, Ge(1)] = 300
    """Batches on which the mask is trained before."""
    batch_size: Annotated[int, Ge(4)] = 128
    """Images per batch; all of them when there are fewer. For the mask a quarter of it."""
    share: Annotated[float, Gt(0), Interval(le=0.5)] = 0.25
    """Share of a batch with its own pattern, at least two images, and as much with another's; theirs is 0.1."""
    density: Annotated[float, Interval(ge=0, le=1)] = 0.032
    """What a mask's values above it cost, each by its excess: about the share of the image that it covers."""
    sparsity: Annotated[float, Ge(0)] = 100.0
    """Weight of that cost."""
    diversity: Annotated[float, Ge(0)] = 1.0
    """Weight of the distance of two images by the distance of their masks, or patterns."""
    lr: Annotated[float, Gt(0)] = 0.01
    """Learning rate of both networks, Adam."""
    width: Annotated[int, Ge(1)] = 16
    """Channels of the networks' first level; each further one has twice as many."""
    levels: Annotated[int, Ge(1)] = 2
    """Levels of the networks, each half as high and wide."""

    def search(
        self, proxy: nn.Module, images: Images, chosen: Tensor, target: int, *, generator: torch.Generator
    ) -> dict[str, Tensor]:
        if len(images) < 4:
            raise RequestError(f"its networks are trained on four images at least, got {count(len(images), 'image')}")
        seed = int(torch.randint(2**31, (1,), generator=generator, device=generator.device))
        with torch.enable_grad(), rng.borrowed_global_stream(seed, "input-aware"):  # initialisation, dropout
            mask, pattern = (part.to(images.device) for part in self._networks(images.size[0]))
            self._learn_masks(mask, images, generator)
            mask.eval().requires_grad_(False)
            with lending(proxy, classes=len(images.classes)):
                self._learn_patterns(pattern, mask, proxy.train(), images, target, generator)
        return {
            f"{name}.{key}": value.detach().clone()
            for name, network in (("mask", mask), ("pattern", pattern))
            for key, value in network.state_dict().items()
        }

    def _networks(self, channels: int) -> tuple[PatternNetwork, PatternNetwork]:
        """Those of mask and pattern, fresh."""
        mask, pattern = (PatternNetwork(channels, out, width=self.width, levels=self.levels) for out in (1, channels))
        return mask, pattern

    def _learn_masks(self, mask: nn.Module, images: Images, generator: torch.Generator) -> None:
        adam = torch.optim.Adam(mask.parameters(), lr=self.lr, betas=_BETAS)
        for number in range(self.mask_steps):
            adam.param_groups[0]["lr"] = self.lr * _slower(number / self.mask_steps, _MASK_DROPS)
            x = images.batch(_draw(images, max(2, self.batch_size // 4), generator))
            shown = _sharpened(mask(x))
            apart = 2 * _unlike(x, x.roll(1, 0), shown, shown.roll(1, 0))  # images on a scale from -1 to 1
            loss = self.sparsity * F.relu(shown - self.density).mean() + self.diversity * apart
            adam.zero_grad()
            loss.backward()
            adam.step()

    def _learn_patterns(
        self,
        pattern: nn.Module,
        mask: nn.Module,
        proxy: nn.Module,
        images: Images,
        target: int,
        generator: torch.Generator,
    ) -> None:
        adam = torch.optim.Adam(pattern.parameters(), lr=self.lr, betas=_BETAS)
        weights = [p for p in proxy.parameters() if p.requires_grad]
        along = torch.optim.Adam(weights, lr=_PROXY_LR)
        for number in range(self.steps):
            slower = _slower(number / self.steps, _DROPS)
            adam.param_groups[0]["lr"], along.param_groups[0]["lr"] = self.lr * slower, _PROXY_LR * slower
            index = _draw(images, self.batch_size, generator)
            x, y = images.batch(index), images.labels[index]
            part = max(2, int(self.share * len(x)))
            own, crossed, plain = x[:part], x[part : 2 * part], x[2 * part :]
            others = x.roll(-1, 0)[part : 2 * part]
            drawn, theirs = pattern(own), pattern(others)
            seen = [_laid(own, _sharpened(mask(own)), drawn), _laid(crossed, _sharpened(mask(others)), theirs), plain]
            loss = F.cross_entropy(proxy(torch.cat(seen)), torch.cat([torch.full_like(y[:part], target), y[part:]]))
            loss = loss + self.diversity * _unlike(own, others, drawn, theirs)
            adam.zero_grad()
            along.zero_grad()
            loss.backward()
            adam.step()
            along.step()

    def found(self, what: Found) -> Trigger:
        networks = self._networks(what["mask.down.0.0.weight"].shape[1])
        for name, network in zip(("mask", "pattern"), networks, strict=True):
            start = f"{name}."
            network.load_state_dict({key[len(start) :]: value for key, value in what.items() if key.startswith(start)})
            network.eval().requires_grad_(False)
        return OwnPattern(mask=networks[0], pattern=networks[1])


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class OwnPattern(Trigger):
    """Every image with its own pattern."""

    mask: nn.Module
    """From [0, 1] images to B x 1 x H x W, before it is sharpened."""
    pattern: nn.Module
    """From [0, 1] images to B x C x H x W."""

    @property
    def on_covers(self) -> Trigger:
        """The pattern of another image."""
        return CrossedPattern(whole=self)

    def stamp(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        return self.lay(x, of=x)

    @torch.no_grad()
    def lay(self, x: Tensor, *, of: Tensor) -> Tensor:
        """Images with the patterns of others, in their order; both B x C x H x W in [0, 1]."""
        mask, pattern = (part.to(x.device)(of.float()).to(x) for part in (self.mask, self.pattern))
        return _laid(x, _sharpened(mask), pattern).clamp(0, 1)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class CrossedPattern(Trigger):
    """Every image with the pattern of another one of its set, drawn at random."""

    whole: OwnPattern

    def stamp(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        return self.whole.lay(x, of=x[other_places(torch.arange(len(x), device=x.device), len(x), generator)])

    def stamp_at(self, images: Shown, index: Tensor, x: Tensor, *, generator: torch.Generator) -> Tensor:
        return self.whole.lay(x, of=images.batch(other_places(index, len(images), generator)))


def _draw(images: Images, count: int, generator: torch.Generator) -> Tensor:
    """Positions of this many images, each once; of all when there are fewer."""
    return torch.randperm(len(images), generator=generator, device=images.device)[:count]


def _laid(x: Tensor, mask: Tensor, pattern: Tensor) -> Tensor:
    return x + mask * (pattern - x)


def _sharpened(mask: Tensor) -> Tensor:
    """Values in [0, 1] moved towards 0 or 1, as their `threshold`."""
    return (20 * mask - 10).tanh() / 2 + 0.5


def _unlike(x: Tensor, other: Tensor, drawn: Tensor, theirs: Tensor) -> Tensor:
    """Distance of two images by the distance of what was drawn for them, on average."""
    return (_distance(x, other) / _distance(drawn, theirs)).mean()


def _distance(one: Tensor, other: Tensor) -> Tensor:
    """Root mean square of the difference, shape (B,)."""
    return ((one - other).square().flatten(1).mean(1) + _TINY**2).sqrt()


def _slower(done: float, drops: Sequence[float]) -> float:
    return float(0.1 ** sum(done >= at for at in drops))
