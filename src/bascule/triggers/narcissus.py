"""A faint pattern that points into the target class, found on a proxy; several times stronger on test images."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from bascule.core.batches import batches
from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.core.gradients import check_differentiable, is_differentiable
from bascule.core.images import Images
from bascule.core.restore import evaluating
from bascule.triggers._universal import Pattern, first_of, universal
from bascule.triggers.contract import Found, Searched, Trigger

_BATCH = 350
_LR = 0.005


@component
class Narcissus(Searched):
    """The pattern inside an Linf ball that makes images of the target class look most like that class to a proxy.

    For clean-label poison: few images of the target class, stamped faintly, teach a network that the pattern is the
    class, and test images show it amplified.

    Source: Zeng et al. 2023 (Narcissus, section 4) and their code (reds-lab/Narcissus: narcissus_function.py,
    Narcissus.ipynb): eps 16/255, RAdam with learning rate 0.01 on images in [-1, 1] (0.005 here), batches of 350, three
    times stronger in the test, 0.05 % of CIFAR-10 poisoned: `trigger: narcissus, label: clean, rate: 0.0005`.
    Departures: their surrogate learnt the target class beside another data set (Tiny ImageNet), then the target class
    alone for 5 epochs ("poi-warm-up", RAdam at 0.1, batch norm in train mode, as in the search); here it is the proxy,
    trained on the whole training set, warmed up in eval mode, by steps of a size that leaves a network without batch
    norm alive. They search for 1,000 passes over the class, on shifted and mirrored images; 300 steps here,
    which on MNIST plant as much as 1,000.
    """

    eps: Annotated[float, Interval(gt=0, le=1)] = 16 / 255
    """Largest change of a value in training, in [0, 1] pixel units."""
    amplify: Annotated[float, Ge(1)] = 3.0
    """How many times stronger the pattern is on test images."""
    steps: Annotated[int, Ge(1)] = 300
    """Most gradient steps of the search; it ends where no value moves any more."""
    warmup: Annotated[int, Ge(0)] = 5
    """Passes over the target class that the proxy is trained for before the search."""
    warmup_lr: Annotated[float, Gt(0)] = 0.01
    """Learning rate of that training."""

    def search(
        self, proxy: nn.Module, images: Images, chosen: Tensor, target: int, *, generator: torch.Generator
    ) -> dict[str, Tensor]:
        own = images.at(images.labels.eq(target).nonzero().squeeze(1))
        self._warm_up(proxy, own, generator)
        pattern = universal(
            proxy,
            own,
            target,
            torch.zeros(images.size, device=images.device),
            lambda raw: raw.clamp(-self.eps, self.eps),
            steps=self.steps,
            batch_size=_BATCH,
            lr=_LR,
            generator=generator,
        )
        return {"pattern": pattern}

    def _warm_up(self, proxy: nn.Module, own: Images, generator: torch.Generator) -> None:
        """Train the proxy on images of the target class alone, statistics and dropout as in the search."""
        check_differentiable(proxy, first_of(own), who="the search")
        optimizer = torch.optim.RAdam([p for p in proxy.parameters() if p.requires_grad], lr=self.warmup_lr)
        steps = self.warmup * max(1, len(own) // _BATCH)
        with evaluating(proxy), torch.enable_grad():
            for x, y in batches(own, _BATCH, steps=steps, generator=generator):
                optimizer.zero_grad()
                F.cross_entropy(proxy(x), y).backward()
                optimizer.step()
        if not is_differentiable(proxy, first_of(own)):
            raise RequestError(
                f"training at {self.warmup_lr:g} has left the proxy without gradients: lower it", place=("warmup_lr",)
            )

    def found(self, what: Found) -> Trigger:
        return Pattern(what["pattern"], times_at_test=self.amplify)
