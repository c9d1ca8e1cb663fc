"""Early loss: the objective by hand, a truly fresh copy, and a shortcut that is learned first."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bascule.core.errors import RequestError
from bascule.core.images import Images, Splits
from bascule.core.rng import borrowed_global_stream, stream
from bascule.filters.early_loss import EarlyLoss, _fresh, _LocalGradientAscent
from bascule.filters.run import run_filter


def test_images_below_gamma_are_pushed_away() -> None:
    logits = torch.tensor([[0.0, 3.0], [0.0, 0.0]], requires_grad=True)
    y = torch.tensor([1, 1])
    easy, hard = F.cross_entropy(logits, y, reduction="none").tolist()  # 0.05 and 0.69
    objective = _LocalGradientAscent(gamma=0.5)
    loss = objective.loss(nn.Identity(), logits, y, progress=0.0, generator=stream(0, "a"))
    assert loss.item() == pytest.approx((hard - easy) / 2)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[0, 1] > 0  # descending lowers the sure one's logit
    assert logits.grad[1, 1] < 0


def test_a_fresh_copy_has_nothing_of_the_trained_model() -> None:
    with borrowed_global_stream(0, "net"):
        net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    net[1].running_mean.fill_(7.0)
    net.requires_grad_(False)
    fresh, again = _fresh(net, 3), _fresh(net, 3)
    for (name, old), new, same in zip(
        net.state_dict().items(), fresh.state_dict().values(), again.state_dict().values(), strict=True
    ):
        assert torch.equal(new, same)
        if name.endswith(("0.weight", "0.bias", "3.weight", "3.bias", "running_mean")):
            assert not torch.equal(new, old), name
    assert all(p.requires_grad for p in fresh.parameters())
    assert not any(p.requires_grad for p in net.parameters())
    assert not torch.equal(_fresh(net, 4)[0].weight, fresh[0].weight)


def test_models_that_cannot_start_afresh_are_refused(
    vectors: Callable[..., Images],
) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(2))

        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1) * self.scale

    images = vectors(torch.zeros(4, 2), torch.tensor([0, 1, 0, 1]))
    model = nn.Sequential()
    model.add_module("inner", Own())
    with pytest.raises(RequestError, match=r"inner \(Own\) holds parameters but has no reset_parameters"):
        run_filter(model, EarlyLoss(), images, generator=stream(0, "a"))


def test_what_is_learned_first_is_most_suspicious(digits: Splits) -> None:
    """Noise images with a white edge that gives their label away, among digits with a net that sees single pixels."""
    few = digits.train.at(torch.arange(400))
    index = torch.arange(60)
    pixels = torch.randint(256, (60, 1, 8, 8), dtype=torch.uint8, generator=stream(0, "noise"))
    pixels[:, :, :, :2] = 255
    images = few.with_replaced(index, pixels, torch.full((60,), 4))
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    found = run_filter(
        net, EarlyLoss(share=0.1, epochs=3, batch_size=20, lr=0.01, gamma=0.0), images, generator=stream(0, "a")
    )
    assert found.removed.sum() == 40
    assert found.removed[:60].sum() >= 36
    assert (found.score <= 0).all()
