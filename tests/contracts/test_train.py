"""What every training objective keeps, whichever file or package it comes from."""

from __future__ import annotations

import random
import sys
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bascule.core import catalog
from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.core.images import Images, Splits
from bascule.core.inference import predict
from bascule.core.rng import borrowed_global_stream, stream
from bascule.training.contract import Course, CrossEntropy, Memory, Objective, Samples
from bascule.training.loop import train
from bascule.training.settings import Training
from checkpoints import Kept
from objectives import at_step
from objectives import objective as build

names = pytest.mark.parametrize("name", catalog.names("train"))
progresses = pytest.mark.parametrize("progress", [0.0, 0.5, 0.999])


@pytest.fixture(scope="module")
def batch(digits: Splits) -> tuple[Tensor, Tensor]:
    index = torch.arange(32)
    return digits.train.batch(index), digits.train.labels[index]


def make_net(*, norm: bool = True) -> nn.Module:
    """In train mode but for one layer, and one parameter frozen: both must stay so."""
    with borrowed_global_stream(0, "net"):
        net = nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4) if norm else nn.Identity(),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(144, 16),
            nn.Dropout(0.1) if norm else nn.Identity(),
            nn.Linear(16, 10),
        ).train()
    net[0].bias.requires_grad_(False)
    net[2].eval()
    return net


def circumstances(net: nn.Module) -> list[Any]:
    """Everything but weights and statistics that an objective could leave changed behind."""
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in net.modules()]
    wishes = [parameter.requires_grad for parameter in net.parameters()]
    tracking = [getattr(module, "track_running_stats", None) for module in net.modules()]
    return [[module.training for module in net.modules()], wishes, tracking, hooks, torch.is_grad_enabled()]


def loss_of(objective: Objective, net: nn.Module, x: Tensor, y: Tensor, progress: float, seed: int = 0) -> Tensor:
    with borrowed_global_stream(seed, "dropout"):
        step = at_step(objective, x, y, progress)
        return step.loss(net, x, y, progress=progress, generator=stream(seed, "contract"))


def check_loss(objective: Objective, batch: tuple[Tensor, Tensor], progress: float, *, norm: bool = True) -> None:
    """One loss: a finite scalar that every parameter can learn from, and nothing else has changed."""
    net = make_net(norm=norm)
    x, y = (part.clone() for part in batch)
    before, weights = circumstances(net), [parameter.detach().clone() for parameter in net.parameters()]
    loss = loss_of(objective, net, x, y, progress)
    assert loss.shape == (), "not a scalar"
    assert loss.isfinite()
    assert loss > 0 or (isinstance(objective, Course) and loss), "nothing left to learn"  # a course may climb
    assert circumstances(net) == before, "mode, requires_grad or hooks were left changed"
    assert torch.equal(x, batch[0]), "the images were modified"
    assert torch.equal(y, batch[1]), "the labels were modified"
    assert not x.requires_grad
    assert all(parameter.grad is None for parameter in net.parameters()), "gradients were left behind"
    assert all(torch.equal(now, then) for now, then in zip(net.parameters(), weights, strict=True))
    loss.backward()
    for name, parameter in net.named_parameters():
        if name == "0.bias":
            assert parameter.grad is None
        else:
            assert parameter.grad is not None, f"{name} gets no gradient"
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), f"{name} learns nothing"
    again = loss_of(objective, make_net(norm=norm), x, y, progress)
    assert torch.equal(again, loss.detach()), "the same streams give another loss"


def check_inputs(objective: Objective, batch: tuple[Tensor, Tensor], progress: float) -> None:
    """The images of a step: images again, and nothing else has changed."""
    net = make_net()
    x, y = (part.clone() for part in batch)
    before, memory = circumstances(net), [value.clone() for value in net.state_dict().values()]
    with borrowed_global_stream(0, "dropout"):
        inputs = objective.inputs(net, x, y, progress=progress, generator=stream(0, "contract"))
    assert inputs.shape == x.shape
    assert inputs.dtype == x.dtype
    assert not inputs.requires_grad
    assert inputs.min() >= 0
    assert inputs.max() <= 1
    assert torch.equal(x, batch[0]), "the images were modified"
    assert circumstances(net) == before, "mode, requires_grad or hooks were left changed"
    assert all(torch.equal(now, then) for now, then in zip(net.state_dict().values(), memory, strict=True))
    assert all(parameter.grad is None for parameter in net.parameters()), "gradients were left behind"


def check_learning(objective: Objective, digits: Splits) -> None:
    """A short training turns guessing into knowing."""
    model = catalog.build("models", {"name": "digits-cnn", "width": 8, "hidden": 32})
    net = model.initialised(digits.train.size, 10, seed=0)
    accuracies = []
    for epochs in (0, 6):
        if epochs:
            training = Training(objective=objective, epochs=epochs, batch_size=32, lr=0.01, schedule="one-cycle")
            train(net, digits.train, training, seed=0)
        accuracies.append((predict(net, digits.test) == digits.test.labels).float().mean().item())
    assert accuracies[0] < 0.3
    assert accuracies[1] > 0.7, "nothing was learnt"


