"""Components of other packages: where they come from, and names that are not theirs to take."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bascule.core import catalog
from bascule.core.catalog import build, describe
from bascule.core.errors import RequestError

Announce = Callable[..., Path]


@pytest.fixture
def announce(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ink_blot: str) -> Iterator[Announce]:
    """Make a distribution with the trigger `InkBlot` under some names of a room; gives its folder."""
    before = set(sys.modules)

    def make(dist: str, *names: str, room: str = "poison", installed: bool = False, url: str = "") -> Path:
        folder = tmp_path / dist / ("site-packages" if installed else "src")
        module = f"plug_{dist}"
        info = folder / f"{dist}-1.2.dist-info"
        info.mkdir(parents=True)
        (folder / f"{module}.py").write_text(f"from {module}_help import X\n{ink_blot}")
        (folder / f"{module}_help.py").write_text("X = 1\n")
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: 1.2\n")
        lines = "".join(f"{name} = {module}:InkBlot\n" for name in names)
        (info / "entry_points.txt").write_text(f"[bascule.{room}]\n{lines}")
        (info / "RECORD").write_text(f"{module}.py,,\n{module}_help.py,,\n")
        if url:
            (info / "direct_url.json").write_text(f'{{"url": "{url}"}}')
        monkeypatch.syspath_prepend(folder)
        catalog.names.cache_clear()
        importlib.invalidate_caches()
        return folder

    yield make
    catalog.names.cache_clear()
    for name in set(sys.modules) - before:
        if name.startswith("plug_"):
            del sys.modules[name]


def test_a_plug_in_is_known_by_its_name_its_distribution_and_its_code(announce: Announce) -> None:
    folder = announce("demo", "spill")
    blot = build("poison", {"name": "spill", "size": 5})
    described = describe(blot)
    assert described["name"] == "spill"
    assert described["code"].startswith("dist1:demo==1.2+ast1:")
    assert build("poison", described) == blot
    assert catalog.origin("poison", "spill") == catalog.origin_of_code("spill", described["code"]) == "demo 1.2"
    (folder / "plug_demo_help.py").write_text("X = 1  # the same\n")
    assert describe(build("poison", "spill"))["code"] == described["code"]
    (folder / "plug_demo_help.py").write_text("X = 2\n")
    assert describe(build("poison", "spill"))["code"] != described["code"]
    with pytest.raises(RequestError, match=r"spill is not what this was made with \(its code changed\)"):
        build("poison", described)
    assert catalog.changed_in({"trigger": described}) == ("spill",)


@pytest.mark.parametrize(
    ("url", "starts", "same"), [("", "dist1:demo==1.2", True), ("file:///src/demo", "dist1:demo==1.2+ast1:", False)]
)
def test_the_version_of_an_installed_plug_in_tells_its_code_unless_it_is_local(
    announce: Announce, url: str, starts: str, same: bool
) -> None:
    folder = announce("demo", "spill", installed=True, url=url)
    before = describe(build("poison", "spill"))["code"]
    assert before.startswith(starts)
    (folder / "plug_demo_help.py").write_text("X = 2\n")
    assert (describe(build("poison", "spill"))["code"] == before) == same
    assert (before == starts) == same


def test_an_installed_module_is_known_by_its_distribution(announce: Announce) -> None:
    announce("demo", installed=True)
    name = "plug_demo:InkBlot"
    assert describe(build("poison", name))["code"] == "dist1:demo==1.2" == catalog.code_named(name)
    assert catalog.origin("poison", name) == "demo 1.2"


@pytest.mark.parametrize("claimed", ["sticker", "Sticker"])
def test_a_built_in_name_is_never_taken(announce: Announce, claimed: str) -> None:
    announce("demo", claimed, "spill")
    names = catalog.names("poison")
    assert "spill" in names
    assert names.count("sticker") == 1
    assert claimed == "sticker" or claimed not in names
    with pytest.warns(UserWarning, match=rf"poison/{claimed} of demo 1\.2 is ignored: poison/sticker is built in"):
        assert type(build("poison", "sticker")).__module__ == "bascule.triggers.sticker"
    assert catalog.origin("poison", "sticker") == catalog.BUILT_IN
    assert catalog.documentation("poison", "sticker").summary != "Blackens a corner."


def test_tables_write_both_names_alike_so_that_neither_is_taken(announce: Announce) -> None:
    announce("demo", "robust_accuracy", room="measure")
    assert "robust_accuracy" not in catalog.names("measure")


def test_a_name_that_two_packages_claim_is_nobodys(announce: Announce) -> None:
    for dist in ("one", "two"):
        announce(dist, "spill", "well" if dist == "one" else "drop")
    said = r"^poison/spill is announced by one 1\.2 \(plug_one:InkBlot\) and two 1\.2 \(plug_two:InkBlot\)"
    for call in (catalog.load, catalog.origin, catalog.documentation, catalog.summary):
        with pytest.raises(RequestError, match=said):
            call("poison", "spill")
    assert build("poison", "drop").size == 2


def test_describing_a_plug_in_imports_nothing(announce: Announce) -> None:
    folder = announce("demo", "spill", "lost")
    (folder / "plug_demo.py").write_text("from plug_demo_help import InkBlot as InkBlot\nraise SystemExit")
    (folder / "plug_demo_help.py").write_text('from plug_demo import No\nclass InkBlot:\n    """A blot."""\n')
    assert catalog.summary("poison", "spill") == "A blot."
    assert catalog.documentation("poison", "spill").text == "A blot."
    (folder / "plug_demo_help.py").write_text("from plug_demo import InkBlot")
    assert catalog.summary("poison", "spill") == ""
    (folder / "plug_demo.py").unlink()
    assert catalog.summary("poison", "spill") == ""


def test_a_plug_in_without_metadata_has_an_origin_all_the_same(announce: Announce) -> None:
    folder = announce("demo", "spill")
    (folder / "demo-1.2.dist-info" / "METADATA").unlink()
    assert catalog.origin("poison", "spill") == "demo 1.2"


def test_a_class_cannot_call_itself_by_a_built_in_name(tmp_path: Path, ink_blot: str) -> None:
    (tmp_path / "blot.py").write_text(ink_blot + "\n    catalogue_name = 'sticker'\n")
    name = f"{tmp_path}/blot.py:InkBlot"
    assert describe(build("poison", name))["name"] == name
