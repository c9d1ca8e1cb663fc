"""Captured steps, rehearsed: the same bytes as steps taken one by one, whatever the objective, wherever interrupted."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bascule.core import catalog
from bascule.core.catalog import component
from bascule.core.errors import DivergedError, RequestError
from bascule.core.images import Images
from bascule.core.restore import repeatable
from bascule.training.awp import WeightPerturbation
from bascule.training.capture import CudaGraphs, check_captures
from bascule.training.contract import Objective
from bascule.training.crop import ResizedCrop
from bascule.training.lipschitz import Lipschitz
from bascule.training.loop import train
from bascule.training.pgd import Pgd
from bascule.training.rehearsal import CannotCaptureError, Rehearsal
from bascule.training.settings import Augment, Training
from bascule.training.standard import Standard
from objectives import objective

STEPS = 12
"""Of the settings below on the 70 images of the fixture `few`."""


def settings(**changes: Any) -> Training:
    given = {"objective": Standard(), "epochs": 3, "batch_size": 16, "lr": 0.01, "schedule": "one-cycle"}
    return Training(**{**given, **changes})


OBJECTIVES = {name: objective(name) for name in catalog.names("train")}
CASES = {
    **{name: settings(objective=made) for name, made in OBJECTIVES.items() if made.steady_from is not None},
    "augmented": settings(augment=Augment(pad=1, flip=True)),
    "sgd": settings(optimizer="sgd", lr=0.05, weight_decay=0.01, objective=Pgd(eps=0.1, steps=2, batch_norm="batch")),
    "no-momentum": settings(optimizer="sgd", momentum=0.0),
    "adamw": settings(optimizer="adamw", weight_decay=0.1),
    "bfloat16": settings(objective=Pgd(eps=0.1, steps=2), precision="bfloat16"),
    "l2-restarts": settings(objective=Pgd(norm="l2", eps=0.5, steps=2, restarts=2)),
    "warm-up": settings(objective=Pgd(eps=0.1, steps=2, warmup=0.4)),
    "lipschitz-pgd": settings(objective=Lipschitz(inner=Pgd(eps=0.1, steps=1), estimate="random")),
    "clipped": settings(optimizer="sgd", lr=0.5, clip_norm=0.1),
    "smoothed": settings(objective=Pgd(eps=0.1, steps=1, label_smoothing=0.1)),
    "resized": settings(augment=Augment(resized_crop=ResizedCrop(), flip=True)),
    "averaged": settings(ema=0.9),
    "perturbed": settings(objective=Pgd(eps=0.1, steps=1), awp=WeightPerturbation(gamma=0.05, warmup=0.4)),
}


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for every captured step, the one that is compared among them."""
    found: list[int] = []

    def counting(recorder: type) -> None:
        record = recorder.record

        def recorded(self: Any, body: Callable[[], Tensor]) -> Callable[[], Tensor]:
            replay = record(self, body)
            return lambda: (found.append(0), replay())[1]

        monkeypatch.setattr(recorder, "record", recorded)

    counting(Rehearsal)
    counting(CudaGraphs)
    return found


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """Rehearsed, and as graphs where there is CUDA."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA here")
    found = torch.device(request.param)
    with repeatable(found):
        yield found


def result(model: nn.Module, curve: list[dict[str, float]]) -> list[Any]:
    untimed = [{key: value for key, value in entry.items() if key != "seconds"} for entry in curve]
    return [*(value.tolist() for value in model.state_dict().values()), untimed]


@pytest.mark.parametrize("training", CASES.values(), ids=CASES.keys())
def test_captured_or_not_a_training_ends_in_the_same_bytes(
    training: Training, few: Images, make_net: Callable, kept: Callable, replays: list[int], device: torch.device
) -> None:
    few = few.to(device)
    plain, captured, begun = make_net().to(device), make_net().to(device), kept()
    wanted = result(plain, train(plain, few, training, seed=5))
    found = train(captured, few, training, seed=5, checkpoints=begun, checkpoint_seconds=0, capture_steps=True)
    assert result(captured, found) == wanted
    first = math.ceil(STEPS * (training.steady_from or 0))
    assert len(replays) == STEPS - first - 3, "the first steps, and no others, are taken one by one"
    assert all(parameter.grad is None for parameter in captured.parameters()), "they lie in the memory of the graph"
    # Interrupted, and continued the other way.
    for way, place in ((False, 6), (True, 2)):
        model = make_net(seed=99).to(device)
        again = train(model, few, training, seed=5, checkpoints=kept(begun.states[place]), capture_steps=way)
        assert result(model, again) == wanted


def test_checkpoints_do_not_tell(few: Images, make_net: Callable, kept: Callable) -> None:
    states = []
    for way in (False, True):
        checkpoints = kept()
        train(make_net(), few, settings(), seed=0, checkpoints=checkpoints, checkpoint_seconds=0, capture_steps=way)
        states.append(checkpoints.load()["optimizer"]["param_groups"])
    assert states[0] == states[1]
    assert all(type(group["lr"]) is float for group in states[1])


def test_pixels_elsewhere_are_brought_to_the_step(few: Images, make_net: Callable, replays: list[int]) -> None:
    class Decoded:
        """As pictures that are read from files."""

        shape = few.pixels.shape

        def __getitem__(self, index: Tensor) -> Tensor:
            assert not torch.utils._python_dispatch._get_current_dispatch_mode_stack(), "read within a captured step"
            return few.pixels[index]

    far = Images(pixels=Decoded(), labels=few.labels, ids=few.ids, classes=few.classes)
    found = []
    for images, way in ((few, False), (far, True)):
        net = make_net()
        found.append(result(net, train(net, images, settings(), seed=0, capture_steps=way)))
    assert found[0] == found[1]
    assert len(replays) == STEPS - 3


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_what_progress_changes_is_not_called_steady(name: str, few: Images, make_net: Callable) -> None:
    made = OBJECTIVES[name]
    if made.steady_from is None:
        pytest.skip("never steady")
    x, y, losses = few.batch(torch.arange(16)), few.labels[:16], set()
    for progress in (made.steady_from, 0.999):
        generator = torch.Generator().manual_seed(0)
        loss = made.loss(make_net(dropout=0.0), x, y, progress=progress, generator=generator)
        losses.add(loss.item())
    assert len(losses) == 1


def test_bounds_are_never_captured(few: Images, make_net: Callable, replays: list[int]) -> None:
    made = settings(objective=OBJECTIVES["ibp"])
    nets = make_net(), make_net()
    first, second = (
        result(net, train(net, few, made, seed=0, capture_steps=way))
        for net, way in zip(nets, (False, True), strict=True)
    )
    assert first == second
    assert not replays


# --- what cannot be captured -----------------------------------------------------------------------------------------


class Waits(nn.Module):
    """Looks at its logits in the middle of a pass."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return logits / 2 if logits.max() > 5 else logits


