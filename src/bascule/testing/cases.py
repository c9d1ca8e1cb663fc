"""What the checks try components on: the embedded digits, small networks trained on them, and random images.

Everything is made once in a process and nobody may change it; checks hand out copies of the images.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bascule.core import catalog, rng
from bascule.core.images import Images, Splits
from bascule.core.inference import predict
from bascule.training.loop import train
from bascule.training.settings import Training
from bascule.triggers.placement import Poison
from bascule.triggers.stamping import stamp
from bascule.triggers.sticker import Sticker

TARGET = 7
"""The class that the poisoned network of `backdoored` takes stamped images for."""


@functools.cache
def digits() -> Splits:
    """The embedded data: 1,437 training and 360 test images, 1 x 8 x 8, ten classes."""
    return catalog.build("data", "digits").load([])


class Trained(NamedTuple):
    """A net in eval mode and held-out images it gets right: x is B x C x H x W, y its int64 labels."""

    model: nn.Module
    x: Tensor
    y: Tensor

    def copied(self) -> Trained:
        """The same with images of one's own."""
        return Trained(self.model, self.x.clone(), self.y.clone())


def architecture(width: int = 8, hidden: int = 32) -> Any:
    """The small CNN of all checks."""
    return catalog.build("models", {"name": "digits-cnn", "width": width, "hidden": hidden})


def standard(**settings: Any) -> Training:
    """A training with plain cross-entropy."""
    return Training(objective=catalog.build("train", "standard"), **settings)


@functools.cache
def trained() -> Trained:
    """A small network for digits with ordinary training, and the test images it gets right."""
    train_set, test_set = digits()
    model = architecture().initialised((1, 8, 8), 10, seed=0)
    train(model, train_set, standard(epochs=8, lr=5e-3), seed=0)
    model.eval()
    right = (predict(model, test_set) == test_set.labels).nonzero().squeeze(1)
    return Trained(model, test_set.batch(right), test_set.labels[right])


class Planted(NamedTuple):
    """A net trained on digits, poisoned ones with a sticker planted (dirty label), and clean held-out images."""

    model: nn.Module
    images: Images
    target: int


@functools.cache
def planted(seed: int, poisoned: bool) -> Planted:
    """A network with a backdoor, or its twin of the same seed without; and 200 test images.

    Raises:
        AssertionError: The backdoor does not work, or the twin has one.
    """
    target = (3 + 7 * seed) % 10
    poison = Poison(trigger=Sticker(size=2), target=target, label="dirty", rate=0.1 if poisoned else 0.0)
    train_set, _ = poison.plant(digits().train, generator=rng.stream(seed, "poison"))
    model = architecture().initialised((1, 8, 8), 10, seed=seed)
    train(model, train_set, standard(epochs=15, batch_size=32, lr=5e-3, schedule="one-cycle"), seed=seed)
    test = digits().test
    stamped = predict(model, test, change=lambda _, x: stamp(poison.trigger, x, generator=torch.Generator()))
    asr = (stamped == target)[test.labels != target].double().mean()
    if not ((asr > 0.95) if poisoned else (asr < 0.1)):
        raise AssertionError(f"the network to look at has a success rate of {float(asr):.2f}")
    return Planted(model.eval(), test.at(torch.arange(200)), target)


def random_images(channels: int = 1, count: int = 40, *, size: tuple[int, int] = (8, 8), classes: int = 3) -> Images:
    """Images of noise with labels in turn."""
    draws = rng.stream(0, "images")
    return Images(
        pixels=torch.randint(256, (count, channels, *size), dtype=torch.uint8, generator=draws),
        labels=torch.arange(count) % classes,
        ids=torch.arange(count),
        classes=tuple("abcdefghij"[:classes]),
    )


def mixed_net(*, norm: bool = True) -> nn.Module:
    """For 1 x 8 x 8 images of ten classes, in train mode but for one layer, and one parameter frozen: both must stay
    so."""
    with rng.borrowed_global_stream(0, "net"):
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
    """Everything but weights and statistics that a component could leave changed behind."""
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in net.modules()]
    hooks += [(len(p._backward_hooks or ()), 0, 0) for p in net.parameters()]
    tracking = [getattr(module, "track_running_stats", None) for module in net.modules()]
    modes = [module.training for module in net.modules()]
    return [modes, [p.requires_grad for p in net.parameters()], tracking, hooks, torch.is_grad_enabled()]


class State(NamedTuple):
    """A model as it is found: all of it, and what hangs on it."""

    weights: dict[str, Tensor]
    gradients: list[Tensor | None]
    circumstances: list[Any]


def state(model: nn.Module) -> State:
    """A copy of all that could change in a model."""
    weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
    gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    return State(weights, gradients, circumstances(model))


def same(first: Any, second: Any) -> bool:
    """Whether two values with tensors inside, nested in whatever way, are equal to the bit."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    return type(first) is type(second) and bool(first == second)


def same_weights(first: nn.Module, second: nn.Module) -> bool:
    """Whether two models have the same weights and statistics, to the bit."""
    return same(dict(first.state_dict()), dict(second.state_dict()))
