"""Parts that cannot work on the network are found before anything is trained."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import networks
from bascule.core.errors import RequestError
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
