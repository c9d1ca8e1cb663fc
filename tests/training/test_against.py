"""Training against attacks: which images each strategy gives, by hand; and resume to the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bascule.attacks.contract import Attack
from bascule.core import catalog
from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.core.images import Images
from bascule.core.rng import stream
from bascule.training.against import Against
from bascule.training.loop import train
from bascule.training.pgd import Pgd
from bascule.training.settings import Training


@component
class Shift(Attack):
    """Every pixel brighter, as far as the ball allows: `by` is not its business."""

    by: float

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        assert not model.training
        assert not any(parameter.requires_grad for parameter in model.parameters())
        return x + self.by


UP, DOWN = Shift(eps=0.2, by=0.1), Shift(eps=0.2, by=-9.0)
"""By 0.1; and by -9, of which the ball leaves -0.2."""
X, Y = torch.tensor([0.5, 0.5]).reshape(2, 1, 1, 1), torch.tensor([1, 0])


def inputs(net: nn.Module, strategy: Any, *attacks: Any, seed: int = 0) -> list[float]:
    objective = Against(attacks=attacks, strategy=strategy)
    return objective.inputs(net, X, Y, progress=0.5, generator=stream(seed, "t")).flatten().tolist()


def test_strategies_by_hand(linear: Callable) -> None:
    """Class 1 is bright: the first image is wrong the darker it is, the second one the brighter."""
    net = linear([[0.0], [1.0]])
    assert inputs(net, "worst", UP, DOWN) == pytest.approx([0.3, 0.6])
    assert inputs(net, "chain", UP, DOWN) == pytest.approx([0.4, 0.4])
    assert inputs(net, "mean", UP, DOWN) == pytest.approx([0.6, 0.6, 0.3, 0.3])
    drawn = {tuple(round(value, 5) for value in inputs(net, "random", UP, DOWN, seed=seed)) for seed in range(20)}
    assert drawn == {(0.6, 0.6), (0.3, 0.3)}
    for strategy in ("worst", "chain", "mean", "random"):
        assert inputs(net, strategy, UP) == pytest.approx([0.6, 0.6])
    assert net.training


def test_a_warm_up_attacks_more_and_more_of_a_batch(linear: Callable) -> None:
    net, x, y = linear([[0.0], [1.0]]), torch.full((4, 1, 1, 1), 0.5), torch.zeros(4, dtype=torch.int64)
    for strategy, wanted in (("worst", [0.6]), ("mean", [0.6, 0.3])):
        objective = Against(attacks=(UP, DOWN), strategy=strategy, warmup=0.5)
        for progress, attacked in ((0.0, 0), (0.1, 1), (0.25, 2), (0.4, 4), (0.5, 4), (0.9, 4)):
            found = objective.inputs(net, x, y, progress=progress, generator=stream(0, "t")).flatten().tolist()
            each = [[value] * attacked + [0.5] * (4 - attacked) for value in (wanted if attacked else wanted[:1])]
            assert found == pytest.approx([value for part in each for value in part])


def test_the_mean_loss_is_that_of_all(linear: Callable) -> None:
    net = linear([[0.0], [1.0]])
    losses = [
        Against(attacks=attacks, strategy="mean").loss(net, X, Y, progress=0.5, generator=stream(0, "t")).item()
        for attacks in ((UP,), (DOWN,), (UP, DOWN))
    ]
    assert losses[2] == pytest.approx((losses[0] + losses[1]) / 2)
    assert losses[0] == pytest.approx(F.cross_entropy(net(X + 0.1), Y).item())


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_one_pgd_is_training_with_pgd(norm: Any, few: Images, make_net: Callable) -> None:
    """A search is not left at the first mistake: the last iterate counts, as in the objective `pgd`."""
    eps = {"linf": 0.2, "l2": 1.0, "l1": 4.0}[norm]
    attack = catalog.build("attack", {"name": "pgd", "norm": norm, "eps": eps, "steps": 3})
    x, y, net = few.batch(torch.arange(32)), few.labels[:32], make_net()
    found, wanted = (
        objective.inputs(net, x, y, progress=0.5, generator=stream(0, "t"))
        for objective in (Against(attacks=(attack,)), Pgd(norm=norm, eps=eps, steps=3))
    )
    assert torch.equal(found, wanted)


def test_whether_it_follows_gradients_is_told_by_its_attacks() -> None:
    spatial = catalog.build("attack", {"name": "spatial", "search": "random"})
    assert not Against(attacks=(spatial,)).follows_gradients
    assert Against(attacks=(spatial, UP)).follows_gradients


def test_against_nothing_is_refused() -> None:
    with pytest.raises(RequestError, match="attacks: against nothing is ordinary training"):
        catalog.build("train", {"name": "against", "attacks": ()})
    with pytest.raises(RequestError, match=r"attacks\[1\].eps"):
        catalog.build("train", {"name": "against", "attacks": ("spatial", {"name": "pgd", "eps": -1})})


@pytest.mark.parametrize("strategy", ["worst", "random", "mean", "chain"])
def test_an_interrupted_training_ends_in_the_same_bytes(
    strategy: Any, few: Images, make_net: Callable, kept: Callable
) -> None:
    attacks = (
        {"name": "spatial", "search": "random", "tries": 2, "pixels": 1},
        {"name": "pgd", "eps": 0.1, "steps": 2},
    )
    objective = catalog.build("train", {"name": "against", "attacks": attacks, "strategy": strategy})
    training = Training(objective=objective, epochs=2, batch_size=16, lr=0.01)
    whole, begun, again = make_net(), kept(), make_net(seed=9)
    train(whole, few, training, seed=5, checkpoints=begun, checkpoint_seconds=0)
    train(again, few, training, seed=5, checkpoints=kept(begun.states[2]))
    assert all(
        torch.equal(one, other)
        for one, other in zip(whole.state_dict().values(), again.state_dict().values(), strict=True)
    )
