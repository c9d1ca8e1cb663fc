from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bascule.attacks.losses import cross_entropy, dlr_targeted
from bascule.attacks.unfooled import find_unfooled
from bascule.core.rng import borrowed_global_stream, stream


class Bright(nn.Module):
    """Class 1 for images brighter than 0.5, else class 0; keeps the sizes of its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        score = x.flatten(1).mean(1) - 0.5
        return torch.stack([-score, score], 1)


class Flickering(Bright):
    """As above with an offset that changes from call to call."""

    def __init__(self, *offsets: float) -> None:
        super().__init__()
        self.offsets = offsets

    def forward(self, x: Tensor) -> Tensor:
        offset = self.offsets[len(self.sizes)]
        return super().forward(x + offset) * 2


def brightness(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(-1, 1, 1, 1)


@pytest.mark.parametrize(
    ("values", "standing", "sizes"),
    [
        ([0.1, 0.2, 0.3, 0.4], [0, 1, 2, 3], [4]),
        ([0.1, 0.9, 0.3, 0.4], [0, 2, 3], [4]),
        ([0.1, 0.9, 0.9, 0.4], [0, 3], [4]),
        ([0.9, 0.9, 0.9, 0.4], [3], [4, 1]),
        ([0.9, 0.9, 0.9, 0.9], [], [4]),
    ],
)
def test_who_stands(values: list[float], standing: list[int], sizes: list[int]) -> None:
    model, y = Bright(), torch.zeros(4, dtype=torch.int64)
    found = find_unfooled(model, brightness(*values), cross_entropy, (y,))
    assert found.kept.tolist() == standing
    assert found.value.shape == (len(standing),)
    assert found.gradient.shape == (len(standing), 1, 1, 1)
    # When fewer than half stand, only these go forth again and back.
    assert model.sizes == sizes


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8, 1.0])
def test_loss_and_gradient_are_those_of_the_standing(share: float) -> None:
    with borrowed_global_stream(0, "net"):
        model = nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5)).double().requires_grad_(False)
    x = torch.rand(20, 1, 2, 3, dtype=torch.float64, generator=stream(0, "images"))
    right = model(x).argmax(1)
    wrong = torch.arange(20) >= 20 * share
    y, target = torch.where(wrong, (right + 1) % 5, right), (right + 2) % 5
    found = find_unfooled(model, x, dlr_targeted, (y, target))
    assert torch.equal(found.kept, (~wrong).nonzero().squeeze(1))
    z = x[~wrong].requires_grad_(True)
    value = dlr_targeted(model(z), y[~wrong], target[~wrong])
    torch.testing.assert_close(found.value, value.detach())
    torch.testing.assert_close(found.gradient, torch.autograd.grad(value.sum(), z)[0])
    assert not found.value.requires_grad
    assert not x.requires_grad


def test_loss_and_gradient_are_averaged_over_passes() -> None:
    offsets, y = (0.1, -0.1, 0.3), torch.zeros(2, dtype=torch.int64)
    x = brightness(0.3, 0.1)
    found = find_unfooled(Flickering(*offsets), x, cross_entropy, (y,), passes=3)
    single = [find_unfooled(Flickering(offset), x, cross_entropy, (torch.zeros_like(y),)) for offset in (0.1, -0.1)]
    assert found.kept.tolist() == [0, 1]
    # The logits are -+ 2 (b + o - 1/2): the loss is ln(1 + e^s) with s = 4 (b + o - 1/2), its slope 4 / (1 + e^-s).
    s = 4 * (x.flatten().unsqueeze(0) + torch.tensor(offsets, dtype=torch.float64).unsqueeze(1) - 0.5)
    torch.testing.assert_close(found.value, s.exp().log1p().mean(0))
    torch.testing.assert_close(found.gradient.flatten(), (4 / (1 + (-s).exp())).mean(0))
    torch.testing.assert_close(single[0].value, s.exp().log1p()[0])


def test_with_several_passes_an_image_falls_when_all_are_wrong() -> None:
    y = torch.zeros(3, dtype=torch.int64)
    # 0.3 is wrong in one pass of three, 0.45 in two, 0.7 in all.
    found = find_unfooled(Flickering(0.1, -0.1, 0.3), brightness(0.3, 0.45, 0.7), cross_entropy, (y,), passes=3)
    assert found.kept.tolist() == [0, 1]