def test_the_room_is_not_empty() -> None:
    wanted = {"standard", "pgd", "fast", "fgsm-targeted", "trades", "mart", "lipschitz"}
    assert wanted <= set(catalog.names("train"))


@names
@progresses
@pytest.mark.parametrize("norm", [True, False], ids=["batch-norm", "plain"])
def test_loss(name: str, progress: float, norm: bool, batch: tuple[Tensor, Tensor]) -> None:
    check_loss(build(name), batch, progress, norm=norm)


@names
@progresses
def test_inputs(name: str, progress: float, batch: tuple[Tensor, Tensor]) -> None:
    check_inputs(build(name), batch, progress)


@names
def test_cross_entropy_on_the_inputs_is_what_it_says(name: str, batch: tuple[Tensor, Tensor]) -> None:
    objective, (x, y) = build(name), batch
    if not isinstance(objective, CrossEntropy):
        pytest.skip("has a loss of its own")
    inputs = objective.inputs(make_net(norm=False), x, y, progress=0.9, generator=stream(0, "contract"))
    wanted = F.cross_entropy(make_net(norm=False)(inputs), y)
    assert torch.equal(loss_of(objective, make_net(norm=False), x, y, 0.9), wanted)


@names
def test_learning(name: str, digits: Splits) -> None:
    check_learning(build(name), digits)


@names
def test_the_loss_is_a_mean(name: str, batch: tuple[Tensor, Tensor]) -> None:
    """A batch twice as large of the same images does not weigh twice."""
    x, y = batch
    once, twice = (
        loss_of(build(name), make_net(norm=False), torch.cat([x] * times), torch.cat([y] * times), 0.9).item()
        for times in (1, 2)
    )
    assert twice == pytest.approx(once, rel=0.2)


@names
def test_the_global_generator_is_left_alone(name: str, batch: tuple[Tensor, Tensor]) -> None:
    before = torch.get_rng_state()
    step = at_step(build(name), *batch, 0.5)
    step.loss(make_net(norm=False), *batch, progress=0.5, generator=stream(0, "contract"))
    assert torch.equal(torch.get_rng_state(), before)


@names
def test_double_precision_is_kept(name: str, batch: tuple[Tensor, Tensor]) -> None:
    loss = loss_of(build(name), make_net().double(), batch[0].double(), batch[1], 0.9)
    assert loss.dtype == torch.float64


@names
def test_description_and_repr_rebuild_it(name: str) -> None:
    objective = build(name)
    assert catalog.build("train", catalog.describe(objective)) == objective
    parts = {type(part).__name__: type(part) for part in getattr(objective, "attacks", ())}
    assert eval(repr(objective), {**vars(sys.modules[type(objective).__module__]), **parts}) == objective


# --- courses ---------------------------------------------------------------------------------------------------------

courses = pytest.mark.parametrize("name", [name for name in catalog.names("train") if isinstance(build(name), Course)])


def check_continuing(course: Course, images: Images) -> None:
    """Killed after any step and continued, a training ends in the same bytes and isolates the same images."""
    training, told = Training(objective=course, epochs=4, batch_size=25, lr=0.01), []

    def trained(checkpoints: Kept) -> dict[str, Tensor]:
        net = make_net()
        train(net, images, training, seed=1, checkpoints=checkpoints, checkpoint_seconds=0, tell=told.append)
        return net.state_dict()

    whole = Kept()
    wanted = trained(whole)
    for state in whole.states[::3]:
        found = trained(Kept(state))
        assert all(torch.equal(value, wanted[key]) for key, value in found.items()), "other bytes when continued"
    assert all(torch.equal(one.isolated, told[0].isolated) for one in told), "others are isolated when continued"


def check_end_of_epoch(course: Course, images: Images) -> None:
    """It looks at the model and leaves it as it is; the order of the set decides nothing."""
    order = torch.randperm(len(images), generator=stream(0, "order"))
    net = make_net().eval()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    for epoch in range(1, 5):
        kept, drawn = [], []
        for these in (images, images.at(order)):
            memory = course.begin(these, epochs=4, generator=stream(0, "course"))
            with torch.no_grad():
                course.end_epoch(net, these, memory, epoch=epoch, epochs=4, generator=stream(0, "course", epoch))
            places = these.ids.argsort()
            kept.append({key: value[places] for key, value in memory.items() if value.shape[:1] == (len(images),)})
            mask = course.drawn_from(memory, epoch=4, epochs=4)
            drawn.append(mask if mask is None else mask[places])
        for key, value in kept[0].items():
            if value.dtype == torch.bool:
                assert torch.equal(value, kept[1][key]), "the order of the set decides"
            else:
                assert torch.allclose(value, kept[1][key], atol=1e-5), "the order of the set decides"
        if drawn[0] is not None:
            assert drawn[0].dtype == torch.bool
            assert torch.equal(drawn[0], drawn[1]), "the order of the set decides"
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items()), "the model was changed"


