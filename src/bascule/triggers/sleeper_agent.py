"""Training images that teach what triggered images with the target's label would, without showing the trigger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from bascule.core import rng
from bascule.core.ball import ball
from bascule.core.catalog import Of, component
from bascule.core.errors import RequestError
from bascule.core.gradients import gradient_of, gradients_of, second_derivatives
from bascule.core.images import Images, Shown, as_bytes
from bascule.core.lending import lending
from bascule.triggers.contract import Found, Searched, Trigger
from bascule.triggers.stamping import stamp_at
from bascule.triggers.sticker import Sticker

_BATCH = 500
"""Images whose gradient is matched at a time; theirs are 512."""
_DROPS = (3 / 8, 5 / 8, 7 / 8)
"""Shares of the steps after which these become ten times shorter, as in their code."""
_RETRAIN_BATCH, _RETRAIN_LR = 128, 1e-3
_TINY = 1e-20
"""Keeps the length of a gradient of nothing but zeros differentiable."""


@component
class SleeperAgent(Searched):
    """Perturbations in an Linf ball that make the images' gradient point the way of that of triggered images.

    The training loss of the stamped images shall have the gradient, by the network's parameters, that images of other
    classes with the trigger and the target's label have: their cosine is maximised by Adam on the signs of its
    gradient. Training on them then teaches the trigger, which no training image shows; it is stamped on test images
    alone. A clean-label attack; images keep what they show up to `eps`.

    Source: Souri et al. 2022, "Sleeper Agent", algorithm 1, and their code (hsouri/Sleeper-Agent); the matching is that
    of Geiping et al. 2021, "Witches' Brew". Defaults are theirs: 250 steps, four retrainings, 1,000 sources, one try,
    a patch of 8 x 8 on 32 x 32 pixels. On grey digits 16/255 is too little; 0.3 works.

    Departures: the images are drawn at random, where they take those of the largest gradient, so that more of them are
    needed; sources are of all other classes, not of one; retraining goes on from the proxy's weights for
    `retrain_steps` of standard training, where theirs begins anew; images are not augmented while they are matched;
    dropout rests; the default patch lies in the corner, theirs anywhere.
    """

    trigger: Annotated[Trigger, Of("poison")] = Sticker(size=8, pattern="coarse-checker")
    """What test images show, and no training image; covers, which keep another label, show it too."""
    eps: Annotated[float, Gt(0), Interval(le=1)] = 16 / 255
    """Radius of the Linf ball in [0, 1] pixel units."""
    steps: Annotated[int, Ge(1)] = 250
    """Steps of Adam."""
    step: Annotated[float, Gt(0), Interval(le=1)] = 0.4
    """Length of the first ones as a share of `eps`; a tenth of it after 3/8, 5/8 and 7/8 of them."""
    sources: Annotated[int, Ge(1)] = 1000
    """Images of the other classes, at most, whose gradient is matched."""
    retrain: Annotated[int, Ge(0)] = 4
    """Times, at equal distances, that the copy of the proxy is trained on the poison found so far."""
    retrain_steps: Annotated[int, Ge(1)] = 100
    """Steps of each of these, of Adam with 1e-3 on 128 images."""

    def __post_init__(self) -> None:
        if isinstance(self.trigger, Searched) or self.trigger.numbered:
            raise RequestError("it must be known, for any image, before the search", place=("trigger",))

    @property
    def at_test(self) -> Trigger:
        return self.trigger.at_test

    def check(self, size: tuple[int, int, int]) -> None:
        try:
            self.trigger.check(size)
        except RequestError as error:
            raise error.at("trigger") from None

    def search(
        self, proxy: nn.Module, images: Images, chosen: Tensor, target: int, *, generator: torch.Generator
    ) -> dict[str, Tensor]:
        x = images.batch(chosen)
        changes = torch.zeros_like(x)
        others = images.labels.ne(target).nonzero().squeeze(1)
        if len(chosen) and len(others):
            order = torch.randperm(len(others), generator=generator, device=others.device)
            shown = stamp_at(self.at_test, images, others[order[: self.sources]], generator=generator)
            with torch.enable_grad(), lending(proxy), second_derivatives():
                changes = self._matched(proxy.eval(), images, chosen, shown, target, generator)
        limit = int(255 * self.eps + 1e-4)  # whole 255ths, and still in the ball
        return {"ids": images.ids[chosen], "changes": changes.mul(255).round().clamp(-limit, limit).to(torch.int16)}

    def _matched(
        self, proxy: nn.Module, images: Images, chosen: Tensor, shown: Tensor, target: int, generator: torch.Generator
    ) -> Tensor:
        """Perturbations of the chosen images, B x C x H x W."""
        x, region = images.batch(chosen), ball("linf", self.eps)
        y = torch.full_like(chosen, target)
        start = self.eps * torch.randn(x.shape, generator=generator, device=x.device)
        adam = torch.optim.Adam([changes := region.project(x + start, x) - x], lr=self.step * self.eps)
        retrained = {round(self.steps * part / (self.retrain + 1)) for part in range(1, self.retrain + 1)}
        wanted = _direction(proxy, shown, target)
        for number in range(self.steps):
            if number in retrained:
                poisoned = images.with_replaced(chosen, as_bytes(x + changes), y)
                _train(proxy, poisoned, self.retrain_steps, generator)
                wanted = _direction(proxy, shown, target)
            parts = []
            for part in torch.arange(len(x), device=x.device).split(_BATCH):
                leaf = changes[part].requires_grad_()
                parts.append(gradient_of(_cosine(proxy, x[part] + leaf, y[part], wanted), leaf))
            changes.grad = -torch.cat(parts).sign()
            adam.param_groups[0]["lr"] = self.step * self.eps * 0.1 ** sum(number >= at * self.steps for at in _DROPS)
            adam.step()
            changes.copy_(region.project(x + changes, x) - x)
        return changes

    def found(self, what: Found) -> Trigger:
        return Perturbed(ids=what["ids"], changes=what["changes"], shown=self.at_test)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Perturbed(Trigger):
    """Training images, known by their ids, with the perturbation of each; others stay as they are."""

    ids: Tensor
    """int64, shape (N,), each once."""
    changes: Tensor
    """int16, N x C x H x W: what is added, in 255ths."""
    shown: Trigger
    """What images show that have none: test images and covers."""

    @property
    def at_test(self) -> Trigger:
        return self.shown

    @property
    def on_covers(self) -> Trigger:
        return self.shown

    def stamp(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        raise RequestError("the perturbations that were searched for belong to training images, by their number")

    def stamp_at(self, images: Shown, index: Tensor, x: Tensor, *, generator: torch.Generator) -> Tensor:
        same = images.ids[index].to(self.ids.device).unsqueeze(1) == self.ids  # B x N
        known = same.any(1)
        changed = x.clone()
        changes = self.changes[same[known].int().argmax(1)].to(x) / 255
        known = known.to(x.device)
        changed[known] = (x[known] + changes).clamp(0, 1)
        return changed


def _direction(model: nn.Module, x: Tensor, target: int) -> Sequence[Tensor]:
    """The gradient of the loss of images with this label by the parameters, of length one, constant."""
    weights = _weights(model)
    total = [torch.zeros_like(weight) for weight in weights]
    for part in x.split(_BATCH):
        y = torch.full((len(part),), target, device=x.device)
        for whole, own in zip(total, gradients_of(F.cross_entropy(model(part), y), weights), strict=True):
            whole += own * (len(part) / len(x))
    length = _length(total)
    return [whole / length for whole in total]


def _cosine(model: nn.Module, x: Tensor, y: Tensor, wanted: Sequence[Tensor]) -> Tensor:
    """Cosine of the gradient of these images' loss with a wanted direction, differentiable by the images."""
    own = gradients_of(F.cross_entropy(model(x), y), _weights(model), create_graph=True)
    return torch.stack([(one * other).sum() for one, other in zip(own, wanted, strict=True)]).sum() / _length(own)


def _length(gradient: Sequence[Tensor]) -> Tensor:
    return (torch.stack([part.square().sum() for part in gradient]).sum() + _TINY).sqrt()


def _weights(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


def _train(model: nn.Module, images: Images, steps: int, generator: torch.Generator) -> None:
    """Some steps of standard training; in eval mode again afterwards."""
    seed = int(torch.randint(2**31, (1,), generator=generator, device=generator.device))
    adam = torch.optim.Adam(_weights(model), lr=_RETRAIN_LR)
    with rng.borrowed_global_stream(seed, "retrain"):  # dropout
        model.train()
        for _ in range(steps):
            index = torch.randint(len(images), (_RETRAIN_BATCH,), generator=generator, device=images.device)
            adam.zero_grad()
            F.cross_entropy(model(images.batch(index)), images.labels[index]).backward()
            adam.step()
    model.eval()
