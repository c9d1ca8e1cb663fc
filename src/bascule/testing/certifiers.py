"""What every certified bound keeps, whichever file or package it comes from."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import torch
from torch import Tensor, nn

from bascule.attacks.pgd import Pgd
from bascule.attacks.run import run_attack
from bascule.certifiers.contract import Certifier
from bascule.certifiers.run import run_certifier
from bascule.core import catalog
from bascule.core.returned import returned
from bascule.core.rng import borrowed_global_stream, stream
from bascule.testing.cases import Trained, architecture, digits, same, state
from bascule.testing.demands import demand, one_sentence, refusal
from bascule.testing.settings import check_settings
from bascule.training.loop import train
from bascule.training.settings import Training


@one_sentence
def check_certifier(certifier: Certifier) -> None:
    """The contract of a certified bound: it certifies something, and nothing that is not so.

    Args:
        certifier: With an `eps` that suits a net for digits hardened by interval bounds (0.02 in linf, 0.1 in l2).

    Raises:
        AssertionError: It does not keep the contract; the text says what is wrong.
    """
    check_settings(certifier)
    for check in (check_truth, check_held, check_larger, check_repeats, check_shapes, check_eps):
        check(certifier)


@functools.cache
def hardened() -> Trained:
    """A net hardened by interval bounds, and the first 100 test images."""
    train_set, test_set = digits()
    model = architecture().initialised((1, 8, 8), 10, seed=0)
    objective = catalog.build("train", {"name": "ibp", "eps": 0.05})
    train(model, train_set, Training(objective=objective, epochs=5, batch_size=32, lr=5e-3), seed=0)
    index = torch.arange(100)
    return Trained(model.eval(), test_set.batch(index), test_set.labels[index])


def _claimed(certifier: Certifier, model: nn.Module, x: Tensor, y: Tensor, *, seed: int = 0) -> Tensor:
    """The radii as the certifier returns them; with everything checked to be as it was."""
    before = x.clone(), y.clone(), state(model)
    with torch.no_grad():
        found = certifier.radius(model, x, y, generator=stream(seed, "contract"))
        found = returned(found, Tensor, who=certifier, method="radius")
        demand(same(state(model).weights, before[2].weights), "the model was changed")
    demand(torch.equal(x, before[0]), "the images were modified")
    demand(torch.equal(y, before[1]), "the labels were modified")
    demand(found.shape == y.shape, "not one radius per image")
    demand(found.dtype == x.dtype, f"the radii are {found.dtype}, the images {x.dtype}")
    demand(found.device == x.device, f"the radii are on {found.device}, the images on {x.device}")
    demand(found.isfinite().all(), "a radius is not finite")
    demand(found.min() >= 0, "a radius is below zero")
    return found


def _linear_net(weights: Tensor) -> nn.Module:
    """Two classes, logits 0 and `weights . (x - 0.5)`."""
    linear = nn.Linear(weights.numel(), 2).requires_grad_(False)
    linear.weight.copy_(torch.stack([torch.zeros_like(weights), weights]))
    linear.bias.copy_(torch.tensor([0.0, -0.5 * float(weights.sum())]))
    return nn.Sequential(nn.Flatten(), linear).eval()


def _true_distance(weights: Tensor, x: Tensor, norm: str) -> Tensor:
    """Distance of each image from the plane between the classes, worked out: |w . (x - 0.5)| over the dual norm."""
    dual = weights.abs().sum() if norm == "linf" else weights.norm()
    return ((x.flatten(1) - 0.5) @ weights).abs() / dual


def check_truth(certifier: Certifier) -> None:
    """Where the truth is known, nothing beyond it is claimed. A classifier smoothed by noise has the same plane."""
    with borrowed_global_stream(0, "linear"):
        weights = torch.randn(12)
        x = 0.5 + 0.2 * (torch.rand(200, 3, 2, 2) - 0.5)
        net = _linear_net(weights)
    y = net(x).argmax(1)
    found, truth = _claimed(certifier, net, x, y), _true_distance(weights, x, certifier.norm)
    demand((found <= truth + 1e-6).all(), "the certifier claims more than is true")
    demand(found.any(), "the certifier certifies nothing")


def check_held(certifier: Certifier) -> None:
    """Where the truth is not known, no attack may succeed within the radius."""
    model, x, y = hardened().copied()
    found = run_certifier(model, certifier, x, y, generator=stream(0, "contract"))
    with torch.no_grad():
        right = model(x).argmax(1) == y
    demand(not (found.certified & ~right).any(), "an image is certified that the model gets wrong")
    demand(found.certified.any(), "the certifier certifies nothing")
    wanted = right & (found.radius >= certifier.eps)
    demand(torch.equal(found.certified, wanted), "what is certified is not what has a radius of eps")
    if not certifier.of_model:
        return
    for eps in found.radius[found.certified].unique().tolist():
        held = found.certified & (found.radius >= eps)
        attack = Pgd(norm=certifier.norm, eps=eps, steps=20)
        now = run_attack(model, attack, x[held], y[held], generator=stream(0, "attack"))
        demand(torch.equal(now.prediction, y[held]), "an attack moves a certified image")


def check_larger(certifier: Certifier) -> None:
    """A larger radius is certified for no more images."""
    model, x, y = hardened().copied()
    counts = []
    for factor in (0.1, 1, 20):
        one = dataclasses.replace(certifier, eps=certifier.eps * factor)
        counts.append(int(run_certifier(model, one, x, y, generator=stream(0, "contract")).certified.sum()))
    demand(counts == sorted(counts, reverse=True), f"a larger eps certifies more images: {counts}")
    demand(counts[0] > counts[-1], f"200 times the eps certifies as many images: {counts}")


def check_repeats(certifier: Certifier) -> None:
    """The same stream gives the same radii, and nothing else is drawn from."""
    before = torch.get_rng_state()
    first, again = (_claimed(certifier, *hardened().copied()) for _ in range(2))
    demand(torch.equal(first, again), "the same stream gives other radii")
    demand(torch.equal(torch.get_rng_state(), before), "the global generator was used")


def check_shapes(certifier: Certifier) -> None:
    """Grey and colour images that are not square, one or several, of either precision."""
    tiny = dataclasses.replace(certifier, eps=1e-6)
    for channels in (1, 3):
        for count in (1, 4):
            for dtype in (torch.float32, torch.float64):
                net = architecture(2, 4).initialised((channels, 6, 5), 3, seed=0).to(dtype).eval()
                x = torch.rand(count, channels, 6, 5, dtype=dtype, generator=stream(0, "images"))
                with torch.no_grad():
                    y = net(x).argmax(1)
                what = f"{count} {dtype} image(s) of {channels} channel(s)"
                demand(_claimed(tiny, net, x, y).any(), f"nothing is certified of {what}")


def check_eps(certifier: Certifier) -> None:
    """`eps` must be given, and an impossible one is refused."""
    described: dict[str, Any] = catalog.describe(certifier)
    settings = {key: value for key, value in described.items() if key not in ("name", "code", "eps")}
    for eps in (-0.1, float("nan"), float("inf"), "0.1", None):
        made = functools.partial(catalog.construct, type(certifier), {**settings, "eps": eps})
        error = refusal(made, what=f"eps {eps!r}", text=r"^eps: ")
        demand(repr(eps) in str(error), f"the refusal of eps {eps!r} does not say what was given: {error}")
    refusal(functools.partial(catalog.construct, type(certifier), settings), what="no eps", text="'eps' is missing")
