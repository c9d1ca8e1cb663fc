"""The spectrum against SciPy, each way of tampering by hand, and a detector that has learned them."""

from __future__ import annotations

import pytest
import torch
from scipy.fft import dctn
from torch import nn

from bascule.core.images import Images, Splits, as_bytes
from bascule.core.rng import stream
from bascule.filters import _tampering
from bascule.filters._tampering import tamper
from bascule.filters.contract import Judged
from bascule.filters.frequency import Frequency, Spectrum, dct_matrix
from bascule.filters.run import run_filter


def test_the_spectrum_is_scipys() -> None:
    x = torch.rand(2, 3, 8, 5, generator=stream(0, "x"))
    wanted = dctn(x.numpy(), axes=(2, 3), norm="ortho")
    found = Spectrum(8, 5)(x)
    assert found.exp().numpy() - 1 / 255 == pytest.approx(abs(wanted), abs=1e-5)
    assert torch.allclose(dct_matrix(6) @ dct_matrix(6).T, torch.eye(6), atol=1e-6)


def grey(count: int = 400, side: int = 16) -> torch.Tensor:
    return torch.rand(count, 1, side, side, generator=stream(0, "grey")) * 0.2 + 0.4


def test_patches_are_squares_inside_the_image() -> None:
    x = grey()
    changed = _tampering._white_patch(x, stream(1, "a")) != x
    size = changed.any(2).sum(2).squeeze(1)
    assert torch.equal(size, changed.any(3).sum(2).squeeze(1))
    assert torch.equal(size**2, changed.sum((1, 2, 3)))
    assert size.unique().tolist() == [1, 2, 3, 4, 5]  # a sixteenth to a third of 16
    touched = changed.any(0).squeeze(0)
    assert touched.any(0).all()  # anywhere, up to the borders
    assert touched.any(1).all()
    noise = _tampering._noise_patch(x, stream(1, "a"))
    assert torch.equal(noise != x, changed)
    assert noise[changed].std() == pytest.approx(12**-0.5, abs=0.01)


def test_noise_blend_and_shadow() -> None:
    x = grey()
    assert (_tampering._noise(x, stream(1, "a")) - x).std((1, 2, 3)).amin() > 0.015
    blended = _tampering._blend(x, stream(1, "a")) - x
    assert blended.abs().max() <= 0.3 * 0.2 + 1e-6
    assert (blended.flatten(1).abs().amax(1) > 0).double().mean() > 0.95
    ratio = _tampering._shadow(x, stream(1, "a")) / x
    assert ((ratio - 1).abs() < 1e-6).any()
    assert ratio.min() >= 0.3 - 1e-6
    assert ratio.max() <= 1 + 1e-6
    for one in ratio.flatten(1)[:50]:
        assert len(one.mul(1e4).round().unique()) <= 3  # lit and shaded, up to rounding


def test_all_ways_are_used_and_the_images_left_alone() -> None:
    x = grey()
    before = x.clone()
    found = tamper(x, generator=stream(2, "a"))
    assert torch.equal(x, before)
    assert (found != x).flatten(1).any(1).double().mean() > 0.9
    assert found.min() >= 0
    assert found.max() <= 1
    ways = [(found == 1).flatten(1).any(1), (found < 0.3).flatten(1).any(1)]
    assert all(0.05 < way.double().mean() < 0.9 for way in ways)


def test_smooth_images_with_noise_on_them_are_found() -> None:
    generator = stream(0, "smooth")
    ramp = torch.linspace(0, 1, 16).reshape(1, 1, 1, 16) * torch.rand(500, 1, 1, 1, generator=generator)
    x = (ramp + 0.3 * torch.rand(500, 1, 1, 1, generator=generator)).clamp(0, 1).expand(500, 1, 16, 16).clone()
    x[:25, :, 10:13, 4:7] = torch.rand(25, 1, 3, 3, generator=generator)
    images = Images(pixels=as_bytes(x), labels=torch.arange(500) % 2, ids=torch.arange(500), classes=("a", "b"))
    found = run_filter(nn.Identity(), Frequency(epochs=6), images, generator=stream(0, "a"))
    assert found.removed[:25].double().mean() > 0.8
    assert found.removed[25:].double().mean() < 0.1
    assert torch.equal(found.removed, found.score >= 0)


def test_images_are_removed_from_the_probability_on(digits: Splits) -> None:
    few = digits.train.at(torch.arange(300))

    def found(probability: float) -> Judged:
        return run_filter(nn.Identity(), Frequency(epochs=2, probability=probability), few, generator=stream(0, "a"))

    score = found(0.999).score
    for share in (0.3, 0.7):
        again = found(score.double().quantile(share).sigmoid().item())
        assert torch.equal(again.score, score)
        assert again.removed.double().mean() == pytest.approx(1 - share, abs=0.02)
        assert score[again.removed].min() > score[~again.removed].max()


def test_the_detector_learns_from_a_sample(digits: Splits) -> None:
    few = digits.train.at(torch.arange(200))
    found = run_filter(nn.Identity(), Frequency(samples=20, epochs=1, probability=0.9), few, generator=stream(0, "a"))
    assert len(found.score.unique()) > 100
