"""The recorded plan: what is written is read back, and so is what earlier versions wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bascule.core.errors import RequestError
from bascule.record.plan import Reach, plan_from
from bascule.record.run import RunRecord

GOLDEN = Path(__file__).parents[1] / "golden" / "run" / "study.json"


def test_a_plan_is_written_as_it_was_read(tmp_path: Path) -> None:
    run = RunRecord(tmp_path)
    run.write_plan(RunRecord(GOLDEN.parent).plan())
    written = json.loads(run.plan_file.read_text())
    names = [seed.pop("names") for row in written["rows"] for seed in row["cells"]]
    assert written == json.loads(GOLDEN.read_text())
    assert sorted(names[0].values()) == ["fgsm", "interval", "pgd"]  # as its settings say, which it holds without names
    assert run.plan() == RunRecord(GOLDEN.parent).plan()


def test_runs_from_before_twins_had_questions_of_their_own() -> None:
    content = json.loads(GOLDEN.read_text())
    for row in content["rows"]:
        del row["given"], row["published"]
        for seed in row["cells"]:
            for later in [key for key in seed if key.startswith("twin_")] + ["balls", "values"]:
                del seed[later]
    seed = plan_from(content).rows[0].seeds[0]
    assert seed.twin is not None
    assert seed.cell.of("attack")[0].reach is None
    assert seed.twin.of("attack") == ()
    assert seed.twin.of("clean") == seed.cell.of("clean")
    assert seed.twin.keys == seed.cell.keys - {question.key for question in seed.cell.of("attack")}


def test_a_question_knows_its_ball_and_its_value() -> None:
    cell = RunRecord(GOLDEN.parent).plan().rows[0].seeds[0].cell
    reach = cell.of("attack")[0].reach
    assert isinstance(reach, Reach)
    assert (reach.norm, reach.uses_gradient, reach.of_model) == ("linf", True, None)
    assert {point.value for point in cell.of("curve")} == {0.05, 0.2}


@pytest.mark.parametrize("change", [{"rows": 3}, {"rows": [{}]}, {"overrides": None}], ids=str)
def test_what_is_no_plan_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    run = RunRecord(tmp_path)
    run.plan_file.write_text(json.dumps(json.loads(GOLDEN.read_text()) | change))
    with pytest.raises(RequestError, match=r"cannot read .*study\.json: it holds no plan"):
        run.plan()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("target", value) for value in ([1, [2, [3]]], "7", 0.5, -1, 10**30)),
        ("published", {"metrics": {"accuracy": "high"}}),
    ],
    ids=str,
)
def test_a_row_that_says_nonsense_is_no_plan(tmp_path: Path, key: str, value: object) -> None:
    content = json.loads(GOLDEN.read_text())
    content["rows"][2][key] = value
    run = RunRecord(tmp_path)
    run.plan_file.write_text(json.dumps(content))
    with pytest.raises(RequestError, match="it holds no plan: "):
        run.plan()


@pytest.mark.parametrize(("key", "value"), [("balls", {"norm": "linf", "eps": "wide"}), ("values", [1])])
def test_a_question_that_says_nonsense_is_no_plan(tmp_path: Path, key: str, value: object) -> None:
    content = json.loads(GOLDEN.read_text())
    seed = content["rows"][0]["cells"][0]
    seed[key] = dict.fromkeys(seed["columns"]["attack"], value)
    run = RunRecord(tmp_path)
    run.plan_file.write_text(json.dumps(content))
    with pytest.raises(RequestError, match="it holds no plan: "):
        run.plan()


OUTSIDE = ("../../other/cells/aaaa", "/etc", "..", ".", "a/b", "a\\b", "a:b:c", "", "a\0b", "x" * 300)


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("place", ["cell", "twin", "columns", "twin_columns"])
def test_a_plan_leads_nowhere_outside_its_run(tmp_path: Path, name: str, place: str) -> None:
    content = json.loads(GOLDEN.read_text())
    content["rows"][0]["cells"][0][place] = {"clean": [name]} if place.endswith("columns") else name
    run = RunRecord(tmp_path)
    run.plan_file.write_text(json.dumps(content))
    with pytest.raises(RequestError, match=r"it holds no plan: ValueError: .* is no name of a cell and no key of a qu"):
        run.plan()


@pytest.mark.parametrize("name", ["../../other/cells/aaaa", "/etc", ".."])
def test_a_cell_is_made_from_nothing_outside_its_run(tmp_path: Path, name: str) -> None:
    cell = RunRecord(tmp_path).cell("aaaa")
    cell.write_info({"base": name})
    assert cell.base() is None
    assert [damage.path for damage in cell.damaged()] == [cell.info_file]
