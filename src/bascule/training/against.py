"""Training against any attacks."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Interval
from torch import Tensor, nn

from bascule.attacks.contract import Evasion
from bascule.attacks.losses import cross_entropy
from bascule.attacks.run import to_its_end, try_once
from bascule.core.ball import Ball
from bascule.core.catalog import Of, component
from bascule.core.errors import RequestError
from bascule.training.contract import Smoothing
from bascule.training.search import Statistics, search_mode


@component
class Against(Smoothing):
    """Cross-entropy on what attacks make of the batch: any attack of the room, or several of different threat models.

    Sources: Tramer & Boneh 2019, section 3 (`worst`: the attack with the highest loss, image by image, their MAX;
    `mean`: the mean loss of all, their AVG); Maini, Wong & Kolter 2020, who compare both; Madaan, Shin & Hwang 2021
    (`random`: one attack drawn for each step); Hsiung et al. 2023 and Gao et al. 2023, arXiv 2202.10627 (`chain`:
    composite perturbations, each attack beginning where the one before ended). One try of each attack a step; a search
    with the setting `stop_when_fooled` goes to its end, since a first mistake is not the worst one. With one attack all
    strategies are the same. For `pgd` in a ball alone the objective of that name does the same, and its warm-up lets
    eps rise.
    """

    compiles: ClassVar[bool] = False
    """Attacks may ask about as many images at a time as they want."""

    attacks: Annotated[tuple[Evasion, ...], Of("attack", many=True)]
    """For example `{name: spatial, search: random}`, or a list of attacks."""
    strategy: Literal["worst", "random", "mean", "chain"] = "worst"
    """What several attacks give: of each image the `worst`; those of one drawn at `random` for each step; those of all,
    for their `mean` loss, on as many times the images; or of a `chain`, one after the other."""
    warmup: Annotated[float, Interval(ge=0, le=1)] = 0.0
    """Share of the training over which the share of a batch that is attacked rises linearly from none to all. Without
    it short schedules can get stuck; but the images left alone show a trigger as it is, which can raise ASR."""
    batch_norm: Statistics = "running"
    """Statistics used by batch norm during the attacks: `running` (eval mode) or `batch` (train mode, not updated)."""

    def __post_init__(self) -> None:
        if not self.attacks:
            raise RequestError(
                "against nothing is ordinary training: name an attack, or take standard", place=("attacks",)
            )

    @property
    def follows_gradients(self) -> bool:
        return any(attack.uses_gradient for attack in self.attacks)

    @property
    def ball(self) -> Ball | None:
        """That of its first attack that has one."""
        return next((attack.threat for attack in self.attacks if isinstance(attack.threat, Ball)), None)

    def inputs(self, model: nn.Module, x: Tensor, y: Tensor, *, progress: float, generator: torch.Generator) -> Tensor:
        """The images of a step; with `mean` those of the first attack, then those of the second, and so on."""
        attacked = math.ceil(len(x) * progress / self.warmup) if progress < self.warmup else len(x)
        if attacked == 0:
            return x
        # The order of a batch is random already.
        tries = self._tries(model, x[:attacked], y[:attacked], generator)
        return torch.cat([part for tried in tries for part in (tried, x[attacked:])])

    def _tries(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> list[Tensor]:
        """What the attacks make of the images: with `mean` one batch for each of them, otherwise one."""
        attacks = [to_its_end(attack) for attack in self.attacks]
        if self.strategy == "random":
            drawn = torch.randint(len(attacks), (), generator=generator, device=generator.device)
            attacks = [attacks[int(drawn)]]
        with search_mode(model, self.batch_norm):
            if self.strategy == "chain":
                for attack in attacks:
                    x = try_once(model, attack, x, y, generator=generator)
                return [x]
            tries = [try_once(model, attack, x, y, generator=generator) for attack in attacks]
            if len(tries) == 1 or self.strategy == "mean":
                return tries
            with torch.no_grad():
                worst = torch.stack([cross_entropy(model(tried), y) for tried in tries]).argmax(0)
        return [torch.stack(tries)[worst, torch.arange(len(x), device=x.device)]]

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, *, progress: float, generator: torch.Generator) -> Tensor:
        seen = self.inputs(model, x, y, progress=progress, generator=generator)
        return self.cross_entropy(model(seen), y.repeat(len(seen) // len(y)))
