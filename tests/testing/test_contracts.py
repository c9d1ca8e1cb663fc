"""The checks as authors of plug-ins call them: whole, on parts of other packages, with one sentence when they fail."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bascule.testing
from bascule.attacks import Attack
from bascule.core import catalog
from bascule.core.catalog import ROOMS, component
from bascule.core.errors import RequestError
from bascule.testing import check, check_attack, check_trigger
from bascule.testing.contracts import CHECKS
from bascule.testing.demands import demand, refusal
from bascule.triggers import Trigger

WHOLE: dict[str, Any] = {
    "attack": {"name": "fgsm", "norm": "l2", "eps": 1.2},
    "data": "digits",
    "detect": "strip",
    "explain": "saliency",
    "measure": "scan-found",
    "models": "mnist-fast",
    "poison": "sticker",
}
"""One quick component of a room. A part of every kind is checked whole in tests/cli/test_new.py."""


@pytest.mark.parametrize("room", WHOLE)
def test_a_part_that_keeps_its_contract_passes(room: str) -> None:
    check(catalog.build(room, WHOLE[room]))


def nothing(*given: Any, **about: Any) -> None:
    """What a method gives whose `return` was forgotten."""


BASES: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "data": (bascule.data.Source, "read", {"peek": nothing}),
    "models": (bascule.models.Architecture, "build", {}),
    "poison": (bascule.triggers.Trigger, "stamp", {}),
    "attack": (bascule.attacks.Attack, "perturb", {"eps": 0.1}),
    "certify": (bascule.certifiers.Certifier, "radius", {"eps": 0.1}),
    "explain": (bascule.explanations.HeatMap, "heat", {}),
    "train": (bascule.training.Objective, "loss", {}),
    "filter": (bascule.filters.Filter, "judge", {}),
    "scan": (bascule.scanners.Scanner, "scan", {}),
    "detect": (bascule.detectors.Detector, "prepare", {}),
    "repair": (bascule.repairs.Repair, "repair", {}),
    "measure": (bascule.metrics.Metric, "per_sample", {"title": "T", "better": "lower"}),
}


@pytest.mark.parametrize("room", ROOMS)
def test_a_forgotten_return_is_one_sentence(room: str) -> None:
    base, method, more = BASES[room]
    settings = {key: value for key, value in more.items() if key == "eps"}
    body = {method: nothing, "__module__": __name__, "__doc__": "Forgets.", **{k: more[k] for k in more if k != "eps"}}
    part = component(type("Forgets", (base,), body))(**settings)
    said = "the sample is NoneType" if room == "measure" else rf"`{method}` gave NoneType, and not \w+: is its `return`"
    with pytest.raises(AssertionError, match=said):
        check(part)


def test_what_a_part_raises_is_told_with_its_line() -> None:
    with pytest.raises(AssertionError, match=r"^it raises KeyError: 'a' \(.*test_contracts\.py, line \d+\)$"):
        check_trigger(Raises())


def test_every_room_has_its_check_and_every_check_is_offered() -> None:
    assert list(CHECKS) == list(ROOMS)
    stub = Path(bascule.testing.__file__).with_suffix(".pyi").read_text()
    offered = {alias.name for node in ast.parse(stub).body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert offered == {"check", "check_hook", *(one.__name__ for one in CHECKS.values())}
    assert offered <= set(dir(bascule.testing))


@component
class Grey(Trigger):
    """Every image half as bright, which is a mark."""

    factor: float = 0.5

    def stamp(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        return x * self.factor


@component
class Raises(Trigger):
    """Has a fault."""

    def stamp(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        return {}["a"]


class Bare(Trigger):
    """Lacks its decorator."""

    def stamp(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        return x * 0.5


@component
class Signs(Attack):
    """Fast and one-sided: moves every pixel up."""

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        return self.ball.project(x + self.eps, x)


def test_a_part_that_nobody_has_announced_is_checked_as_well() -> None:
    check_trigger(Grey())
    with pytest.raises(AssertionError, match="images without a mark once they are stored as bytes: 6 of 6"):
        check_trigger(Grey(factor=1.0))


def test_a_lie_about_gradients_is_found() -> None:
    with pytest.raises(
        AssertionError,
        match=r"uses_gradient is True, and it does not: `\w+: ClassVar\[bool\] = False`",
    ):
        check_attack(Signs(eps=0.3))


def test_what_is_no_component_is_said() -> None:
    with pytest.raises(AssertionError, match="int subclasses no contract of bascule"):
        check(3)
    with pytest.raises(AssertionError, match="Bare lacks @component above it"):
        check(Bare())


def test_a_refusal_is_one_clear_error() -> None:
    def wrong() -> None:
        raise KeyError("eps")

    def right() -> None:
        raise RequestError("eps: at least 0; got -1")

    assert str(refusal(right, what="eps -1", text="^eps: ")) == "eps: at least 0; got -1"
    with pytest.raises(AssertionError, match=r"eps -1 ends in KeyError \('eps'\) instead of a RequestError"):
        refusal(wrong, what="eps -1")
    with pytest.raises(AssertionError, match="eps -1 is not refused"):
        refusal(lambda: None, what="eps -1")
    with pytest.raises(AssertionError, match="which lacks 'norm'"):
        refusal(right, what="eps -1", text="norm")
    with pytest.raises(AssertionError, match=r"^two words$"):
        demand(False, "two words")


def test_checks_need_no_pytest() -> None:
    folder = Path(bascule.testing.__file__).parent
    assert [path.name for path in folder.glob("*.py") if "import pytest" in path.read_text()] == []


def test_checks_hold_where_assertions_are_off() -> None:
    code = "from bascule.testing.demands import demand\nassert False\ndemand(False, 'two words')"
    done = subprocess.run([sys.executable, "-O", "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == "AssertionError: two words"
