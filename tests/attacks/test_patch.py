"""An adversarial patch on models whose steepest place is known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bascule.attacks.patch import Patch
from bascule.attacks.run import run_attack
from bascule.core.rng import stream
from bascule.evaluation.question import reach_of
from bascule.record.plan import Reach


class Corner(nn.Module):
    """Class 1 where the four pixels at the bottom right are bright in sum."""

    def forward(self, x: Tensor) -> Tensor:
        score = x[:, 0, 3:, 4:].flatten(1).sum(1)
        return torch.stack([2.5 - score, score - 2.5], 1)


X, Y = torch.full((6, 1, 5, 6), 0.5), torch.zeros(6, dtype=torch.int64)


def test_the_steepest_place_is_taken_and_filled() -> None:
    found = run_attack(Corner(), Patch(size=2, steps=5, stop_when_fooled=False), X, Y, generator=stream(0, "t"))
    wanted = X.clone()
    wanted[:, :, 3:, 4:] = 1.0
    assert torch.equal(found.x, wanted)
    assert found.prediction.tolist() == [1] * 6


def test_too_small_a_patch_fools_nobody() -> None:
    """Of four pixels one alone reaches 1.0 + 3 * 0.5, which is not above 2.5."""
    found = run_attack(Corner(), Patch(size=1, steps=5), X, Y, generator=stream(0, "t"))
    assert found.prediction.tolist() == [0] * 6


def test_random_places_differ_from_image_to_image_and_try_to_try() -> None:
    def places(seed: int) -> Tensor:
        attack = Patch(size=2, steps=1, place="random", stop_when_fooled=False)
        return (attack.perturb(Corner(), X, Y, generator=stream(seed, "t")) != X).flatten(1)

    assert len(places(0).unique(dim=0)) > 3
    assert not torch.equal(places(0), places(1))
    # Enough tries come across the corner.
    found = run_attack(Corner(), Patch(size=2, place="random", restarts=200), X, Y, generator=stream(0, "t"))
    assert found.prediction.tolist() == [1] * 6


@pytest.mark.parametrize("stop", [True, False])
def test_a_larger_patch_is_no_safer(trained: Any, stop: bool) -> None:
    fallen = [
        int(
            (
                run_attack(trained.model, attack, trained.x, trained.y, generator=stream(0, "t")).prediction
                != trained.y
            ).sum()
        )
        for attack in (Patch(size=size, steps=10, stop_when_fooled=stop) for size in (1, 3, 8))
    ]
    assert fallen[0] < fallen[1] < fallen[2]


def test_its_reach_is_told_in_words() -> None:
    assert reach_of(Patch(size=3)) == Reach(uses_gradient=True, within="one window of 3 x 3 pixels")
