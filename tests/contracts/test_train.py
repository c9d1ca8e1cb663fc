"""What every training objective keeps, whichever package it comes from: `bascule.testing.objectives`, on ours."""

from __future__ import annotations

import random
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bascule.core import catalog
from bascule.core.catalog import component
from bascule.core.images import Images
from bascule.testing import courses
from bascule.testing import objectives as contract
from bascule.testing.settings import check_settings
from bascule.training.contract import Course, CrossEntropy, Memory, Objective, Samples
from objectives import objective as build

names = pytest.mark.parametrize("name", catalog.names("train"))
progresses = pytest.mark.parametrize("progress", contract.PROGRESSES)


def test_the_room_is_not_empty() -> None:
    wanted = {"standard", "pgd", "fast", "fgsm-targeted", "trades", "mart", "lipschitz"}
    assert wanted <= set(catalog.names("train"))


@names
@progresses
@pytest.mark.parametrize("norm", [True, False], ids=["batch-norm", "plain"])
def test_loss(name: str, progress: float, norm: bool) -> None:
    contract.check_loss(build(name), progress, norm=norm)


@names
@progresses
def test_inputs(name: str, progress: float) -> None:
    contract.check_inputs(build(name), progress)


@names
def test_cross_entropy_on_the_inputs_is_what_it_says(name: str) -> None:
    if not isinstance(build(name), CrossEntropy):
        pytest.skip("has a loss of its own")
    contract.check_cross_entropy(build(name))


@names
def test_learning(name: str) -> None:
    contract.check_learning(build(name))


@names
def test_the_loss_is_a_mean(name: str) -> None:
    contract.check_mean(build(name))


@names
def test_the_global_generator_is_left_alone(name: str) -> None:
    contract.check_generator(build(name))


@names
def test_double_precision_is_kept(name: str) -> None:
    contract.check_precision(build(name))


@names
def test_description_and_repr_rebuild_it(name: str) -> None:
    check_settings(build(name))
    assert catalog.describe(build(name))["name"] == name


# --- courses ---------------------------------------------------------------------------------------------------------

of_courses = pytest.mark.parametrize(
    "name", [name for name in catalog.names("train") if isinstance(build(name), Course)]
)


@of_courses
def test_a_course_continues_where_it_was(name: str) -> None:
    courses.check_continuing(build(name))


@of_courses
def test_the_end_of_an_epoch(name: str) -> None:
    courses.check_end_of_epoch(build(name))


@of_courses
def test_without_samples_a_course_is_refused(name: str) -> None:
    courses.check_samples(build(name))


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


def test_a_bad_course_fails_the_contract() -> None:
    courses.check_course(Idle())
    with pytest.raises(AssertionError, match="other bytes when continued"):
        courses.check_course(Elsewhere())
    with pytest.raises(AssertionError, match="the order of the set decides"):
        courses.check_course(ByPlace())
    with pytest.raises(AssertionError, match="the model was changed"):
        courses.check_course(Meddles())


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
def test_a_bad_objective_fails_the_contract(objective: Objective, complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        contract.check_objective(objective)


def test_doing_nothing_teaches_nothing() -> None:
    with pytest.raises(AssertionError, match="nothing was learnt"):
        contract.check_learning(Nothing())
