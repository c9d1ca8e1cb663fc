"""What every test-time detector keeps, whichever file or package it comes from."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bascule.core import catalog
from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.core.images import Images
from bascule.core.rng import stream
from bascule.detectors.contract import Detector, Prepared
from bascule.detectors.run import Guard, prepare_detector

NAMES = catalog.names("detect")
SETTINGS: dict[str, dict[str, Any]] = {}
"""Settings for a detector whose defaults do not suit the few small images of the tests."""

names = pytest.mark.parametrize("name", NAMES)


def brief(name: str) -> Detector:
    made: Detector = catalog.build("detect", {"name": name, **SETTINGS.get(name, {})})
    return made


def images(channels: int = 1, count: int = 40) -> Images:
    return Images(
        pixels=torch.randint(256, (count, channels, 8, 8), dtype=torch.uint8, generator=stream(0, "images")),
        labels=torch.arange(count) % 3,
        ids=torch.arange(count),
        classes=("a", "b", "c"),
    )


def net(channels: int = 1) -> nn.Module:
    architecture = catalog.build("models", {"name": "resnet9", "widths": [4, 4, 4, 4], "stem": 1})
    made: nn.Module = architecture.initialised((channels, 8, 8), 3, seed=0)
    head = list(made.modules())[-1]
    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        # One that nobody trained gives every image the same label: made to give all three.
        head.weight *= 20
        head.bias -= made.eval()(images(channels).batch(torch.arange(40))).mean(0)
    return made


def prepared(detector: Detector, *, channels: int = 1, model: nn.Module | None = None, seed: int = 0) -> Guard:
    return prepare_detector(model or net(channels), detector, images(channels), generator=stream(seed, "detect"))


def inputs(channels: int = 1, count: int = 7) -> Tensor:
    return torch.rand(count, channels, 8, 8, generator=stream(1, "inputs"))


@names
@pytest.mark.parametrize("channels", [1, 3])
def test_every_input_gets_a_finite_suspicion(name: str, channels: int) -> None:
    guard, x = prepared(brief(name), channels=channels), inputs(channels)
    given = x.clone()
    said = guard.suspicion(x)
    assert said.shape == (7,)
    assert said.dtype == torch.float32
    assert said.isfinite().all()
    assert torch.equal(x, given), "it changed its input"
    assert guard.suspicion(x[:0]).shape == (0,)


@names
def test_an_input_is_judged_for_itself_and_the_same_each_time(name: str) -> None:
    guard, x = prepared(brief(name)), inputs()
    said = guard.suspicion(x)
    assert torch.equal(said, guard.suspicion(x))
    alone = torch.cat([guard.suspicion(one) for one in x.split(1)])
    assert torch.allclose(alone, said, atol=1e-4)
    assert torch.allclose(guard.suspicion(x.flip(0)).flip(0), said, atol=1e-4)
    again = prepared(brief(name))
    assert torch.equal(again.suspicion(x), said)
    assert torch.equal(again.calm, guard.calm)


@names
def test_the_model_is_found_as_it_was(name: str) -> None:
    model = net().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    guard = prepared(brief(name), model=model)
    guard.suspicion(inputs())
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@names
def test_it_draws_from_its_own_stream_and_changes_no_image(name: str) -> None:
    of, state = images(), torch.get_rng_state()
    assert isinstance(of.pixels, Tensor)
    given = of.pixels.clone()
    guard = prepare_detector(net(), brief(name), of, generator=stream(0, "detect"))
    state_then = torch.get_rng_state()
    guard.suspicion(inputs())
    assert torch.equal(torch.get_rng_state(), state_then), "the global generator was used"
    assert torch.equal(of.pixels, given)
    assert torch.equal(state, state_then), "the global generator was used"


@names
def test_a_larger_share_of_false_alarms_refuses_no_fewer(name: str) -> None:
    guard = prepared(brief(name))
    said = guard.suspicion(torch.cat([inputs(), images().batch(torch.arange(40))]))
    refused = [int((said > guard.threshold(share)).sum()) for share in (0.0, 0.01, 0.05, 0.1, 0.3, 0.6, 1.0)]
    assert refused == sorted(refused)
    assert refused[0] == 0


@names
def test_what_an_attacker_lowers_has_a_gradient_by_the_image(name: str) -> None:
    guard = prepared(brief(name))
    x = inputs().requires_grad_(True)
    guard.model.eval()
    smooth = guard.smooth(x)
    assert smooth.shape == (7,)
    (gradient,) = torch.autograd.grad(smooth.sum(), x)
    assert gradient.isfinite().all()
    assert (gradient != 0).any()


def check_says_something(detector: Detector) -> None:
    """Different inputs differ in suspicion: a detector that says nothing is none."""
    said = prepared(detector).suspicion(torch.cat([inputs(count=60), images().batch(torch.arange(40)), inputs() * 0]))
    assert len(said.unique()) > 1, "it says the same of every input"


@names
def test_different_inputs_differ(name: str) -> None:
    check_says_something(brief(name))


@component
class Silent(Detector):
    """Suspects nothing."""

    def prepare(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Prepared:
        return Prepared(suspicion=lambda x: x.new_zeros(len(x)))


@component
class Brightness(Detector):
    """The mean pixel; `broken` as an example of what is refused."""

    broken: str = ""

    def prepare(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Prepared:
        if self.broken == "shape":
            return Prepared(suspicion=lambda x: x)
        scale = math.nan if self.broken == "nan" else 1.0
        return Prepared(suspicion=lambda x: scale * x.mean((1, 2, 3)))


def test_a_detector_that_says_nothing_fails_the_contract() -> None:
    with pytest.raises(AssertionError, match="says the same"):
        check_says_something(Silent())
    check_says_something(Brightness())


@pytest.mark.parametrize("broken", ["shape", "nan"])
def test_a_broken_detector_is_not_believed(broken: str) -> None:
    with pytest.raises(ValueError, match="suspicion"):
        prepared(Brightness(broken=broken))


def test_thresholds_come_from_images_it_was_not_prepared_on() -> None:
    guard = prepared(Brightness())
    of = images()
    bright = of.batch(torch.arange(40)).mean((1, 2, 3))
    assert len(guard.calm) == 20
    assert torch.isin(guard.calm, bright).all()
    assert torch.equal(guard.calm, guard.calm.sort().values)
    # Of 20 images: rank ceil(21 * 0.9) = 19, ceil(21 * 0.95) = 20, and 1 % would take the 21st.
    assert guard.threshold(0.1) == float(guard.calm[18])
    assert guard.threshold(0.05) == float(guard.calm[19])
    assert guard.threshold(0.01) == math.inf


def test_a_threshold_holds_on_average_over_draws() -> None:
    """The conformal law: a further clean image lies above the threshold with at most the probability asked for."""
    guard = prepared(Brightness())
    draws = torch.rand(2000, 31, generator=stream(0, "draws"))
    over = [float(one[-1] > replace(guard, calm=one[:-1].sort().values).threshold(0.1)) for one in draws]
    assert 0.06 < sum(over) / len(over) < 0.12


def test_too_few_images_are_refused() -> None:
    few = images().at(torch.arange(1))
    with pytest.raises(RequestError, match=r"at least 2 clean images.*there are 1 image.*held_out"):
        prepare_detector(net(), Brightness(), few, generator=stream(0, "detect"))
