"""Components and studies listed and described."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path


def test_listing_and_showing(bascule: Callable) -> None:
    assert re.search(r"^attack +evasion attacks: .*fgsm.*pgd", bascule("ls").out, re.MULTILINE)
    assert re.search(r"^attack/pgd +Projected gradient descent", bascule("ls", "attack").out, re.MULTILINE)
    assert re.search(r"^mnist-quick +The trade-off", bascule("ls", "studies").out, re.MULTILINE)
    shown = bascule("show", "poison/sticker").out
    assert "size (default 3): whole number, at least 1\n      Side of the patch in pixels." in shown
    assert "\n  eps (required): number, at least 0\n" in bascule("show", "attack/pgd").out
    assert (
        bascule("show", "models/torchvision:resnet18").out.splitlines()[1:]
        == (bascule("show", "models/torchvision").out.splitlines()[1:])
    )
    assert "title: Hardened digits" in bascule("show", "studies/digits").out


OWN = """
from typing import Annotated
from annotated_types import Gt
from bascule.core.catalog import component
from bascule.poison import Trigger

@component
class Stripes(Trigger):
    \"\"\"Every second row brighter.\"\"\"
    strength: Annotated[float, Gt(0)] | None = None
    \"\"\"How much.\"\"\"
    def stamp(self, x, *, generator):
        return x

def net(size, classes): ...
"""


def test_a_component_of_ones_own_is_shown(bascule: Callable, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "stripes.py").write_text(OWN)
    for name in ("own/stripes.py:Stripes", "poison/own/stripes.py:Stripes"):
        said = bascule("show", name)
        assert said.code == 0, said.err
        assert said.out == (
            f"{name}\n\nEvery second row brighter.\n\nsettings:\n"
            "  strength (default null): number, above 0, or null\n      How much.\n"
            f"\nfrom: file {tmp_path / 'own' / 'stripes.py'}\n"
        )
    for name, expected in (
        ("own/stripes.py:net", "'own/stripes.py:net' is no component, so that it has no settings to show"),
        ("attack/own/stripes.py:Stripes", "'own/stripes.py:Stripes' is not a component of 'attack'"),
        ("own/stripes.py:Strips", "Did you mean 'Stripes'?"),
        ("own/nothing.py:Stripes", "no file"),
    ):
        said = bascule("show", name)
        assert (said.code, said.out) == (2, "")
        assert expected in said.err


def test_a_name_without_its_kind(bascule: Callable) -> None:
    assert "Did you mean attack/pgd or train/pgd?" in bascule("show", "pgd").err
    assert "Did you mean data/digits or studies/digits?" in bascule("show", "digits").err
    assert "Did you mean" not in bascule("show", "nothing").err
    assert bascule("show", "attack").out == bascule("ls", "attack").out
