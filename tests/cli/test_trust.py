"""Reading a run never runs its maker's code; evaluating one asks first; what the user names is not asked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import bascule as library
from bascule.core.catalog import consent

GOLDEN = Path(__file__).parents[1] / "golden" / "run"
EVIL = """\
from pathlib import Path

Path("ran").touch()
from bascule.core.catalog import component
from bascule.metrics.accuracy import Accuracy
from bascule.models.digits_cnn import DigitsCnn


@component
class M(Accuracy):
    title = "Mine"


@component
class N(DigitsCnn):
    pass
"""


@pytest.fixture(autouse=True)
def nobody_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing was named before."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(consent, "_NAMED", {})
    monkeypatch.setattr(consent, "_AGREED", set())


@pytest.fixture
def received(tmp_path: Path) -> Path:
    """A run from somebody else, with code of theirs named wherever a name can stand."""
    run = Path(shutil.copytree(GOLDEN, tmp_path / "runs" / "got"))
    (tmp_path / "evil.py").write_text(EVIL)
    return run


def change(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def ran(tmp_path: Path) -> bool:
    """Whether the code was imported; forgotten for the next time."""
    mark = tmp_path / "ran"
    done = mark.exists()
    mark.unlink(missing_ok=True)
    return done


@pytest.mark.parametrize("name", ["evil.py:M", "evil:M", "os:system", "nothing.py:M", "gone-plug-in"])
def test_readers_import_nothing_that_the_record_names(bascule, received: Path, tmp_path: Path, name: str) -> None:
    plan = json.loads((received / "study.json").read_text())
    rows = [row | {"settings": {**row["settings"], "model": {"name": "evil.py:N"}}} for row in plan["rows"]]
    change(received / "study.json", metrics=["accuracy", name], rows=rows)
    said = bascule("table", "got", "--format", "json")
    assert said.code == 0, said.err
    row = json.loads(said.out)[0]
    assert list(row["metrics"]) == ["accuracy"]
    assert any(flag.startswith(f"metric left out: {name}: ") for flag in row["flags"])
    if name == "evil.py:M":
        assert bascule("report", "got").code == 0
        assert bascule("export", "got", "--format", "svg").code == 0
        assert len(library.load("got").rows) == 4
        assert bascule("ls", "measure").code == 0
    assert not ran(tmp_path)


def test_evaluating_a_received_run_asks_first(bascule, received: Path, tmp_path: Path) -> None:
    plan = json.loads((received / "study.json").read_text())
    change(received / "study.json", text=plan["text"] + "\n", overrides=["measure+=evil.py:M"])
    said = bascule("evaluate", "got", "--attack", "fgsm")
    assert said.code == 2
    assert "'evil.py:M' is code that only the record names, and nothing of it was run" in said.err
    assert "--trust-code" in said.err
    assert not ran(tmp_path)
    said = bascule("evaluate", "got", "--measure", "accuracy", "--trust-code")
    assert said.code == 0, said.err
    assert ran(tmp_path)
    assert "evil.py:M" not in consent._remembered().values()


def test_a_received_cell_asks_first(bascule, received: Path, tmp_path: Path) -> None:
    cell = next(path.parent for path in sorted(received.glob("cells/*/cell.json")))
    info = json.loads((cell / "cell.json").read_text())
    network = {key: value for key, value in info["settings"]["model"].items() if key != "name"}
    change(cell / "cell.json", settings={**info["settings"], "model": {"name": "evil.py:N", **network}})
    for words in (["evaluate"], ["scan"], ["filter"], ["repair", "--with", "clp", "--output", "x.safetensors"]):
        said = bascule(words[0], str(cell), *words[1:])
        assert said.code == 2
        assert "--trust-code" in said.err
    assert not ran(tmp_path)
    said = bascule("evaluate", str(cell), "--trust-code", "--max-images", "5")
    assert said.code == 0, said.err
    assert ran(tmp_path)


STUDY = """\
base:
  data: {name: digits, max_train: 100, max_test: 20}
  model: {name: digits-cnn, width: 2, hidden: 8}
  train: {objective: standard, epochs: 1}
rows: {None: {}}
measure: [accuracy, "evil.py:M"]
"""


def test_what_a_study_of_ones_own_names_is_remembered(bascule, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "evil.py").write_text(EVIL)
    (tmp_path / "own.yaml").write_text(STUDY)
    said = bascule("run", "own.yaml")
    assert said.code == 0, said.err
    assert "metric left out" not in said.out
    monkeypatch.setattr(consent, "_NAMED", {})  # as in another process
    said = bascule("table", "own", "--format", "json")
    assert list(json.loads(said.out)[0]["metrics"]) == ["accuracy", "evil.py:M"]
    assert bascule("evaluate", "own", "--measure", "accuracy").code == 0
    (tmp_path / "evil.py").write_text(EVIL + "\nX = 1\n")  # the name is the same, the code is not
    ran(tmp_path)
    said = bascule("table", "own", "--format", "json")
    assert list(json.loads(said.out)[0]["metrics"]) == ["accuracy"]
    assert not ran(tmp_path)
    assert bascule("evaluate", "own", "--measure", "evil.py:M").code == 0  # named once more
    monkeypatch.setattr(consent, "_NAMED", {})
    assert "evil.py:M" in json.loads(bascule("table", "own", "--format", "json").out)[0]["metrics"]


def test_a_list_of_trusted_code_that_is_damaged_trusts_nothing(tmp_path: Path) -> None:
    consent.trusted_file().parent.mkdir(parents=True)
    for text in ("{", "[]", "\x00"):
        consent.trusted_file().write_text(text)
        assert consent._remembered() == {}
