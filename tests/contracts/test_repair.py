"""What every repair keeps, whichever file or package it comes from."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from bascule.core import catalog, rng
from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.core.images import Images, Splits
from bascule.core.inference import predict
from bascule.core.rng import stream
from bascule.repairs.contract import Repair, Repaired
from bascule.repairs.run import BrokenError, run_repair
from bascule.training.loop import train
from bascule.training.settings import Training
from bascule.triggers.placement import Poison
from bascule.triggers.stamping import stamp

IDLE: dict[str, dict[str, Any]] = {
    "anp": {"steps": 0},
    "bnp": {"u": 1e6},
    "clp": {"u": 1e6},
    "fine-pruning": {"max_share": 0.0, "epochs": 0},
    "fine-tune": {"epochs": 0},
    "ft-sam": {"epochs": 0},
    "i-bau": {"rounds": 0},
    "nad": {"epochs": 0},
    "pbe": {"epochs": 0},
    "pud": {"epochs": 0},
    "rnp": {"recover_epochs": 0},
    "sau": {"epochs": 0},
    "unlearn": {"epochs": 0},
}
"""For each repair, settings by which it does nothing."""

QUICK: dict[str, dict[str, Any]] = {
    "anp": {"steps": 5, "threshold": 0.9, "lr": 1e3},
    "bnp": {"u": 0.0},
    "clp": {"u": 1.0},
    "rnp": {"unlearn_lr": 0.1, "recover_epochs": 8, "recover_lr": 50.0, "max_drop": 1.0},
    "i-bau": {"rounds": 1, "steps": 3, "search_steps": 3},
    "nad": {"epochs": 1, "teacher_epochs": 1},
    "unlearn": {"epochs": 1, "scanner": {"name": "neural-cleanse", "target": 0, "max_looks": 2}},
    **{name: {"epochs": 1} for name in ("fine-pruning", "fine-tune", "ft-sam", "pbe", "pud", "sau")},
}
"""For each repair, settings by which it does something at once."""

MENDS: dict[str, tuple[dict[str, Any], float]] = {
    "bnp": ({"u": 1.0}, 0.75),
    "pbe": ({"eps": 0.1, "lr": 0.03}, 0.6),
    "pud": ({"eps": 0.1}, 0.85),
    "unlearn": ({}, 0.2),
    "sau": ({"epochs": 20, "lr": 3e-3, "schedule": "cosine", "eps": 0.3, "step_size": 0.3}, 0.7),
}
"""Repairs that remove the backdoor of the small net below, the settings they need, and a bound on what is left of it.

The others do not on this net; what each of them does do is in a test of its own.
"""

NORMED = {"bnp"}
"""Repairs that work on batch norm alone, and refuse a network without."""
DRAWS_NOTHING = {"bnp"}
"""Repairs of the defender's images in which there is nothing random."""

NAMES = catalog.names("repair")
names = pytest.mark.parametrize("name", NAMES)


def build(name: str, settings: dict[str, dict[str, Any]]) -> Repair:
    return catalog.build("repair", {"name": name, **settings[name]})


class Patient(NamedTuple):
    """A network, the defender's images, and held-out ones to judge by."""

    model: nn.Module
    images: Images
    test: Images


@pytest.fixture(scope="module")
def held_out(digits: Splits) -> tuple[Images, Images]:
    """The defender's images and those of the judge: two halves of the test set."""
    places = torch.arange(len(digits.test))
    return digits.test.at(places[::2]), digits.test.at(places[1::2])


def trained_on(images: Images, *, norm: bool = False) -> nn.Module:
    architecture = catalog.build("models", {"name": "digits-cnn", "width": 8, "hidden": 32})
    model = architecture.initialised(images.size, 10, seed=0)
    if norm:
        model = nn.Sequential(*model[:1], nn.BatchNorm2d(8), *model[1:3], nn.BatchNorm2d(16), *model[3:])
    train(model, images, Training(objective=catalog.build("train", "standard"), epochs=15, lr=5e-3), seed=0)
    return model


@pytest.fixture(scope="module")
def clean(digits: Splits, held_out: tuple[Images, Images]) -> Patient:
    """A network without a backdoor."""
    return Patient(trained_on(digits.train), *held_out)


POISON = Poison(trigger=catalog.build("poison", {"name": "sticker", "size": 2}), target=7, label="dirty", rate=0.1)


@pytest.fixture(scope="module")
def backdoored(digits: Splits, held_out: tuple[Images, Images]) -> Patient:
    """A network that takes every image with a white corner for a seven."""
    planted, _ = POISON.plant(digits.train, generator=stream(0, "poison"))
    return Patient(trained_on(planted), *held_out)


@pytest.fixture(scope="module")
def clean_normed(digits: Splits, held_out: tuple[Images, Images]) -> Patient:
    """As `clean`, with batch norm."""
    return Patient(trained_on(digits.train, norm=True), *held_out)


@pytest.fixture(scope="module")
def backdoored_normed(digits: Splits, held_out: tuple[Images, Images]) -> Patient:
    """As `backdoored`, with batch norm."""
    planted, _ = POISON.plant(digits.train, generator=stream(0, "poison"))
    return Patient(trained_on(planted, norm=True), *held_out)


