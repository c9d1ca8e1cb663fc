from __future__ import annotations

from typing import Any

import foolbox
import pytest
import torch
from torch import Tensor, nn

from bascule.attacks.deepfool import Deepfool
from bascule.attacks.run import run_attack
from bascule.core.ball import ball
from bascule.core.restore import untouched
from bascule.core.rng import stream

norms = pytest.mark.parametrize("norm", ["linf", "l2"])
FOOLBOX = {"linf": foolbox.attacks.LinfDeepFoolAttack, "l2": foolbox.attacks.L2DeepFoolAttack}


def linear(weight: list[list[float]], bias: list[float]) -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(len(weight[0]), len(bias))).double().requires_grad_(False)
    model[1].weight.copy_(torch.tensor(weight))
    model[1].bias.copy_(torch.tensor(bias))
    return model


def grey(count: int = 1) -> Tensor:
    return torch.full((count, 1, 1, 2), 0.5).double()


@pytest.mark.parametrize(("norm", "exact"), [("linf", 0.1), ("l2", 0.14)])
def test_a_linear_boundary_is_crossed_in_one_step(norm: str, exact: float) -> None:
    # Gap 3 * 0.5 - 4 * 0.5 - 0.2 = -0.7 with dual norms 7 and 5; the second class is farther away.
    model = linear([[0.0, 0.0], [3.0, -4.0], [1.0, 1.0]], [0.0, -0.2, -2.0])
    found = Deepfool(norm=norm, eps=1.0, steps=1).smallest(model, grey(), torch.tensor([0]))
    assert ball(norm, 1.0).distance(found, grey()).item() == pytest.approx(1.02 * (exact + 1e-4))
    assert model(found).argmax(1).item() == 1
    found = Deepfool(norm=norm, eps=1.0, steps=1, overshoot=0.5).smallest(model, grey(), torch.tensor([0]))
    assert ball(norm, 1.0).distance(found, grey()).item() == pytest.approx(1.5 * (exact + 1e-4))
    for eps, prediction in ((0.99 * exact, 0), (1.05 * exact, 1)):
        run = run_attack(model, Deepfool(norm=norm, eps=eps), grey(), torch.tensor([0]), generator=stream(0, "a"))
        assert run.prediction.tolist() == [prediction]


@norms
def test_the_nearest_of_the_boundaries_looked_at(norm: str) -> None:
    # Class 2 has the larger logit, but class 1 the steeper one.
    model = linear([[0.0, 0.0], [9.0, -9.0], [1.0, 1.0]], [0.0, -1.0, -1.5])
    y = torch.tensor([0])
    assert model(Deepfool(norm=norm, eps=1.0).smallest(model, grey(), y)).argmax(1).item() == 1
    assert model(Deepfool(norm=norm, eps=1.0, targets=1).smallest(model, grey(), y)).argmax(1).item() == 2


@norms
def test_a_point_on_the_boundary_is_pushed_across(norm: str) -> None:
    model = linear([[0.0, 0.0], [1.0, -1.0]], [0.0, 0.0])
    found = Deepfool(norm=norm, eps=1.0).smallest(model, grey(), torch.tensor([0]))
    assert model(found).argmax(1).item() == 1
    assert ball(norm, 1.0).distance(found, grey()).item() == pytest.approx(1.02e-4)


@norms
def test_same_distances_as_foolbox(norm: str, trained: Any) -> None:
    x, y = trained.x[:120], trained.y[:120]
    model = foolbox.PyTorchModel(trained.model, bounds=(0, 1), device="cpu")
    with untouched(trained.model):
        _, theirs, success = FOOLBOX[norm](steps=50, candidates=10, overshoot=0.02)(model, x, y, epsilons=None)
    ours = Deepfool(norm=norm, eps=1.0).smallest(trained.model, x, y)
    region = ball(norm, 1.0)
    with torch.no_grad():
        fooled = trained.model(ours).argmax(1) != y
    assert success.all()
    assert fooled.all()
    ratio = region.distance(ours, x) / region.distance(theirs, x)
    assert ((ratio - 1).abs() < 0.01).double().mean() > 0.95
    assert ratio.median().item() == pytest.approx(1, abs=1e-3)


@norms
def test_an_image_leaves_when_it_has_crossed(norm: str, trained: Any) -> None:
    x, y = trained.x[:40], trained.y[:40].clone()
    y[:10] = (y[:10] + 1) % 10
    attack, sizes = Deepfool(norm=norm, eps=1.0), list[int]()
    hook = trained.model.register_forward_hook(lambda module, args, out: sizes.append(len(out)))
    try:
        together = attack.smallest(trained.model, x, y)
    finally:
        hook.remove()
    assert sizes[:2] == [40, 30]
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) < 40
    assert torch.equal(together[:10], x[:10])
    alone = [attack.smallest(trained.model, x[i : i + 1], y[i : i + 1]) for i in range(40)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-4)
