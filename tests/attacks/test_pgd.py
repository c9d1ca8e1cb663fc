from __future__ import annotations

from typing import Any

import eagerpy
import foolbox
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bascule.attacks.contract import Attack
from bascule.attacks.fgsm import Fgsm
from bascule.attacks.pgd import Pgd
from bascule.core.ball import ball
from bascule.core.restore import untouched
from bascule.core.rng import stream

EPS = {"linf": 0.1, "l2": 0.8}
norms = pytest.mark.parametrize("norm", list(EPS))


def perturbed(attack: Attack, trained: Any, *, seed: int = 0) -> Tensor:
    with untouched(trained.model):
        return attack.perturb(trained.model, trained.x, trained.y, generator=stream(seed, "attack"))


def fooled(trained: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        return trained.model(x).argmax(1) != trained.y


# --- beside foolbox --------------------------------------------------------------------------------------------------

FOOLBOX_PGD = {
    "linf": foolbox.attacks.LinfProjectedGradientDescentAttack,
    "l2": foolbox.attacks.L2ProjectedGradientDescentAttack,
}
FOOLBOX_FGSM = {"linf": foolbox.attacks.LinfFastGradientAttack, "l2": foolbox.attacks.L2FastGradientAttack}


def foolbox_images(attack: Any, trained: Any, eps: float) -> Tensor:
    model = foolbox.PyTorchModel(trained.model, bounds=(0, 1), device="cpu")
    with untouched(trained.model):
        raw, _, _ = attack(model, trained.x, trained.y, epsilons=eps)
    return raw


@norms
@pytest.mark.parametrize("steps", [1, 3, 10])
def test_same_images_as_foolbox_from_the_image(norm: str, steps: int, trained: Any) -> None:
    eps = EPS[norm]
    attack = Pgd(norm=norm, eps=eps, steps=steps, step_size=eps / 4, random_start=False, stop_when_fooled=False)
    theirs = FOOLBOX_PGD[norm](abs_stepsize=eps / 4, steps=steps, random_start=False)
    ours = perturbed(attack, trained)
    torch.testing.assert_close(ours, foolbox_images(theirs, trained, eps), rtol=0, atol=1e-5)
    assert fooled(trained, ours).any()


@norms
def test_same_images_as_foolbox_from_a_shared_random_start(
    norm: str, trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    eps = EPS[norm]
    start = ball(norm, eps).random_point(trained.x, generator=stream(0, "attack"))
    theirs = FOOLBOX_PGD[norm](abs_stepsize=eps / 4, steps=5, random_start=True)
    monkeypatch.setattr(theirs, "get_random_start", lambda x0, epsilon: eagerpy.astensor(start))
    attack = Pgd(norm=norm, eps=eps, steps=5, step_size=eps / 4, stop_when_fooled=False)
    ours = perturbed(attack, trained)
    torch.testing.assert_close(ours, foolbox_images(theirs, trained, eps), rtol=0, atol=1e-5)
    assert not torch.allclose(ours, perturbed(attack, trained, seed=1), atol=1e-3)


@norms
def test_fgsm_gives_the_same_images_as_foolbox(norm: str, trained: Any) -> None:
    eps = EPS[norm]
    theirs = foolbox_images(FOOLBOX_FGSM[norm](), trained, eps)
    torch.testing.assert_close(perturbed(Fgsm(norm=norm, eps=eps), trained), theirs, rtol=0, atol=1e-5)


# --- settings --------------------------------------------------------------------------------------------------------


@norms
def test_default_step_size(norm: str, trained: Any) -> None:
    # 2.5 * 0.4 / 5 = 0.2
    implicit, explicit, other = (
        perturbed(Pgd(norm=norm, eps=0.4, steps=5, step_size=size, stop_when_fooled=False), trained)
        for size in (None, 0.2, 0.1)
    )
    assert torch.equal(implicit, explicit)
    assert not torch.equal(implicit, other)


@norms
def test_start(norm: str, trained: Any) -> None:
    # A step too short to matter shows the start.
    region = ball(norm, EPS[norm])
    settings: dict[str, Any] = {"norm": norm, "eps": EPS[norm], "steps": 1, "step_size": 1e-9}
    at_image = perturbed(Pgd(**settings, random_start=False), trained)
    torch.testing.assert_close(at_image, trained.x, rtol=0, atol=1e-6)
    at_random = perturbed(Pgd(**settings), trained)
    assert region.distance(at_random, trained.x).median() > 0.5 * EPS[norm]


@norms
def test_fgsm_is_one_long_pgd_step(norm: str, trained: Any) -> None:
    eps = EPS[norm]
    one = Pgd(norm=norm, eps=eps, steps=1, step_size=eps, random_start=False, stop_when_fooled=False)
    assert torch.equal(perturbed(Fgsm(norm=norm, eps=eps), trained), perturbed(one, trained))


@pytest.mark.parametrize(("loss", "expected"), [("ce", [0.6, 0.6]), ("margin", [0.6, 0.4])])
def test_the_named_loss_is_the_one_raised(loss: str, expected: list[float]) -> None:
    # Logits of the wrong classes: a - b + 0.1 and a + 3 b - 2, so 0.1 and 0 at (0.5, 0.5). The margin sees the larger
    # one alone, gradient (1, -1); cross-entropy weighs both about equally, gradient about (2, 2) / 3.
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 3)).requires_grad_(False)
    model[1].weight.copy_(torch.tensor([[0.0, 0.0], [1.0, -1.0], [1.0, 3.0]]))
    model[1].bias.copy_(torch.tensor([0.0, 0.1, -2.0]))
    x = torch.full((1, 1, 1, 2), 0.5)
    attack = Pgd(eps=0.2, steps=1, step_size=0.1, loss=loss, random_start=False, stop_when_fooled=False)
    with untouched(model):
        found = attack.perturb(model, x, torch.tensor([0]), generator=stream(0, "attack"))
    assert found.flatten().tolist() == pytest.approx(expected)


@norms
def test_more_steps_raise_the_loss(norm: str, trained: Any) -> None:
    def loss(x: Tensor) -> float:
        with torch.no_grad():
            return F.cross_entropy(trained.model(x), trained.y).item()

    found = [
        loss(perturbed(Pgd(norm=norm, eps=EPS[norm], steps=n, random_start=False, stop_when_fooled=False), trained))
        for n in (1, 4, 16)
    ]
    assert loss(trained.x) < found[0] < found[1] < found[2] * 1.01
    assert loss(perturbed(Fgsm(norm=norm, eps=EPS[norm]), trained)) < found[2]


# --- stop_when_fooled ------------------------------------------------------------------------------------------------


@norms
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_stopping_is_never_weaker_than_the_last_iterate(norm: str, share: float, trained: Any) -> None:
    last, stopped = (
        fooled(trained, perturbed(Pgd(norm=norm, eps=share * EPS[norm], steps=10, stop_when_fooled=stop), trained))
        for stop in (False, True)
    )
    assert 0 < int(last.sum()) < len(last)
    assert not (last & ~stopped).any()


@norms
def test_stopping_saves_most_passes_on_a_weak_model(norm: str, trained: Any) -> None:
    passed = {}
    for stop in (False, True):
        sizes: list[int] = []
        hook = trained.model.register_forward_hook(lambda module, args, out, sizes=sizes: sizes.append(len(out)))
        try:
            perturbed(Pgd(norm=norm, eps=3 * EPS[norm], steps=20, stop_when_fooled=stop), trained)
        finally:
            hook.remove()
        passed[stop] = sum(sizes)
    assert passed[False] == 20 * len(trained.x)
    assert passed[True] < 0.5 * passed[False]