def patient_of(name: str, kind: str, request: pytest.FixtureRequest) -> Patient:
    """The network that a repair is tried on: `clean` or `backdoored`, with batch norm where it needs one."""
    found: Patient = request.getfixturevalue(f"{kind}_normed" if name in NORMED else kind)
    return found


def accuracy(model: nn.Module, images: Images) -> float:
    return (predict(model, images) == images.labels).double().mean().item()


def success_rate(model: nn.Module, images: Images) -> float:
    others = images.at((images.labels != POISON.target).nonzero().squeeze(1))
    stamped = predict(model, others, change=lambda x: stamp(POISON.trigger, x, generator=stream(0, "test")))
    return (stamped == POISON.target).double().mean().item()


def everything(model: nn.Module) -> list[Any]:
    """All that could change in a model."""
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    parameters = [(p.requires_grad, p.grad) for p in model.parameters()]
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()]
    hooks += [len(p._backward_hooks or ()) for p in model.parameters()]
    return [weights, modes, parameters, hooks]


def same(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return dict(model.state_dict())


def check_repair(repair: Repair, patient: Patient, *, seed: int = 0) -> Repaired:
    """The contract on any network: the given one is as before, the new one the same but for its weights."""
    model, images, _ = patient
    before, pixels, labels = everything(model), images.batch(torch.arange(len(images))), images.labels.clone()
    state = torch.get_rng_state()
    found = run_repair(model, repair, images, generator=stream(seed, "contract"))
    assert same(everything(model), before), "the given model was changed"
    assert torch.equal(images.batch(torch.arange(len(images))), pixels), "the images were modified"
    assert torch.equal(images.labels, labels), "the labels were modified"
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
    after = everything(found.model)
    assert not any(after[1]), "the result is not in eval mode"
    assert after[2] == [(wanted, None) for wanted, _ in before[2]], "requires_grad differs, or a gradient is left"
    assert after[3] == before[3], "hooks were left behind"
    assert list(after[0]) == list(before[0]), "the names of the weights changed"
    assert all(isinstance(value, float) for value in found.notes.values())
    assert (found.notes["distance"] > 0) == (not same(list(found.model.parameters()), list(model.parameters())))
    assert not same(after[0], before[0]), "no weight was changed"
    return found


def test_the_room_is_not_empty() -> None:
    assert set(NAMES) >= set(IDLE)


@names
def test_zero_steps_give_the_same_weights(name: str, request: pytest.FixtureRequest) -> None:
    model, images, _ = patient_of(name, "backdoored", request)
    found = run_repair(model, build(name, IDLE), images, generator=stream(0, "contract"))
    assert found.model is not model
    assert same(weights_of(found.model), weights_of(model))
    assert found.notes["distance"] == 0


@names
def test_same_generator_same_weights(name: str, request: pytest.FixtureRequest) -> None:
    backdoored = patient_of(name, "backdoored", request)
    found = check_repair(build(name, QUICK), backdoored)
    again = check_repair(build(name, QUICK), backdoored)
    assert same(weights_of(found.model), weights_of(again.model))
    assert found.notes == again.notes
    if type(build(name, QUICK)).needs_images and name not in DRAWS_NOTHING:
        other = check_repair(build(name, QUICK), backdoored, seed=1)
        assert not same(weights_of(found.model), weights_of(other.model)), "the generator has no effect"


def make_net(channels: int, *, norm: bool, frozen: bool = False) -> nn.Module:
    """Untrained, in train mode but for one layer."""
    with rng.borrowed_global_stream(0, "net"):
        net = nn.Sequential(
            nn.Conv2d(channels, 6, 3, padding=1, bias=not norm),
            nn.BatchNorm2d(6) if norm else nn.Identity(),
            nn.ReLU(),
            nn.Conv2d(6, 8, 3, stride=2, padding=1),
            nn.BatchNorm2d(8) if norm else nn.Identity(),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(128, 12),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Linear(12, 3),
        ).train()
    net[2].eval()
    if frozen:
        net[3].requires_grad_(False)
    return net


def random_images(channels: int, count: int = 40) -> Images:
    return Images(
        pixels=torch.randint(256, (count, channels, 8, 8), dtype=torch.uint8, generator=stream(0, "images")),
        labels=torch.arange(count) % 3,
        ids=torch.arange(count),
        classes=("a", "b", "c"),
    )


@names
@pytest.mark.parametrize("norm", [True, False], ids=["batch-norm", "plain"])
@pytest.mark.parametrize("channels", [1, 3], ids=["grey", "colour"])
def test_kinds_of_networks(name: str, norm: bool, channels: int) -> None:
    images = random_images(channels)
    net = make_net(channels, norm=norm, frozen=True)
    check_or_refuse(name, Patient(net, images, images))


def check_or_refuse(name: str, patient: Patient) -> None:
    """The contract, or one clear error where the repair needs batch norm and the network has none."""
    if name in NORMED and not any(isinstance(module, nn.BatchNorm2d) for module in patient.model.modules()):
        with pytest.raises(RequestError, match=f"{name} .*the model has no batch norm .*use a repair"):
            run_repair(patient.model, build(name, QUICK), patient.images, generator=stream(0, "contract"))
        return
    check_repair(build(name, QUICK), patient)


@names
@pytest.mark.parametrize("net", ["mnist-fast", "mnist-paper", "resnet18", "cifar-paper"])
def test_the_networks_of_the_studies(name: str, net: str) -> None:
    images = random_images(3, count=6)
    model = catalog.build("models", net).initialised((3, 8, 8), 3, seed=0)
    check_or_refuse(name, Patient(model, images, images))


@names
def test_two_images_are_enough(name: str) -> None:
    images = random_images(1, count=2)
    net = make_net(1, norm=True)
    found = run_repair(net, build(name, QUICK), images, generator=stream(0, "contract"))
    assert all(value.isfinite().all() for value in found.model.state_dict().values())


@names
def test_defaults_change_weights_and_keep_the_accuracy(name: str, request: pytest.FixtureRequest) -> None:
    """On a network without a backdoor a repair costs little."""
    clean = patient_of(name, "clean", request)
    repair = catalog.build("repair", name)
    found = run_repair(clean.model, repair, clean.images, generator=stream(0, "contract"))
    if name not in ("bnp", "clp", "unlearn"):  # these see that there is nothing to repair
        assert found.notes["distance"] > 0, "no weight was changed"
    before, after = (accuracy(model, clean.test) for model in (clean.model, found.model))
    assert before > 0.93
    assert after > before - 0.08


def check_mends(repair: Repair, backdoored: Patient, bound: float) -> None:
    before = success_rate(backdoored.model, backdoored.test)
    assert before > 0.95
    found = run_repair(backdoored.model, repair, backdoored.images, generator=stream(0, "contract"))
    assert success_rate(found.model, backdoored.test) < bound, "the backdoor works as before"
    assert accuracy(found.model, backdoored.test) > accuracy(backdoored.model, backdoored.test) - 0.06


@pytest.mark.parametrize("name", list(MENDS))
def test_the_backdoor_is_removed(name: str, request: pytest.FixtureRequest) -> None:
    settings, bound = MENDS[name]
    backdoored = patient_of(name, "backdoored", request)
    check_mends(catalog.build("repair", {"name": name, **settings}), backdoored, bound)


# --- configuration ---------------------------------------------------------------------------------------------------


@names
def test_description_and_repr_rebuild_it(name: str) -> None:
    repair = build(name, QUICK)
    assert catalog.describe(repair)["name"] == name
    assert catalog.build("repair", catalog.describe(repair)) == repair
    modules = [sys.modules[cls.__module__] for cls in reversed(type(repair).__mro__)]
    assert eval(repr(repair), {key: value for module in modules for key, value in vars(module).items()}) == repair
    assert repair != build(name, IDLE)


@names
def test_every_setting_is_described(name: str) -> None:
    for field in catalog.documentation("repair", name).fields:
        assert field.text, field.name
        assert field.default is not None, f"{field.name} has no default"


# --- the contract itself ---------------------------------------------------------------------------------------------


@component
class Nothing(Repair):
    """Does nothing."""

    def repair(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Repaired:
        return Repaired(model, {})


@component
class LeavesHooks(Repair):
    """Forgets to take its hook away."""

    def repair(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Repaired:
        next(model.parameters()).data.mul_(0.9)
        next(model.children()).register_forward_hook(lambda *_: None)
        return Repaired(model, {})


@component
class OwnChance(Repair):
    """Draws from elsewhere than its generator."""

    def repair(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Repaired:
        next(model.parameters()).data.mul_(torch.rand(()))
        return Repaired(model, {})


@component
class Cuts(Repair):
    """Takes channels out instead of setting them to zero."""

    def repair(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Repaired:
        layer = next(module for module in model.modules() if isinstance(module, nn.Linear))
        layer.weight = nn.Parameter(layer.weight[:, 1:].detach())
        return Repaired(model, {})


@component
class Explodes(Repair):
    """Leaves a NaN behind."""

    def repair(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Repaired:
        next(model.parameters()).data.fill_(torch.nan)
        return Repaired(model, {})


@pytest.mark.parametrize(
    ("repair", "error", "complaint"),
    [
        (Nothing(), AssertionError, "no weight was changed"),
        (LeavesHooks(), AssertionError, "hooks were left"),
        (OwnChance(), AssertionError, "the global generator was used"),
        (Cuts(), ValueError, "changed the architecture"),
        (Explodes(), BrokenError, "not finite"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Repair) else None,
)
def test_a_bad_repair_fails_the_contract(
    repair: Repair, error: type[Exception], complaint: str, clean: Patient
) -> None:
    with pytest.raises(error, match=complaint):
        check_repair(repair, clean)


def test_doing_nothing_removes_no_backdoor(backdoored: Patient) -> None:
    with pytest.raises(AssertionError, match="works as before"):
        check_mends(Nothing(), backdoored, 0.5)
