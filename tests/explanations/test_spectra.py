"""Frequencies: an orthonormal basis, and linear nets whose response is known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bascule.core.rng import stream
from bascule.explanations.band_energy import BandEnergy
from bascule.explanations.contract import Spectrum
from bascule.explanations.fourier import Fourier
from bascule.explanations.frequencies import half_plane, radius, rings, waves
from bascule.explanations.pass_filter import PassFilter
from bascule.explanations.run import run_spectrum

sizes = pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 7), (6, 9), (5, 4), (1, 6), (28, 28)])


def run(spectrum: Spectrum, model: nn.Module, x: Tensor, y: Tensor, batch_size: int = 50) -> Tensor:
    return run_spectrum(model, spectrum, x, y, generator=stream(0, "spectrum"), batch_size=batch_size)


def detector(*weights: Tensor, bias: float = 0.0) -> nn.Module:
    """Label 1 where an image answers to one of these patterns; logit 0 is `bias`."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(weights[0].numel(), 2)).eval()
    with torch.no_grad():
        net[1].weight.copy_(torch.stack([torch.zeros_like(weights[0]), sum(weights)]).flatten(1))  # type: ignore[arg-type]
        net[1].bias.copy_(torch.tensor([bias, 0.0]))
    return net


# --- the plane -------------------------------------------------------------------------------------------------------


@sizes
def test_waves_are_orthonormal(height: int, width: int) -> None:
    found = waves(half_plane(height, width, stride=1), height, width).flatten(1)
    assert torch.allclose(found @ found.T, torch.eye(len(found), dtype=torch.float64), atol=1e-10)


@sizes
def test_a_half_plane_holds_each_pair_once(height: int, width: int) -> None:
    found = half_plane(height, width, stride=1)
    seen = torch.zeros(height, width, dtype=torch.int64)
    for vertical, horizontal in found.tolist():
        pair = {(vertical % height, horizontal % width), (-vertical % height, -horizontal % width)}
        for place in pair:
            seen[place] += 1
    assert (seen == 1).all()


@sizes
def test_a_waves_transform_is_at_its_frequency_alone(height: int, width: int) -> None:
    frequencies = half_plane(height, width, stride=1)
    power = torch.fft.fft2(waves(frequencies, height, width)).abs() > 1e-9
    for (vertical, horizontal), found in zip(frequencies.tolist(), power, strict=True):
        wanted = torch.zeros(height, width, dtype=torch.bool)
        wanted[vertical % height, horizontal % width] = wanted[-vertical % height, -horizontal % width] = True
        assert torch.equal(found, wanted)


def test_every_second_frequency() -> None:
    found = half_plane(8, 8, stride=2)
    assert not (found % 2).any()
    everything = {tuple(pair) for pair in half_plane(8, 8, stride=1).tolist()}
    assert {tuple(pair) for pair in found.tolist()} == {p for p in everything if p[0] % 2 == 0 and p[1] % 2 == 0}


def test_radius_and_rings_by_hand() -> None:
    assert radius(4, 4)[0].tolist() == [0.0, 0.25, 0.5, 0.25]
    assert radius(4, 4)[2, 2].item() == pytest.approx(0.5 * math.sqrt(2))
    # Cycles 0, 1, 2, 1 along each axis: distances 1.41, 2.24 and 2.83 on the diagonals.
    assert rings(4, 4).tolist() == [[0, 1, 2, 1], [1, 1, 2, 1], [2, 2, 3, 2], [1, 1, 2, 1]]
    assert rings(2, 4).tolist() == [[0, 1, 2, 1], [2, 2, 3, 2]]


# --- fourier ---------------------------------------------------------------------------------------------------------


