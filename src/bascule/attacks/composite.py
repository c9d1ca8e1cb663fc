"""Several attacks, one on top of the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn

from bascule.attacks.contract import Evasion
from bascule.attacks.run import to_its_end, try_once
from bascule.core.catalog import Of, component
from bascule.core.errors import RequestError
from bascule.core.inference import labels_of
from bascule.core.threat import Threat


@component
class Composite(Evasion):
    """Each attack begins where the one before it ended: turned, then perturbed in a ball, then covered in part.

    Source: Hsiung et al. 2023 (composite adversarial attacks) with their fixed order; also Gao et al. 2023, arXiv
    2202.10627. Each part has one try, and what it returns is brought into its own threat model around the image it was
    given: so the result lies in the product of the parts' limits, which no image shows by itself. An image is done at
    the first part that fools the model, since every part may also change nothing. Not to be mistaken for a list of
    attacks (`attack: [...]`), of which each begins at the image itself.
    """

    attacks: Annotated[tuple[Evasion, ...], Of("attack", many=True)]
    """In order; their own `restarts` are not used."""
    restarts: Annotated[int, Ge(1)] = 1
    """Independent tries of the whole; a later one runs only on images that withstood the earlier ones."""
    stop_when_fooled: bool = True
    """Leave an image at the first part that fools the model; otherwise every part goes to its end."""

    def __post_init__(self) -> None:
        if not self.attacks:
            raise RequestError("a composite attack is made of others: name them", place=("attacks",))

    @property
    def uses_gradient(self) -> bool:
        return any(part.uses_gradient for part in self.attacks)

    @property
    def mixed_precision(self) -> bool:
        return any(part.mixed_precision for part in self.attacks)

    @property
    def threat(self) -> Chained:
        return Chained(steps=tuple(part.threat for part in self.attacks))

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        x_adv, standing = x.clone(), torch.arange(len(x), device=x.device)
        for part in self.attacks:
            if len(standing) == 0:
                break
            search = part if self.stop_when_fooled else to_its_end(part)
            x_adv[standing] = try_once(model, search, x_adv[standing], y[standing], generator=generator)
            if self.stop_when_fooled:
                with torch.no_grad():
                    standing = standing[labels_of(model(x_adv[standing])) == y[standing]]
        return x_adv


@dataclass(frozen=True, kw_only=True)
class Chained(Threat):
    """What several threat models reach, each from where the one before it led."""

    steps: tuple[Threat, ...]

    @property
    def words(self) -> str:
        return "; then ".join(step.words for step in self.steps)

    def check_size(self, size: Sequence[int]) -> None:
        for step in self.steps:
            step.check_size(size)

    def realise(self, proposal: Tensor, origin: Tensor) -> Tensor:
        """The proposed images, in [0, 1]; that each step kept to its own limits is for whoever made them."""
        return torch.where(proposal.isfinite(), proposal, origin).clamp(0, 1)
