"""PBE: the adversarial images, and when they are trained on."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bascule.core.images import Images
from bascule.core.rng import stream
from bascule.repairs.pbe import Erasing, Pbe
from bascule.training.pgd import Pgd


def searched_by_the_authors(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """The search in `aft_train` of `aft_train.py` in John-niu-07/PUD, from what it says: from the images themselves,
    7 times alpha = eps / 5 along the sign of the gradient of the cross-entropy, then cut to within eps. And to [0, 1],
    which is our departure."""
    found = x.clone()
    for _ in range(7):
        found.requires_grad_(True)
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(found), y), found)
        found = torch.max(torch.min(found.detach() + eps / 5 * gradient.sign(), x + eps), x - eps).clamp(0, 1)
    return found


def test_adversarial_images_are_those_of_the_authors_code(sharp: nn.Module, some: Images) -> None:
    x, y = some.batch(some.ids), some.labels
    wanted = searched_by_the_authors(sharp, x, y, 0.1)
    objective = Erasing(settings=Pbe(eps=0.1))
    found = objective.inputs(sharp, x, y, progress=0.0, generator=stream(0, "r"))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    assert (sharp(found).argmax(1) != sharp(x).argmax(1)).any()
    loss = objective.loss(sharp, x, y, progress=0.0, generator=stream(0, "r"))
    torch.testing.assert_close(loss, F.cross_entropy(sharp(wanted), y), rtol=1e-4, atol=1e-5)


def test_clean_passes_follow_with_the_objective_of_its_own(sharp: nn.Module, some: Images) -> None:
    x, y = some.batch(some.ids), some.labels
    after = Erasing(settings=Pbe(eps=0.1)).loss(sharp, x, y, progress=0.5, generator=stream(0, "r"))
    torch.testing.assert_close(after, F.cross_entropy(sharp(x), y))
    hardened = Erasing(settings=Pbe(eps=0.1, objective=Pgd(eps=0.2)))
    assert hardened.loss(sharp, x, y, progress=0.5, generator=stream(0, "r")) > after


@pytest.mark.parametrize(
    ("adversarial", "rounds", "wanted"),
    [(0.5, 1, "aaaa----"), (1.0, 1, "aaaaaaaa"), (0.0, 1, "--------"), (0.5, 2, "aa--aa--"), (0.25, 2, "a---a---")],
)
def test_when_it_erases(adversarial: float, rounds: int, wanted: str) -> None:
    objective = Erasing(settings=Pbe(adversarial=adversarial, rounds=rounds))
    assert "".join("a" if objective.erases(step / 8) else "-" for step in range(8)) == wanted


def test_without_adversarial_passes_it_needs_no_gradients() -> None:
    assert Pbe().follows_gradients
    assert not Pbe(adversarial=0.0).follows_gradients
