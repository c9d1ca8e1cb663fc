"""A search in two precisions: bfloat16 leads, float32 decides."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bascule
import networks
from bascule.attacks.apgd import Apgd
from bascule.attacks.fgsm import Fgsm
from bascule.attacks.losses import cross_entropy
from bascule.attacks.pgd import Pgd
from bascule.attacks.run import run_attack
from bascule.attacks.two_precisions import TwoPrecisions
from bascule.attacks.unfooled import find_unfooled
from bascule.core.errors import RequestError
from bascule.core.rng import borrowed_global_stream, stream


class Counting(nn.Module):
    """Keeps the sizes of its batches in each precision."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.rough: list[int] = []
        self.exact: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        (self.rough if torch.is_autocast_enabled(x.device.type) else self.exact).append(len(x))
        logits: Tensor = self.inner(x)
        return logits


def disputed() -> Counting:
    """At two pixels of 1, float32 says class 0 (1.996 against 1.9955) and bfloat16 class 1.

    bfloat16 has steps of 1/256 from 0.5 to 1, and of 1/128 from 1 to 2: 0.998 becomes 255/256, 0.9985 becomes 1 and
    0.997 becomes 255/256, so that the sums are 510/256 and 511/256, which is rounded (half to even) to 2.
    """
    linear = nn.Linear(2, 2, bias=False)
    linear.weight = nn.Parameter(torch.tensor([[0.998, 0.998], [0.9985, 0.997]]))
    return Counting(nn.Sequential(nn.Flatten(), linear)).requires_grad_(False)


def ones(count: int) -> Tensor:
    return torch.ones(count, 1, 1, 2)


def small() -> nn.Module:
    with borrowed_global_stream(0, "net"):
        layers = [nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)]
        return nn.Sequential(*layers).eval().requires_grad_(False)


def images(count: int = 20) -> Tensor:
    return torch.rand(count, 1, 4, 4, generator=stream(0, "images"))


# --- who is fooled ---------------------------------------------------------------------------------------------------


def test_bfloat16_errs_both_ways_and_float32_decides() -> None:
    model = disputed()
    seen = TwoPrecisions(model)
    assert seen(ones(1)).argmax(1).tolist() == [0]
    assert seen.rough(ones(1)).tolist() == [[510 / 256, 2.0]]
    # The first stands although it seems fooled in bfloat16; the second, of class 1, is fooled although it seems not.
    found = find_unfooled(seen, ones(2), cross_entropy, (torch.tensor([0, 1]),))
    assert found.kept.tolist() == [0]
    assert model.exact == [1, 2]


def test_who_is_clearly_right_is_not_asked_twice() -> None:
    linear = nn.Linear(1, 2)
    linear.weight, linear.bias = nn.Parameter(torch.tensor([[0.0], [1.0]])), nn.Parameter(torch.tensor([0.0, -0.5]))
    model = Counting(nn.Sequential(nn.Flatten(), linear)).requires_grad_(False)
    seen = TwoPrecisions(model)
    # Margins of -0.5, -0.25, 1e-4 and 0.5: of class 0 are the first two.
    x = torch.tensor([0.0, 0.25, 0.5001, 1.0]).reshape(4, 1, 1, 1)
    found = find_unfooled(seen, x, cross_entropy, (torch.zeros(4, dtype=torch.int64),))
    assert found.kept.tolist() == [0, 1]
    assert model.rough == [4]
    assert model.exact == [2]


def test_loss_and_gradient_are_of_the_rough_pass() -> None:
    model, x = small(), images()
    y = model(x).argmax(1)
    seen = TwoPrecisions(model)
    found = find_unfooled(seen, x, cross_entropy, (y,))
    assert found.kept.tolist() == list(range(len(x)))
    torch.testing.assert_close(found.value, cross_entropy(seen.rough(x), y))
    exact = find_unfooled(model, x, cross_entropy, (y,))
    assert not torch.equal(found.gradient, exact.gradient)
    assert nn.functional.cosine_similarity(found.gradient.flatten(), exact.gradient.flatten(), 0) > 0.99
    assert found.gradient.dtype == x.dtype


def test_averaged_passes_stay_in_float32() -> None:
    model, x = Counting(small()), images()
    y = model(x).argmax(1)
    found = find_unfooled(TwoPrecisions(model), x, cross_entropy, (y,), passes=2)
    assert model.rough == []
    assert torch.equal(found.gradient, find_unfooled(model, x, cross_entropy, (y,), passes=2).gradient)


def test_a_logit_that_is_no_number_is_doubtful() -> None:
    seen = TwoPrecisions(small())
    logits = torch.tensor([[torch.nan, 0.0, 1.0]])
    x = images(1)
    y = seen(x).argmax(1)
    assert seen.fooled(x, logits, y).tolist() == [False]
    assert seen.fooled(x, logits, y + 1).tolist() == [True]


