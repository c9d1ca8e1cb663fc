"""Components and studies listed and described."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bascule.core import catalog


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
from bascule.triggers.contract import Trigger

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


@pytest.fixture
def plugged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Distributions that announce a trigger: `demo` as `stripes`, also as `sticker`; both as `twice`."""
    folder = tmp_path / "plugged"
    for dist, names in (("demo", ("stripes", "sticker", "twice", "lost")), ("other", ("twice",))):
        info = folder / f"{dist}-1.2.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: 1.2\n")
        modules = {name: "nowhere" if name == "lost" else f"{dist}_stripes" for name in names}
        lines = "".join(f"{name} = {module}:Stripes\n" for name, module in modules.items())
        (info / "entry_points.txt").write_text(f"[bascule.poison]\n{lines}")
        (folder / f"{dist}_stripes.py").write_text(f"import sys\nsys.imported_by_ls = True\n{OWN}")
    monkeypatch.syspath_prepend(folder)
    catalog.names.cache_clear()
    yield
    catalog.names.cache_clear()
    vars(sys).pop("imported_by_ls", None)
    sys.modules.pop("demo_stripes", None)


@pytest.mark.usefixtures("plugged")
def test_listing_says_where_parts_come_from_and_imports_none(bascule: Callable) -> None:
    said = bascule("ls", "poison")
    assert said.code == 0
    lines = [re.sub(" +", " ", line) for line in said.out.splitlines()]
    assert "poison/stripes Every second row brighter. [demo 1.2]" in lines
    assert "poison/lost [demo 1.2]" in lines
    (twice,) = (line for line in lines if line.startswith("poison/twice"))
    assert twice.startswith(
        "poison/twice refused: poison/twice is announced by demo 1.2 (demo_stripes:Stripes) and other"
    )
    assert "[" not in next(line for line in lines if line.startswith("poison/sticker"))
    warning = (
        "bascule: warning: poison/sticker of demo 1.2 is ignored: poison/sticker is built in. It needs another name\n"
    )
    assert said.err == warning == bascule("ls").err
    assert not hasattr(sys, "imported_by_ls")


@pytest.mark.usefixtures("plugged")
def test_showing_says_where_a_part_comes_from(bascule: Callable) -> None:
    assert bascule("show", "poison/stripes").out.endswith("\nfrom: demo 1.2\n")
    shown = bascule("show", "poison/sticker")
    assert shown.out.endswith("\nfrom: built-in\n")
    assert "poison/sticker of demo 1.2 is ignored" in shown.err
    twice = bascule("show", "poison/twice")
    assert (twice.code, twice.out) == (2, "")
    assert "and other 1.2 (other_stripes:Stripes)" in twice.err


def test_a_name_without_its_kind(bascule: Callable) -> None:
    assert "Did you mean attack/pgd or train/pgd?" in bascule("show", "pgd").err
    assert "Did you mean data/digits or studies/digits?" in bascule("show", "digits").err
    assert "Did you mean" not in bascule("show", "nothing").err
    assert bascule("show", "attack").out == bascule("ls", "attack").out


def test_what_stands_in_place_of_a_component_is_listed_and_shown(bascule: Callable) -> None:
    listed = bascule("ls", "poison").out
    assert re.search(
        r"^poison/given +Poison that others have planted.* \[poison: \{name: given, \.\.\.\}\]$", listed, re.M
    )
    shown = bascule("show", "poison/given")
    assert (shown.code, shown.err) == (0, "")
    assert "\n  indices (default null): text or null\n" in shown.out
    assert shown.out.endswith("\nwritten: poison: {name: given, ...}\nfrom: built-in\n")
    assert "Did you mean poison/given?" in bascule("show", "given").err


def test_names_of_other_benchmarks_lead_to_ours(bascule: Callable) -> None:
    for words, said in (
        (("show", "badnets"), "'badnets' is poison/sticker, with `label: dirty`."),
        (("show", "attack/BIM"), "'BIM' is attack/pgd, with `random_start: false`."),
        (("ls", "nc"), "'nc' is scan/neural-cleanse"),
    ):
        refused = bascule(*words)
        assert (refused.code, refused.out) == (2, "")
        assert said in refused.err


def test_installed_hooks_are_listed_and_not_imported(
    bascule: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bascule.hooks.announced.GROUP", "bascule.hooks_of_tests")
    assert re.sub(" +", " ", bascule("ls", "hooks").out) == "hooks none are installed\n"
    info = tmp_path / "follow-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: follow\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[bascule.hooks_of_tests]\nmine = nowhere:Mine\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert bascule("ls", "hooks").out == "hooks/mine  told of every run [follow 1.2]\n"
    monkeypatch.setenv("BASCULE_HOOKS", "none")
    assert bascule("ls", "hooks").out == "hooks/mine  off by $BASCULE_HOOKS [follow 1.2]\n"
    monkeypatch.setenv("BASCULE_HOOKS", "other")
    said = bascule("ls", "hooks")
    assert (said.code, said.out) == (2, "")
    assert "$BASCULE_HOOKS: unknown hook 'other'" in said.err


def test_the_schema_is_printed_or_written(bascule: Callable, tmp_path: Path) -> None:
    said = bascule("schema")
    assert said.code == 0
    assert json.loads(said.out)["properties"].keys() >= {"base", "rows", "vary"}
    assert bascule("schema", "--output", "study.schema.json").out == "study.schema.json\n"
    assert (tmp_path / "study.schema.json").read_text() == said.out
    assert "is a folder" in bascule("schema", "--output", str(tmp_path)).err
