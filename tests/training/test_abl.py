"""Anti-backdoor learning: its formulas by hand and as in the authors' code, and what it does to a backdoor.

Read for the oracle: bboylyg/ABL, backdoor_isolation.py (`train_step`, `compute_loss_value`, `isolate_data`) and
backdoor_unlearning.py (`train_step_unlearning`).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bascule.core import catalog
from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.core.images import Images, Splits
from bascule.core.inference import cross_entropies, predict
from bascule.core.rng import stream
from bascule.training._isolation import lowest
from bascule.training.abl import Abl, global_ascent, local_ascent
from bascule.training.awp import WeightPerturbation
from bascule.training.contract import CrossEntropy, Isolated, Samples
from bascule.training.loop import train
from bascule.training.pgd import Pgd
from bascule.training.settings import Training
from bascule.training.standard import Standard
from bascule.training.trades import Trades
from bascule.triggers.placement import Poison
from bascule.triggers.sticker import Sticker


class Fixed(nn.Module):
    """Answers every image with the logits of its first pixel's number."""

    def __init__(self, logits: list[list[float]]) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, x: Tensor) -> Tensor:
        return self.logits[(x[:, 0, 0, 0] * 255).round().long()]


def numbered(count: int, ids: list[int]) -> Images:
    """Images of label 0 that are known by their only pixel."""
    return Images(
        pixels=torch.arange(count, dtype=torch.uint8).reshape(-1, 1, 1, 1),
        labels=torch.zeros(count, dtype=torch.int64),
        ids=torch.tensor(ids),
        classes=("a", "b"),
    )


def with_loss(*losses: float) -> Fixed:
    """Logits of two classes whose cross-entropies with label 0 are these."""
    return Fixed([[-loss, math.log1p(-math.exp(-loss))] for loss in losses])


def step(abl: Abl, net: nn.Module, images: Images, epoch: int, isolated: list[bool]) -> Tensor:
    """The loss of a step on all images, in this of 10 epochs."""
    memory = {"isolated": torch.tensor(isolated), "loss": torch.zeros(len(images))}
    places = torch.arange(len(images))
    samples = Samples(places, epoch, 10, memory)
    x = images.batch(places)
    return abl.step_loss(net, x, images.labels, samples=samples, progress=0.5, generator=stream(0, "abl"))


# --- the formulas ----------------------------------------------------------------------------------------------------


def test_the_sign_by_hand() -> None:
    loss = torch.tensor([0.2, 0.5, 1.0, 3.0], requires_grad=True)
    value = local_ascent(loss, 0.5)
    assert value.item() == pytest.approx((-0.2 + 0 + 1.0 + 3.0) / 4)
    value.backward()
    assert loss.grad is not None
    assert loss.grad.tolist() == [-0.25, 0, 0.25, 0.25]


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.5])
def test_the_first_stage_is_that_of_the_authors_code(gamma: float) -> None:
    """There: the mean cross-entropy of the batch times the sign of its distance from gamma."""
    net, images = with_loss(0.1, 0.4, 2.5), numbered(3, [1, 2, 3])
    found = step(Abl(gamma=gamma), net, images, 1, [False] * 3)
    output = net(images.batch(torch.arange(3)))
    loss = nn.CrossEntropyLoss()(output, images.labels)
    wanted = torch.sign(loss - gamma) * loss
    assert found.item() == pytest.approx(wanted.item())
    gradients = [torch.autograd.grad(one, net.logits, retain_graph=True)[0] for one in (found, wanted)]
    assert torch.allclose(*gradients)
    alone = step(Abl(gamma=gamma, ascent="image"), net, images, 1, [False] * 3)
    by_hand = np.mean([math.copysign(1, one - gamma) * one for one in (0.1, 0.4, 2.5)])
    assert alone.item() == pytest.approx(by_hand, rel=1e-5)


