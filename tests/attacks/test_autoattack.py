from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bascule.attacks.apgd import Apgd
from bascule.attacks.autoattack import Autoattack
from bascule.attacks.contract import Attack
from bascule.attacks.fab import Fab
from bascule.attacks.pgd import Pgd
from bascule.attacks.run import run_attack
from bascule.attacks.square import Square
from bascule.core.catalog import component
from bascule.core.rng import stream

norms = pytest.mark.parametrize("norm", ["linf", "l2", "l1"])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_standard_version_is_the_papers(norm: Any) -> None:
    assert Autoattack(norm=norm, eps=0.3).parts() == (
        Apgd(norm=norm, eps=0.3, steps=100, loss="ce", rho=0.75),
        Apgd(norm=norm, eps=0.3, steps=100, loss="dlr-targeted", targets=9, rho=0.75),
        Fab(norm=norm, eps=0.3, steps=100, targets=9, targeted=True),
        Square(norm=norm, eps=0.3, queries=5000),
    )


def test_the_standard_version_in_l1_is_that_of_the_authors_code() -> None:
    """In fra31/auto-attack, autoattack/autoattack.py: `set_version` for L1, and `resc_schedule=False` of Square."""
    once, twice = (Autoattack(norm="l1", eps=12, restarts=n).parts() for n in (1, 2))
    assert once == (
        Apgd(norm="l1", eps=12, steps=100, loss="ce", restarts=5),
        Apgd(norm="l1", eps=12, steps=100, loss="dlr-targeted", targets=5),
        Fab(norm="l1", eps=12, steps=100, targets=9, targeted=True),
        Square(norm="l1", eps=12, queries=5000, stretch=False),
    )
    assert [part.restarts for part in twice] == [10, 2, 2, 2]


@norms
def test_the_version_for_random_outputs_is_the_papers(norm: Any) -> None:
    assert Autoattack(norm=norm, eps=0.3, version="rand").parts() == (
        Apgd(norm=norm, eps=0.3, steps=100, loss="ce", eot_iter=20),
        Apgd(norm=norm, eps=0.3, steps=100, loss="dlr", eot_iter=20),
    )


@pytest.mark.parametrize("version", ["standard", "rand", "light"])
def test_restarts_are_those_of_each_part(version: Any) -> None:
    once, thrice = (Autoattack(eps=0.1, version=version, restarts=n).parts() for n in (1, 3))
    assert [type(part) for part in once] == [type(part) for part in thrice]
    assert {part.restarts for part in once} == {1}
    assert {part.restarts for part in thrice} == {3}


def test_a_restart_of_fab_is_not_the_first_try_again() -> None:
    starts = [
        [part.random_start for part in Autoattack(eps=0.1, restarts=n).parts() if isinstance(part, Fab)] for n in (1, 2)
    ]
    assert starts == [[False], [True]]


def test_any_other_attack_is_its_only_part() -> None:
    attack = Pgd(eps=0.1)
    assert attack.parts() == (attack,)


# --- running it ------------------------------------------------------------------------------------------------------


@norms
def test_parts_run_one_after_the_other_on_what_the_ones_before_left(norm: Any, trained: Any) -> None:
    model, x, y = trained.model, trained.x[:100], trained.y[:100]
    whole = Autoattack(norm=norm, eps={"linf": 0.07, "l2": 0.5, "l1": 1.5}[norm], version="light")
    found = run_attack(model, whole, x, y, generator=stream(0, "attack"))

    generator, standing, by_hand, left = stream(0, "attack"), torch.arange(len(x)), x.clone(), []
    for part in whole.parts():
        one = run_attack(model, part, x[standing], y[standing], generator=generator)
        by_hand[standing] = one.x
        standing = standing[one.prediction == y[standing]]
        left.append(len(standing))
    # Projected once more, in L1 that rounds once more.
    torch.testing.assert_close(found.x, by_hand, rtol=0, atol=1e-6 if norm == "l1" else 0)
    assert torch.equal((found.prediction == y).nonzero().squeeze(1), standing)
    assert 100 > left[0] > left[1] > 0


@component
class Scripted(Attack):
    """An attack whose search is whatever the test says."""

    search: Callable[[Tensor], Tensor]

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        return self.search(x)


@component
class Pair(Autoattack):
    """Two parts of the test's choice."""

    first: Scripted
    second: Scripted

    def _tries(self) -> tuple[Attack, ...]:
        return self.first, self.second


class Bright(nn.Module):
    """Class 1 for images brighter than 0.5 on average, else class 0."""

    def forward(self, x: Tensor) -> Tensor:
        score = x.flatten(1).mean(1) - 0.5
        return torch.stack([-score, score], 1)


def pair(first: Callable[[Tensor], Tensor], second: Callable[[Tensor], Tensor], eps: float = 0.3) -> Pair:
    return Pair(eps=eps, first=Scripted(eps=eps, search=first), second=Scripted(eps=eps, search=second))


def dark(count: int) -> tuple[Tensor, Tensor]:
    return torch.full((count, 1, 2, 2), 0.3), torch.zeros(count, dtype=torch.int64)


def test_a_part_is_given_the_images_that_stand() -> None:
    given = []

    def brighten_first(x: Tensor) -> Tensor:
        given.append(len(x))
        x = x.clone()
        x[: len(given)] += 0.3
        return x

    x, y = dark(5)
    found = run_attack(Bright(), pair(brighten_first, brighten_first), x, y, generator=stream(0, "a"))
    # One falls to the first part, two more to the second.
    assert given == [5, 4]
    assert found.prediction.tolist() == [1, 1, 1, 0, 0]


def test_a_claim_outside_the_ball_does_not_hide_an_image_from_the_next_part() -> None:
    x, y = dark(3)
    # Brightness 0.9 would be class 1, but the ball ends at 0.4: the first part has failed and the second is asked.
    given = []

    def second(x: Tensor) -> Tensor:
        given.append(len(x))
        return x

    found = run_attack(Bright(), pair(lambda x: x + 0.6, second, eps=0.1), x, y, generator=stream(0, "a"))
    assert given == [3]
    assert found.prediction.tolist() == [0, 0, 0]


def test_nothing_is_run_when_all_have_fallen() -> None:
    x, y = dark(3)

    def second(x: Tensor) -> Tensor:
        raise AssertionError("nobody stands")

    found = run_attack(Bright(), pair(lambda x: x + 0.3, second), x, y, generator=stream(0, "a"))
    assert found.prediction.tolist() == [1, 1, 1]


def test_the_light_version_is_between_pgd_and_the_standard_one(trained: Any) -> None:
    x, y = trained.x[:12], trained.y[:12]
    pgd, light, standard = (
        int((run_attack(trained.model, attack, x, y, generator=stream(0, "a")).prediction == y).sum())
        for attack in (Pgd(eps=0.07, steps=20), Autoattack(eps=0.07, version="light"), Autoattack(eps=0.07))
    )
    assert 0 < standard <= light <= pgd
