"""Runs whose pictures are decoded on demand: the same models and answers, whatever is decoded ahead and by how many."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from bascule.core.ahead import Ahead, Reading, threads
from bascule.data import _streamed
from bascule.record.run import RunRecord
from bascule.running.context import Speed
from bascule.running.run import run_plan
from folders import save

STUDY = """\
base:
  data: {name: folder, path: set}
  poison: {trigger: {name: sticker, size: 2}, target: 1, rate: 0.5, rate_of: target}
  model: {name: digits-cnn, width: 4, hidden: 16}
  train: {objective: standard, epochs: 2, batch_size: 10, lr: 1e-2, augment: {resized_crop: {}, flip: true}}
  attack: {name: fgsm, eps: 0.1}
rows:
  Standard: {}
seeds: 1
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 16 training and 4 test pictures, 8 x 8."""
    draw, folder = np.random.default_rng(0), tmp_path_factory.mktemp("pictures")
    for split, count in (("train", 16), ("test", 4)):
        for label in range(3):
            for number in range(count):
                pixels = draw.integers(50 * label, 50 * label + 150, (8, 8, 3), dtype=np.uint8)
                save(folder / "set" / split / str(label) / f"{number}.png", pixels)
    return folder


def test_a_set_in_memory_and_one_read_ahead_give_the_same_bytes(
    root: Path, tmp_path: Path, plan_of: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, seen = plan_of(text=STUDY, roots=[root]), set()
    begin = Ahead._begin

    def begun(self: Ahead, index: torch.Tensor) -> object:
        seen.add(threads())
        return begin(self, index)

    monkeypatch.setattr(Ahead, "_begin", begun)
    runs = []
    for name, limit, reading in (
        ("memory", 2**30, Reading()),
        ("ahead", 0, Reading(3, 1)),
        ("on demand", 0, Reading(1, 0)),
    ):
        monkeypatch.setattr(_streamed, "IN_MEMORY", limit)
        run = RunRecord(tmp_path / name)
        ran = run_plan(plan, run, device=torch.device("cpu"), roots=[root], speed=Speed(reading=reading))
        assert ran.failures == ()
        runs.append(run)
        assert seen == {"memory": set(), "ahead": {3}, "on demand": {3, 1}}[name]
    for cell in plan.cells():
        records = [run.cell(cell.fingerprint) for run in runs]
        assert len({record.model_file.read_bytes() for record in records}) == 1
        answers = [record.answers().predictions for record in records]
        assert answers[0].keys() == answers[1].keys() == answers[2].keys()
        assert all(np.array_equal(answers[0][key], other[key]) for other in answers[1:] for key in answers[0])
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]
