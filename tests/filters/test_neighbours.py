"""Labels of neighbours, worked out by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from bascule.core.errors import RequestError
from bascule.core.images import Images
from bascule.core.rng import stream
from bascule.filters.neighbours import Neighbours
from bascule.filters.run import run_filter


def test_neighbours_by_hand(vectors: Callable[..., Images], reader: Callable[..., nn.Module]) -> None:
    # Two places: 0 1 2 3 and 200 201 202 203; the image at 3 carries the label of the other place.
    rows = torch.tensor([[0], [1], [2], [3], [200], [201], [202], [203]]).repeat(1, 2)
    images = vectors(rows, torch.tensor([0, 0, 0, 1, 1, 1, 1, 1]))
    found = run_filter(reader(2, 2), Neighbours(k=3), images, generator=stream(0, "a"))
    assert found.score.tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 1, 0, 0, 0, 0])
    assert found.removed.nonzero().squeeze(1).tolist() == [3]


def test_a_tie_is_no_reason_to_remove(vectors: Callable[..., Images], reader: Callable[..., nn.Module]) -> None:
    rows = torch.tensor([[0], [1], [2]]).repeat(1, 2)
    images = vectors(rows, torch.tensor([0, 1, 0]))
    found = run_filter(reader(2, 2), Neighbours(k=2), images, generator=stream(0, "a"))
    assert found.score.tolist() == pytest.approx([0.5, 1, 0.5])
    assert found.removed.tolist() == [False, True, False]


def test_more_neighbours_than_images_are_refused(
    vectors: Callable[..., Images], reader: Callable[..., nn.Module]
) -> None:
    with pytest.raises(RequestError, match="k: 50 neighbours of 3 images"):
        run_filter(reader(2, 2), Neighbours(), vectors(torch.zeros(3, 2), torch.arange(3)), generator=stream(0, "a"))


def test_long_features_are_cut_down_to_principal_coordinates(
    vectors: Callable[..., Images], reader: Callable[..., nn.Module]
) -> None:
    rows = torch.randint(0, 3, (60, 40), generator=stream(0, "rows"))
    rows[::2, :20] += 100
    images = vectors(rows, torch.arange(60) % 2)
    found = run_filter(reader(40, 2), Neighbours(k=5, dimensions=1), images, generator=stream(0, "a"))
    assert found.score.max() == 0
