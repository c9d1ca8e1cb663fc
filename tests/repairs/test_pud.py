"""PUD: the mean teacher and the loss beside it."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bascule.core.errors import RequestError
from bascule.core.images import Images
from bascule.core.rng import stream
from bascule.repairs.pud import BesideTeacher, MeanTeacher, Pud
from bascule.training.pgd import Pgd
from bascule.training.trades import Trades


def test_the_loss_and_the_teacher_are_those_of_the_authors_code(sharp: nn.Module, some: Images) -> None:
    """`mt_aft_train` in `aft_train.py` of John-niu-07/PUD, from what it says: cross-entropy + 0.05 * the sum over a
    batch (of 128) of squared differences of the two softmaxes; then the teacher takes alpha = min(1 - 1 / (step + 1),
    0.99) of itself and the rest of the model, before the model's own step."""
    x, y = some.batch(some.ids), some.labels
    settings = Pud(eps=0.1)
    teacher = MeanTeacher(sharp)
    objective = BesideTeacher(settings=settings, teacher=teacher, decay=settings.decay, weight=settings.weight)
    theirs = copy.deepcopy(sharp)
    optimizer = torch.optim.SGD(sharp.parameters(), lr=0.05)
    for step in range(4):
        seen = objective.inputs(sharp, x, y, progress=0.0, generator=stream(0, "r"))
        with torch.no_grad():
            apart = (sharp(seen).softmax(1) - theirs(seen).softmax(1)).square().sum()
            wanted = F.cross_entropy(sharp(seen), y) + 0.05 * apart * 128 / len(x)
            alpha = min(1 - 1 / (step + 1), 0.99)
            for own, given in zip(theirs.parameters(), sharp.parameters(), strict=True):
                own.copy_(own * alpha + given * (1 - alpha))
        loss = objective.loss(sharp, x, y, progress=0.0, generator=stream(0, "r"))
        torch.testing.assert_close(loss.detach(), wanted, rtol=1e-4, atol=1e-5)
        for own, other in zip(teacher.model.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(own, other)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert apart > 0
    assert teacher.steps == 4
    assert not any(p.requires_grad for p in teacher.parameters())


def test_the_mean_by_hand() -> None:
    model = nn.Linear(1, 1, bias=False)
    teacher = MeanTeacher(model)
    means = []
    for value in (4.0, 8.0, 2.0, 0.0):
        with torch.no_grad():
            model.weight.fill_(value)
        teacher.follow(model, 0.6)
        means.append(teacher.model.get_parameter("weight").item())
    # Shares of itself: 0, 1/2, then 0.6 at most.
    assert means == pytest.approx([4.0, 6.0, 0.6 * 6 + 0.4 * 2, 0.6 * 4.4])


def test_batch_norm_of_the_teacher_knows_what_the_model_knows(residual: nn.Module) -> None:
    teacher = MeanTeacher(residual)
    with torch.no_grad():
        residual.get_submodule("norm1").running_mean.fill_(3.0)  # type: ignore[union-attr, operator]
    teacher.follow(residual, 0.99)
    assert (teacher.model.get_submodule("norm1").running_mean == 3.0).all()  # type: ignore[union-attr]
    assert not teacher.model.training


def test_robustness_rises_within_the_ball(sharp: nn.Module, some: Images) -> None:
    x, y = some.batch(some.ids), some.labels

    def robust(model: nn.Module) -> float:
        x_adv = Pgd(eps=0.05, steps=10).inputs(model, x, y, progress=0.0, generator=stream(0, "a"))
        return float((model(x_adv).argmax(1) == y).double().mean())

    repair = Pud(eps=0.05, epochs=60)
    after = repair.repair(copy.deepcopy(sharp), some, generator=stream(0, "r")).model.eval()
    assert robust(after) > robust(sharp) + 0.1


def test_the_teacher_is_asked_on_images_of_a_cross_entropy() -> None:
    with pytest.raises(RequestError, match="trades is not one"):
        Pud(objective=Trades(eps=0.1))