def test_a_detector_of_one_wave_errs_under_that_wave_alone() -> None:
    frequencies = half_plane(8, 8, stride=1)
    basis = waves(frequencies, 8, 8).float()
    for number in (5, 17, 30):
        # Logit 1 is the wave's coefficient: above a half where it is added with norm 0.6, and below elsewhere.
        net = detector(basis[number], bias=0.5)
        x, y = torch.full((40, 1, 8, 8), 0.5), torch.zeros(40, dtype=torch.int64)
        x = x - (x[0, 0] * basis[number]).sum() * basis[number]
        found = run(Fourier(rms=0.6 / 8), net, x, y).mean(0)
        wanted = torch.zeros(len(frequencies))
        assert torch.equal(found == 0, torch.arange(len(frequencies)) != number)
        assert 0.2 < found[number] < 0.8, "added as often as subtracted"
        # Just too weak.
        assert torch.equal(run(Fourier(rms=0.4 / 8), net, x, y).mean(0), wanted)


def test_waves_are_signed_for_each_image_and_channel() -> None:
    frequencies = half_plane(4, 4, stride=1)
    number = frequencies.tolist().index([1, 1])
    wave = waves(frequencies, 4, 4).float()[number]
    nothing = torch.zeros_like(wave)
    # Both channels up: a quarter of the images, unlike with one sign for all channels (half or none).
    both = detector(torch.stack([wave, wave]), bias=1.5)
    x, y = torch.zeros(400, 2, 4, 4), torch.zeros(400, dtype=torch.int64)
    assert 0.17 < run(Fourier(rms=1 / 4), both, x, y)[:, number].mean() < 0.33
    one = detector(torch.stack([wave, nothing]), bias=0.5)
    assert 0.4 < run(Fourier(rms=1 / 4), one, x, y)[:, number].mean() < 0.6


def test_clean_errors_count() -> None:
    net = detector(torch.zeros(8, 8), bias=1.0)
    found = run(Fourier(stride=4), net, torch.rand(3, 1, 8, 8), torch.tensor([0, 1, 0]))
    assert found.tolist() == [[0.0] * found.shape[1], [1.0] * found.shape[1], [0.0] * found.shape[1]]


def test_passes_are_cut_into_pieces_that_fit(trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(Fourier(), trained.model, trained.x[:10], trained.y[:10])
    monkeypatch.setattr("bascule.explanations.fourier._VALUES", 2000)
    assert torch.equal(run(Fourier(), trained.model, trained.x[:10], trained.y[:10]), whole)
    assert 0 < whole.mean() < 1


# --- pass filters ----------------------------------------------------------------------------------------------------


def test_filters_keep_their_own_side_of_the_cutoff() -> None:
    # An image that is one wave of radius 0.25 on grey; the detector sees that wave.
    frequencies = half_plane(8, 8, stride=1)
    number = frequencies.tolist().index([0, 2])
    wave = waves(frequencies, 8, 8).float()[number]
    x, y = 0.5 + wave.expand(2, 1, 8, 8), torch.tensor([1, 0])
    net = detector(wave, bias=0.5)
    cutoffs = (0.125, 0.25, 0.5)
    low = run(PassFilter(cutoffs=cutoffs), net, x, y)
    assert low.tolist() == [[0, 1, 1], [1, 0, 0]]
    high = run(PassFilter(keep="high", cutoffs=cutoffs), net, x, y)
    assert high.tolist() == [[1, 0, 0], [0, 1, 1]]
    # The mean stays on both sides.
    bright = detector(torch.full((8, 8), 1 / 64), bias=0.4)
    for keep in ("low", "high"):
        found = run(PassFilter(keep=keep, cutoffs=cutoffs), bright, x, torch.tensor([1, 1]))  # type: ignore[arg-type]
        assert found.all()


def test_filtered_images_are_as_numpy_makes_them() -> None:
    seen: list[Tensor] = []

    class Watch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.detach())
            return x.flatten(1)

    x = torch.rand(2, 3, 6, 5, generator=stream(0, "images"))
    run(PassFilter(cutoffs=(0.3,)), Watch(), x, torch.zeros(2, dtype=torch.int64))
    keep = np.hypot(np.fft.fftfreq(6)[:, None], np.fft.fftfreq(5)) <= 0.3
    wanted = np.clip(np.fft.ifft2(np.fft.fft2(x.numpy()) * keep).real, 0, 1)
    assert np.allclose(seen[0].numpy(), wanted, atol=1e-6)


