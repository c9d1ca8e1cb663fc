"""The command line as people and scripts meet it: output, exit codes, one clear message for a wrong request."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from bascule.cli import main

STUDY = """\
title: Tiny
base:
  data: {name: digits, max_train: 200, max_test: 40}
  poison: {trigger: sticker, target: 7, rate: 0.5, rate_of: target}
  model: {name: digits-cnn, width: 2, hidden: 8}
  train: {objective: standard, epochs: 1, batch_size: 50}
  attack: {name: fgsm, eps: 0.1}
rows:
  None: {}
  Adv. training:
    train: {objective: {name: pgd, eps: 0.1, steps: 1}}
"""


@dataclass
class Said:
    code: int
    out: str
    err: str


@pytest.fixture
def bascule(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Said]:
    """Run a command in an empty folder without data sets; gives exit code and output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BASCULE_DATA", raising=False)

    def call(*words: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["bascule", *words])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return Said(code, out, err)

    return call


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(STUDY)
    return path
