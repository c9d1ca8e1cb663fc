"""Gram statistics against the full matrices, and an image that fires in an odd way."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bascule.core.images import Images
from bascule.core.rng import stream
from bascule.filters.gram import Gram, _channels_first, gram_sums
from bascule.filters.run import run_filter


def by_matrices(maps: Tensor, order: int) -> Tensor:
    power = maps.double().flatten(2) ** order
    matrix = power @ power.transpose(1, 2)
    sums = matrix.sum(2)
    return (sums.sign() * sums.abs() ** (1 / order)).float()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
def test_sums_are_those_of_the_gram_matrices(scale: float) -> None:
    maps = scale * torch.randn(5, 4, 3, 2, generator=stream(0, "maps"))
    found = gram_sums(maps, 3)
    for order in (1, 2, 3):
        part, wanted = found[:, 4 * (order - 1) : 4 * order], by_matrices(maps, order)
        # An order's p-th root is in units of the maps squared.
        assert torch.allclose(part / scale**2, wanted / scale**2, rtol=1e-3, atol=1e-3)


def test_sums_by_hand() -> None:
    # One position: f = (1, 2). Order 1: rows f f^T sum to (1 x 3, 2 x 3); order 2: squares (1, 4): sqrt(5), sqrt(20).
    assert gram_sums(torch.tensor([[1.0, 2.0]]), 2)[0].tolist() == pytest.approx([3, 6, 5**0.5, 20**0.5])
    assert gram_sums(torch.zeros(1, 2), 3)[0].tolist() == [0] * 6
    assert gram_sums(torch.full((1, 2), 1e12), 8).isfinite().all()


def test_an_image_that_fires_otherwise_is_found_in_its_class(
    vectors: Callable[..., Images], reader: Callable[..., nn.Module]
) -> None:
    rows = torch.randint(90, 111, (80, 6), generator=stream(0, "rows"))
    rows[40:] = rows[40:].flip(1) + 60  # the other class is brighter: no anomaly within it
    rows[[3, 50]] = torch.tensor([100, 100, 100, 100, 240, 0])
    images = vectors(rows, torch.arange(2).repeat_interleave(40))
    found = run_filter(reader(6, 2), Gram(), images, generator=stream(0, "a"))
    assert found.removed.nonzero().squeeze(1).tolist() == [3, 50]


def test_a_channel_that_is_silent_in_most_images_counts(
    vectors: Callable[..., Images], reader: Callable[..., nn.Module]
) -> None:
    rows = torch.randint(90, 111, (40, 6), generator=stream(0, "rows"))
    rows[:, 5] = 0
    rows[7, 5] = 90
    images = vectors(rows, torch.zeros(40), 2)
    found = run_filter(reader(6, 2), Gram(), images, generator=stream(0, "a"))
    assert found.score.argmax() == 7
    assert found.removed[7]
    assert found.score[7] < 1e3  # one channel of six, not all there is


def test_the_channels_of_tokens_come_last() -> None:
    tokens, maps = torch.arange(12.0).reshape(2, 2, 3), torch.arange(24.0).reshape(2, 3, 2, 2)
    assert torch.equal(_channels_first(tokens.flatten(1), (2, 3)), tokens.transpose(1, 2))
    assert torch.equal(_channels_first(maps.flatten(1), (3, 2, 2)), maps)
    assert torch.equal(_channels_first(tokens.flatten(1), (6,)), tokens.flatten(1))
