"""A batch in shares is one step, whoever takes them: one process or several, also after an interruption."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import shared_trainings
from bascule.core import rng
from bascule.core.errors import RequestError
from bascule.core.images import Images
from bascule.core.team import ALONE, Team
from bascule.testing.cases import digits
from bascule.training import loop
from bascule.training.contract import Course, Memory, Samples
from bascule.training.loop import train
from bascule.training.settings import Augment, Training
from bascule.training.shares import check_shares
from shared_trainings import IMAGES, SYNCED, Taken, plain, synced, taken, trainings
from teams import members

ByTwo = tuple[dict[str, Taken], dict[str, dict[str, Tensor]]]


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory) -> ByTwo:
    """All trainings, taken by two processes together, and those with synchronised batch norm."""
    file = tmp_path_factory.mktemp("shares") / "found"
    started = members([shared_trainings.__file__, str(file)])
    for member in started:
        member.communicate(timeout=300)
    assert [member.returncode for member in started] == [0, 0]
    found, together = torch.load(file, weights_only=False)
    return {name: Taken(*values) for name, values in found.items()}, together


def check_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    for name, value in one.items():
        torch.testing.assert_close(
            value, other[name], atol=1e-5, rtol=1e-5, msg=lambda text, name=name: f"{name} {text}"
        )


@pytest.mark.parametrize("name", trainings())
def test_two_processes_end_as_one_does(name: str, by_two: ByTwo) -> None:
    alone, together = taken(trainings()[name]), by_two[0][name]
    assert alone.losses == pytest.approx(together.losses, abs=1e-5)
    check_same(alone.weights, together.weights)


@pytest.mark.parametrize("name", trainings())
def test_one_goes_on_where_two_were_stopped(name: str, by_two: ByTwo) -> None:
    together = by_two[0][name]
    alone = taken(trainings()[name], checkpoint=together.checkpoint)
    assert alone.losses == pytest.approx(together.losses, abs=1e-5)
    check_same(alone.weights, together.weights)


@pytest.mark.parametrize("name", SYNCED)
def test_synchronised_batch_norm_is_that_of_the_whole_batch(name: str, by_two: ByTwo) -> None:
    check_same(synced(name), by_two[1][name])


def small() -> nn.Module:
    with rng.borrowed_global_stream(0, "net"):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))


def trained(training: Training, net: nn.Module | None = None, images: Images = IMAGES) -> dict[str, Tensor]:
    net = small() if net is None else net
    train(net, images, training, seed=1)
    return dict(net.state_dict())


def test_the_mean_of_the_shares_is_the_mean_of_the_batch() -> None:
    """Where nothing is drawn and no layer looks at other images."""
    for clip_norm in (None, 0.1):
        whole = trained(plain(clip_norm=clip_norm))
        for shares in (2, 3, 12):
            check_same(trained(plain(clip_norm=clip_norm, shares=shares)), whole)


def test_one_share_is_the_whole_to_the_byte() -> None:
    training = replace(plain(), augment=Augment(pad=1))
    whole, again = trained(training), trained(replace(training, shares=1))
    assert all(torch.equal(value, again[name]) for name, value in whole.items())


def test_a_step_by_hand() -> None:
    """Two shares with batch norm and dropout: each normalised by itself, drawn from streams of their own."""
    images = digits().train.at(torch.arange(6))
    with rng.borrowed_global_stream(0, "net"):
        net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(0.5), nn.Linear(64, 10))
        net.register_buffer("steady", torch.tensor([0.1, torch.inf]))
    mean, variance = torch.zeros(64), torch.ones(64)
    weights = net[3].weight.detach().clone().requires_grad_()
    places = torch.randperm(6, generator=rng.stream(1, "order", 0))
    losses, moved = [], []
    for share, stream in ((0, ()), (1, ("share", 1))):
        x = images.batch(places[3 * share : 3 * share + 3]).flatten(1)
        with rng.borrowed_global_stream(1, "step", 0, *stream):
            normal = F.dropout((x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt(), 0.5)
        losses.append(
            F.cross_entropy(normal @ weights.T + net[3].bias.detach(), images.labels[places][3 * share :][:3])
        )
        moved.append((x.mean(0), x.var(0)))
    sum(losses).div(2).backward()  # type: ignore[union-attr]
    settings: dict[str, Any] = {"epochs": 1, "batch_size": 6, "lr": 0.5, "momentum": 0.0}
    found = trained(replace(plain(shares=2), **settings), net, images)
    assert weights.grad is not None
    torch.testing.assert_close(found["3.weight"], weights.detach() - 0.5 * weights.grad)
    torch.testing.assert_close(found["1.running_mean"], mean + 0.1 * (moved[0][0] + moved[1][0]) / 2)
    torch.testing.assert_close(found["1.running_var"], 0.9 * variance + 0.1 * (moved[0][1] + moved[1][1]) / 2)
    assert found["1.num_batches_tracked"] == 1
    assert torch.equal(found["steady"], torch.tensor([0.1, torch.inf]))


def test_a_buffer_that_changes_its_shape_is_left_alone() -> None:
    class Growing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = small()
            self.register_buffer("seen", torch.ones(1))

        def forward(self, x: Tensor) -> Tensor:
            self.seen = torch.ones(len(self.seen) + 1)
            answer: Tensor = self.net(x)
            return answer

    assert len(trained(replace(plain(shares=2), epochs=1), Growing())["seen"]) > 2


def test_a_parameter_that_no_share_learns_from_stays() -> None:
    class Aside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = small(), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            answer: Tensor = self.used(x)
            return answer

    found = trained(replace(plain(shares=2), weight_decay=0.1), net := Aside())
    with rng.borrowed_global_stream(0, "net"):
        small()
    assert torch.equal(found["unused.weight"], net.unused.weight)
    assert net.unused.weight.grad is None


# --- what is refused -------------------------------------------------------------------------------------------------


def test_what_cannot_be_cut_or_divided() -> None:
    with pytest.raises(RequestError, match=r"^shares: a batch of 12 images cannot be cut into 5 equal shares: let"):
        plain(shares=5)
    with pytest.raises(RequestError, match=r"^shares: the whole set of 7 images is one batch, which cannot be cut"):
        trained(plain(shares=2), images=IMAGES.at(torch.arange(7)))
    with pytest.raises(RequestError, match=r"^shares: 4 processes train together, .* has 2 shares, which they cannot"):
        check_shares(plain(shares=2), Team(0, 4))
    with pytest.raises(RequestError, match=r"^sync_batch_norm: .* here are 2 shares and 1 process\. Start as many"):
        trained(plain(shares=2, sync_batch_norm=True))
    check_shares(plain(shares=4), Team(0, 2))
    check_shares(plain(shares=2, sync_batch_norm=True), Team(0, 2))


class Noting(Course):
    """A course whose steps write down what they have seen."""

    def begin(self, images: Images, *, epochs: int, generator: torch.Generator) -> Memory:
        return {"seen": torch.zeros(len(images), dtype=torch.bool)}

    def step_loss(
        self, model: nn.Module, x: Tensor, y: Tensor, *, samples: Samples, progress: float, generator: torch.Generator
    ) -> Tensor:
        samples.memory["seen"][samples.places] = True
        return F.cross_entropy(model(x), y)


def test_a_course_whose_steps_remember() -> None:
    training = replace(plain(), objective=Noting())
    trained(training)
    with pytest.raises(RequestError, match="remembers something of the images of a step, which the shares of a batch"):
        trained(replace(training, shares=2))


def test_captured_steps_are_for_whole_batches(recwarn: pytest.WarningsRecorder) -> None:
    net = small()
    train(net, IMAGES, plain(shares=2), seed=1, capture_steps=True, team=ALONE)
    assert "steps are not captured: the batch is cut into shares" in str(recwarn.pop(UserWarning).message)
    check_same(dict(net.state_dict()), trained(plain(shares=2)))


@pytest.mark.parametrize("begun", [0, 20])
def test_a_team_asks_for_the_time_now_and_then(begun: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step takes 0.1 s and a checkpoint is due after 30: half-way there, half-way through the rest, and so on; after
    twice as many steps at the latest. A device may have so many steps begun that none of them seems to take long."""

    class Pair(Team):
        def agreed(self, value: Any) -> Any:
            asked.append(done.steps)
            return value

    asked: list[int] = []
    done = loop._Done(torch.zeros(1), at_epoch=lambda _: None, checkpoints=loop.NoCheckpoints(), began=0, saved=0)
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: max(0.01, (done.steps - begun) / 10)))
    for done.steps in range(1, 4000):
        if done.is_due(30, Pair(0, 2)):
            break
    later = {0: [213, 256, 277, 288, 293, 296, 297, 298, 299, 300], 20: [241, 284, 303, 312, 316, 318, 319, 320]}
    assert asked == [1, 2, 4, 8, 16, 32, 64, 128, *later[begun]]
