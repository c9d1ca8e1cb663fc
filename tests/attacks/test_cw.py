from __future__ import annotations

import math
from typing import Any

import foolbox
import pytest
import torch
from torch import Tensor, nn

from bascule.attacks.cw import Cw, _objective
from bascule.attacks.run import run_attack
from bascule.core import catalog
from bascule.core.ball import ball
from bascule.core.errors import RequestError
from bascule.core.restore import untouched
from bascule.core.rng import stream


class Linear(nn.Module):
    """Logits (0, 3 a - 4 b + bias); the images it is asked about are counted."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        self.bias, self.sizes = bias, list[int]()

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        score = x.flatten(1) @ torch.tensor([3.0, -4.0], dtype=x.dtype) + self.bias
        return torch.stack([torch.zeros_like(score), score], 1)


def grey(count: int = 1) -> Tensor:
    return torch.full((count, 1, 1, 2), 0.5).double()


def smallest(attack: Cw, model: nn.Module, x: Tensor, y: Tensor, *, enough: float = 0.0) -> Tensor:
    """Distances of the misclassified images found; infinite where there is none."""
    found = attack.smallest(model, x, y, enough=enough)
    with torch.no_grad():
        return attack.ball.distance(found, x).where(model(found).argmax(1) != y, torch.inf)


def test_exact_distance_of_a_linear_boundary() -> None:
    # Gap -0.7 at the grey image, ||w|| = 5.
    found = smallest(Cw(eps=1.0, steps=200), Linear(-0.2), grey(), torch.tensor([0]))
    assert 0.14 <= found.item() <= 0.14 * 1.01
    for eps, prediction in ((0.139, 0), (0.142, 1)):
        run = run_attack(Linear(-0.2), Cw(eps=eps, steps=200), grey(), torch.tensor([0]), generator=stream(0, "a"))
        assert run.prediction.tolist() == [prediction]


def test_objective_and_its_gradient_by_hand() -> None:
    # At w = (0.2, -0.1) the image is (tanh(0.2) + 1) / 2, (tanh(-0.1) + 1) / 2 = 0.598688, 0.450166.
    a, b = (math.tanh(0.2) + 1) / 2, (math.tanh(-0.1) + 1) / 2
    w = torch.tensor([0.2, -0.1], dtype=torch.float64).reshape(1, 1, 1, 2)
    image, gap, objective, gradient = _objective(
        Linear(-1.0), w, grey(), torch.tensor([0]), torch.tensor([10.0]).double()
    )
    assert image.flatten().tolist() == pytest.approx([a, b])
    score = 3 * a - 4 * b - 1
    assert score == pytest.approx(-1.0046, abs=1e-4)
    assert gap.item() == pytest.approx(score)
    assert objective.item() == pytest.approx((a - 0.5) ** 2 + (b - 0.5) ** 2 - 10 * score)
    slopes = [(2 * (a - 0.5) - 30) * 2 * a * (1 - a), (2 * (b - 0.5) + 40) * 2 * b * (1 - b)]
    assert gradient.flatten().tolist() == pytest.approx(slopes)
    # Misclassified, only the distance counts.
    _, gap, objective, _ = _objective(Linear(1.0), w, grey(), torch.tensor([0]), torch.tensor([10.0]).double())
    assert gap.item() == pytest.approx(score + 2)
    assert objective.item() == pytest.approx((a - 0.5) ** 2 + (b - 0.5) ** 2)


def test_steps_are_those_of_adam() -> None:
    # Beside torch's own optimiser. Steps of 0.03 in w are 0.015 in the image at most, the boundary is 0.1 away in Linf.
    model, x = Linear(-0.2), grey()
    w = torch.zeros_like(x, requires_grad=True)
    adam, images = torch.optim.Adam([w], lr=0.03), []
    for _ in range(14):
        image = (w.tanh() + 1) / 2
        images.append(image.detach())
        adam.zero_grad()
        ((image - x).square().sum() + 2 * (-model(image)[0, 1]).clamp_min(0)).backward()
        adam.step()
    nearest = min((i for i in images if model(i)[0, 1] > 0), key=lambda i: (i - x).norm())
    for steps, wanted in ((5, images[4]), (14, nearest)):
        found = Cw(eps=1.0, steps=steps, rounds=1, c=2.0, lr=0.03).smallest(model, x, torch.tensor([0]), enough=0.0)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def test_the_weight_grows_until_it_suffices_and_is_then_halved_between() -> None:
    seen: list[float] = []

    class Watched(Cw):
        def _round(self, model: nn.Module, x: Tensor, y: Tensor, c: Tensor, enough: float) -> tuple[Tensor, Tensor]:
            seen.append(c.item())
            return x, torch.where(c > 0.35, 1.0, torch.inf).to(x.dtype)

    Watched(eps=1.0, rounds=6).smallest(Linear(-0.2), grey(), torch.tensor([0]), enough=0.0)
    assert seen == pytest.approx([1e-3, 1e-2, 1e-1, 1.0, 0.55, 0.325])


def test_same_distances_as_foolbox(trained: Any) -> None:
    x, y = trained.x[:16], trained.y[:16]
    model = foolbox.PyTorchModel(trained.model, bounds=(0, 1), device="cpu")
    theirs = foolbox.attacks.L2CarliniWagnerAttack(binary_search_steps=5, steps=200, stepsize=0.05, initial_const=0.1)
    with untouched(trained.model):
        _, images, success = theirs(model, x, y, epsilons=None)
    ours = smallest(Cw(eps=1.0, steps=200, lr=0.05, rounds=5, c=0.1), trained.model, x, y)
    assert success.all()
    ratio = ours / ball("l2", 1.0).distance(images, x)
    assert ratio.median().item() == pytest.approx(1, abs=0.01)
    assert ratio.max() < 1.05


def test_an_image_leaves_with_a_perturbation_within_eps(trained: Any) -> None:
    x, y = trained.x[:30], trained.y[:30].clone()
    y[:5] = (y[:5] + 1) % 10
    attack = Cw(eps=0.6, steps=60, lr=0.05, rounds=3, c=0.5)
    sizes: list[int] = []
    hook = trained.model.register_forward_hook(lambda module, args, out: sizes.append(len(out)))
    try:
        together = attack.smallest(trained.model, x, y, enough=attack.eps)
    finally:
        hook.remove()
    assert sizes[:2] == [30, 25]
    assert torch.equal(together[:5], x[:5])
    early, least = (smallest(attack, trained.model, x, y, enough=enough) for enough in (attack.eps, 0.0))
    assert torch.equal(early <= attack.eps, least <= attack.eps)
    assert (early[5:] > least[5:] * 1.01).any()
    assert sum(sizes) < 0.8 * 25 * 60 * 3
    alone = [attack.smallest(trained.model, x[i : i + 1], y[i : i + 1], enough=attack.eps) for i in range(8)]
    torch.testing.assert_close(together[:8], torch.cat(alone), rtol=0, atol=1e-3)


def test_the_first_step_within_eps_is_the_last() -> None:
    # Steps of about 0.015 in both entries: the boundary at a distance of 0.14 is crossed with the eighth or so.
    model, y = Linear(-0.2), torch.zeros(3, dtype=torch.int64)
    Cw(eps=1.0, steps=100, c=10.0, lr=0.03).smallest(model, grey(3), y, enough=0.2)
    assert 6 < len(model.sizes) < 12


def test_an_image_leaves_a_round_without_progress() -> None:
    # A flat model: nothing falls after the image's distance has reached 0, so each of two rounds ends at its second
    # check, after 20 of 100 steps.
    class Flat(Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 0 + torch.tensor([1.0, 0.0], dtype=x.dtype)

    model = Flat(0.0)
    Cw(eps=1.0, steps=100, rounds=2).smallest(model, grey(3), torch.zeros(3, dtype=torch.int64), enough=0.0)
    assert model.sizes == [3] * (1 + 20 + 20)


def test_linf_is_refused() -> None:
    with pytest.raises(RequestError, match=r"^norm: .*'linf'.* Allowed: l2\.$"):
        catalog.build("attack", {"name": "cw", "eps": 0.1, "norm": "linf"})
