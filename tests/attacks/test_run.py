from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bascule.attacks.contract import Attack
from bascule.attacks.pgd import Pgd
from bascule.attacks.run import Attacked, run_attack
from bascule.core.catalog import component
from bascule.core.rng import stream

norms = pytest.mark.parametrize("norm", ["linf", "l2"])
Search = Callable[[nn.Module, Tensor, Tensor, torch.Generator], Tensor]


@component
class Scripted(Attack):
    """An attack whose search is whatever the test says."""

    search: Search

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        return self.search(model, x, y, generator)


class Threshold(nn.Module):
    """Class 1 for images brighter than 0.5 on average, else class 0; in train mode always class 1."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.sizes: list[int] = []
        self.building_graph: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        self.building_graph.append(torch.is_grad_enabled())
        score = self.scale * (x.flatten(1).mean(1) - 0.5) + (10 if self.training else 0)
        return torch.stack([torch.zeros_like(score), score], 1)


def dark(count: int = 4) -> tuple[Tensor, Tensor]:
    """Images of class 0 at brightness 0.3, and their labels."""
    return torch.full((count, 1, 2, 2), 0.3), torch.zeros(count, dtype=torch.int64)


def run(model: nn.Module, attack: Attack, x: Tensor, y: Tensor, *, seed: int = 0) -> Attacked:
    return run_attack(model, attack, x, y, generator=stream(seed, "attack"))


def state(model: nn.Module) -> dict[str, Any]:
    return {
        "modes": {name: module.training for name, module in model.named_modules()},
        "wanting": {name: p.requires_grad for name, p in model.named_parameters()},
        "grad": {name: None if p.grad is None else p.grad.tolist() for name, p in model.named_parameters()},
        "values": {name: value.tolist() for name, value in model.state_dict().items()},
        "hooks": {
            name: (len(module._forward_hooks), len(module._forward_pre_hooks), len(module._backward_hooks))
            for name, module in model.named_modules()
        },
    }


# --- what is returned ------------------------------------------------------------------------------------------------

GARBAGE: dict[str, Search] = {
    "nan": lambda model, x, y, generator: torch.full_like(x, math.nan),
    "inf": lambda model, x, y, generator: torch.full_like(x, math.inf),
    "minus inf": lambda model, x, y, generator: torch.full_like(x, -math.inf),
    "partly nan": lambda model, x, y, generator: torch.where(torch.rand_like(x) < 0.5, math.nan, x + 1),
    "far outside": lambda model, x, y, generator: x + 1e6,
    "below zero": lambda model, x, y, generator: x - 3,
    "huge": lambda model, x, y, generator: torch.full_like(x, 3e38),
    "another dtype": lambda model, x, y, generator: x.double() * 1e300,
    "in place": lambda model, x, y, generator: x.add_(0.9),
    "a graph": lambda model, x, y, generator: x + torch.ones(1, requires_grad=True),
}


@norms
@pytest.mark.parametrize("eps", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("search", list(GARBAGE.values()), ids=list(GARBAGE))
def test_whatever_comes_back_ends_in_the_ball(norm: str, eps: float, search: Search) -> None:
    attack = Scripted(norm=norm, eps=eps, search=search, restarts=2)
    x, y = dark()
    x[1] = 0.0
    before = x.clone()
    found = run(Threshold(), attack, x, y)
    assert found.x.dtype == x.dtype
    assert not found.x.requires_grad
    assert found.x.isfinite().all()
    assert found.x.min() >= 0
    assert found.x.max() <= 1
    assert attack.ball.distance(found.x, before).max() <= eps + 1e-6
    assert torch.equal(x, before)
    assert torch.equal(y, dark()[1])


def test_labels_changed_by_an_attack_do_not_count() -> None:
    def relabel(model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        y.fill_(1)
        return x

    x, y = dark()
    found = run(Threshold(), Scripted(eps=0.1, search=relabel), x, y)
    assert y.tolist() == [0, 0, 0, 0]
    assert found.prediction.tolist() == [0, 0, 0, 0]


def test_success_is_measured_on_the_returned_images() -> None:
    # It claims brightness 0.9, which would be class 1; inside the ball brightness 0.4 is all there is.
    found = run(Threshold(), Scripted(eps=0.1, search=GARBAGE["far outside"]), *dark())
    assert found.prediction.tolist() == [0, 0, 0, 0]
    model = Threshold()
    found = run(model, Scripted(eps=0.3, search=GARBAGE["far outside"]), *dark())
    assert found.prediction.tolist() == [1, 1, 1, 1]
    # One plain forward pass, no memory kept for a backward one.
    assert model.sizes == [4]
    assert model.building_graph == [False]


def test_an_attack_cannot_turn_train_mode_on_for_the_verdict() -> None:
    def cheat(model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        model.train()
        return x

    found = run(Threshold().eval(), Scripted(eps=0.1, search=cheat), *dark())
    assert found.prediction.tolist() == [0, 0, 0, 0]


def test_predictions_are_those_of_the_returned_images(trained: Any) -> None:
    found = run(trained.model, Pgd(eps=0.1, steps=5, restarts=3), trained.x, trained.y)
    with torch.no_grad():
        assert torch.equal(trained.model(found.x).argmax(1), found.prediction)
    share = (found.prediction != trained.y).double().mean()
    assert 0.1 < share < 1


# --- restarts --------------------------------------------------------------------------------------------------------


def brighten_first(count: int) -> Search:
    """Fools the first `count` images it is given and leaves the others; a call more, an image more."""
    calls = []

    def search(model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        calls.append(len(x))
        found = x.clone()
        found[:count] += 0.3
        return found

    return search


def test_restarts_run_on_survivors_only() -> None:
    model = Threshold()
    found = run(model, Scripted(eps=0.3, restarts=4, search=brighten_first(2)), *dark(7))
    # Two fall each time; the search itself asks the model nothing, so these are the verdicts.
    assert model.sizes == [7, 5, 3, 1]
    assert found.prediction.tolist() == [1] * 7


def test_no_try_without_survivors() -> None:
    model = Threshold()
    run(model, Scripted(eps=0.3, restarts=100, search=brighten_first(3)), *dark(4))
    assert model.sizes == [4, 1]


def test_once_fooled_stays_fooled() -> None:
    """A second try that would undo the first one changes nothing for images that fell."""
    calls: list[int] = []

    def first_only(model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        calls.append(len(x))
        return x + torch.tensor([0.3, 0.0]).reshape(2, 1, 1, 1) if len(calls) == 1 else x - 0.1

    found = run(Threshold(), Scripted(eps=0.3, restarts=3, search=first_only), *dark(2))
    assert calls == [2, 1, 1]
    assert found.prediction.tolist() == [1, 0]
    # Where the attack failed, the last try.
    assert found.x.flatten(1).mean(1).tolist() == pytest.approx([0.6, 0.2])


@norms
def test_more_restarts_never_help_the_model(norm: str, trained: Any) -> None:
    eps = {"linf": 0.08, "l2": 0.6}[norm]
    fallen = torch.zeros(len(trained.y), dtype=torch.bool)
    counts = []
    for restarts in (1, 2, 3, 6):
        attack = Pgd(norm=norm, eps=eps, steps=2, restarts=restarts, stop_when_fooled=False)
        now = run(trained.model, attack, trained.x, trained.y).prediction != trained.y
        # The first tries draw the same numbers, so the comparison is image by image.
        assert not (fallen & ~now).any()
        fallen = now
        counts.append(int(now.sum()))
    assert 0 < counts[0] < counts[-1] < len(trained.y)


def test_same_seed_same_images(trained: Any) -> None:
    attack = Pgd(eps=0.1, steps=2, restarts=2)
    first, again, other = (run(trained.model, attack, trained.x, trained.y, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.x, again.x)
    assert torch.equal(first.prediction, again.prediction)
    assert not torch.equal(first.x, other.x)


def test_the_global_generator_is_not_used(trained: Any) -> None:
    before = torch.get_rng_state()
    run(trained.model, Pgd(eps=0.1, steps=2, restarts=2), trained.x[:20], trained.y[:20])
    assert torch.equal(torch.get_rng_state(), before)


def test_restarts_draw_different_starts() -> None:
    starts: list[Tensor] = []

    def search(model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        starts.append(Pgd(eps=0.1).ball.random_point(x, generator=generator))
        return starts[-1]

    run(Threshold(), Scripted(eps=0.1, restarts=2, search=search), *dark())
    assert len(starts) == 2
    assert not torch.equal(*starts)


# --- the model is left as found --------------------------------------------------------------------------------------


def mixed_model() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    model.train()
    model[2].eval()
    model[0].weight.requires_grad_(False)
    model[4].weight.grad = torch.ones_like(model[4].weight)
    model[1].register_forward_hook(lambda *_: None)
    return model


def backward(model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    """The careless way to a gradient: it would fill every parameter's .grad."""
    x = x.clone().requires_grad_(True)
    model(x).sum().backward()
    assert x.grad is not None
    return x + x.grad


