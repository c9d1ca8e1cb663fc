from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, norm
from torch import Tensor, nn

from bascule.certifiers.smoothing import Smoothing, lower_confidence_bound
from bascule.core.rng import stream


def radius(certifier: Smoothing, model: nn.Module, x: Tensor, y: Tensor, *, seed: int = 0) -> Tensor:
    with torch.no_grad():
        return certifier.radius(model, x, y, generator=stream(seed, "smoothing"))


class Constant(nn.Module):
    """Class 2, whatever it sees."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tensor([0.0, 0.0, 1.0]).expand(len(x), 3)


class Threshold(nn.Module):
    """Class 1 where the first pixel exceeds 0.5."""

    def forward(self, x: Tensor) -> Tensor:
        score = x[:, 0, 0, 0] - 0.5
        return torch.stack([-score, score], 1)


class Seen(nn.Module):
    """Keeps the images it is shown."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.images: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.images.append(x.clone())
        return self.model(x)


# --- the confidence bound --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 7, 100, 1000, 100_000])
@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_the_confidence_bound_is_scipys(n: int, alpha: float) -> None:
    for successes in {0, 1, n // 2, n - 1, n}:
        # A one-sided bound is the lower end of an interval of confidence 1 - 2 alpha.
        wanted = binomtest(successes, n).proportion_ci(1 - 2 * alpha, method="exact").low
        found = lower_confidence_bound(np.array([successes]), n, alpha)
        assert found.item() == pytest.approx(wanted, rel=1e-9)


def test_the_confidence_bound_by_hand() -> None:
    # All n: alpha = p^n, so 0.05^(1/10) = 0.7411. One of n: 1 - (1 - p)^n = alpha, so 1 - 0.95^(1/10) = 0.005116.
    found = lower_confidence_bound(np.array([10, 1, 0]), 10, 0.05)
    assert found.tolist() == pytest.approx([0.741134, 0.005116, 0.0], abs=1e-6)


# --- the radius ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.12, 0.5])
def test_a_constant_classifier_gets_the_largest_radius(sigma: float) -> None:
    x, y = torch.rand(5, 1, 3, 3), torch.tensor([2, 0, 2, 1, 2])
    found = radius(Smoothing(eps=0.1, sigma=sigma, n=200, alpha=0.01), Constant(), x, y)
    wanted = sigma * norm.ppf(0.01 ** (1 / 200))
    assert found.tolist() == pytest.approx([wanted, 0, wanted, 0, wanted], rel=1e-5)


def test_the_caps_named_in_the_documentation() -> None:
    assert norm.ppf(0.001 ** (1 / 1000)) == pytest.approx(2.46, abs=0.005)
    assert norm.ppf(0.001 ** (1 / 100_000)) == pytest.approx(3.81, abs=0.005)


def test_the_radius_of_a_threshold_lies_below_the_true_distance() -> None:
    # The smoothed classifier changes at 0.5 too, so the true radius is the first pixel's distance from it.
    first = torch.linspace(0.55, 0.9, 60)
    x = torch.rand(60, 1, 2, 2, generator=stream(0, "x"))
    x[:, 0, 0, 0] = first
    found = radius(Smoothing(eps=0.1, sigma=0.25, n=4000), Threshold(), x, torch.ones(60, dtype=torch.int64))
    assert (found <= first - 0.5).all()
    assert (found >= 0.7 * (first - 0.5) - 0.02).all()


def test_a_close_vote_abstains() -> None:
    x, y = torch.full((20, 1, 1, 1), 0.501), torch.ones(20, dtype=torch.int64)
    assert not radius(Smoothing(eps=0.1, n=100), Threshold(), x, y).any()


def test_a_vote_for_another_class_gives_nothing() -> None:
    # Certain, but of the wrong class.
    x, y = torch.full((20, 1, 1, 1), 0.1), torch.ones(20, dtype=torch.int64)
    seen = Seen(Threshold())
    assert not radius(Smoothing(eps=0.1, sigma=0.05, n0=7, n=100), seen, x, y).any()
    assert sum(len(images) for images in seen.images) == 20 * 7, "probabilities were bounded in vain"


def test_in_linf_the_radius_is_divided_by_the_square_root_of_the_pixel_values() -> None:
    x, y = torch.rand(4, 3, 2, 2), torch.full((4,), 2)
    l2, linf = (radius(Smoothing(eps=0.1, norm=which), Constant(), x, y) for which in ("l2", "linf"))
    torch.testing.assert_close(linf, l2 / 12**0.5)


# --- the noise -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 16, 64, 2000])
def test_every_image_gets_its_copies_with_noise_of_its_own(batch_size: int) -> None:
    x, y = torch.full((10, 1, 8, 8), 0.5), torch.full((10,), 2)
    seen = Seen(Constant())
    radius(Smoothing(eps=0.1, sigma=0.3, n0=20, n=50, batch_size=batch_size), seen, x, y)
    shown = torch.cat(seen.images)
    assert max(len(images) for images in seen.images) <= max(batch_size, 10 if batch_size >= 10 else 1)
    assert len(shown) == 10 * (20 + 50)
    noise = shown - 0.5
    assert len({float(image.sum()) for image in noise}) == len(noise)
    assert noise.mean().item() == pytest.approx(0, abs=0.01)
    assert noise.std().item() == pytest.approx(0.3, rel=0.02)
    assert x.unique().tolist() == [0.5]


def test_votes_go_to_the_right_images() -> None:
    x = torch.tensor([0.1, 0.9, 0.2, 0.8, 0.85]).reshape(5, 1, 1, 1)
    for batch_size in (1, 2, 3, 7, 1000):
        certifier = Smoothing(eps=0.1, sigma=0.01, n=23, batch_size=batch_size)
        votes = certifier._votes(Threshold(), x, 23, stream(0, "votes"))
        assert votes.tolist() == [[23, 0], [0, 23], [23, 0], [0, 23], [0, 23]]


def test_the_generator_decides(trained: Any) -> None:
    certifier = Smoothing(eps=0.1, n=100)
    x, y = trained.x[:30], trained.y[:30]
    first, again, other = (radius(certifier, trained.hardened, x, y, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert 0.1 < first.max() <= 0.25 * norm.ppf(0.001 ** (1 / 100)) + 1e-6
