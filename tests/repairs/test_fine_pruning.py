"""What fine-pruning cuts, how much, and that it stays cut."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bascule.core.errors import RequestError
from bascule.core.images import Images
from bascule.core.rng import stream
from bascule.repairs.fine_pruning import FinePruning
from bascule.repairs.run import run_repair


def cut(model: nn.Module, name: str, channels: int) -> list[bool]:
    """For each channel, whether the linear layer takes nothing from it."""
    weight = model.get_submodule(name).weight
    assert isinstance(weight, torch.Tensor)
    return (weight.reshape(len(weight), channels, -1) == 0).all(2).all(0).tolist()


@pytest.fixture
def graded(plain: nn.Module, some: Images) -> tuple[nn.Module, Images]:
    """Channel k of the last convolution is k everywhere; labels are the model's own answers without channels 0 to 2."""
    with torch.no_grad():
        plain[2].weight.zero_()
        plain[2].bias.copy_(torch.arange(5.0))
        plain[5].weight.reshape(7, 5, 9)[:, 3:] *= 10
    x = some.batch(some.ids)
    return plain, Images(pixels=some.pixels, labels=plain(x).argmax(1), ids=some.ids, classes=some.classes)


def test_the_least_active_channels_are_cut(graded: tuple[nn.Module, Images]) -> None:
    model, images = graded
    for share, count in ((0.0, 0), (0.39, 1), (0.4, 2), (0.6, 3)):
        found = run_repair(
            model, FinePruning(epochs=0, max_drop=1.0, max_share=share), images, generator=stream(0, "r")
        )
        assert cut(found.model, "5", 5) == [k < count for k in range(5)]
        assert found.notes["pruned"] == count
        assert found.notes["channels"] == 5
    # Channel 0 is silent, so it can go at no cost.
    found = run_repair(model, FinePruning(epochs=0, max_drop=0.0), images, generator=stream(0, "r"))
    assert found.notes["pruned"] >= 1


def test_no_more_are_cut_than_the_accuracy_bears(plain: nn.Module, some: Images) -> None:
    images = Images(
        pixels=some.pixels, labels=plain(some.batch(some.ids)).argmax(1), ids=some.ids, classes=some.classes
    )
    counts = []
    for bound in (0.0, 0.1, 0.3, 1.0):
        found = run_repair(plain, FinePruning(epochs=0, max_drop=bound), images, generator=stream(0, "r"))
        right = (found.model(images.batch(images.ids)).argmax(1) == images.labels).double().mean()
        assert found.notes["drop"] == pytest.approx(1 - float(right))
        assert found.notes["drop"] <= bound
        counts.append(found.notes["pruned"])
    assert counts == sorted(counts)
    assert counts[-1] == 5


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_what_is_cut_stays_cut(plain: nn.Module, some: Images, optimizer: str) -> None:
    repair = FinePruning(epochs=3, max_drop=1.0, max_share=0.6, optimizer=optimizer, weight_decay=0.01)  # type: ignore[arg-type]
    found = run_repair(plain, repair, some, generator=stream(0, "r"))
    assert sum(cut(found.model, "5", 5)) == 3
    assert not torch.equal(found.model.state_dict()["5.bias"], plain.state_dict()["5.bias"])
    kept = found.model.state_dict()["5.weight"] != 0
    assert not torch.equal(found.model.state_dict()["5.weight"][kept], plain.state_dict()["5.weight"][kept])


def test_pooled_channels_and_residual_sums(residual: nn.Module, some: Images) -> None:
    found = run_repair(residual, FinePruning(epochs=0, max_drop=1.0, max_share=0.5), some, generator=stream(0, "r"))
    assert sum(cut(found.model, "fc", 4)) == 2


@pytest.mark.parametrize(
    ("net", "problem"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(36, 5), nn.Linear(5, 3)), "the model has none"),
        (nn.Sequential(nn.Conv2d(1, 3, 6), nn.Flatten()), "what follows in this model is nothing"),
        (nn.Sequential(nn.Conv2d(1, 5, 5), nn.Flatten(), nn.BatchNorm1d(20), nn.Linear(20, 3)), None),
        (
            nn.Sequential(nn.Conv2d(1, 5, 5), nn.AvgPool3d((3, 1, 1)), nn.Flatten(), nn.Linear(4, 3)),
            "takes the 5 chann",
        ),
        (nn.Sequential(nn.Conv2d(1, 2, 5), nn.Linear(2, 2), nn.Flatten(), nn.Linear(8, 3)), "one vector per image"),
    ],
)
def test_networks_it_cannot_work_on(net: nn.Module, problem: str | None, some: Images) -> None:
    if problem is None:
        run_repair(net, FinePruning(epochs=0), some, generator=stream(0, "r"))
    else:
        with pytest.raises(RequestError, match=problem) as caught:
            run_repair(net, FinePruning(epochs=0), some, generator=stream(0, "r"))
        assert "fine-tune" in str(caught.value)
