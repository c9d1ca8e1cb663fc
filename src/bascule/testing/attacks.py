"""What every evasion attack keeps, whichever file or package it comes from."""

from __future__ import annotations

import dataclasses
import functools
import typing
from typing import Any

import torch
from torch import Tensor, nn

from bascule.attacks.contract import Attack, Evasion
from bascule.attacks.run import run_attack, try_once
from bascule.core import catalog
from bascule.core.restore import untouched
from bascule.core.returned import returned
from bascule.core.rng import borrowed_global_stream, stream
from bascule.testing.cases import architecture, same, state, trained
from bascule.testing.demands import demand, one_sentence, refusal
from bascule.testing.settings import check_settings

NORMS = ("linf", "l2", "l1")
"""The norms that a ball may have."""


@one_sentence
def check_attack(attack: Evasion, *, smaller: dict[str, Any] | None = None) -> None:
    """The contract of an evasion attack: it stays in its threat model, has an effect, draws from its generator alone
    and leaves model and images as they were.

    Args:
        attack: With settings that suit the embedded digits (1 x 8 x 8, ten classes) and little time; in a ball, with an
            `eps` at which the model falls (0.15 in linf, 1.2 in l2, 5 in l1).
        smaller: Settings that leave a smaller part of the same, where the threat model is no ball: with more freedom,
            more images must fall.

    Raises:
        AssertionError: It does not keep the contract; the text says what is wrong.
    """
    check_settings(attack)
    for check in (check_effect, check_repeats, check_shapes, check_model, check_one_try, check_words, check_gradient):
        check(attack)
    if isinstance(attack, Attack):
        for check_ball in (check_eps_zero, check_eps, check_norms):
            check_ball(attack)
        smaller = {"eps": attack.eps / 4}
    if smaller is not None:
        check_freedom(attack, smaller)


def _proposed(attack: Evasion, model: nn.Module, x: Tensor, y: Tensor, *, seed: int = 0) -> Tensor:
    """One try as the attack returns it; with x and y checked to be as they were."""
    before = x.clone(), y.clone()
    with untouched(model):
        found = attack.perturb(model, x, y, generator=stream(seed, "contract"))
    found = returned(found, Tensor, who=attack, method="perturb")
    demand(torch.equal(x, before[0]), "the images were modified")
    demand(torch.equal(y, before[1]), "the labels were modified")
    demand(not x.requires_grad, "the images want a gradient afterwards")
    return found.detach()


def _check_proposal(attack: Evasion, found: Tensor, x: Tensor) -> None:
    demand(found.shape == x.shape, f"the shape is {tuple(found.shape)}, that of the images {tuple(x.shape)}")
    demand(found.dtype == x.dtype, f"the images were {x.dtype}, the perturbed ones are {found.dtype}")
    demand(found.isfinite().all(), "a pixel is not finite")
    demand(found.min() >= 0, "a pixel is darker than black")
    demand(found.max() <= 1, "a pixel is brighter than white")
    if isinstance(attack, Attack):
        distance = float(attack.ball.distance(found, x).max())
        demand(distance <= attack.eps + 1e-5, f"the distance {distance:.3g} is more than eps {attack.eps:.3g}")


def _realised(attack: Evasion, found: Tensor, x: Tensor) -> Tensor:
    """A proposal as images: as it is where it is that already."""
    return found if isinstance(attack, Attack) else attack.threat.realise(found, x)


def check_effect(attack: Evasion) -> None:
    """On a net with ordinary training it stays inside the threat model, and has an effect that counts."""
    model, x, y = trained().copied()
    before = state(model)
    _check_proposal(attack, _realised(attack, _proposed(attack, model, x, y), x), x)
    with torch.no_grad():
        clean = (model(x).argmax(1) == y).double().mean()
    found = run_attack(model, attack, x, y, generator=stream(0, "contract"))
    _check_proposal(attack, found.x, x)
    robust = (found.prediction == y).double().mean()
    demand(robust < clean, "the attack lowers no accuracy")
    with torch.no_grad():
        told = (model(found.x).argmax(1) == y).double().mean() == robust
    demand(told, "the model answers otherwise than is counted")
    demand(same(state(model), before), "the model was changed")


def check_eps_zero(attack: Attack) -> None:
    """In a ball of radius 0 there is one image."""
    attack = dataclasses.replace(attack, eps=0.0)
    model, x, y = trained().copied()
    demand(torch.equal(_proposed(attack, model, x, y), x), "with eps 0 it proposes other images")
    found = run_attack(model, attack, x, y, generator=stream(0, "contract"))
    demand(torch.equal(found.x, x), "with eps 0 the images are others")
    demand(torch.equal(found.prediction, y), "with eps 0 the answers are others")


def check_freedom(attack: Evasion, smaller: dict[str, Any]) -> None:
    """More freedom is no safer: with the settings `smaller`, fewer images fall."""
    model, x, y = trained().copied()
    attacks = (dataclasses.replace(attack, **smaller), attack)
    fallen = [run_attack(model, one, x, y, generator=stream(0, "a")).prediction != y for one in attacks]
    few, many = (int(one.sum()) for one in fallen)
    demand(few < many, f"with more freedom no more images fall: {few} and {many} of {len(y)}")


