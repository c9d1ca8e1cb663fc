"""The parts of AutoAttack, ours and torchattacks', at the same budget, a chain of them, and the authors' own code."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from _cells import Trained
from torch import Tensor, nn

from bascule.attacks.autoattack import Autoattack
from bascule.attacks.run import run_attack
from bascule.core.ball import Norm
from bascule.core.rng import stream

Part = Callable[[Tensor, Tensor], Tensor]
"""(images, labels) -> perturbed images."""

NAMES = ("APGD-CE", "APGD-T", "FAB-T", "Square")
_NORMS: dict[Norm, str] = {"linf": "Linf", "l2": "L2", "l1": "L1"}


def ours(model: nn.Module, norm: Norm, eps: float, seed: int = 0) -> dict[str, Part]:
    def part(number: int) -> Part:
        attack = Autoattack(norm=norm, eps=eps).parts()[number]
        return lambda x, y: run_attack(model, attack, x, y, generator=stream(seed, "benchmark", number)).x

    return {name: part(number) for number, name in enumerate(NAMES)}


def theirs(model: nn.Module, norm: Norm, eps: float, classes: int, seed: int = 0) -> dict[str, Part]:
    """At the published budget. `torchattacks.AutoAttack` itself gives its first three parts ten steps each.

    Where it lacks the norm, the parts of the authors' own code.
    """
    if norm == "l1":
        return _parts_of_the_authors(model, eps, seed)
    from torchattacks import APGD, APGDT, FAB, Square

    common = {"norm": _NORMS[norm], "eps": eps, "seed": seed}
    attacks = [
        APGD(model, **common, steps=100, loss="ce"),
        APGDT(model, **common, steps=100, n_classes=classes),
        FAB(model, **common, steps=100, multi_targeted=True, n_classes=classes),
        Square(model, **common, n_queries=5000),
    ]
    return dict(zip(NAMES, attacks, strict=True))


def _parts_of_the_authors(model: nn.Module, eps: float, seed: int) -> dict[str, Part]:
    """In L1, one by one and with the numbers of their `standard` version (`pip install pyautoattack`)."""
    from pyautoattack import AutoAttack

    whole = AutoAttack(model, norm="L1", eps=eps, seed=seed, version="standard", device="cpu")
    whole.apgd.loss, whole.fab.targeted = "ce", True
    parts = (whole.apgd, whole.apgd_targeted, whole.fab, whole.square)
    return {name: part.perturb for name, part in zip(NAMES, parts, strict=True)}


def of_the_authors(model: nn.Module, norm: Norm, eps: float, batch: int, seed: int = 0) -> dict[str, Part]:
    """The code of AutoAttack's authors, in one call as they say to use it (`pip install pyautoattack`)."""
    from pyautoattack import AutoAttack

    attack = AutoAttack(model, norm=_NORMS[norm], eps=eps, seed=seed, version="standard")  # type: ignore[arg-type]

    def call(x: Tensor, y: Tensor) -> Tensor:
        found = attack.run_standard_evaluation(x, y, batch_size=batch)
        return found if isinstance(found, Tensor) else found[0]

    return {"all": call}


@dataclass
class Chain:
    """What came of running parts one after the other, each on what the ones before it left."""

    standing: int = 0
    """Images that withstood all parts."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Per part."""
    fallen: dict[str, int] = field(default_factory=dict)
    """Images that fell to each part."""


def run_chain(trained: Trained, parts: dict[str, Part], clock: Callable[[], float] = time.process_time) -> Chain:
    """As `torchattacks.MultiAttack` does it; the pass that counts success is part of the time."""
    chain, left = Chain(), torch.arange(len(trained.y))
    for name, part in parts.items():
        began = clock()
        if len(left):
            x, y = trained.x[left], trained.y[left]
            with torch.no_grad():
                stays = trained.model(part(x, y)).argmax(1) == y
            chain.fallen[name] = int((~stays).sum())
            left = left[stays]
        chain.seconds[name] = clock() - began
        chain.fallen.setdefault(name, 0)
    chain.standing = len(left)
    return chain
