"""A user's code that changed after a run: what is trained again, what is only said, and what is read all the same."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

NETS = """\
from torch import nn

from layers_of_changed import layer


def small(size, classes):
    return nn.Sequential(nn.Flatten(), layer(), nn.LazyLinear(classes))
"""
LAYERS = """\
from torch import nn


def layer():
    return nn.ReLU()
"""
STUDY = """\
base:
  data: {name: digits, max_train: 100, max_test: 40}
  model: "nets.py:small"
  train: {objective: standard, epochs: 1, batch_size: 50}
  attack: {name: fgsm, eps: 0.1}
rows: {None: {}}
measure: [accuracy, robust-accuracy]
seeds: 1
"""
WARNING = "changed code: nets.py:small is not the code that this model was recorded with"


@pytest.fixture
def cell(bascule: Callable, tmp_path: Path) -> Iterator[str]:
    """A cell of a run of a network in a file that imports another one."""
    Path("nets.py").write_text(NETS)
    Path("layers_of_changed.py").write_text(LAYERS)
    Path("own.yaml").write_text(STUDY)
    assert bascule("run", "own.yaml").code == 0
    (folder,) = Path("runs/own/cells").iterdir()
    yield str(folder)
    sys.modules.pop("layers_of_changed", None)


def test_comments_and_docstrings_train_and_change_nothing(bascule: Callable, cell: str) -> None:
    Path("nets.py").write_text(f'"""Nets of my own."""\n{NETS}# the end\n')
    Path("layers_of_changed.py").write_text(LAYERS.replace("def layer():", "def layer():  # it\n    'Of all.'"))
    assert "1 model, 1 done before" in bascule("run", "own.yaml").out
    said = bascule("evaluate", "runs/own", "--attack", "{name: pgd, eps: 0.1, steps: 1}", "--format", "json")
    assert said.code == 0
    assert json.loads(said.out)[0]["seeds"] == 1
    said = bascule("evaluate", cell)
    assert (said.code, "changed code" in said.out + said.err) == (0, False)


def test_a_changed_import_makes_another_model_and_a_warning_for_the_old_one(bascule: Callable, cell: str) -> None:
    Path("layers_of_changed.py").write_text(LAYERS.replace("ReLU", "GELU"))
    said = bascule("evaluate", cell, "--trust-code")
    assert said.code == 0
    assert said.err.startswith(f"bascule: warning: {WARNING}\n")
    assert f"! {WARNING}" in said.out
    assert json.loads(bascule("evaluate", cell, "--trust-code", "--format", "json").out)["flags"][0] == WARNING
    asked = ["--images", "20", "--output", "made.safetensors"]
    for words in (("scan", cell, "--with", "mm-bd", "--images", "20"), ("repair", cell, "--with", "fine-tune", *asked)):
        said = bascule(*words, "--trust-code")
        assert (said.code, WARNING in said.err, f"! {WARNING}" in said.out) == (0, True, True)
    assert "1 model, 1 done now" in bascule("run", "own.yaml").out
    assert len(list(Path("runs/own/cells").iterdir())) == 2


def test_weights_that_do_not_fit_the_changed_code_are_refused(bascule: Callable, cell: str) -> None:
    Path("layers_of_changed.py").write_text(LAYERS.replace("ReLU()", "Linear(64, 5)"))
    said = bascule("evaluate", cell, "--trust-code")
    assert (said.code, said.out) == (2, "")
    assert "does not fit this network" in said.err
    assert WARNING in said.err


def test_a_run_whose_code_is_gone_is_read(bascule: Callable, cell: str) -> None:
    before = bascule("table", "runs/own", "--format", "json").out
    Path("nets.py").unlink()
    assert bascule("table", "runs/own", "--format", "json").out == before
    assert bascule("export", "runs/own", "--format", "svg").code == 0
    assert bascule("report", "runs/own").code == 0
    assert "<dd>nets.py:small: file nets.py</dd>" in Path("runs/own/report.html").read_text(encoding="utf-8")
    said = bascule("evaluate", cell, "--trust-code")
    assert (said.code, said.out) == (2, "")
    assert "no file" in said.err
