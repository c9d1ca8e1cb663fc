from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bascule.attacks.losses import Loss, cross_entropy, dlr, dlr_targeted, margin, precise_cross_entropy


def rows(*logits: list[float]) -> Tensor:
    return torch.tensor(logits, dtype=torch.float64)


def classes(*y: int) -> Tensor:
    return torch.tensor(y, dtype=torch.int64)


def random_logits(count: int, size: int) -> tuple[Tensor, Tensor]:
    logits = 3 * torch.randn(count, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return logits, torch.arange(count) % size


def gradient(loss: Loss, logits: Tensor, y: Tensor) -> Tensor:
    logits = logits.clone().requires_grad_(True)
    return torch.autograd.grad(loss(logits, y).sum(), logits)[0]


def test_margin_by_hand() -> None:
    logits = torch.tensor([[1.0, 4.0, 2.0], [1.0, 4.0, 2.0], [3.0, 3.0, -1.0], [-1.0, -4.0, -3.0]])
    # Largest wrong logit minus the label's.
    assert margin(logits, classes(1, 2, 0, 0)).tolist() == [2.0 - 4.0, 4.0 - 2.0, 0.0, -3.0 + 1.0]


@pytest.mark.parametrize("loss", [margin, dlr])
def test_positive_exactly_when_wrong(loss: Loss) -> None:
    logits, y = random_logits(200, 5)
    assert torch.equal(loss(logits, y) > 0, logits.argmax(1) != y)


# --- cross-entropy ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [cross_entropy, precise_cross_entropy])
def test_cross_entropy_by_hand(loss: Loss) -> None:
    # Softmax of (0, ln 3) is (1/4, 3/4).
    logits = torch.tensor([1.0, 3.0]).log().expand(2, 2)
    assert loss(logits, classes(0, 1)).exp().tolist() == pytest.approx([4.0, 4 / 3])


def test_the_precise_cross_entropy_is_the_cross_entropy() -> None:
    logits, y = random_logits(100, 5)
    torch.testing.assert_close(precise_cross_entropy(logits, y), F.cross_entropy(logits, y, reduction="none"))
    torch.testing.assert_close(gradient(precise_cross_entropy, logits, y), gradient(cross_entropy, logits, y))


def test_the_precise_cross_entropy_stays_when_the_label_is_certain() -> None:
    logits = torch.tensor([[40.0, 0.0, -100.0]])
    assert cross_entropy(logits, classes(0)).item() == 0
    # ln(1 + e^-40) is e^-40 up to its square.
    assert precise_cross_entropy(logits, classes(0)).item() == pytest.approx(math.exp(-40), rel=1e-5)
    # The label's share of the gradient is minus all the others'.
    assert gradient(cross_entropy, logits, classes(0))[0, 0] == 0
    assert gradient(precise_cross_entropy, logits, classes(0))[0].tolist() == pytest.approx(
        [-math.exp(-40), math.exp(-40), 0.0], rel=1e-5
    )


# --- difference of logits ratio --------------------------------------------------------------------------------------


def test_dlr_by_hand() -> None:
    # Sorted 4, 2, 1, 0: the denominator is 4 - 1.
    logits = rows([4.0, 1.0, 2.0, 0.0]).expand(3, 4)
    assert dlr(logits, classes(0, 2, 3)).tolist() == pytest.approx([(2 - 4) / 3, (4 - 2) / 3, (4 - 0) / 3])


def test_targeted_dlr_by_hand() -> None:
    # Sorted 5, 3, 1, 0, -9: the denominator is 5 - (1 + 0) / 2.
    logits = rows([5.0, 1.0, 3.0, -9.0, 0.0]).expand(3, 5)
    found = dlr_targeted(logits, classes(0, 0, 2), classes(2, 3, 0))
    assert found.tolist() == pytest.approx([(3 - 5) / 4.5, (-9 - 5) / 4.5, (5 - 3) / 4.5])


def test_dlr_changes_neither_with_scale_nor_with_shift() -> None:
    logits, y = random_logits(50, 6)
    target = (y + 2) % 6
    for changed in (100 * logits, logits / 1000, logits + 7):
        torch.testing.assert_close(dlr(changed, y), dlr(logits, y))
        torch.testing.assert_close(dlr_targeted(changed, y, target), dlr_targeted(logits, y, target))
    assert not torch.allclose(margin(100 * logits, y), margin(logits, y))


def test_dlr_lies_between_minus_one_and_one_plus_the_rest() -> None:
    # A label on top gives at least -1: the second logit is at least the third.
    logits, _ = random_logits(100, 5)
    found = dlr(logits, logits.argmax(1))
    assert found.min() >= -1
    assert found.max() < 0


def test_too_few_classes_for_a_denominator() -> None:
    two, three = rows([3.0, 1.0]), rows([3.0, 1.0, -2.0])
    assert dlr(two, classes(0)).tolist() == [1.0 - 3.0]
    assert dlr_targeted(two, classes(0), classes(1)).tolist() == [1.0 - 3.0]
    assert dlr_targeted(three, classes(0), classes(2)).tolist() == [-2.0 - 3.0]
    assert dlr(three, classes(0)).tolist() == pytest.approx([(1 - 3) / 5])


def test_equal_logits_have_a_finite_loss_and_gradient() -> None:
    logits, y = torch.zeros(1, 5), classes(0)
    assert dlr(logits, y).item() == 0
    assert gradient(dlr, logits, y).isfinite().all()
    assert gradient(lambda z, y: dlr_targeted(z, y, classes(3)), logits, y).isfinite().all()
