"""The two-component test on classes whose split is known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bascule.core.features import features
from bascule.core.images import Images
from bascule.core.rng import stream
from bascule.filters.rules import anomaly_index
from bascule.filters.run import run_filter
from bascule.filters.two_component import TwoComponent, _WithinClasses


def six_classes(shift: int) -> Tensor:
    """80 images of each of six classes, 10 wide, noise of their own; a fifth of class 2 lies apart by `shift`."""
    rows = torch.randint(0, 41, (480, 10), generator=stream(0, "rows")) + 60
    rows += 12 * torch.arange(6).repeat_interleave(80).unsqueeze(1)
    rows[160:176, 4] += shift
    return rows


def test_the_class_with_two_groups_loses_the_smaller(
    vectors: Callable[..., Images], reader: Callable[..., nn.Module]
) -> None:
    images = vectors(six_classes(70), torch.arange(6).repeat_interleave(80))
    found = run_filter(reader(10, 6), TwoComponent(), images, generator=stream(0, "a"))
    assert found.removed.nonzero().squeeze(1).tolist() == list(range(160, 176))
    others = torch.cat([found.score[:160], found.score[176:]])
    assert found.score[160:176].min() > others.max()


def test_classes_of_one_group_lose_nothing(vectors: Callable[..., Images], reader: Callable[..., nn.Module]) -> None:
    images = vectors(six_classes(0), torch.arange(6).repeat_interleave(80))
    assert not run_filter(reader(10, 6), TwoComponent(), images, generator=stream(0, "a")).removed.any()


def test_a_class_is_measured_by_the_variation_of_the_others(
    vectors: Callable[..., Images], reader: Callable[..., nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Class 0 at 100 +- 40, the others at 100 +- 10: variances 1600, 100, 100. The gain is half of what the split
    # explains in units of the others' variance: 1600 / 100 / 2 for class 0 and 100 / 850 / 2 for the others.
    away = torch.tensor([40, -40] * 20 + [10, -10] * 40)
    rows = torch.stack([100 + away, torch.zeros(120, dtype=torch.int64)], 1)
    gains: list[float] = []
    monkeypatch.setattr(
        "bascule.filters.two_component.anomaly_index", lambda values: gains.extend(values.tolist()) or values
    )
    images = vectors(rows, torch.arange(3).repeat_interleave(40))
    found = run_filter(reader(2, 3), TwoComponent(threshold=7.0), images, generator=stream(0, "a"))
    assert gains == pytest.approx([8, 1 / 17, 1 / 17], rel=1e-3)
    assert found.removed.sum() == 20
    assert found.removed[40:].sum() == 0


def test_features_are_centred_class_by_class(vectors: Callable[..., Images], reader: Callable[..., nn.Module]) -> None:
    rows = torch.tensor([[0, 0], [51, 0], [100, 100], [0, 102], [100, 100]])
    labels = torch.tensor([0, 0, 1, 0, 1])
    within = _WithinClasses(features(reader(2, 2), vectors(rows, labels), batch_size=2), 2)
    found = torch.cat(list(within.chunks())) * 255
    wanted = torch.tensor([[-17.0, -34], [34, -34], [0, 0], [-17, 68], [0, 0]])
    assert torch.allclose(found, wanted, atol=1e-4)


def test_anomaly_index_by_hand() -> None:
    # Median 3, absolute deviations 2 1 0 1 7, their median 1.
    found = anomaly_index(torch.tensor([1.0, 2, 3, 4, 10]))
    assert torch.allclose(found, torch.tensor([-2.0, -1, 0, 1, 7]) / 1.4826)
    assert anomaly_index(torch.full((4,), 2.0)).tolist() == [0, 0, 0, 0]
    assert anomaly_index(torch.tensor([2.0, 2, 2, 3]))[3] > 1e4


def test_anomaly_index_of_an_even_number_of_values() -> None:
    # Median 5.5, absolute deviations 0.5 to 4.5 twice each but one 4.5, which is 14.5: their median is 2.5.
    found = anomaly_index(torch.tensor([1.0, 2, 3, 4, 5, 6, 7, 8, 9, 20]))
    assert float(found[-1]) == pytest.approx(14.5 / (1.4826 * 2.5))
    assert float(found[-1]) == pytest.approx(3.91, abs=5e-3)
