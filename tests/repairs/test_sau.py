"""The search for shared examples and the loss that unlearns them."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from scipy.spatial.distance import jensenshannon
from torch import nn

from bascule.core.images import Images
from bascule.core.rng import stream
from bascule.repairs.sau import Sau, SharedExamples, jensen_shannon, shared_loss


def test_jensen_shannon_against_scipy() -> None:
    first, second = torch.randn(2, 6, 4, dtype=torch.float64, generator=stream(0, "logits"))
    found = jensen_shannon(first, second).tolist()
    wanted = [jensenshannon(p, q) ** 2 for p, q in zip(first.softmax(1), second.softmax(1), strict=True)]
    assert found == pytest.approx(wanted)
    assert jensen_shannon(first, first).abs().max() < 1e-12


def test_the_search_by_hand() -> None:
    """An image leaves the cross-entropy of a model that is fooled, and the divergence once both are fooled alike."""
    y = torch.zeros(4, dtype=torch.int64)
    right, wrong, other = [2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 2.0]
    logits = torch.tensor([right + right, wrong + right, wrong + wrong, wrong + other])
    found = shared_loss((y, y), beta_1=1.0, beta_2=0.0)(logits, y)
    ce = math.log(math.exp(2) + 2) - 2
    assert found.tolist() == pytest.approx([ce, ce / 2, 0, 0])
    apart = jensen_shannon(torch.tensor([wrong]), torch.tensor([right])).item()
    found = shared_loss((y, y), beta_1=0.0, beta_2=1.0)(logits, y)
    assert found.tolist() == pytest.approx([0, -apart, 0, -apart])


def test_the_descent(sharp: nn.Module, some: Images) -> None:
    """Only images on which the original changes its mind and is wrong count; at the start both models agree."""
    x, y = some.batch(some.ids), some.labels
    settings = Sau(eps=0.5, steps=3, weight=2.0)
    objective = SharedExamples(settings=settings, original=copy.deepcopy(sharp))
    perturbed = objective.inputs(sharp, x, y, progress=0.0, generator=stream(0, "r"))
    assert (perturbed - x).abs().max() <= 0.5 + 1e-6
    assert perturbed.min() >= 0
    assert perturbed.max() <= 1
    logits = sharp(perturbed)
    fooled = logits.argmax(1)
    counts = (fooled != y) & (fooled != sharp(x).argmax(1))
    assert 0 < counts.sum() < len(x)
    p = logits.softmax(1)[torch.arange(len(x)), fooled]
    wanted = F.cross_entropy(sharp(x), y) + 2 * -(1 - p[counts]).log().sum() / len(x)
    found = objective.loss(sharp, x, y, progress=0.0, generator=stream(0, "r"))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_shared_examples_are_unlearnt(sharp: nn.Module, some: Images) -> None:
    x, y = some.batch(some.ids), some.labels
    original = copy.deepcopy(sharp)

    def shared(model: nn.Module) -> float:
        objective = SharedExamples(settings=Sau(eps=0.2, step_size=0.1), original=original)
        perturbed = objective.inputs(model, x, y, progress=0.0, generator=stream(0, "r"))
        labels, before = model(perturbed).argmax(1), original(x).argmax(1)
        fooled = original(perturbed).argmax(1)
        return float(((labels == fooled) & (fooled != before)).double().mean())

    def after(weight: float) -> float:
        repair = Sau(epochs=15, step_size=0.1, lr=0.01, schedule="cosine", weight=weight)
        return shared(repair.repair(copy.deepcopy(sharp), some, generator=stream(0, "r")).model)

    assert shared(sharp) > 0.5
    assert after(1.0) < shared(sharp) / 2
    assert after(1.0) < after(0.0) / 2
    assert all(p.requires_grad for p in original.parameters())
