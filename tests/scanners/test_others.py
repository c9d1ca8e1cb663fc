"""The scanners beside Neural Cleanse, on models whose answer is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bascule.core.errors import RequestError
from bascule.core.features import last_linear
from bascule.core.images import Images
from bascule.core.restore import untouched
from bascule.core.rng import stream
from bascule.scanners.feature_inversion import FeatureInversion, FeatureMask, _inputs
from bascule.scanners.mm_bd import MmBd
from bascule.scanners.run import run_scanner


def images(count: int = 12, classes: int = 4) -> Images:
    return Images(
        pixels=torch.randint(256, (count, 1, 2, 3), dtype=torch.uint8, generator=stream(0, "images")),
        labels=torch.arange(count) % classes,
        ids=torch.arange(count),
        classes=tuple("abcd"[:classes]),
    )


def linear(weights: Tensor) -> nn.Module:
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, len(weights), bias=False)).requires_grad_(False)
    net[1].weight.copy_(weights)
    return net


def test_margins_of_a_linear_model() -> None:
    # Rows with disjoint pixels: the largest margin of class k has its pixels white and all others black.
    weights = torch.zeros(4, 6)
    weights[0, 0], weights[1, 1], weights[2, 2:4], weights[3, 4:] = 2.0, 3.0, 2.0, 10.0
    found = run_scanner(linear(weights), MmBd(), images(), generator=stream(0, "scan"))
    assert found.details["margin"].tolist() == pytest.approx([2, 3, 4, 20])
    assert found.suspects == (3,)
    assert found.pattern is None
    assert found.passes is not None
    # 100 steps and one last look, 30 starts for each of 4 classes.
    assert found.passes == (101 * 120, 100 * 120)


def test_margins_need_no_images_but_for_their_size() -> None:
    weights = torch.rand(4, 6, generator=stream(0, "weights"))
    first, second = (run_scanner(linear(weights), MmBd(), images(n), generator=stream(0, "scan")) for n in (12, 5))
    assert torch.equal(first.anomaly, second.anomaly)


def test_the_significance_is_the_threshold() -> None:
    model = linear(torch.rand(4, 6, generator=stream(0, "weights")))
    thresholds = [
        run_scanner(model, MmBd(significance=s), images(), generator=stream(0, "s")).threshold for s in (0.05, 0.01)
    ]
    assert thresholds == pytest.approx([1.30103, 2.0])


class Reordered(nn.Module):
    """The linear layer that runs last is made first."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(5, 4)
        self.first = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x.flatten(1)))) * 2


def test_features_are_the_input_of_the_linear_layer_that_runs_last() -> None:
    model, of = Reordered().requires_grad_(False), images()
    assert last_linear(model, of.batch(torch.arange(1))) == "last"
    x = of.batch(torch.arange(12))
    expected = torch.relu(model.first(x.flatten(1)))
    torch.testing.assert_close(_inputs(model, model.last, of, batch_size=5), expected)


def test_masked_features_become_the_mean_of_the_stamped_ones() -> None:
    model, of = Reordered().requires_grad_(False), images()
    features = _inputs(model, model.last, of)
    form = FeatureMask(of.size, model.last, features, 0.1)
    index = torch.tensor([[0, 5, 7], [2, 2, 9]])
    stamped = torch.rand(2, 3, 1, 2, 3, generator=stream(0, "stamped"))
    inner = torch.tensor([[0.0, 1.0, 0.25, 0.0, 0.0], [0.0] * 5])
    with untouched(model):
        logits = form.logits(model, stamped, inner, index)
    assert logits.shape == (2, 3, 4)
    mean = torch.relu(model.first(stamped[0].flatten(1))).mean(0)
    for place, image in enumerate([0, 5, 7]):
        mixed = features[image].clone()
        mixed[1], mixed[2] = mean[1], 0.75 * mixed[2] + 0.25 * mean[2]
        torch.testing.assert_close(logits[0, place], model.last(mixed) * 2)
    # Nothing masked: the clean images' own answers, whatever is stamped.
    torch.testing.assert_close(logits[1], model(of.batch(index[1])))


def test_a_model_without_a_linear_layer_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(RequestError, match="no linear layer"):
        run_scanner(model, FeatureInversion(), images(), generator=stream(0, "scan"))
