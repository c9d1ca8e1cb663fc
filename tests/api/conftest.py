"""A study so small that it runs in a second, and where it was run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import bascule
from bascule.plan.document import read_study

TEXT = """\
title: Tiny
base:
  data: {name: digits, max_train: 120, max_test: 40}
  poison: {trigger: sticker, target: 7, rate: 0.5, rate_of: target}
  model: {name: digits-cnn, width: 2, hidden: 8}
  train: {objective: standard, epochs: 1, batch_size: 40}
  attack: {name: fgsm, eps: 8/255}
rows:
  None: {}
  Adv. training:
    train: {objective: {name: pgd, eps: 0.1, steps: 1}}
"""


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file."""
    path = tmp_path_factory.mktemp("studies") / "tiny.yaml"
    path.write_text(TEXT)
    return path


@pytest.fixture
def content(study: Path) -> dict[str, Any]:
    """What stands in it."""
    return read_study(str(study)).content


@pytest.fixture(scope="session")
def made(study: Path, tmp_path_factory: pytest.TempPathFactory) -> bascule.Run:
    """It was run; nobody changes its record."""
    return bascule.run(study, runs=tmp_path_factory.mktemp("runs"), progress=False)
