"""What every repair keeps, whichever file or package it comes from."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
from torch import nn

from bascule.core import catalog, rng
from bascule.core.images import Images
from bascule.core.inference import predict
from bascule.core.rng import stream
from bascule.repairs.contract import Repair, Repaired
from bascule.repairs.run import BrokenError, run_repair
from bascule.testing.cases import TARGET, architecture, digits, random_images, same, same_weights, standard
from bascule.testing.demands import demand, one_sentence, refusal
from bascule.testing.settings import check_settings
from bascule.training.loop import train
from bascule.triggers.placement import Poison
from bascule.triggers.stamping import stamp
from bascule.triggers.sticker import Sticker


@one_sentence
def check_repair(
    repair: Repair, *, idle: Repair | None = None, needs_norm: bool = False, draws: bool = True, finds: bool = False
) -> None:
    """The contract of a repair: another model of the same architecture, the given one as it was, the accuracy kept.

    Args:
        repair: With settings that suit 180 clean digits and little time, by which it changes weights.
        idle: The same with settings by which it does nothing: zero epochs, zero steps.
        needs_norm: It works on batch norm alone and refuses a network without.
        draws: There is something random in it.
        finds: It looks for something to repair first, and so may leave a network without a backdoor as it is.

    Raises:
        AssertionError: It does not keep the contract; the text says what is wrong.
    """
    check_settings(repair)
    check_repeats(repair, norm=needs_norm, draws=draws)
    check_networks(repair, needs_norm=needs_norm)
    check_two(repair)
    check_accuracy(repair, norm=needs_norm, changes=not finds)
    if idle is not None:
        demand(idle != repair, "the settings by which it does nothing are those by which it does something")
        check_idle(idle, norm=needs_norm)


class Patient(NamedTuple):
    """A network, the defender's images, and held-out ones to judge by."""

    model: nn.Module
    images: Images
    test: Images


POISON = Poison(trigger=Sticker(size=2), target=TARGET, label="dirty", rate=0.1)
"""What the network of `patient("backdoored")` was trained with."""


@functools.cache
def patient(kind: str, *, norm: bool = False) -> Patient:
    """A network for digits that is `clean`, or `backdoored`: it takes every image with a white corner for a seven.

    The defender's images and those of the judge are two halves of the test set.
    """
    images = digits().train
    if kind == "backdoored":
        images, _ = POISON.plant(images, generator=stream(0, "poison"))
    model: nn.Module = architecture().initialised(images.size, 10, seed=0)
    if norm:
        layers: Any = model
        model = nn.Sequential(*layers[:1], nn.BatchNorm2d(8), *layers[1:3], nn.BatchNorm2d(16), *layers[3:])
    train(model, images, standard(epochs=15, lr=5e-3), seed=0)
    places = torch.arange(len(digits().test))
    return Patient(model, digits().test.at(places[::2]), digits().test.at(places[1::2]))


def accuracy(model: nn.Module, images: Images) -> float:
    """Share of the images that the model gets right."""
    return (predict(model, images) == images.labels).double().mean().item()


def success_rate(model: nn.Module, images: Images) -> float:
    """Share of the stamped images of other classes that the model takes for the target."""
    others = images.at((images.labels != TARGET).nonzero().squeeze(1))
    stamped = predict(model, others, change=lambda _, x: stamp(POISON.trigger, x, generator=stream(0, "test")))
    return (stamped == TARGET).double().mean().item()


def _everything(model: nn.Module) -> list[Any]:
    """All that could change in a model."""
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    parameters = [(p.requires_grad, p.grad) for p in model.parameters()]
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()]
    of_weights = [len(p._backward_hooks or ()) for p in model.parameters()]
    return [weights, modes, parameters, [hooks, of_weights]]


def check_form(repair: Repair, on: Patient, *, seed: int = 0) -> Repaired:
    """On any network: the given one is as before, the new one the same but for its weights; what came back."""
    model, images, _ = on
    before, pixels, labels = _everything(model), images.batch(torch.arange(len(images))), images.labels.clone()
    state = torch.get_rng_state()
    try:
        found = run_repair(model, repair, images, generator=stream(seed, "contract"))
    except (BrokenError, ValueError) as error:
        raise AssertionError(f"what comes back is refused: {error}") from error
    demand(same(_everything(model), before), "the given model was changed")
    demand(torch.equal(images.batch(torch.arange(len(images))), pixels), "the images were modified")
    demand(torch.equal(images.labels, labels), "the labels were modified")
    demand(torch.equal(torch.get_rng_state(), state), "the global generator was used")
    after = _everything(found.model)
    demand(not any(after[1]), "the result is not in eval mode")
    wanted = [(wanted, None) for wanted, _ in before[2]]
    demand(after[2] == wanted, "requires_grad differs, or a gradient is left")
    demand(after[3] == before[3], "hooks were left behind")
    demand(list(after[0]) == list(before[0]), "the names of the weights changed")
    demand(all(isinstance(value, float) for value in found.notes.values()), f"notes that are no floats: {found.notes}")
    moved = not same(list(found.model.parameters()), list(model.parameters()))
    demand((found.notes["distance"] > 0) == moved, f"the distance is {found.notes['distance']}")
    demand(not same(after[0], before[0]), "no weight was changed")
    return found


