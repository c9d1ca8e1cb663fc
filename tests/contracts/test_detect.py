"""What every test-time detector keeps, whichever package it comes from: `bascule.testing.detectors`, on ours."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from bascule.core import catalog
from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.core.images import Images
from bascule.core.rng import stream
from bascule.detectors.contract import Detector, Prepared
from bascule.detectors.run import prepare_detector
from bascule.testing import detectors as contract
from bascule.testing.detectors import images, net, prepared
from bascule.testing.settings import check_settings

NAMES = catalog.names("detect")
SETTINGS: dict[str, dict[str, Any]] = {}
"""Settings for a detector whose defaults do not suit the few small images of the tests."""

names = pytest.mark.parametrize("name", NAMES)


def brief(name: str) -> Detector:
    made: Detector = catalog.build("detect", {"name": name, **SETTINGS.get(name, {})})
    return made


@names
@pytest.mark.parametrize("channels", [1, 3])
def test_every_input_gets_a_finite_suspicion(name: str, channels: int) -> None:
    contract.check_form(brief(name), channels)


@names
def test_an_input_is_judged_for_itself_and_the_same_each_time(name: str) -> None:
    contract.check_each(brief(name))


@names
def test_the_model_is_found_as_it_was(name: str) -> None:
    contract.check_model(brief(name))


@names
def test_it_draws_from_its_own_stream_and_changes_no_image(name: str) -> None:
    contract.check_generator(brief(name))


@names
def test_a_larger_share_of_false_alarms_refuses_no_fewer(name: str) -> None:
    contract.check_alarms(brief(name))


@names
def test_what_an_attacker_lowers_has_a_gradient_by_the_image(name: str) -> None:
    contract.check_smooth(brief(name))


@names
def test_different_inputs_differ(name: str) -> None:
    contract.check_differs(brief(name))


@names
def test_description_and_repr_rebuild_it(name: str) -> None:
    check_settings(brief(name))
    assert catalog.describe(brief(name))["name"] == name


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
        contract.check_detector(Silent())
    contract.check_detector(Brightness())


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
