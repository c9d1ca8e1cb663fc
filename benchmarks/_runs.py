"""Run folders of any size: a few models trained for real, and copies of their records under the names of many more.

Everything in such a folder is written by the product itself, so what reads it has the work that a real run gives it.
Only the answers repeat themselves.
"""

from __future__ import annotations

import functools
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from bascule.plan.document import parse_study
from bascule.plan.plan import Cell, Plan, Row
from bascule.plan.resolve import make_plan
from bascule.record.run import RunRecord
from bascule.running.run import run_plan

_STUDY = r"""
title: A run of many models
about: Every kind of question that leaves a panel, asked of small models.
base:
  data: {name: digits, max_train: 600, max_test: %(images)d, held_out: 40}
  poison: {trigger: {name: sticker, size: 2}, target: 7, rate: 0.5, rate_of: target}
  model: {name: digits-cnn, width: 3, hidden: 16}
  train: {objective: standard, epochs: %(epochs)d, batch_size: 30, lr: 1e-2}
  probe: {images: 64}
  attack:
    - {name: fgsm, eps: 0.1}
    - {name: pgd, eps: 0.1, steps: 3}
  certify: {name: interval, eps: 0.001}
  curve: [0.05, 0.2]
  explain: [saliency, fourier]
  scan: {name: neural-cleanse, max_looks: 4}
rows:
  None: {inspect: spectral-signatures}
  Adv. training:
    train: {objective: {name: pgd, eps: 0.1, steps: 2}}
vary:
  train.weight_decay: [%(decays)s]
seeds: %(seeds)d
measure: [accuracy, robust-accuracy, certified-accuracy, asr, asr-paper, asr-twin, filter-auroc, scan-anomaly]
"""
_MODELS = 4
"""Models for each value and seed: two rows, each with its twin."""
_TRAINED = 3
"""At most so many seeds are trained for real."""


@dataclass(frozen=True)
class Size:
    """How large a run is."""

    models: int
    """A multiple of four."""
    values: int = 5
    """Values of what varies, each with two rows of the table."""
    images: int = 360
    """Test images."""
    epochs: int = 12

    @property
    def seeds(self) -> int:
        """Seeds of each row."""
        return self.models // (_MODELS * self.values)

    def plan(self, *, values: int, seeds: int) -> Plan:
        """The study with so many values and seeds."""
        decays = ", ".join(f"{value}e-6" for value in range(1, values + 1))
        given = {"images": self.images, "epochs": self.epochs, "decays": decays, "seeds": seeds}
        return make_plan(parse_study(_STUDY % given, name="many", source="many.yaml"))


def write_run(folder: Path, size: Size) -> RunRecord:
    """A finished run of `size.models` models in `folder`, which is not there yet."""
    run, plan = RunRecord(folder), size.plan(values=size.values, seeds=size.seeds)
    run.write_plan(plan.recorded())
    trained = _trained(size.images, size.epochs, min(size.seeds, _TRAINED))
    rows = {row.name: row for row in trained[1].rows}
    for row in plan.rows:
        for cell, model in _beside(row, rows[row.name]):
            source, target = trained[0].cell(model.fingerprint), run.cell(cell.fingerprint)
            shutil.copytree(source.path, target.path)
            settings = cell.settings()
            target.write_info(
                {**source.info(), "fingerprint": cell.fingerprint, "seed": cell.seed, "settings": settings}
            )
    return run


def _beside(row: Row, trained: Row) -> Iterator[tuple[Cell, Cell]]:
    """Each model of a row with the trained one whose answers it gets."""
    for many, few in ((row.cells, trained.cells), (row.twins, trained.twins)):
        for place, cell in enumerate(many):
            yield cell, few[place % len(few)]


@functools.cache
def _trained(images: int, epochs: int, seeds: int) -> tuple[RunRecord, Plan]:
    """The models that are trained for real."""
    plan = Size(_MODELS, images=images, epochs=epochs).plan(values=1, seeds=seeds)
    return _run(plan, "few"), plan


_DIGITS = r"""
title: Digits, ordinary and hardened
base:
  data: digits
  model: digits-cnn
  train: {objective: standard, epochs: %d, batch_size: 64, lr: 3e-3, schedule: one-cycle}
rows:
  None: {}
  Adv. training: {train: {objective: {name: pgd, eps: 0.3, steps: 5, warmup: 0.5}}}
measure: [accuracy]
"""


@functools.cache
def trained_digits(epochs: int) -> RunRecord:
    """The models of the study `digits` without poison, one of each."""
    plan = make_plan(parse_study(_DIGITS % epochs, name="digits", source="digits.yaml"))
    return _run(plan, "digits")


def _run(plan: Plan, name: str) -> RunRecord:
    """Trained and evaluated, in a folder that stays until the process ends."""
    folder = tempfile.TemporaryDirectory(prefix="bascule-benchmark-")
    _FOLDERS.append(folder)
    run = RunRecord(Path(folder.name) / name)
    ran = run_plan(plan, run, device=torch.device("cpu"), roots=(), console=Console(quiet=True))
    assert not ran.failures, ran.failures
    return run


_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []
