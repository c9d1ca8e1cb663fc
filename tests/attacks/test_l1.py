"""Searches in L1, on a linear model whose worst image is known: the steepest pixels go to the border, one by one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bascule.attacks._auto_pgd_l1 import auto_pgd_l1, start_in_l1
from bascule.attacks.apgd import Apgd
from bascule.attacks.checks import signs_of_attack
from bascule.attacks.pgd import Pgd
from bascule.attacks.run import run_attack
from bascule.core.ball import L1Ball
from bascule.core.rng import stream

EPS = 3.0


class Line(nn.Module):
    """Two logits whose difference is linear in the image; class 0 wins everywhere, so that a search goes to its end."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        score = (x * self.weight).flatten(1).sum(1) - 100
        return torch.stack([-score, score], 1)


def example(seed: int) -> tuple[Line, Tensor, Tensor]:
    weight = torch.empty(1, 6, 6).normal_(generator=stream(seed, "weight"))
    x = torch.rand(8, 1, 6, 6, generator=stream(seed, "images"))
    return Line(weight), x, torch.zeros(8, dtype=torch.int64)


def worst(model: Line, x: Tensor) -> Tensor:
    """The score that the best attacker reaches, by filling pixel after pixel."""
    reached = []
    for image in x:
        left, image = EPS, image.flatten().clone()
        weight = model.weight.flatten()
        for place in weight.abs().argsort(descending=True).tolist():
            room = (1 - image[place] if weight[place] > 0 else image[place]).item()
            move = min(room, left)
            image[place] += move * weight[place].sign()
            left -= move
        reached.append((image * weight).sum())
    return torch.stack(reached)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    "attack",
    [
        Pgd(norm="l1", eps=EPS, steps=100, step_size=0.3, loss="margin", stop_when_fooled=False),
        Apgd(norm="l1", eps=EPS, steps=100, loss="dlr"),
    ],
    ids=["pgd", "apgd"],
)
def test_the_worst_image_of_a_linear_model_is_found(attack: Any, seed: int) -> None:
    model, x, y = example(seed)
    found = run_attack(model, attack, x, y, generator=stream(0, "t")).x
    score, before = ((image * model.weight).flatten(1).sum(1) for image in (found, x))
    gain = (score - before) / (worst(model, x) - before)
    assert gain.min() > 0.9
    assert gain.mean() > 0.95
    assert gain.max() < 1 + 1e-5
    assert L1Ball(eps=EPS).distance(found, x).max() <= EPS + 1e-5


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 31])
def test_all_steps_are_taken_and_the_last_ones_in_the_ball(steps: int) -> None:
    model, x, y = example(0)
    seen: list[Tensor] = []
    model.register_forward_hook(lambda module, given, _: seen.append(given[0].detach()))
    ball = L1Ball(eps=EPS)
    start = start_in_l1(ball, x, generator=stream(0, "t"))
    loss = {"loss": lambda logits, y, target: logits[:, 1], "target": y, "rho": 0.75}
    found = auto_pgd_l1(model, x, y, ball=ball, start=start, steps=steps, **loss)
    lengths = [ball.distance(one, x).max().item() / EPS for one in seen]
    stages = sum(steps >= least for least in (1, 2, 3))
    assert len(lengths) == steps + stages, "each stage looks at where it begins"
    assert max(lengths) <= 3 + 1e-5
    assert max(lengths[-max(1, steps - 2 * round(0.3 * steps)) :]) <= 1 + 1e-5
    assert not found.fooled.any()


def test_targeted_apgd_finds_more_than_pgd(trained: Any) -> None:
    left = [
        int(
            (
                run_attack(trained.model, attack, trained.x, trained.y, generator=stream(0, "t")).prediction
                == trained.y
            ).sum()
        )
        for attack in (Pgd(norm="l1", eps=2.0, steps=40), Apgd(norm="l1", eps=2.0, steps=40, loss="dlr-targeted"))
    ]
    assert left[1] < left[0]


def test_a_start_is_a_few_pixels_in_a_wider_ball() -> None:
    x = torch.rand(4, 1, 28, 28, generator=stream(0, "images"))
    start = start_in_l1(L1Ball(eps=5.0), x, generator=stream(1, "start"))
    assert L1Ball(eps=5.0).distance(start, x).tolist() == pytest.approx([15.0] * 4, rel=1e-4)
    assert ((start != x).flatten(1).double().mean(1) < 0.3).all()


class Rounded(nn.Module):
    """Looks at the image in 20 grey levels: its gradient is zero everywhere."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner((x * 19).round() / 19)


def test_a_search_without_gradients_is_tried_in_l1_too(trained: Any) -> None:
    x, attack = trained.x[:40], Pgd(norm="l1", eps=3.0, steps=2)
    with torch.no_grad():
        y = Rounded(trained.model)(x).argmax(1)
    signs = signs_of_attack(Rounded(trained.model), attack, x, y, generator=stream(0, "t"))
    assert signs["black_box"] > 0.3