def check_idle(idle: Repair, *, norm: bool = False) -> None:
    """Settings by which it does nothing give the same weights, in another model."""
    model, images, _ = patient("backdoored", norm=norm)
    found = run_repair(model, idle, images, generator=stream(0, "contract"))
    demand(found.model is not model, "the result is the given model itself")
    demand(same_weights(found.model, model), "zero steps change weights")
    demand(found.notes["distance"] == 0, f"zero steps, and the distance is {found.notes['distance']}")


def check_repeats(repair: Repair, *, norm: bool = False, draws: bool = True) -> None:
    """The same stream gives the same weights and notes; another one other weights, where something is random."""
    on = patient("backdoored", norm=norm)
    found, again = check_form(repair, on), check_form(repair, on)
    demand(same_weights(found.model, again.model), "the same stream gives other weights")
    demand(found.notes == again.notes, f"the same stream gives other notes: {found.notes} and {again.notes}")
    if type(repair).needs_images and draws:
        other = check_form(repair, on, seed=1)
        demand(not same_weights(found.model, other.model), "the generator has no effect")


def small_net(channels: int, *, norm: bool, frozen: bool = False) -> nn.Module:
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


def check_networks(repair: Repair, *, needs_norm: bool = False) -> None:
    """Small networks with and without batch norm, for grey and colour images, a part of them frozen."""
    for norm in (True, False):
        for channels in (1, 3):
            images = random_images(channels)
            net = small_net(channels, norm=norm, frozen=True)
            check_or_refuse(repair, Patient(net, images, images), needs_norm=needs_norm)


def check_or_refuse(repair: Repair, on: Patient, *, needs_norm: bool = False) -> None:
    """`check_form`, or one clear error where the repair needs batch norm and the network has none."""
    if not needs_norm or any(isinstance(module, nn.BatchNorm2d) for module in on.model.modules()):
        check_form(repair, on)
        return
    refusal(
        lambda: run_repair(on.model, repair, on.images, generator=stream(0, "contract")),
        what="a network without batch norm",
        text=f"{catalog.name_of(repair)} .*the model has no batch norm .*use a repair",
    )


def check_network(repair: Repair, network: str, *, needs_norm: bool = False) -> None:
    """An architecture of the catalogue, untrained, on six colour images of 8 x 8."""
    images = random_images(3, 6)
    model = catalog.build("models", network).initialised((3, 8, 8), 3, seed=0)
    check_or_refuse(repair, Patient(model, images, images), needs_norm=needs_norm)


def check_two(repair: Repair) -> None:
    """Two images are enough."""
    found = run_repair(small_net(1, norm=True), repair, random_images(1, 2), generator=stream(0, "contract"))
    demand(all(value.isfinite().all() for value in found.model.state_dict().values()), "of two images, a weight is NaN")


def check_accuracy(repair: Repair, *, norm: bool = False, changes: bool = True) -> None:
    """On a network without a backdoor it costs little."""
    on = patient("clean", norm=norm)
    found = run_repair(on.model, repair, on.images, generator=stream(0, "contract"))
    if changes:
        demand(found.notes["distance"] > 0, "no weight was changed")
    before, after = (accuracy(model, on.test) for model in (on.model, found.model))
    demand(before > 0.93, f"the network to look at has an accuracy of {before:.2f}")
    demand(after > before - 0.08, f"the accuracy falls from {before:.2f} to {after:.2f}")


def check_mends(repair: Repair, bound: float, *, norm: bool = False) -> None:
    """It leaves the backdoor of a small network a success rate below `bound`, and costs little."""
    on = patient("backdoored", norm=norm)
    before = success_rate(on.model, on.test)
    demand(before > 0.95, f"the network to look at has a success rate of {before:.2f}")
    found = run_repair(on.model, repair, on.images, generator=stream(0, "contract"))
    left = success_rate(found.model, on.test)
    demand(left < bound, f"the backdoor works as before: its success rate is {left:.2f}, not below {bound}")
    costs = accuracy(on.model, on.test) - accuracy(found.model, on.test)
    demand(costs < 0.06, f"the repair costs {costs:.2f} of the accuracy")