# --- attacks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "attack",
    [
        Pgd(eps=0.1, steps=5),
        Pgd(eps=0.1, steps=5, stop_when_fooled=False),
        Pgd(eps=0.1, steps=5, loss="margin", norm="l2"),
        Apgd(eps=0.1, steps=5),
        Apgd(eps=0.1, steps=5, loss="dlr-targeted", targets=2),
        Fgsm(eps=0.1),
    ],
)
def test_the_verdict_is_float32s(trained: Any, attack: Any) -> None:
    found = run_attack(trained.model, attack, trained.x, trained.y, generator=stream(0, "a"), precision="mixed")
    with torch.no_grad():
        assert torch.equal(trained.model(found.x).argmax(1), found.prediction)
    exact = run_attack(trained.model, attack, trained.x, trained.y, generator=stream(0, "a"))
    assert not torch.equal(found.x, exact.x)
    standing = [int((one.prediction == trained.y).sum()) for one in (found, exact)]
    assert standing[0] == pytest.approx(standing[1], abs=0.02 * len(trained.y))
    again = run_attack(trained.model, attack, trained.x, trained.y, generator=stream(0, "a"), precision="mixed")
    assert torch.equal(found.x, again.x)


def test_an_image_that_bfloat16_gives_up_stays_in_the_search() -> None:
    model = disputed()
    y = torch.zeros(1, dtype=torch.int64)
    found = run_attack(model, Pgd(eps=0.0, steps=3), ones(1), y, generator=stream(0, "a"), precision="mixed")
    assert found.prediction.tolist() == [0]
    # Three steps, each asked again in float32, and the verdict.
    assert (model.rough, model.exact) == ([1, 1, 1], [1, 1, 1, 1])


def test_nothing_is_left_on_the_model() -> None:
    model, x = small(), images()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run_attack(model, Pgd(eps=0.1, steps=2), x, model(x).argmax(1), generator=stream(0, "a"), precision="mixed")
    with pytest.raises(RuntimeError):
        TwoPrecisions(model).rough(torch.zeros(1, 7, 4, 4))
    for name, value in model.state_dict().items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name])
    assert isinstance(model[0].weight, nn.Parameter)


def test_weights_that_a_hook_computes_are_left_to_the_pass() -> None:
    with borrowed_global_stream(0, "net"):
        normed = nn.utils.spectral_norm(nn.Linear(16, 8))
        net = nn.Sequential(nn.Flatten(), normed, nn.ReLU(), nn.utils.parametrizations.weight_norm(nn.Linear(8, 3)))
    net.eval().requires_grad_(False)
    x = images()
    assert nn.functional.cosine_similarity(TwoPrecisions(net).rough(x).flatten(), net(x).flatten(), 0) > 0.99


ODD = ["plain", "in_place", "in_place_operators", "in_place_view", "detached", "rounded", "outside", "sigmoid",
       "Attention", "Encoder", "Windows", "HeadConvolution"]  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_odd_networks_are_attacked_as_in_float32(name: str) -> None:
    size = (3, 16, 16)
    with borrowed_global_stream(0, "net"):
        model = getattr(networks, name)(size, 4).eval()
    x = torch.rand(6, *size, generator=stream(0, "images"))
    with torch.no_grad():
        y = model(x.clone()).argmax(1)
    attack = Pgd(eps=0.05, steps=3)
    found = run_attack(model, attack, x, y, generator=stream(0, "a"), precision="mixed")
    exact = run_attack(model, attack, x, y, generator=stream(0, "a"))
    assert abs(int((found.prediction == y).sum()) - int((exact.prediction == y).sum())) <= 1
    assert attack.ball.distance(found.x, x).max() <= 0.05 + 1e-6


# --- requests --------------------------------------------------------------------------------------------------------


def test_a_model_in_another_precision_is_refused() -> None:
    x = images()
    for kind in (torch.float64, torch.float16):
        model = small().to(kind)
        with pytest.raises(RequestError, match=r"is for models in float32, and this one has parameters in float\d\d"):
            bascule.perturb(model, x, torch.zeros(20, dtype=torch.int64), "pgd", eps=0.1, attack_precision="mixed")


def test_a_model_that_fails_in_bfloat16_is_told_so() -> None:
    class Picky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = small()

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.net(x)
            if logits.dtype == torch.bfloat16:
                raise TypeError("no bfloat16 here")
            return logits

    model, x = Picky(), images()
    y = model(x).argmax(1)
    bascule.perturb(model, x, y, "pgd", eps=0.1, steps=1)
    said = r"fails in bfloat16 \(TypeError: no bfloat16 here\); attack it with `attack_precision` float32"
    with pytest.raises(RequestError, match=said):
        bascule.perturb(model, x, y, "pgd", eps=0.1, steps=1, attack_precision="mixed")


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(RequestError, match=r"attack_precision: unknown precision 'bfloat16'.*float32, mixed"):
        bascule.evaluate(small(), images(), torch.zeros(20, dtype=torch.int64), attack_precision="bfloat16")  # type: ignore[arg-type]


def test_the_record_says_how_it_was_searched() -> None:
    model, x = small(), images()
    y = model(x).argmax(1)
    attack = [{"name": "square", "eps": 0.01, "queries": 5}, {"name": "pgd", "eps": 0.01, "steps": 2}]
    found = bascule.evaluate(model, x, y, attack=attack, attack_precision="mixed")
    assert [part.precision for part in found.attacks] == ["float32", "mixed"]
    plain = bascule.evaluate(model, x, y, attack=attack)
    assert [part["precision"] for part in plain.as_dict()["attacks"]] == ["float32", "float32"]
