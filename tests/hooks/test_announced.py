"""Hooks that other packages announce: found without importing them, switched off by a variable, never in the way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bascule.core.catalog import plugins
from bascule.core.errors import RequestError
from bascule.hooks import Hook, installed
from bascule.hooks.announced import made_hooks

Announce = Callable[..., None]


@pytest.fixture
def announce(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Announce:
    """Install a distribution with a module and hooks in it."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(module: str, code: str, **hooks: str) -> None:
        (tmp_path / f"{module}.py").write_text(code)
        info = tmp_path / f"{module}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.2\n")
        lines = "".join(f"{name} = {value}\n" for name, value in hooks.items())
        (info / "entry_points.txt").write_text(f"[bascule.hooks]\n{lines}")

    return install


GOOD = """
from bascule.hooks import Hook

class Quiet(Hook):
    pass

class Loud(Hook):
    pass
"""


def test_installed_hooks_act_and_none_is_imported_to_be_listed(announce: Announce) -> None:
    announce("hooks_a", "raise RuntimeError('imported')", bad="hooks_a:Thing")
    announce("hooks_b", GOOD, quiet="hooks_b:Quiet", loud="hooks_b:Loud")
    found = [one for one in installed({}) if one.origin.startswith("hooks_")]
    assert [(one.name, one.origin, one.on) for one in found] == [
        ("bad", "hooks_a 1.2", True),
        ("loud", "hooks_b 1.2", True),
        ("quiet", "hooks_b 1.2", True),
    ]


def test_a_package_that_is_found_twice_counts_once(announce: Announce, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hooks and components alike."""
    announce("hooks_g", GOOD, loud="hooks_g:Loud")
    real = plugins.entry_points
    monkeypatch.setattr(plugins, "entry_points", lambda group: [*real(group=group), *real(group="bascule.hooks")])
    assert [one.name for one in installed({}) if one.origin == "hooks_g 1.2"] == ["loud"]
    monkeypatch.setattr(plugins, "entry_points", lambda group: 2 * list(real(group="bascule.hooks")))
    found = plugins.plugins("attack", lambda name: False).get("loud")
    assert found is not None
    assert found.origin == "hooks_g 1.2"


def test_a_variable_says_which_act(announce: Announce, monkeypatch: pytest.MonkeyPatch) -> None:
    announce("hooks_c", GOOD, quiet="hooks_c:Quiet", loud="hooks_c:Loud")
    for value, on in (("none", []), ("quiet", ["quiet"]), ("loud, quiet", ["loud", "quiet"]), ("", ["loud", "quiet"])):
        monkeypatch.setenv("BASCULE_HOOKS", value)
        assert [one.name for one in installed() if one.on] == on
        assert list(made_hooks()) == [f"{name} (hooks_c 1.2)" for name in on]
    assert all(isinstance(hook, Hook) for hook in made_hooks().values())
    monkeypatch.setenv("BASCULE_HOOKS", "quite")
    with pytest.raises(RequestError, match=r"^\$BASCULE_HOOKS: unknown hook 'quite'. Did you mean 'quiet'\?"):
        installed()


def test_one_that_cannot_be_made_is_left_out_with_a_warning(announce: Announce, tmp_path: Path) -> None:
    announce("hooks_d", "class Thing:\n    pass\n", thing="hooks_d:Thing", absent="hooks_d:Absent")
    announce("hooks_e", "raise SystemExit(3)", leaves="hooks_e:Thing")
    announce("hooks_f", GOOD, loud="hooks_f:Loud")
    with pytest.warns(UserWarning, match="cannot be loaded, and the run goes on") as warned:
        assert list(made_hooks()) == ["loud (hooks_f 1.2)"]
    texts = sorted(str(one.message) for one in warned)
    assert [text.partition(" cannot")[0] for text in texts] == [
        "the hook absent (hooks_d 1.2)",
        "the hook leaves (hooks_e 1.2)",
        "the hook thing (hooks_d 1.2)",
    ]
    assert texts[2].endswith("TypeError: hooks_d:Thing makes Thing, which is no bascule.hooks.Hook")
    assert texts[1].endswith(f"SystemExit: 3 ({tmp_path / 'hooks_e.py'}, line 1)")
