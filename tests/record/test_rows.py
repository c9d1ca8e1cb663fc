"""From the record to what rows are compared by, and to the classes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bascule.metrics.paired import difference
from bascule.record.rows import by_class, read_rows
from bascule.record.run import RunRecord
from bascule.report.compare.comparable import groups_of


def test_rows_bring_their_outcomes_by_seed(finished: RunRecord) -> None:
    none, adv = read_rows(finished)
    assert list(none.outcomes) == list(adv.outcomes) == [0, 1]
    assert none.classes == tuple("0123456789")
    for seed in finished.plan().rows[0].seeds:
        stored, (clean,) = finished.cell(seed.cell.fingerprint).answers(), seed.cell.of("clean")
        assert np.array_equal(none.outcomes[seed.seed].id, stored.id)  # type: ignore[arg-type]
        assert np.array_equal(none.outcomes[seed.seed].clean, stored.predictions[clean.key])  # type: ignore[arg-type]


def test_two_rows_of_a_study_can_be_paired(finished: RunRecord) -> None:
    none, adv = read_rows(finished)
    for name in ("accuracy", "robust_accuracy", "asr", "asr_twin", "triggered_accuracy"):
        found = difference(none.kinds[name], none.outcomes, adv.outcomes)
        before, after = none.metrics[name].value, adv.metrics[name].value
        assert (found.before, found.after, found.seeds) == (pytest.approx(before), pytest.approx(after), 2)
        assert found.value == pytest.approx(after - before)  # type: ignore[operator]
        assert found.n == adv.metrics[name].n


def test_classes_hold_what_the_images_of_each_say(finished: RunRecord) -> None:
    row = read_rows(finished)[0]
    found = by_class(row)
    labels = row.outcomes[0].label
    assert {label: n for label, (n, _) in found.items()} == {label: (labels == label).sum() for label in range(10)}
    for label, (n, measures) in found.items():
        shares = [np.mean(outcomes.clean[labels == label] == label) for outcomes in row.outcomes.values()]  # type: ignore[index]
        assert measures["accuracy"].value == pytest.approx(np.mean(shares))
        assert measures["accuracy"].n == n
        assert (measures["asr"].value is None) == (label == 7)
    weighted = sum(n * (measures["robust_accuracy"].value or 0) for n, measures in found.values())
    assert weighted / len(labels) == pytest.approx(row.metrics["robust_accuracy"].value)


def test_a_run_that_has_not_begun_has_no_classes(tmp_path, plan_of, finished: RunRecord) -> None:
    run = RunRecord(tmp_path / "run")
    run.write_plan(finished.plan())
    row = read_rows(run)[0]
    assert (row.outcomes, row.classes, by_class(row)) == ({}, (), {})


def test_rows_are_grouped_by_what_varies(finished: RunRecord, tmp_path) -> None:
    run = RunRecord(tmp_path / "run")
    plan = finished.plan()
    rows = tuple(replace(row, vary={"rate": rate}) for row in plan.rows for rate in (0.1, 0.2))
    run.write_plan(replace(plan, rows=rows))
    rows = read_rows(run)
    assert groups_of(rows) == [[rows[0], rows[2]], [rows[1], rows[3]]]
