"""AutoAttack: an ensemble whose verdict needs no tuning."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from bascule.attacks.apgd import Apgd
from bascule.attacks.contract import Attack
from bascule.attacks.fab import Fab
from bascule.attacks.run import run_attack
from bascule.attacks.square import Square
from bascule.core.ball import Norm
from bascule.core.catalog import component


class _Numbers(NamedTuple):
    """What differs between norms in `standard`."""

    tries: int = 1
    """Of APGD on the cross-entropy."""
    targets: int = 9
    """Of targeted APGD."""
    stretch: bool = True
    """As of `Square`."""


_NUMBERS: dict[Norm, _Numbers] = {"linf": _Numbers(), "l2": _Numbers(), "l1": _Numbers(5, 5, stretch=False)}


@component
class Autoattack(Attack):
    """AutoAttack: different attacks without settings to tune, each on the images that the ones before it left.

    Source: Croce & Hein 2020 (AutoAttack), section 5; in L1 Croce & Hein 2021 ("Mind the box"), with the numbers of
    their code. An image falls when any of them fools it.

    - `standard`: APGD on the cross-entropy, targeted APGD on the difference of logits ratio and targeted FAB (100 steps
      each, nine targets), Square (5000 queries). In L1, APGD has five tries on the cross-entropy, and five targets,
      and the squares of Square shrink as if it had 10,000 queries, as in that code.
    - `rand`: for models with random outputs. APGD on the cross-entropy and on the difference of logits ratio, 100 steps
      whose gradients are averaged over 20 passes. Departure: in L1 they begin in larger balls here too.
    - `light`: ours, for two cores. APGD on the cross-entropy (40 steps) and towards five targets (30 steps each): fewer
      than 200 passes per image instead of some 2,800 and 5,000 queries. It gives up FAB and Square, so that masked
      gradients go unnoticed, and some strength: on five adversarially trained networks for `digits` (Linf, eps 0.2)
      it left 0.3 to 1.4 points more robust accuracy than `standard`.
    """

    mixed_precision: ClassVar[bool] = True
    """Its parts APGD; FAB and Square stay in float32."""

    version: Literal["standard", "rand", "light"] = "standard"
    """`standard`, `rand` (models with random outputs) or `light` (a small part of the cost; no last word)."""

    def parts(self) -> tuple[Attack, ...]:
        return tuple(replace(part, restarts=self.restarts * part.restarts) for part in self._tries())

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        x_adv, unfooled = x.clone(), torch.arange(len(x), device=x.device)
        for part in self._tries():
            if len(unfooled) == 0:
                break
            attacked = run_attack(model, part, x[unfooled], y[unfooled], generator=generator)
            x_adv[unfooled] = attacked.x
            unfooled = unfooled[attacked.prediction == y[unfooled]]
        return x_adv

    def _tries(self) -> tuple[Attack, ...]:
        norm, eps = self.norm, self.eps
        if self.version == "rand":
            return (
                Apgd(norm=norm, eps=eps, eot_iter=20),
                Apgd(norm=norm, eps=eps, loss="dlr", eot_iter=20),
            )
        if self.version == "light":
            return (
                Apgd(norm=norm, eps=eps, steps=40),
                Apgd(norm=norm, eps=eps, loss="dlr-targeted", targets=5, steps=30),
            )
        tries, targets, stretch = _NUMBERS[norm]
        return (
            Apgd(norm=norm, eps=eps, restarts=tries),
            Apgd(norm=norm, eps=eps, loss="dlr-targeted", targets=targets),
            # Without a random start every restart would be the first again.
            Fab(norm=norm, eps=eps, targets=9, steps=100, random_start=self.restarts > 1),
            Square(norm=norm, eps=eps, queries=5000, stretch=stretch),
        )
