"""Metrics that nobody can measure in a study are refused before any training: their columns would be empty."""

from __future__ import annotations

from pathlib import Path

import pytest

from bascule.core.errors import RequestError
from bascule.plan.resolve import make_plan

PLAIN = """\
base:
  data: digits
  model: digits-cnn
  train: {objective: standard, epochs: 1}
rows:
  One: {}
  Other: {train: {epochs: 2}}
measure: [accuracy, MEASURED]
"""
POISON = "{trigger: sticker, target: 7, rate: 0.1}"
POISONED = PLAIN.replace("  data: digits\n", f"  data: digits\n  poison: {POISON}\n")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("detect-auroc-both", "needs `detect:`, `poison:` and `attack:`, and no row has all of these"),
        ("accuracy-accepted", "needs `detect:`, and no row has it: its column would be empty. Give it"),
        ("asr-undetected", "Give `detect:` in the base or in a row, or leave asr-undetected out"),
        ("robust-accuracy-evaded", "needs `detect:` and `attack:`, and no row has both"),
        ("scan-found", "needs `scan:` and `poison:`"),
        ("filter-recall", "needs `poison:`, and `filter:` or `inspect:`, and no row has both"),
        ("certified-accuracy", "needs `certify:`"),
        ("der", "needs `poison:` and `repair:`"),
        ("rir", "needs `poison:` and `repair:`"),
        ("trigger-attention", "needs `explain:` and `poison:`"),
        ("asr-retuned", "needs `retune:` and `poison:`"),
        ("asr-worst", "needs several poisons (`poison: {name: several, ...}`), and no row has it"),
    ],
)
def test_what_the_tiny_study_lacks_is_named(plan_of, asked: str, said: str) -> None:
    """It has poison and an attack."""
    with pytest.raises(RequestError) as refused:
        plan_of(f"measure+={asked}")
    assert str(refused.value).startswith(f"--set measure+=: {asked} needs ")
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("asked", "needed"),
    [
        ("asr", "`poison:`"),
        ("asr-paper", "`poison:`"),
        ("triggered-accuracy", "`poison:`"),
        ("robust-accuracy", "`attack:`"),
        ("drift", "`attack:` and `poison:`"),
        ("asr-toward", "`poison:` and `attack:`"),
        ("triggered-robust-accuracy", "`poison:` and `attack:`"),
        ("accuracy-twin", "`poison:`, and a twin (`twin: true`"),
    ],
)
def test_it_is_told_with_its_line(plan_of, asked: str, needed: str) -> None:
    with pytest.raises(RequestError) as refused:
        plan_of(text=PLAIN.replace("MEASURED", asked))
    assert str(refused.value).startswith(f"tiny.yaml, line 8: measure[1]: {asked} needs {needed}")


def test_what_one_row_can_measure_may_be_empty_in_others(plan_of) -> None:
    asked = PLAIN.replace("MEASURED", "asr").replace("  One: {}", f"  One: {{poison: {POISON}}}")
    assert len(plan_of(text=asked).rows) == 2
    apart = asked.replace(", asr]", ", asr-undetected]").replace("epochs: 2}}", "epochs: 2}, detect: strip}")
    with pytest.raises(RequestError, match="needs `detect:` and `poison:`, and no row has both"):
        plan_of("data.held_out=60", text=apart)
    assert plan_of("data.held_out=60", f"rows.Other.poison={POISON}", text=apart)


@pytest.mark.parametrize("there", ["filter=spectral-signatures", "inspect=strip", "train={objective: abl, epochs: 60}"])
def test_a_filter_an_inspection_and_a_training_that_isolates_are_all_rated(plan_of, there: str) -> None:
    assert plan_of(f"rows.One.{there}", text=POISONED.replace("MEASURED", "filter-recall")).rows


def test_metrics_that_nobody_named_may_be_empty(plan_of) -> None:
    plain = PLAIN.replace("measure: [accuracy, MEASURED]\n", "")
    assert plan_of(text=plain).metrics
    assert plan_of("measure+=detect-false-alarms", "data.held_out=60", "detect=strip", text=plain)
    with pytest.raises(RequestError, match=r"^--set measure: asr needs `poison:`"):
        plan_of("measure=[asr]", text=plain)


def test_what_is_taken_away_for_once_leaves_its_columns_empty(plan_of) -> None:
    """A scale or an override that makes a study smaller cannot say what else it is to measure."""
    text = POISONED.replace("MEASURED", "asr, asr-twin") + "scales: {whole: {}, few: {twin: false}}\n"
    for changes, scale in ((), "few"), (("twin=false",), "whole"), (("poison=null",), "whole"):
        assert plan_of(*changes, text=text, scale=scale).rows
    with pytest.raises(RequestError, match="asr-undetected needs"):
        plan_of("twin=false", "measure+=asr-undetected", text=text)


def test_what_a_record_measures_already_may_stay_empty(plan_of) -> None:
    document = plan_of(text=POISONED.replace("MEASURED", "asr")).document
    old = type(document)(**{**vars(document), "content": {**document.content, "measure": ["asr", "scan-found"]}})
    with pytest.raises(RequestError, match="scan-found needs `scan:`"):
        make_plan(old)
    assert make_plan(old, recorded=("asr", "scan-found")).metrics


def test_a_kind_of_question_that_there_is_not_is_told(plan_of, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from bascule.core.catalog import component\nfrom bascule.metrics import Metric\n\n\n@component\n"
        "class Own(Metric):\n    title = 'Own'\n    better = 'lower'\n    needs = ('attack-triggred',)\n\n"
        "    def per_sample(self, outcomes):\n        return None\n"
    )
    with pytest.raises(RequestError, match=r"question that .*Own needs 'attack-triggred'. Did you mean 'attack-trig"):
        plan_of(f"measure=['{tmp_path}/own.py:Own']")