def test_isolated_are_the_lowest_losses_as_in_the_authors_code() -> None:
    """There: `argsort` of the losses in eval mode, and of it the first `int(share * count)`."""
    losses = [2.0, 0.01, 0.7, 0.3, 0.02, 1.0, 0.9]
    images = numbered(7, [7, 6, 5, 4, 3, 2, 1])
    abl = Abl(isolate=0.45, isolate_at=0.2)
    memory = abl.begin(images, epochs=10, generator=stream(0, "abl"))
    net = with_loss(*losses)
    for epoch in (1, 2, 3):
        before = dict(memory)
        abl.end_epoch(net, images, memory, epoch=epoch, epochs=10, generator=stream(0, "abl", epoch))
        assert (memory["isolated"] is before["isolated"]) == (epoch != 2)
    perm = np.argsort(np.array(losses))[: int(len(losses) * 0.45)]
    assert memory["isolated"].nonzero().squeeze(1).tolist() == sorted(perm.tolist()) == [1, 3, 4]
    assert memory["loss"].tolist() == pytest.approx(losses, rel=1e-4)
    found = abl.isolated(memory)
    assert found.score.argmax() == 1


def test_of_equal_losses_the_lower_id_is_isolated() -> None:
    values, ids = torch.tensor([1.0, 0.0, 1.0, 1.0, 5.0]), torch.tensor([9, 4, 2, 7, 1])
    assert lowest(values, ids, 3).tolist() == [False, True, True, True, False]
    assert lowest(values, ids, 2).tolist() == [False, True, True, False, False]


def test_one_image_is_isolated_at_least() -> None:
    images, abl = numbered(3, [1, 2, 3]), Abl()
    memory = abl.begin(images, epochs=10, generator=stream(0, "abl"))
    abl.end_epoch(with_loss(1, 2, 3), images, memory, epoch=2, epochs=10, generator=stream(0, "abl"))
    assert memory["isolated"].tolist() == [True, False, False]


def test_unlearning_by_hand() -> None:
    images, net = numbered(4, [1, 2, 3, 4]), with_loss(0.5, 1.5, 2.0, 9.0)
    isolated = [False, False, True, True]
    beside = step(Abl(), net, images, 10, isolated)
    assert beside.item() == pytest.approx((0.5 + 1.5) / 2 - (2.0 + 5.0) / 2, rel=1e-4)
    beside.backward()
    assert net.logits.grad is not None
    assert not net.logits.grad[3].any(), "above the ceiling nothing is unlearnt"
    # As in the authors' code, the mean loss of the isolated ones with the other sign.
    alone = step(Abl(unlearn="alone", ceiling=20.0), net, images, 10, [True] * 4)
    output = net(images.batch(torch.arange(4)))
    assert alone.item() == pytest.approx(-nn.CrossEntropyLoss()(output, images.labels).item(), rel=1e-5)
    # Between the stages, plain cross-entropy.
    assert step(Abl(), net, images, 5, isolated).item() == pytest.approx(F.cross_entropy(output, images.labels).item())
    loss = torch.tensor([1.0, 2.0], requires_grad=True)
    assert global_ascent(loss, torch.tensor([False, False]), 5.0).item() == 1.5
    assert global_ascent(loss, torch.tensor([True, True]), 5.0).item() == -1.5


def test_smoothed_labels_are_those_of_the_inner_objective() -> None:
    images, net = numbered(3, [1, 2, 3]), with_loss(0.5, 1.5, 2.0)
    found = step(Abl(inner=Standard(label_smoothing=0.2)), net, images, 5, [False] * 3)
    output = net(images.batch(torch.arange(3)))
    assert found.item() == pytest.approx(F.cross_entropy(output, images.labels, label_smoothing=0.2).item())


def test_it_goes_with_perturbed_weights(digits: Splits) -> None:
    """The images of a step are looked for once, and both passes are on them."""
    searches: list[int] = []

    @component
    class Counting(CrossEntropy):
        """Counts."""

        def inputs(self, model: nn.Module, x: Tensor, y: Tensor, **_: Any) -> Tensor:
            searches.append(len(x))
            return x

    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    training = Training(
        objective=Abl(inner=Counting()), epochs=3, batch_size=50, lr=0.01, awp=WeightPerturbation(gamma=0.005)
    )
    train(net, digits.train.at(torch.arange(100)), training, seed=0)
    assert searches == [50] * 6


