"""What every evasion attack keeps, whichever file or package it comes from."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from bascule.attacks.contract import Attack, Evasion
from bascule.attacks.run import run_attack, try_once
from bascule.core import catalog
from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.core.motion import Motions
from bascule.core.restore import untouched
from bascule.core.rng import stream
from no_ball import SETTINGS, SMALLER

EPS = {"linf": 0.15, "l2": 1.2, "l1": 5.0}
BUDGET = {"queries": 100, "steps": 10, "targets": 3, "lr": 0.3, "version": "light"}
"""Little search, with long steps where steps are few; what is checked here must hold at any budget."""
NAMES = catalog.names("attack")
IN_BALLS = [name for name in NAMES if issubclass(catalog.load("attack", name), Attack)]
"""Those whose threat model is a ball."""


def norms_of(name: str) -> tuple[str, ...]:
    """The norms an attack works in: what the type of its field `norm` allows."""
    return typing.get_args(typing.get_type_hints(catalog.load("attack", name))["norm"])


names = pytest.mark.parametrize("name", NAMES)
norms = pytest.mark.parametrize("norm", list(EPS))
BALLS = [(name, norm) for name in IN_BALLS for norm in norms_of(name)]
in_balls = pytest.mark.parametrize(("name", "norm"), BALLS)
each = pytest.mark.parametrize(
    ("name", "norm"), BALLS + [(name, None) for name in NAMES if name not in IN_BALLS], ids=str
)


class Trained(NamedTuple):
    """A net with ordinary training, and held-out images it gets right."""

    model: nn.Module
    x: Tensor
    y: Tensor


def build(name: str, norm: str | None = None, eps: float | None = None) -> Any:
    """In a ball; by default the attack's first norm, and a usual radius. Without a ball, with settings of its own."""
    if name not in IN_BALLS:
        return catalog.build("attack", {"name": name, **SETTINGS[name]})
    norm = norm or norms_of(name)[0]
    eps = EPS[norm] if eps is None else eps
    fields = {field.name for field in dataclasses.fields(catalog.load("attack", name))}
    budget = {key: value for key, value in BUDGET.items() if key in fields}
    return catalog.build("attack", {"name": name, "norm": norm, "eps": eps, **budget})


def propose(attack: Evasion, model: nn.Module, x: Tensor, y: Tensor, *, seed: int = 0) -> Tensor:
    """One try as the attack returns it; with x and y checked to be as they were."""
    before = x.clone(), y.clone()
    with untouched(model):
        found = attack.perturb(model, x, y, generator=stream(seed, "contract"))
    assert torch.equal(x, before[0]), "the images were modified"
    assert torch.equal(y, before[1]), "the labels were modified"
    assert not x.requires_grad
    return found.detach()


def check_proposal(attack: Evasion, found: Tensor, x: Tensor) -> None:
    assert found.shape == x.shape
    assert found.dtype == x.dtype
    assert found.isfinite().all()
    assert found.min() >= 0
    assert found.max() <= 1
    if isinstance(attack, Attack):
        assert attack.ball.distance(found, x).max() <= attack.eps + 1e-5


def proposed(attack: Evasion, found: Tensor, x: Tensor) -> Tensor:
    """A proposal as images: as it is where it is that already."""
    return found if isinstance(attack, Attack) else attack.threat.realise(found, x)


def check_attack(attack: Evasion, trained: Trained) -> None:
    """The contract on a net with ordinary training: stays inside the ball, and has an effect that counts."""
    model, x, y = trained
    before = {name: value.clone() for name, value in model.state_dict().items()}
    check_proposal(attack, proposed(attack, propose(attack, model, x, y), x), x)
    with torch.no_grad():
        clean = (model(x).argmax(1) == y).double().mean()
    found = run_attack(model, attack, x, y, generator=stream(0, "contract"))
    check_proposal(attack, found.x, x)
    robust = (found.prediction == y).double().mean()
    assert robust < clean, "the attack lowers no accuracy"
    with torch.no_grad():
        assert (model(found.x).argmax(1) == y).double().mean() == robust
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_room_is_not_empty() -> None:
    assert {"fgsm", "pgd"} <= set(NAMES)


@each
def test_attack(name: str, norm: str, trained: Trained) -> None:
    check_attack(build(name, norm), trained)


@in_balls
def test_eps_zero_changes_nothing(name: str, norm: str, trained: Trained) -> None:
    attack = build(name, norm, 0.0)
    model, x, y = trained
    assert torch.equal(propose(attack, model, x, y), x)
    found = run_attack(model, attack, x, y, generator=stream(0, "contract"))
    assert torch.equal(found.x, x)
    assert torch.equal(found.prediction, y)


@each
def test_more_freedom_is_no_safer(name: str, norm: str | None, trained: Trained) -> None:
    attacks = [build(name, norm), build(name, norm)]
    attacks[0] = dataclasses.replace(attacks[0], **({"eps": EPS[norm] / 4} if norm else SMALLER[name]))
    fallen = [
        run_attack(trained.model, one, trained.x, trained.y, generator=stream(0, "a")).prediction for one in attacks
    ]
    small, large = (int((prediction != trained.y).sum()) for prediction in fallen)
    assert small < large


@each
def test_same_seed_same_images(name: str, norm: str, trained: Trained) -> None:
    attack = build(name, norm)
    before = torch.get_rng_state()
    first, again = (propose(attack, *trained) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), before), "the global generator was used"