def check_repeats(attack: Evasion) -> None:
    """The same stream gives the same images, and nothing else is drawn from."""
    model, x, y = trained().copied()
    before = torch.get_rng_state()
    first, again = (_proposed(attack, model, x, y) for _ in range(2))
    demand(torch.equal(first, again), "the same stream gives other images")
    demand(torch.equal(torch.get_rng_state(), before), "the global generator was used")


def check_shapes(attack: Evasion) -> None:
    """Grey and colour images that are not square, one or several, of either precision."""
    for channels in (1, 3):
        for count in (1, 4):
            for dtype in (torch.float32, torch.float64):
                _check_shape(attack, channels, count, dtype)


def _check_shape(attack: Evasion, channels: int, count: int, dtype: torch.dtype) -> None:
    net = architecture(2, 4).initialised((channels, 6, 5), 3, seed=0).to(dtype)
    x = torch.rand(count, channels, 6, 5, dtype=dtype, generator=stream(0, "images"))
    with torch.no_grad():
        y = net(x).argmax(1)
    found = _realised(attack, _proposed(attack, net, x, y), x)
    _check_proposal(attack, found, x)
    demand(not torch.equal(found, x), f"nothing is changed in {count} {dtype} image(s) of {channels} channel(s)")


def check_model(attack: Evasion) -> None:
    """Modes, gradients, weights, statistics and hooks of the model are left as they are found."""
    with borrowed_global_stream(0, "net"):
        layers = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Dropout(), nn.Linear(8, 3)
    net = nn.Sequential(*layers).train()
    net[1].eval()
    net[0].requires_grad_(False)
    before = state(net)
    x, y = torch.rand(4, 1, 4, 4, generator=stream(0, "images")), torch.arange(4) % 3
    run_attack(net, attack, x, y, generator=stream(0, "contract"))
    demand(same(state(net), before), "the model is not left as it was found")


def check_one_try(attack: Evasion) -> None:
    """One try, brought into the threat model, is in it."""
    model, x, y = trained().copied()
    with untouched(model):
        found = try_once(model, attack, x, y, generator=stream(0, "contract"))
    _check_proposal(attack, found, x)
    demand(not found.requires_grad, "the images found want a gradient")


def check_words(attack: Evasion) -> None:
    """People are told what it may do."""
    demand(attack.threat.words, "its threat model has no words")


def check_eps(attack: Attack) -> None:
    """`eps` must be given, and an impossible one is refused."""
    described = _described(attack)
    for eps in (-0.1, float("nan"), float("inf"), "0.1", None):
        made = functools.partial(catalog.construct, type(attack), {**described, "eps": eps})
        error = refusal(made, what=f"eps {eps!r}", text=r"^eps: ")
        demand(repr(eps) in str(error), f"the refusal of eps {eps!r} does not say what was given: {error}")
    without = {key: value for key, value in described.items() if key != "eps"}
    refusal(functools.partial(catalog.construct, type(attack), without), what="no eps", text="'eps' is missing")


def norms_of(attack: type[Attack]) -> tuple[str, ...]:
    """The norms an attack works in: what the type of its field `norm` allows."""
    return typing.get_args(typing.get_type_hints(attack)["norm"])


def check_norms(attack: Attack) -> None:
    """The type of `norm` says in which norms it works, and any other is refused."""
    allowed = norms_of(type(attack))
    demand(allowed and set(allowed) <= set(NORMS), f"its norms are {allowed}; allowed are {NORMS}")
    for norm in ("l0", *NORMS):
        made = functools.partial(catalog.construct, type(attack), {**_described(attack), "norm": norm, "eps": 0.1})
        if norm in allowed:
            demand(made().norm == norm, f"norm {norm} is not kept")
            continue
        error = refusal(made, what=f"norm {norm}", text=r"^norm: ")
        demand(norm in str(error), f"the refusal of norm {norm} does not say what was given: {error}")
        demand(
            str(error).endswith(f"Allowed: {', '.join(sorted(allowed))}."),
            f"the refusal of norm {norm} does not say what is allowed: {error}",
        )


def _described(attack: Evasion) -> dict[str, Any]:
    return {key: value for key, value in catalog.describe(attack).items() if key not in ("name", "code")}


class _Watching(nn.Module):
    """Notes whether somebody asks for the gradient of the images."""

    def __init__(self) -> None:
        super().__init__()
        self.wanted: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.wanted.append(x.requires_grad and torch.is_grad_enabled())
        score = x.flatten(1).mean(1) - 0.5
        return torch.stack([-score, score], 1)


def check_gradient(attack: Evasion) -> None:
    """`uses_gradient` tells truly whether the search differentiates the model."""
    net, x = _Watching(), torch.full((2, 1, 4, 4), 0.3)
    run_attack(net, attack, x, torch.zeros(2, dtype=torch.int64), generator=stream(0, "contract"))
    told, does = attack.uses_gradient, any(net.wanted)
    line = f"`uses_gradient: ClassVar[bool] = {does}` belongs in its class"
    demand(told == does, f"uses_gradient is {told}, and it does{'' if does else ' not'}: {line}")
