"""One step towards a random label, on logits that are the pixels."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bascule.attacks.fgsm_targeted import FgsmTargeted
from bascule.attacks.losses import nearness_to_random_label
from bascule.core.rng import stream

PIXELS = nn.Sequential(nn.Flatten())
"""Logit k is pixel k: a step towards k raises pixel k and lowers all others."""


def test_the_step_goes_towards_one_wrong_label_each_drawn_evenly() -> None:
    x, y = torch.full((900, 1, 2, 2), 0.5), torch.arange(900) % 4
    found = FgsmTargeted(eps=0.1).perturb(PIXELS, x, y, generator=stream(0, "test")).flatten(1)
    raised = found > 0.5
    assert raised.sum(1).unique().tolist() == [1]
    assert torch.allclose(found, torch.where(raised, 0.6, 0.4))
    drawn = raised.float().argmax(1)
    assert not (drawn == y).any(), "the true label was drawn"
    for label in range(4):
        counts = drawn[y == label].bincount(minlength=4).tolist()
        assert counts.pop(label) == 0
        assert all(40 < count < 110 for count in counts)  # five standard deviations around 75


def test_in_l2_the_step_has_length_eps() -> None:
    x = torch.full((5, 1, 1, 2), 0.5)
    found = FgsmTargeted(norm="l2", eps=0.2).perturb(
        PIXELS, x, torch.zeros(5, dtype=torch.int64), generator=stream(0, "t")
    )
    half = 0.2 * 0.5**0.5
    assert found.flatten(1).tolist() == [pytest.approx([0.5 - half, 0.5 + half])] * 5


def test_it_stops_at_black_and_white() -> None:
    x = torch.tensor([0.95, 0.02]).reshape(1, 1, 1, 2)
    found = FgsmTargeted(eps=0.1).perturb(PIXELS, x, torch.tensor([1]), generator=stream(0, "test"))
    assert found.flatten().tolist() == [1.0, 0.0]


def test_nearness_by_hand() -> None:
    # Of two labels only one is wrong; softmax of (0, ln 3) is (1/4, 3/4).
    logits = torch.tensor([1.0, 3.0]).log().expand(2, 2)
    found = nearness_to_random_label(generator=stream(0, "test"))(logits, torch.tensor([0, 1]))
    assert found.exp().tolist() == pytest.approx([3 / 4, 1 / 4])
