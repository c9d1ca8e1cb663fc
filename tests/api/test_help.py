"""What `help` says: of the package, of a component with its settings, of a result with its fields."""

from __future__ import annotations

import inspect
import pydoc
import re
import subprocess
import sys
import types
from abc import ABCMeta
from typing import Any, Protocol

import pytest

import bascule
from bascule.core import catalog
from bascule.core.catalog import component


def shown(thing: object) -> str:
    """The first part of what `help` prints, without the lines at its left."""
    text = pydoc.plain(pydoc.render_doc(thing))
    return text.partition("Method resolution order")[0].replace(" |  ", "")


def test_the_package_names_what_it_offers() -> None:
    names = set(re.findall(r"\w+", bascule.__doc__ or ""))
    assert {name for name in dir(bascule) if name.islower()} - names == set()


def test_a_component_has_its_settings() -> None:
    text = shown(bascule.attacks.Pgd)
    assert "Projected gradient descent from a random start" in text
    assert "eps: number, at least 0\n        Radius of the ball in [0, 1] pixel units." in text
    assert "steps (default 20): whole number, at least 1\n        Gradient steps per try." in text
    assert "step_size (default None): number, above 0, or None" in text
    assert inspect.getdoc(bascule.attacks.Pgd) == bascule.attacks.Pgd(eps=0.1).__doc__


@pytest.mark.parametrize("room", catalog.ROOMS)
def test_no_machinery_is_listed(room: str) -> None:
    listed = pydoc.plain(pydoc.render_doc(catalog.load(room, catalog.names(room)[0])))
    assert "pydantic" not in listed
    assert "Methods defined here" in listed or "Data and other attributes" in listed


class Registering(ABCMeta):
    """As frameworks have it, which keep a list of their classes."""


class Named(Protocol):
    def name(self) -> str: ...


@pytest.mark.parametrize("room", catalog.ROOMS)
def test_a_part_of_ones_own_may_have_a_class_of_its_own(room: str) -> None:
    lineage = catalog.load(room, catalog.names(room)[0]).__mro__
    contracts = [cls for cls in lineage if cls.__module__.endswith(".contract")]
    assert contracts
    for contract in contracts:
        assert isinstance(types.new_class("Own", (contract,), {"metaclass": Registering}), Registering)
        assert issubclass(types.new_class("Own", (contract, Named)), contract)


@pytest.mark.parametrize("room", catalog.ROOMS)
def test_every_component_tells_what_show_tells(room: str) -> None:
    for name in catalog.names(room):
        about, text = catalog.documentation(room, name), inspect.getdoc(catalog.load(room, name)) or ""
        assert text.startswith(about.text)
        told = " ".join(text.split())
        assert [one.name for one in about.fields if " ".join(one.text.split()) not in told] == []


@pytest.mark.parametrize(
    ("result", "told"),
    [
        (bascule.Trained, "curve\n        One entry per epoch"),
        (bascule.Judged, "score\n        float32, shape (N,), finite"),
        (bascule.Frames, "cells\n        One line per model"),
    ],
)
def test_a_result_has_its_fields(result: type, told: str) -> None:
    assert told in shown(result)


def test_what_was_written_without_a_file_has_its_docstring() -> None:
    space: dict[str, Any] = {"component": component, "__name__": "__main__"}
    exec("@component\nclass Own:\n    '''Something.'''\n    eps: float = 0.1\n    '''A size.'''", space)
    assert space["Own"].__doc__ == "Something."


def test_nothing_is_read_before_somebody_asks() -> None:
    code = (
        "import bascule, sys; bascule.attacks.Pgd(eps=0.1); from bascule.core import documented;"
        "print(documented._own_fields.cache_info().currsize); len(bascule.attacks.Pgd.__doc__);"
        "print(documented._own_fields.cache_info().currsize > 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "True"]
