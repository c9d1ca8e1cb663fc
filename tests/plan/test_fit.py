"""Parts that cannot work on the network are found before anything is trained."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import networks
from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.core.images import Images
from bascule.detectors.contract import Detector, Prepared
from bascule.plan.plan import Plan

FITS = {
    "explain=[grad-cam]": (
        "Encoder",
        r"explain.*layer: behind the model's last convolution .* \('patch'\)",
    ),
    "explain=[{name: grad-cam, layer: nope}]": ("plain", "explain.*unknown layer 'nope'"),
    "explain=[{name: latents, layer: nope}]": ("plain", "explain.*the model has no layer 'nope'"),
    "filter={name: spectral-signatures, layer: nope}": ("plain", "filter.*the model has no layer 'nope'"),
    "inspect={name: gram, layer: nope}": ("plain", "inspect.*the model has no layer 'nope'"),
    "filter=early-loss": ("Token", r"filter.*the model \(Token\) holds parameters but has no reset_parameters"),
    "repair=fine-pruning": ("Encoder", "repair.*needs a linear layer that takes one vector per image"),
    "repair=nad": ("linear", "repair.*nad compares maps of convolutions, and the model has none"),
    "repair=clp": ("linear", "repair.*the model has no hidden convolution or linear layer"),
    "repair=anp": ("linear", "repair.*the model has no hidden convolution or linear layer"),
    "repair=i-bau": ("once", "repair.*second derivatives, which an operation of the model does not have"),
    "rows.None.train.objective=lipschitz": (
        "once",
        "train.*second derivatives, which an operation of the model does not have",
    ),
    "scan=feature-inversion": ("HeadOnTokens", "scan.*last linear layer takes .* not one vector for each"),
}
"""What is asked for: a network on which it cannot work, and what is said."""


def planned(plan_of: Callable[..., Plan], asked: str, network: str) -> Plan:
    model = f"model='{networks.__file__}:{network}'"
    return plan_of(model, "data.held_out=20", asked, seeds=1)


@pytest.mark.parametrize("asked", FITS)
def test_what_cannot_work_on_the_network_is_refused(plan_of: Callable[..., Plan], asked: str) -> None:
    network, said = FITS[asked]
    with pytest.raises(RequestError, match=said):
        planned(plan_of, asked, network)


@pytest.mark.parametrize("asked", [asked for asked in FITS if "nope" not in asked])
def test_what_can_is_not(plan_of: Callable[..., Plan], asked: str) -> None:
    assert planned(plan_of, asked, "plain").cells()


def test_a_detector_needs_clean_images_enough_for_its_threshold(plan_of: Callable[..., Plan]) -> None:
    with pytest.raises(RequestError, match=r"detect needs clean images that are not trained on"):
        plan_of("detect=strip")
    with pytest.raises(RequestError, match=r"strip needs at least 38 clean images.* 5 % false alarms; there are 37"):
        plan_of("detect=strip", "data.held_out=37")
    with pytest.raises(RequestError, match=r"there are 37\. Give more"):
        plan_of("detect=strip", "data.held_out=100", "defender=37")
    assert plan_of("detect=strip", "data.held_out=38").cells()


@component
class Steep(Detector):
    """Follows gradients, and knows nothing of encoders."""

    @property
    def follows_gradients(self) -> bool:
        return True

    def check_model(self, model: nn.Module, images: Images) -> None:
        if type(model).__name__ == "Encoder":
            raise RequestError("no encoders")

    def prepare(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Prepared:
        raise AssertionError("only planned")


@pytest.mark.parametrize(
    ("network", "said"),
    [("Encoder", r"detect.*no encoders"), ("detached", r"detect.*Steep follows the gradient"), ("plain", "")],
)
def test_a_detector_says_what_it_cannot_work_on(plan_of: Callable[..., Plan], network: str, said: str) -> None:
    asked = (f"model='{networks.__file__}:{network}'", "data.held_out=40", f"detect='{__file__}:Steep'")
    if not said:
        assert plan_of(*asked, seeds=1).cells()
        return
    with pytest.raises(RequestError, match=said):
        plan_of(*asked, seeds=1)


def test_a_training_too_short_for_its_objective_is_refused(plan_of: Callable[..., Plan]) -> None:
    said = "abl isolates after 1 and unlearns for 1 of 1 epochs: train for longer"
    with pytest.raises(RequestError, match=rf"train\.epochs.*{said}"):
        plan_of("rows.None.train.objective=abl", "train.epochs=1")
    with pytest.raises(RequestError, match=rf"repair.*{said}"):
        plan_of("data.held_out=20", "repair={name: fine-tune, objective: abl, epochs: 1}")
    assert plan_of("data.held_out=20", "repair={name: fine-tune, objective: abl, epochs: 2}").cells()


@pytest.mark.parametrize("repair", ["pbe", "sau", "{name: ft-sam, label_smoothing: 0"])
def test_an_objective_that_follows_images_is_no_part_of_a_repairs_loss(
    plan_of: Callable[..., Plan], repair: str
) -> None:
    named = repair if repair.startswith("{") else f"{{name: {repair}"
    with pytest.raises(RequestError, match=r"repair\.objective: abl follows single images over a whole training"):
        plan_of("data.held_out=20", f"repair={named}, objective: abl}}")
