"""What every test-time detector keeps, whichever file or package it comes from."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bascule.core import catalog
from bascule.core.images import Images
from bascule.core.rng import stream
from bascule.detectors.contract import Detector, Guard
from bascule.detectors.run import prepare_detector
from bascule.testing.cases import random_images, same, state
from bascule.testing.demands import demand, one_sentence
from bascule.testing.settings import check_settings


@one_sentence
def check_detector(detector: Detector) -> None:
    """The contract of a test-time detector: how suspicious an input is, each for itself and the same each time.

    Args:
        detector: With settings that suit 40 images of 8 x 8 pixels and three classes.

    Raises:
        AssertionError: It does not keep the contract; the text says what is wrong.
    """
    check_settings(detector)
    for channels in (1, 3):
        check_form(detector, channels)
    for check in (check_differs, check_each, check_model, check_generator, check_alarms, check_smooth):
        check(detector)


def images(channels: int = 1, count: int = 40) -> Images:
    """Noise: the clean images of whoever has the detector."""
    return random_images(channels, count)


def net(channels: int = 1) -> nn.Module:
    """A network that gives them all three labels."""
    architecture = catalog.build("models", {"name": "resnet9", "widths": [4, 4, 4, 4], "stem": 1})
    made: nn.Module = architecture.initialised((channels, 8, 8), 3, seed=0)
    head = list(made.modules())[-1]
    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        # One that nobody trained gives every image the same label: made to give all three.
        head.weight.mul_(20)
        head.bias.sub_(made.eval()(images(channels).batch(torch.arange(40))).mean(0))
    return made


def prepared(detector: Detector, *, channels: int = 1, model: nn.Module | None = None, seed: int = 0) -> Guard:
    """The detector at work."""
    return prepare_detector(model or net(channels), detector, images(channels), generator=stream(seed, "detect"))


def inputs(channels: int = 1, count: int = 7) -> Tensor:
    """Further images."""
    return torch.rand(count, channels, 8, 8, generator=stream(1, "inputs"))


def check_form(detector: Detector, channels: int = 1) -> None:
    """Every input gets a finite suspicion, and is not changed."""
    guard, x = prepared(detector, channels=channels), inputs(channels)
    given = x.clone()
    said = guard.suspicion(x)
    demand(said.shape == (7,), f"not one suspicion per input: {tuple(said.shape)}")
    demand(said.dtype == torch.float32, f"the suspicions are {said.dtype}")
    demand(said.isfinite().all(), "a suspicion is not finite")
    demand(torch.equal(x, given), "it changed its input")
    demand(guard.suspicion(x[:0]).shape == (0,), "no inputs have a suspicion")


def check_each(detector: Detector) -> None:
    """An input is judged for itself, and the same each time."""
    guard, x = prepared(detector), inputs()
    said = guard.suspicion(x)
    demand(torch.equal(said, guard.suspicion(x)), "the same input is judged otherwise the second time")
    alone = torch.cat([guard.suspicion(one) for one in x.split(1)])
    demand(torch.allclose(alone, said, atol=1e-4), "an input alone is judged otherwise than in a batch")
    turned = guard.suspicion(x.flip(0)).flip(0)
    demand(torch.allclose(turned, said, atol=1e-4), "another order of the batch, another suspicion")
    again = prepared(detector)
    demand(torch.equal(again.suspicion(x), said), "prepared from the same stream it judges otherwise")
    demand(torch.equal(again.calm, guard.calm), "prepared from the same stream its calm images differ")


def check_model(detector: Detector) -> None:
    """The model is left as it is found."""
    model = net().train()
    before = state(model)
    prepared(detector, model=model).suspicion(inputs())
    demand(same(state(model), before), "the model is not left as it was found")


def check_generator(detector: Detector) -> None:
    """It draws from its own stream and changes no image."""
    of, before = images(), torch.get_rng_state()
    assert isinstance(of.pixels, Tensor)
    given = of.pixels.clone()
    guard = prepare_detector(net(), detector, of, generator=stream(0, "detect"))
    guard.suspicion(inputs())
    demand(torch.equal(torch.get_rng_state(), before), "the global generator was used")
    demand(torch.equal(of.pixels, given), "the images were modified")


def check_alarms(detector: Detector) -> None:
    """A larger share of false alarms refuses no fewer."""
    guard = prepared(detector)
    said = guard.suspicion(torch.cat([inputs(), images().batch(torch.arange(40))]))
    refused = [int((said > guard.threshold(share)).sum()) for share in (0.0, 0.01, 0.05, 0.1, 0.3, 0.6, 1.0)]
    demand(refused == sorted(refused), f"with more false alarms allowed fewer are refused: {refused}")
    demand(refused[0] == 0, "without any false alarm allowed some are refused")


def check_smooth(detector: Detector) -> None:
    """What an attacker who knows it lowers has a gradient by the image."""
    guard = prepared(detector)
    x = inputs().requires_grad_(True)
    guard.model.eval()
    smooth = guard.smooth(x)
    demand(smooth.shape == (7,), f"not one smooth suspicion per input: {tuple(smooth.shape)}")
    demand(smooth.requires_grad, "the suspicion has no gradient by the image: give `smooth` in what `prepare` returns")
    (gradient,) = torch.autograd.grad(smooth.sum(), x)
    demand(gradient.isfinite().all(), "a gradient of the suspicion is not finite")
    demand((gradient != 0).any(), "the gradient of the suspicion is zero everywhere")


def check_differs(detector: Detector) -> None:
    """Different inputs differ in suspicion: a detector that says nothing is none."""
    said = prepared(detector).suspicion(torch.cat([inputs(count=60), images().batch(torch.arange(40)), inputs() * 0]))
    demand(len(said.unique()) > 1, "it says the same of every input")
