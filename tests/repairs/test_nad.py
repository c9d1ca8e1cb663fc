"""Attention by hand, and where it is looked at."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bascule.core import catalog
from bascule.core.errors import RequestError
from bascule.core.images import Images
from bascule.core.rng import stream
from bascule.repairs.nad import Attentive, Nad, _stages, attention_difference
from bascule.repairs.run import run_repair
from bascule.training.standard import Standard


def test_difference_by_hand() -> None:
    # One image, two channels, two positions: squares sum to (9 + 16, 1) and, with a negative left out, (0, 4).
    first = torch.tensor([[[[3.0, 1.0]], [[4.0, -2.0]]]])
    second = torch.tensor([[[[-3.0, 0.0]], [[0.0, 2.0]]]])
    wanted = (25**2 / 626 + (1 - 1 / 626**0.5) ** 2) / 2
    assert attention_difference([first], [second]).item() == pytest.approx(wanted)
    assert attention_difference([first, first], [second, 5 * first]).item() == pytest.approx(wanted)
    assert attention_difference([first * 0], [first * 0]) == 0


def test_stages_are_the_last_of_every_resolution(some: Images) -> None:
    for name, wanted in (
        ("mnist-fast", ("0", "2")),
        ("resnet18", ("layer1.1.bn2", "layer2.1.bn2", "layer3.1.bn2")),
    ):
        size, classes = (1, 8, 8), 3
        images = Images(pixels=torch.zeros(2, *size, dtype=torch.uint8), labels=some.labels[:2], ids=some.ids[:2],
                        classes=some.classes)  # fmt: skip
        settings = {"mean": [0.5], "std": [0.2]} if name == "resnet18" else {}
        model = catalog.build("models", {"name": name, **settings}).initialised(size, classes, seed=0)
        assert _stages(model, images) == wanted


def test_loss(plain: nn.Module, some: Images) -> None:
    x, y = some.batch(some.ids), some.labels
    teacher = copy.deepcopy(plain)
    with torch.no_grad():
        teacher[0].weight.neg_()
    objective = Attentive(inner=Standard(), teacher=teacher, stages=("0", "2"), weight=3.0)
    difference = attention_difference(
        [plain[0](x), plain[2](plain[0](x).relu())], [teacher[0](x), teacher[2](teacher[0](x).relu())]
    )
    wanted = F.cross_entropy(plain(x), y) + 3 * difference
    found = objective.loss(plain, x, y, progress=0.0, generator=stream(0, "r"))
    torch.testing.assert_close(found, wanted)
    found.backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert all(p.grad is not None and p.grad.any() for p in plain.parameters())


def test_the_teacher_pulls(plain: nn.Module, some: Images) -> None:
    """With a heavy weight the student attends as the teacher does, more than after fine-tuning alone."""
    x = some.batch(some.ids)
    far = copy.deepcopy(plain)
    with torch.no_grad():
        far[0].weight.neg_()

    def apart(weight: float) -> float:
        student, repair = copy.deepcopy(plain), Nad(epochs=5, weight=weight)
        objective = Attentive(inner=Standard(), teacher=far, stages=("0",), weight=weight)
        repair.tune(student, some, generator=stream(0, "r"), objective=objective)
        return attention_difference([student[0](x)], [far[0](x)]).item()  # type: ignore[operator]

    assert apart(100.0) < 0.7 * apart(0.0)


def test_what_it_cannot_work_with(some: Images) -> None:
    linear = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    with pytest.raises(RequestError, match="the model has none; use fine-tune"):
        run_repair(linear, Nad(), some, generator=stream(0, "r"))
    with pytest.raises(RequestError, match=r"objective: .* trades is not one"):
        catalog.build("repair", {"name": "nad", "objective": {"name": "trades", "eps": 0.1}})