@each
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_shapes_and_types(name: str, norm: str, channels: int, count: int, dtype: torch.dtype) -> None:
    model = catalog.build("models", {"name": "digits-cnn", "width": 2, "hidden": 4})
    net = model.initialised((channels, 6, 5), 3, seed=0).to(dtype)
    x = torch.rand(count, channels, 6, 5, dtype=dtype, generator=stream(0, "images"))
    with torch.no_grad():
        y = net(x).argmax(1)
    attack = build(name, norm)
    found = proposed(attack, propose(attack, net, x, y), x)
    check_proposal(attack, found, x)
    assert not torch.equal(found, x)


@names
def test_the_model_is_left_as_found(name: str) -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Dropout(), nn.Linear(8, 3)).train()
    net[1].eval()
    net[0].requires_grad_(False)

    def state() -> list[Any]:
        modes = [module.training for module in net.modules()]
        parameters = [(p.requires_grad, p.grad) for p in net.parameters()]
        values = [value.tolist() for value in net.state_dict().values()]
        hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in net.modules()]
        return [modes, parameters, values, hooks]

    before = state()
    x, y = torch.rand(4, 1, 4, 4, generator=stream(0, "images")), torch.arange(4) % 3
    run_attack(net, build(name), x, y, generator=stream(0, "contract"))
    assert state() == before


@each
def test_one_try_is_in_the_threat_model(name: str, norm: str | None, trained: Trained) -> None:
    model, x, y = trained
    attack = build(name, norm)
    with untouched(model):
        found = try_once(model, attack, x, y, generator=stream(0, "contract"))
    check_proposal(attack, found, x)
    assert not found.requires_grad


@names
def test_people_are_told_what_it_may_do(name: str) -> None:
    assert build(name).threat.words


# --- configuration ---------------------------------------------------------------------------------------------------


@each
def test_description_and_repr_rebuild_it(name: str, norm: str) -> None:
    attack = build(name, norm, 0.123)
    described = catalog.describe(attack)
    assert described["name"] == name
    assert catalog.build("attack", described) == attack
    parts = (attack, *getattr(attack, "attacks", ()))
    assert eval(repr(attack), {type(part).__name__: type(part) for part in parts}) == attack
    if norm is not None:
        assert attack != build(name, norm, 0.124)


@pytest.mark.parametrize("name", IN_BALLS)
@pytest.mark.parametrize("eps", [-0.1, float("nan"), float("inf"), "0.1", None])
def test_impossible_eps_is_refused(name: str, eps: Any) -> None:
    with pytest.raises(RequestError, match=r"^eps: ") as caught:
        catalog.build("attack", {"name": name, "eps": eps})
    assert repr(eps) in str(caught.value)


@pytest.mark.parametrize("name", IN_BALLS)
def test_eps_is_required(name: str) -> None:
    with pytest.raises(RequestError, match="'eps' is missing"):
        catalog.build("attack", name)


@pytest.mark.parametrize("name", IN_BALLS)
@pytest.mark.parametrize("norm", ["l0", *EPS])
def test_another_norm_is_refused(name: str, norm: str) -> None:
    allowed = norms_of(name)
    assert allowed
    assert set(allowed) <= set(EPS)
    if norm in allowed:
        assert build(name, norm, 0.1).norm == norm
        return
    with pytest.raises(RequestError, match=r"^norm: ") as caught:
        build(name, norm, 0.1)
    assert norm in str(caught.value)
    assert str(caught.value).endswith(f"Allowed: {', '.join(sorted(allowed))}.")


@names
def test_whether_it_differentiates_the_model_is_told_truly(name: str) -> None:
    attack = build(name)
    wanted = []

    class Watching(nn.Module):
        """Notes whether somebody asks for the gradient of the images."""

        def forward(self, x: Tensor) -> Tensor:
            wanted.append(x.requires_grad and torch.is_grad_enabled())
            score = x.flatten(1).mean(1) - 0.5
            return torch.stack([-score, score], 1)

    x = torch.full((2, 1, 4, 4), 0.3)
    run_attack(Watching(), attack, x, torch.zeros(2, dtype=torch.int64), generator=stream(0, "contract"))
    assert any(wanted) == attack.uses_gradient


# --- the contract itself ---------------------------------------------------------------------------------------------


@component
class Identity(Attack):
    """Does nothing."""

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        return x


@component
class Escape(Attack):
    """Leaves the ball."""

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        return 1 - x


@component
class Elsewhere(Evasion):
    """Proposes more than is allowed, and what is no number."""

    @property
    def threat(self) -> Any:
        return Motions(degrees=10.0, pixels=1.0)

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        return torch.tensor([[1e30, float("nan"), -float("inf")]]).expand(len(x), -1)


def test_a_motion_is_kept_to_its_limits(trained: Trained) -> None:
    model, x, y = trained
    found = run_attack(model, Elsewhere(), x, y, generator=stream(0, "contract")).x
    motion = torch.tensor([[10.0, 0.0, 0.0]]).expand(len(x), -1)
    assert torch.equal(found, Motions(degrees=90.0, pixels=9.0).realise(motion, x))


@component
class InPlace(Attack):
    """Works on the caller's images."""

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        return self.ball.project(x.add_(0.1), x)


@pytest.mark.parametrize(
    ("attack", "complaint"),
    [(Identity, "lowers no accuracy"), (Escape, "distance"), (InPlace, "images were modified")],
    ids=["identity", "escape", "in-place"],
)
@norms
def test_a_bad_attack_fails_the_contract(attack: type[Attack], complaint: str, norm: Any, trained: Trained) -> None:
    copies = Trained(trained.model, trained.x.clone(), trained.y.clone())
    with pytest.raises(AssertionError, match=complaint):
        check_attack(attack(norm=norm, eps=EPS[norm]), copies)