def test_all_frequencies_kept_is_clean_accuracy(trained: Any) -> None:
    wrong = (trained.y[:20] + 1) % 10
    assert run(PassFilter(cutoffs=(0.8,)), trained.model, trained.x[:20], trained.y[:20]).all()
    assert not run(PassFilter(cutoffs=(0.8,)), trained.model, trained.x[:20], wrong).any()


# --- band energy -----------------------------------------------------------------------------------------------------


def test_the_energy_of_known_waves() -> None:
    frequencies = half_plane(8, 8, stride=1).tolist()
    basis = waves(half_plane(8, 8, stride=1), 8, 8).float()
    # Amplitudes 1 at radius 2 and 2 at radius 3.6 (ring 4): energies 1 and 4.
    net = detector(basis[frequencies.index([0, 2])], 2 * basis[frequencies.index([2, 3])])
    for score in ("loss", "logit"):
        found = run(BandEnergy(score=score), net, torch.rand(3, 1, 8, 8), torch.ones(3, dtype=torch.int64))  # type: ignore[arg-type]
        assert found.shape == (3, 7)
        assert torch.allclose(found, torch.tensor([0, 0, 0.2, 0, 0.8, 0, 0]).expand(3, 7), atol=1e-6)


def test_the_frequencies_are_the_rings_in_cycles_per_pixel() -> None:
    assert BandEnergy().frequencies(4, 4).flatten().tolist() == [0.0, 0.25, 0.5, 0.75]
    assert PassFilter(cutoffs=(0.1, 0.2)).frequencies(4, 4).flatten().tolist() == [0.1, 0.2]
    assert Fourier().frequencies(2, 4).tolist() == [[-0.5, 0.0], [-0.5, 0.25], [-0.5, 0.5], [0, 0], [0, 0.25], [0, 0.5]]


def test_no_gradient_no_energy() -> None:
    class Flat(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x.flatten(1).sum(1) * 0, x.flatten(1).sum(1) * 0], 1)

    assert run(BandEnergy(), Flat(), torch.rand(2, 1, 4, 4), torch.tensor([0, 1])).isnan().all()


def test_channels_are_taken_together_and_rings_sum_to_one(trained: Any) -> None:
    found = run(BandEnergy(), trained.model, trained.x[:50], trained.y[:50])
    assert torch.allclose(found.sum(1), torch.ones(50), atol=1e-5)
    wave = waves(half_plane(8, 8, stride=1), 8, 8).float()[7]
    other = waves(half_plane(8, 8, stride=1), 8, 8).float()[30]
    net = detector(torch.stack([wave, other]))
    found = run(BandEnergy(), net, torch.rand(1, 2, 8, 8), torch.tensor([0]))
    assert sorted(found[0].tolist())[-2:] == pytest.approx([0.5, 0.5], abs=1e-5)


# --- what is guaranteed ----------------------------------------------------------------------------------------------


class Scripted(Spectrum):
    """Responses as the test says."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def frequencies(self, height: int, width: int) -> Tensor:
        return torch.zeros(2, 1)

    def response(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        return self.values(x)


def test_a_response_that_is_not_finite_is_none() -> None:
    values = Scripted(lambda x: torch.tensor([[1.0, torch.inf]] * len(x)))
    found = run(values, detector(torch.zeros(2, 2)), torch.rand(3, 1, 2, 2), torch.zeros(3, dtype=torch.int64))
    assert found[:, 0].tolist() == [1.0] * 3
    assert found[:, 1].isnan().all()


def test_a_response_of_another_shape_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"shape \(1, 2\) for 3 images and 2 frequencies"):
        run(
            Scripted(lambda x: torch.ones(1, 2)),
            detector(torch.zeros(2, 2)),
            torch.rand(3, 1, 2, 2),
            torch.zeros(3, dtype=torch.int64),
        )
