"""One attack on top of the other: in the product of their limits, and no image goes on that is fooled already."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bascule.attacks.composite import Composite
from bascule.attacks.contract import Attack, Evasion
from bascule.attacks.pgd import Pgd
from bascule.attacks.run import run_attack
from bascule.attacks.spatial import Spatial
from bascule.core import catalog
from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.core.rng import stream
from bascule.evaluation.question import reach_of


class Bright(nn.Module):
    """Class 1 where the image is bright in the mean."""

    def forward(self, x: Tensor) -> Tensor:
        score = x.flatten(1).mean(1)
        return torch.stack([0.5 - score, score - 0.5], 1)


@component
class Leap(Attack):
    """Everything white."""

    seen: Any

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        self.seen.append(x.clone())
        return torch.ones_like(x)


X, Y = torch.tensor([0.1, 0.25, 0.45]).reshape(3, 1, 1, 1).expand(-1, 1, 2, 2), torch.zeros(3, dtype=torch.int64)


def test_each_part_begins_where_the_one_before_ended_and_keeps_to_its_own_ball() -> None:
    first, second = Leap(eps=0.1, seen=[]), Leap(eps=0.2, seen=[])
    found = run_attack(Bright(), Composite(attacks=(first, second)), X, Y, generator=stream(0, "t"))
    torch.testing.assert_close(found.x[:, 0, 0, 0], torch.tensor([0.4, 0.55, 0.55]))
    assert found.prediction.tolist() == [0, 1, 1]
    torch.testing.assert_close(second.seen[0][:, 0, 0, 0], torch.tensor([0.2, 0.35]))  # the third one had fallen
    # To its end every image goes through all parts.
    whole = Composite(attacks=(first, second), stop_when_fooled=False)
    assert run_attack(Bright(), whole, X, Y, generator=stream(0, "t")).x[2, 0, 0, 0] == pytest.approx(0.75)


def test_restarts_are_of_the_whole() -> None:
    parts = (Leap(eps=0.1, seen=[], restarts=9),)
    run_attack(Bright(), Composite(attacks=parts, restarts=3), X[:1], Y[:1], generator=stream(0, "t"))
    assert len(parts[0].seen) == 3


def test_together_they_fool_more_than_each(trained: Any) -> None:
    motions, ball = Spatial(degrees=10.0, pixels=0.3, angles=3, shifts=3), Pgd(eps=0.04, steps=10)

    def fallen(attack: Evasion) -> int:
        found = run_attack(trained.model, attack, trained.x, trained.y, generator=stream(0, "t"))
        return int((found.prediction != trained.y).sum())

    assert fallen(Composite(attacks=(motions, ball))) > max(fallen(motions), fallen(ball))


def test_what_is_said_of_it() -> None:
    motions, ball = Spatial(degrees=10.0, pixels=1.0), Pgd(eps=0.04)
    attack = Composite(attacks=(motions, ball))
    assert attack.threat.words == "turned by up to 10 degrees, shifted by up to 1 pixels; then linf, eps 0.04"
    assert (attack.uses_gradient, attack.mixed_precision) == (True, True)
    assert (Composite(attacks=(motions,)).uses_gradient, Composite(attacks=(motions,)).mixed_precision) == (
        False,
        False,
    )
    assert reach_of(attack).eps is None
    with pytest.raises(RequestError, match="attacks: a composite attack is made of others"):
        catalog.build("attack", {"name": "composite", "attacks": []})