@courses
def test_a_course_continues_where_it_was(name: str, digits: Splits) -> None:
    check_continuing(build(name), digits.train.at(torch.arange(120)))


@courses
def test_the_end_of_an_epoch(name: str, digits: Splits) -> None:
    check_end_of_epoch(build(name), digits.train.at(torch.arange(120)))


@courses
def test_without_samples_a_course_is_refused(name: str, batch: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(RequestError, match=f"^{name} follows single images over a whole training"):
        build(name).loss(make_net(), *batch, progress=0.5, generator=stream(0, "contract"))


@component
class Idle(Course):
    """A course that follows nobody."""

    def begin(self, images: Images, *, epochs: int, generator: torch.Generator) -> Memory:
        return {"marked": torch.zeros(len(images), dtype=torch.bool)}

    def step_loss(
        self, model: nn.Module, x: Tensor, y: Tensor, *, samples: Samples, progress: float, generator: torch.Generator
    ) -> Tensor:
        return F.cross_entropy(model(x), y)


@component
class Elsewhere(Idle):
    """Remembers outside its memory."""

    steps: ClassVar[list[int]] = []

    def step_loss(self, model: nn.Module, x: Tensor, y: Tensor, **about: Any) -> Tensor:
        self.steps.append(0)
        return super().step_loss(model, x, y, **about) * len(self.steps)


@component
class ByPlace(Idle):
    """Takes the first images, whoever they are."""

    def end_epoch(self, model: nn.Module, images: Images, memory: Memory, **about: Any) -> None:
        memory["marked"][:5] = True


@component
class Meddles(Idle):
    """Changes the model at the end of an epoch."""

    def end_epoch(self, model: nn.Module, images: Images, memory: Memory, **about: Any) -> None:
        next(model.parameters()).mul_(0.5)


def test_a_bad_course_fails_the_contract(digits: Splits) -> None:
    few = digits.train.at(torch.arange(120))
    check_continuing(Idle(), few)
    check_end_of_epoch(Idle(), few)
    with pytest.raises(AssertionError, match="other bytes when continued"):
        check_continuing(Elsewhere(), few)
    with pytest.raises(AssertionError, match="the order of the set decides"):
        check_end_of_epoch(ByPlace(), few)
    with pytest.raises(AssertionError, match="the model was changed"):
        check_end_of_epoch(Meddles(), few)


# --- the contract itself ---------------------------------------------------------------------------------------------


@component
class Nothing(Objective):
    """Asks for nothing."""

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, *, progress: float, generator: torch.Generator) -> Tensor:
        return sum((parameter.sum() for parameter in model.parameters()), start=torch.tensor(0.0)) * 0


@component
class LeavesEval(Objective):
    """Forgets to switch back to train mode."""

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, *, progress: float, generator: torch.Generator) -> Tensor:
        return F.cross_entropy(model.eval()(x), y)


@component
class Thaws(Objective):
    """Freezes parameters, then lets all of them go."""

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, *, progress: float, generator: torch.Generator) -> Tensor:
        return F.cross_entropy(model.requires_grad_(True)(x), y)


@component
class PerImage(Objective):
    """Gives one loss per image."""

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, *, progress: float, generator: torch.Generator) -> Tensor:
        return F.cross_entropy(model(x), y, reduction="none")


@component
class InPlace(Objective):
    """Perturbs the caller's images."""

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, *, progress: float, generator: torch.Generator) -> Tensor:
        return F.cross_entropy(model(x.add_(0.01).clone()), y)


@component
class LastLayerOnly(Objective):
    """Cuts the graph."""

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, *, progress: float, generator: torch.Generator) -> Tensor:
        return F.cross_entropy(model[-1](model[:-1](x).detach()), y)  # type: ignore[index]


@component
class OwnChance(Objective):
    """Draws from elsewhere than its generator."""

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, *, progress: float, generator: torch.Generator) -> Tensor:
        return F.cross_entropy(model(x), y) * (1 + random.random())


@pytest.mark.parametrize(
    ("objective", "complaint"),
    [
        (Nothing(), "nothing left to learn"),
        (LeavesEval(), "left changed"),
        (Thaws(), "left changed"),
        (PerImage(), "not a scalar"),
        (InPlace(), "the images were modified"),
        (LastLayerOnly(), "gets no gradient"),
        (OwnChance(), "the same streams give another loss"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Objective) else None,
)
def test_a_bad_objective_fails_the_contract(objective: Objective, complaint: str, batch: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(AssertionError, match=complaint):
        check_loss(objective, batch, 0.5)


def test_doing_nothing_teaches_nothing(digits: Splits) -> None:
    with pytest.raises(AssertionError, match="nothing was learnt"):
        check_learning(Nothing(), digits)