class Counts(nn.Module):
    """Lets Python decide how much its answers weigh."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.calls = net, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.net(x) / self.calls


def test_a_network_that_waits_for_its_numbers_trains_one_by_one(
    few: Images, make_net: Callable, device: torch.device
) -> None:
    found, few = [], few.to(device)
    for way in (False, True):
        net = Waits(make_net()).to(device)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            found.append(result(net, train(net, few, settings(), seed=0, capture_steps=way)))
    assert found[0] == found[1]
    (said,) = [str(one.message) for one in told if "captured" in str(one.message)]
    assert said.startswith("steps are not captured: something waits for the device (")
    assert said.endswith("). The training goes on step by step")
    if device.type == "cpu":
        assert "(aten::_local_scalar_dense)" in said


def test_a_step_that_is_another_one_when_repeated_is_noticed(few: Images, make_net: Callable) -> None:
    net = Counts(make_net())
    with pytest.warns(UserWarning, match="a captured step ends in other bytes than the step itself"):
        train(net, few, settings(), seed=0, capture_steps=True)


def test_an_optimiser_of_an_earlier_version_is_not_captured(few: Images, make_net: Callable, kept: Callable) -> None:
    begun = kept()
    train(make_net(), few, settings(), seed=0, checkpoints=begun, checkpoint_seconds=0)
    early = kept(begun.states[4])
    state = early.load()
    for group in state["optimizer"]["param_groups"]:
        group["fused"] = None
    early.save(state)
    nets = make_net(), make_net()
    plain = result(nets[0], train(nets[0], few, settings(), seed=0, checkpoints=early))
    with pytest.warns(UserWarning, match="not captured: the optimiser takes its step parameter by parameter"):
        curve = train(nets[1], few, settings(), seed=0, checkpoints=early, capture_steps=True)
    assert result(nets[1], curve) == plain


def test_a_training_that_diverges_is_stopped(few: Images, make_net: Callable) -> None:
    with pytest.raises(DivergedError):
        train(make_net(), few, settings(optimizer="sgd", lr=1e30, epochs=50), seed=0, capture_steps=True)


def test_an_objective_of_somebody_elses_is_not_captured(few: Images, make_net: Callable, replays: list[int]) -> None:
    @component
    class Own(Objective):
        """Cross-entropy."""

        def loss(self, model: nn.Module, x: Tensor, y: Tensor, *, progress: float, generator: Any) -> Tensor:
            return F.cross_entropy(model(x), y)

    train(make_net(), few, settings(objective=Own()), seed=0, capture_steps=True)
    assert not replays


def test_capturing_is_for_cuda() -> None:
    with pytest.raises(
        RequestError, match=r"^capture_steps: steps are captured on CUDA.*this is cpu\. Leave"
    ) as caught:
        check_captures(torch.device("cpu"))
    assert caught.value.place == ("capture_steps",)


# --- the rehearsal itself --------------------------------------------------------------------------------------------


def test_the_rehearsal_does_again_what_was_done_and_asks_nobody() -> None:
    x, weight, asked = torch.tensor([1.0, 2.0]), torch.ones(2), []

    def body() -> Tensor:
        asked.append(0)
        turned = x.view(2, 1).T.squeeze(0)
        weight.add_(turned * len(asked))
        return (weight * 2).sum()

    replay = Rehearsal().record(body)
    assert weight.tolist() == [2, 3]
    x.copy_(torch.tensor([10.0, 20.0]))
    assert replay().item() == 2 * (12 + 23)
    assert weight.tolist() == [12, 23]
    assert len(asked) == 1


def test_the_rehearsal_draws_anew() -> None:
    generator = torch.Generator()
    replay = Rehearsal().record(lambda: F.dropout(torch.ones(50)) + torch.rand(50, generator=generator))
    drawn = []
    for seed in (1, 2, 1):
        torch.default_generator.manual_seed(seed)
        generator.manual_seed(seed)
        drawn.append(replay().clone())
    torch.default_generator.manual_seed(2)
    generator.manual_seed(2)
    assert torch.equal(drawn[1], F.dropout(torch.ones(50)) + torch.rand(50, generator=generator))
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])


@pytest.mark.parametrize("waits", [Tensor.item, Tensor.nonzero, lambda x: x[x > 0], lambda x: bool(x)])
def test_the_rehearsal_refuses_what_no_graph_holds(waits: Callable[[Tensor], Any]) -> None:
    x = torch.ones(())
    with pytest.raises(CannotCaptureError, match="waits for the device"):
        Rehearsal().record(lambda: (waits(x), x)[1])