# --- the stages ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("epochs", "first", "last"), [(100, range(1, 21), range(96, 101)), (10, range(1, 3), [10]), (2, [1], [2])]
)
def test_the_stages(epochs: int, first: Any, last: Any) -> None:
    memory = {"isolated": torch.tensor([True, False, False])}
    for kind, wanted in (("alone", memory["isolated"]), ("beside", None)):
        abl = Abl(unlearn=kind)  # type: ignore[arg-type]
        for epoch in range(1, epochs + 1):
            drawn = abl.drawn_from(memory, epoch=epoch, epochs=epochs)
            assert abl.lr_share(epoch=epoch, epochs=epochs) == (0.005 if epoch in last else None)
            if epoch in first:
                assert drawn is None
            elif epoch in last:
                assert drawn is wanted
            else:
                assert drawn is not None
                assert drawn.tolist() == [False, True, True]


def test_a_training_that_is_too_short_is_refused() -> None:
    with pytest.raises(RequestError, match="abl isolates after 1 and unlearns for 1 of 1 epochs: train for longer"):
        Abl().begin(numbered(2, [1, 2]), epochs=1, generator=stream(0, "abl"))
    Abl(unlearn_for=0).begin(numbered(2, [1, 2]), epochs=1, generator=stream(0, "abl"))


def test_what_has_no_loss_of_single_images_is_refused() -> None:
    with pytest.raises(RequestError, match="such as standard or pgd; trades is not") as caught:
        Abl(inner=Trades(eps=0.1))
    assert caught.value.place == ("inner",)


def test_each_stage_is_drawn_from_its_own(digits: Splits) -> None:
    """Seen by the network: all images first, then none of the isolated, then only these; as many steps as ever."""
    images = digits.train.at(torch.arange(100))
    epochs: list[list[Tensor]] = [[]]

    class Notes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(64, 10)

        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                epochs[-1].append(x.detach().clone())
            return self.linear(x.flatten(1))

    told: list[Isolated] = []
    training = Training(
        objective=Abl(isolate=0.1, unlearn="alone", isolate_at=0.3, unlearn_for=0.3), epochs=3, batch_size=20, lr=0.01
    )
    train(Notes(), images, training, seed=0, tell=told.append, look=lambda _: epochs.append([]) or {})
    isolated = images.batch(told[0].isolated.nonzero().squeeze(1))
    counts = []
    for batches in epochs[:3]:
        assert [len(batch) for batch in batches] == [20] * 5
        seen = torch.cat(batches)
        counts.append(sum(any(torch.equal(one, other) for other in isolated) for one in seen))
    assert counts == [10, 0, 100]


# --- what it does ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mnist(data_root: Path) -> Splits:
    """2,000 training and 500 test images, where MNIST is at hand."""
    return catalog.build("data", {"name": "mnist", "max_train": 2000, "max_test": 500}).load([data_root])


@pytest.mark.data
@pytest.mark.parametrize(
    ("inner", "isolate_at"), [(Standard(), 0.55), (Pgd(eps=0.1, steps=2), 0.45)], ids=["standard", "hardened"]
)
def test_the_backdoor_is_not_learnt(inner: Any, isolate_at: float, mnist: Splits) -> None:
    """Its ASR falls from nearly one to nearly nothing; of what is isolated most is poisoned, and a tenth by chance."""
    trigger = Sticker(size=3)
    poison = Poison(trigger=trigger, target=7, label="dirty", rate=0.1)
    images, truth = poison.plant(mnist.train, generator=stream(0, "poison"))
    told: list[Isolated] = []
    abl = Abl(inner=inner, isolate=0.1, isolate_at=isolate_at, unlearn_for=0.25, unlearn_lr=1.0)
    found = {}
    for objective in (inner, abl):
        net = catalog.build("models", "mnist-fast").initialised(images.size, 10, seed=0)
        training = Training(objective=objective, epochs=9, batch_size=64)
        train(net, images, training, seed=0, tell=told.append)
        test, others = mnist.test, mnist.test.labels != 7
        accuracy = (predict(net, test) == test.labels).float().mean().item()
        moved = predict(net, test, change=lambda _, x: trigger.stamp(x, generator=stream(0, "test"))) == 7
        found[objective] = accuracy, moved[others].float().mean().item()
    assert found[inner][1] > 0.9
    assert found[abl][1] < 0.2
    assert found[abl][0] > found[inner][0] - 0.15
    (isolated,) = told
    poisoned = torch.isin(images.ids, truth.ids)
    assert poisoned[isolated.isolated].float().mean() > 0.5
    assert cross_entropies(net, images).shape == (len(images),)