def failing(model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    backward(model, x, y, generator)
    raise ValueError("an attack that breaks")


@pytest.mark.parametrize("grad_mode", [torch.enable_grad, torch.no_grad])
def test_the_model_is_left_as_found(grad_mode: Callable[[], Any]) -> None:
    model = mixed_model()
    before = state(model)
    x = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    y = torch.arange(6) % 3
    with grad_mode():
        for attack in (Pgd(eps=0.1, restarts=2), Scripted(eps=0.1, search=backward)):
            run(model, attack, x, y)
            assert state(model) == before
        with pytest.raises(ValueError, match="an attack that breaks"):
            run(model, Scripted(eps=0.1, search=failing), x, y)
        assert torch.is_grad_enabled() == (grad_mode is torch.enable_grad)
    assert state(model) == before


def test_the_attack_sees_eval_mode_and_frozen_parameters() -> None:
    seen: list[tuple[bool, bool, bool]] = []

    def search(model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        training = any(module.training for module in model.modules())
        wanting = any(p.requires_grad for p in model.parameters())
        seen.append((training, wanting, torch.is_grad_enabled()))
        return x

    x, y = torch.rand(3, 1, 4, 4), torch.zeros(3, dtype=torch.int64)
    with torch.no_grad():
        run(mixed_model(), Scripted(eps=0.1, search=search), x, y)
    assert seen == [(False, False, True)]


@norms
def test_same_result_inside_no_grad(norm: str, trained: Any) -> None:
    attack = Pgd(norm=norm, eps=0.1, steps=3)
    outside = run(trained.model, attack, trained.x[:50], trained.y[:50])
    with torch.no_grad():
        inside = run(trained.model, attack, trained.x[:50], trained.y[:50])
    assert torch.equal(outside.x, inside.x)


def test_images_that_want_a_gradient(trained: Any) -> None:
    found = run(trained.model, Pgd(eps=0.1, steps=2), trained.x[:5].clone().requires_grad_(True), trained.y[:5])
    assert not found.x.requires_grad


def test_no_images() -> None:
    x, y = dark(0)
    found = run(Threshold(), Pgd(eps=0.1), x, y)
    assert found.x.shape == x.shape
    assert found.prediction.shape == (0,)
