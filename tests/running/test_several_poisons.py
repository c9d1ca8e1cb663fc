"""Several poisons at once, from the study file to the table: each takes, on one model."""

from __future__ import annotations

from pathlib import Path

from bascule.record.rows import read_rows
from bascule.record.run import RunRecord
from bascule.report.page.page import write_page

STUDY = """
base:
  data: digits
  poison:
    name: several
    parts:
      - {trigger: {name: sticker, size: 2, position: top-left}, label: dirty, target: 7, rate: 0.05}
      - {trigger: {name: sticker, size: 2, position: bottom-right}, label: dirty, target: 3, rate: 0.05}
  model: digits-cnn
  train: {objective: standard, epochs: 12, batch_size: 64, lr: 3e-3, schedule: one-cycle}
rows: {Two: {}}
vary: {poison.measured: [0, 1]}
measure: [accuracy, asr, asr-twin, asr-worst]
"""


def test_each_of_two_takes_on_one_model(tmp_path: Path, plan_of, run_here) -> None:
    run = RunRecord(tmp_path / "run")
    plan = plan_of(text=STUDY)
    assert len(plan.cells()) == 2  # the model and its twin
    assert run_here(plan, run).failures == ()
    first, second = read_rows(run)
    asr = [row.metrics["asr"].value for row in (first, second)]
    assert min(asr) > 0.6
    assert max(row.metrics["asr_twin"].value for row in (first, second)) < 0.1
    assert [row.metrics["asr_worst"].value for row in (first, second)] == [max(asr)] * 2
    assert run.cell(first.planned[0].cell.fingerprint).info()["poisoned"] == 144  # twice 5 % of 1437
    page = write_page([run], tmp_path / "report.html").read_text(encoding="utf-8")
    assert "by 2 poisons at once" in page
