"""Conditions on the numbers of a run: what holds, what does not, what cannot be told."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import pytest

import bascule
from bascule.core.errors import RequestError
from bascule.record.run import RunRecord
from bascule.report.check.checked import Checked
from bascule.report.check.condition import parse_condition
from bascule.report.check.junit import junit_xml
from findings import SCAN, finding, row_with, scan
from records import PAIR, Spec, record_of

WHEN = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)


@pytest.fixture
def run(tmp_path: Path) -> RunRecord:
    """None: accuracy 90 %, robust 0 %, ASR 10 %. Adv. training: 80 %, 35 %, 60 %. Two seeds that agree."""
    return record_of(tmp_path / "run", PAIR)


def check(run: RunRecord, *conditions: str, row: str | list[str] = ()) -> Checked:
    return bascule.check(run.path, *conditions, row=row)


# --- the language ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "metric", "part", "sign", "bound"),
    [
        ("asr < 0.05", "asr", "value", "<", 0.05),
        ("asr.high<5%", "asr", "high", "<", 0.05),
        (" robust-accuracy.low >=  .4 ", "robust_accuracy", "low", ">=", 0.4),
        ("scan_anomaly.value <= 2e0", "scan_anomaly", "value", "<=", 2.0),
        ("accuracy > 97.5 %", "accuracy", "value", ">", 0.975),
    ],
)
def test_a_condition_is_read(text: str, metric: str, part: str, sign: str, bound: float) -> None:
    found = parse_condition(text)
    assert (found.metric, found.part, found.sign) == (metric, part, sign)
    assert found.bound == pytest.approx(bound)
    assert found.text == " ".join(text.split())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("asr", "expected a metric, METRIC.low or METRIC.high, one of < <= > >=, and a number"),
        ("", "expected a metric"),
        ("asr = 0.05", "expected a metric"),
        ("asr == 0.05", "expected a metric"),
        ("0.05 > asr", "expected a metric"),
        ("asr < asr_twin", "expected a metric"),
        ("asr < nan", "expected a metric"),
        ("__import__('os').system('true') < 1", "expected a metric"),
        ("asr.high.low < 1", "expected a metric"),
        ("asr < 0.05; accuracy > 1", "expected a metric"),
        ("asr < 0,05", "expected a metric"),
        ("asr < ٣", "expected a metric"),
        ("asr.hihg < 0.05", "unknown part of a number 'hihg'. Did you mean 'high'? Allowed: high, low, value."),
        ("asr. < 0.05", "unknown part of a number ''"),
        ("a" * 300 + " < 1", "a condition has at most 200 characters"),
        ("asr < 5", "a share lies in 0..1, or 0..100 %: write 0.05 or 5 %"),
        ("asr < 500 %", "a share lies in 0..1"),
        ("asr > -0.1", "a share lies in 0..1"),
        ("asx < 0.5", "unknown metric 'asx'. Did you mean 'asr'? Allowed: accuracy, asr, asr_paper, asr_twin, robust_"),
    ],
)
def test_what_is_no_condition_is_refused(run: RunRecord, text: str, said: str) -> None:
    with pytest.raises(RequestError) as refused:
        check(run, text)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "asr-toward < 0.5",
            "asr_toward is not measured in this run. Add asr-toward to `measure:` of its study, and run",
        ),
        (
            "certified_accuracy.low > 1 %",
            "Add certified-accuracy to `measure:` of its study, which also needs `certify:` ",
        ),
        ("filter_auroc > 0.9", "which also needs `filter:` or `inspect:` there"),
        ("scan_found > 0.9", "which also needs `scan:` there"),
        ("robust_accuracy_evaded > 0.5", "which also needs `detect:` there"),
    ],
)
def test_a_metric_that_a_run_did_not_measure_is_told_from_one_that_there_is_not(
    run: RunRecord, text: str, said: str
) -> None:
    with pytest.raises(RequestError) as refused:
        check(run, text)
    assert said in str(refused.value)
    assert "unknown" not in str(refused.value)


def test_a_metric_of_ones_own_has_its_name_in_a_condition() -> None:
    found = parse_condition("my-metrics/own.py:Share_of.low >= 5 %")
    assert (found.metric, found.part, found.catalogue_name) == (
        "my_metrics/own.py:Share_of",
        "low",
        "my-metrics/own.py:Share_of",
    )


def test_percent_is_of_shares_alone() -> None:
    with pytest.raises(RequestError, match=r"scan_anomaly is no share \(its unit: index\); leave out %"):
        parse_condition("scan_anomaly < 2 %").check_unit("index")
    parse_condition("scan_anomaly < 200").check_unit("index")


def test_something_must_be_asked(run: RunRecord) -> None:
    with pytest.raises(RequestError, match=r"give at least one condition, for example 'asr.high < 5 %'"):
        check(run)


# --- what comes of it ------------------------------------------------------------------------------------------------


def test_all_conditions_are_put_to_all_rows(run: RunRecord) -> None:
    checked = check(run, "asr.high < 20 %", "accuracy > 0.7")
    assert not checked
    assert [(result.row, result.condition.metric, result.holds) for result in checked.results] == [
        ("None", "asr", True),
        ("None", "accuracy", True),
        ("Adv. training", "asr", False),
        ("Adv. training", "accuracy", True),
    ]
    lines = str(checked).splitlines()
    assert lines[0] == "pass  None: asr.high < 20 %: 15.3 % (asr 10.0 %, 95 % interval 6.4–15.3 %, n 180)"
    assert lines[2] == ("FAIL  Adv. training: asr.high < 20 %: 66.9 % (asr 60.0 %, 95 % interval 52.7–66.9 %, n 180)")
    assert lines[-1] == "1 failed, 3 passed."
    assert all(line.startswith("! ") for line in lines[4:-1])


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("asr < 0.1", False),
        ("asr <= 0.1", True),
        ("asr > 0.1", False),
        ("asr >= 0.1", True),
        ("asr.low < 0.1", True),
        ("asr.low >= 6.5 %", False),
        ("asr.high > 15 %", True),
        ("robust_accuracy.high <= 0", False),
        ("robust_accuracy <= 0", True),
    ],
)
def test_ends_and_signs_mean_what_they_say(run: RunRecord, condition: str, holds: bool) -> None:
    checked = check(run, condition, row="None")
    assert bool(checked) is holds
    assert len(checked.results) == 1


def test_a_number_is_told_apart_from_its_bound(run: RunRecord) -> None:
    (result,) = check(run, "asr.high < 15.3 %", row="None").results
    assert result.number == pytest.approx(0.152522)
    assert result.holds
    assert result.found.startswith("15.25 % (asr")


def test_rows_are_chosen_by_name_and_by_what_varies(tmp_path: Path) -> None:
    run = record_of(tmp_path / "run", [Spec(vary={"size": 1}, asr=0.1), Spec(vary={"size": 2}, asr=0.9), Spec("Other")])
    assert [result.row for result in check(run, "asr >= 0", row="None").results] == ["None · size 1", "None · size 2"]
    assert check(run, "asr < 0.5", row="None · size 1")
    assert not check(run, "asr < 0.5", row=["None · size 1", "None"])
    assert check(run, "asr < 0.5", row="None · 1")
    with pytest.raises(RequestError, match=r"^row: unknown row 'Nine'.* Allowed: None, None · size 1, None · size 2, "):
        check(run, "asr < 0.5", row=["None", "Nine"])


def test_what_is_not_there_does_not_hold(tmp_path: Path) -> None:
    rows = [
        Spec("Clean", poison=None),
        Spec("Not attacked", robust=None),
        Spec("Not begun", accuracy=None),
    ]
    run = record_of(tmp_path / "run", rows)
    for conditions in (["asr < 1", "asr.high <= 1"], ["asr >= 0"]):
        checked = check(run, *conditions, row="Clean")
        assert not any(result.holds for result in checked.results)
        assert all(result.problem == "no asr: it was not measured, or there is none" for result in checked.results)
    (result,) = check(run, "robust_accuracy >= 0", row="Not attacked").results
    assert not result.holds
    (result,) = check(run, "accuracy >= 0", row="Not begun").results
    assert not result.holds
    assert str(result) == "FAIL  Not begun: accuracy >= 0: unfinished: 0 of 2 seeds finished"


def test_rows_that_did_not_measure_it_are_left_out_unless_named(tmp_path: Path) -> None:
    rows = [Spec("Clean", poison=None), Spec("Poisoned"), Spec("Begun", accuracy=None)]
    checked = check(record_of(tmp_path / "run", rows[:2]), "asr < 0.5", "accuracy > 0.5")
    assert checked
    assert [result.row for result in checked.results] == ["Clean", "Poisoned", "Poisoned"]
    assert checked.as_dict()["left_out"] == {"asr < 0.5": ["Clean"]}
    assert "asr < 0.5: left out 1 row that did not measure it: Clean" in str(checked)
    unfinished = check(record_of(tmp_path / "two", rows), "asr < 0.5")
    assert [(result.row, result.holds) for result in unfinished.results] == [("Poisoned", True), ("Begun", False)]
    with pytest.raises(RequestError, match=r"'asr < 0\.5': no row of this run measured asr"):
        check(record_of(tmp_path / "three", rows[:1]), "asr < 0.5")


def test_the_same_number_of_the_same_models_is_said_once(tmp_path: Path) -> None:
    rows = [Spec("As it is", cells="one"), Spec("Scanned", cells="one"), Spec("Other")]
    run = record_of(tmp_path / "run", rows)
    checked = check(run, "asr < 0.5")
    assert [result.row for result in checked.results] == ["As it is, Scanned", "Other"]
    assert len(check(run, "asr < 0.5", row=["As it is", "Scanned"]).results) == 2


def test_a_row_of_which_a_seed_is_missing_does_not_pass(run: RunRecord) -> None:
    (run.path / "cells" / "row0seed1" / "outcomes.parquet").unlink()
    (run.path / "cells" / "row0seed1" / "outcomes.parquet.sha256").unlink()
    (result,) = check(RunRecord(run.path), "accuracy > 0.5", row="None").results
    assert result.number == pytest.approx(0.9)
    assert (result.holds, result.problem) == (False, "unfinished: 1 of 2 seeds finished")


def test_a_number_without_an_interval_has_no_ends(tmp_path: Path) -> None:
    found = finding(scan([0.5, -1.0, 1.5, 4.5]), SCAN, suspects=[3])
    run = record_of(
        tmp_path / "run", [row_with("None", {"scan:1": found}, robust=0.0, asr=0.0)], metrics=("scan-anomaly",)
    )
    assert check(run, "scan_anomaly >= 1")
    (result,) = check(run, "scan_anomaly.low >= 0").results
    assert not result.holds
    assert result.problem == "no interval of scan_anomaly: it takes several seeds, and seeds that differ"


def test_flags_are_told_and_decide_nothing(run: RunRecord) -> None:
    checked = check(run, "accuracy > 0.5")
    assert checked
    assert checked.flags["None"]
    lines = [line.partition(": ") for line in str(checked).splitlines() if line.startswith("! ")]
    assert len({said for *_, said in lines}) == len(lines)
    for row, flags in checked.flags.items():
        assert all(any(row in who and said == flag for who, _, said in lines) for flag in flags)
    assert str(checked).endswith("\n2 passed.")


# --- files -----------------------------------------------------------------------------------------------------------


def test_plain_values_say_everything(run: RunRecord) -> None:
    said = json.loads(json.dumps(check(run, "asr.high < 20 %", row="None").as_dict(), allow_nan=False))
    (result,) = said["results"]
    assert (said["checked"], said["holds"]) == (str(run.path), True)
    assert [result[key] for key in ("row", "condition", "metric", "part", "sign", "bound", "holds", "problem")] == [
        "None", "asr.high < 20 %", "asr", "high", "<", 0.2, True, "",
    ]  # fmt: skip
    assert result["low"] < result["value"] == 0.1 < result["high"] < 0.2
    assert (result["n"], result["unit"], result["better"]) == (180, "fraction", "lower")


def test_junit_has_what_its_schemas_want(run: RunRecord) -> None:
    """Ant's (element by element, in order, all attributes) is the strictest of those in use."""
    suites = ElementTree.fromstring(junit_xml(check(run, "asr.high < 20 %"), when=WHEN).encode())
    (suite,) = suites
    assert (suites.tag, suites.attrib, suite.tag) == ("testsuites", {}, "testsuite")
    assert suite.attrib == {
        "id": "0", "package": "bascule", "name": "bascule check", "hostname": "localhost", "time": "0",
        "timestamp": "2024-05-06T07:08:09", "tests": "2", "failures": "1", "errors": "0",
    }  # fmt: skip
    assert [part.tag for part in suite] == ["properties", "testcase", "testcase", "system-out", "system-err"]
    good, bad = suite.findall("testcase")
    assert good.attrib.keys() == bad.attrib.keys() == {"classname", "name", "time"}
    assert (good.attrib["name"], len(good)) == ("None: asr.high < 20 %", 0)
    (failure,) = bad
    assert (failure.tag, failure.attrib["type"]) == ("failure", "condition")
    assert "66.9 % (asr 60.0 %, 95 % interval 52.7" in failure.attrib["message"]
    assert failure.text is not None
    assert failure.text.startswith("FAIL  Adv. training: ")


def test_junit_holds_any_name(tmp_path: Path) -> None:
    name = "<a & \"b\"> 'c' ]]> \x1b[31m\x00\ud800 数"
    run = record_of(tmp_path / "run", [Spec(name, poison=None)])
    text = junit_xml(check(run, "asr < 0.5", row=name), when=WHEN)
    suites = ElementTree.fromstring(text.encode())
    (case,) = suites.iter("testcase")
    assert case.attrib["name"] == "<a & \"b\"> 'c' ]]> \\x1b[31m\\x00\\ud800 数: asr < 0.5"
    assert case[0].attrib["type"] == "no number"
