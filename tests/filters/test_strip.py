"""STRIP on a model whose predictions are known for every sum of images."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bascule.core.images import Images
from bascule.core.rng import stream
from bascule.filters.run import run_filter
from bascule.filters.strip import Strip


class Half(nn.Module):
    """Class 1 for sure when the first pixel is full; otherwise as likely as the second pixel says."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        p = torch.where(x[:, 0] > 0.99, torch.tensor(1 - 1e-7), x[:, 1])
        return torch.stack([(1 - p).log(), p.log()], 1)


def test_scores_by_hand(vectors: Callable[..., Images]) -> None:
    # Every second pixel is 51, so two images sum to 0.4 there; image 3 keeps its full first pixel under any overlay.
    rows = torch.tensor([[0, 51]] * 3 + [[255, 51]])
    images = vectors(rows, torch.tensor([0, 0, 0, 1]))
    found = run_filter(Half(), Strip(overlays=64), images, generator=stream(0, "a"))
    entropy = -(0.4 * math.log(0.4) + 0.6 * math.log(0.6)) / math.log(2)
    assert found.score[3].item() == pytest.approx(0, abs=1e-4)
    # The others meet image 3 in a quarter of their sums, and are sure then.
    assert found.score[:3].mean().item() == pytest.approx(-0.75 * entropy, abs=0.1)


def test_sums_are_cut_at_white(vectors: Callable[..., Images]) -> None:
    seen = []

    class Watch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return x.flatten(1)[:, :2]

    images = vectors(torch.tensor([[200, 100]] * 4), torch.tensor([0, 0, 1, 1]))
    run_filter(Watch(), Strip(overlays=2), images, generator=stream(0, "a"))
    assert len(seen) == 2
    assert torch.allclose(torch.cat(seen).flatten(1), torch.tensor([1.0, 200 / 255]))


def test_the_threshold_is_the_normal_quantile_of_the_set(vectors: Callable[..., Images]) -> None:
    class FirstPixel(nn.Module):
        """Logits whose entropy falls with the first pixel; the overlays add nothing there."""

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([4 * x.flatten(1)[:, 0], torch.zeros(len(x))], 1)

    generator = stream(0, "rows")
    rows = torch.zeros(600, 1)
    rows[:, 0] = (torch.randn(600, generator=generator) * 12 + 60).clamp(0, 100)
    rows[:30, 0] = 200
    images = vectors(rows, torch.arange(600) % 2)
    found = run_filter(FirstPixel(), Strip(overlays=32, false_alarms=0.01), images, generator=stream(0, "a"))
    assert found.removed[:30].all()
    assert found.removed[30:].double().mean() < 0.04
    entropy = -found.score
    spread = 1.4826 * (entropy - entropy.median()).abs().median()
    assert torch.equal(found.removed, entropy < entropy.median() - 2.3263 * spread)


class Given(nn.Module):
    """Two classes; the first as likely as the third power of the first pixel."""

    def forward(self, x: Tensor) -> Tensor:
        p = (x.flatten(1)[:, :1] ** 3).clamp(1e-6, 1 - 1e-6)
        return torch.cat([p.log(), (1 - p).log()], 1)


def test_a_threshold_below_zero_is_said(vectors: Callable[..., Images]) -> None:
    """Sums of one overlay are anything between sure and not: the quantile falls below zero."""
    images = vectors(torch.linspace(0, 127, 100).round().unsqueeze(1), torch.arange(100) % 2)
    found = run_filter(Given(), Strip(overlays=1), images, generator=stream(0, "a"))
    entropy = -found.score
    spread = 1.4826 * (entropy - entropy.median()).abs().median()
    assert entropy.median() - 2.3263 * spread < 0
    assert not found.removed.any()
    assert "lies below zero" in found.notes[0]
    assert "overlays" in found.notes[0]
    assert run_filter(Given(), Strip(overlays=1, false_alarms=0.5), images, generator=stream(0, "a")).notes == ()
