"""Asking more of a recorded run loses nothing: neither when it is stopped nor when the run is another one by now."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from bascule.core.errors import RequestError
from bascule.plan.document import parse_study
from bascule.plan.overrides import Override
from bascule.plan.resolve import make_plan
from bascule.record.rows import read_rows
from bascule.record.run import RunRecord
from bascule.running.cell import do_cell
from bascule.running.extend import more_asked
from bascule.running.loss import refuse_loss
from bascule.running.run import Ran, run_plan

CPU, HERE = torch.device("cpu"), [Path()]


def asked(path: str, value: object) -> Override:
    return Override(path=path, value=value, origin=f"--{path}", adds=True)


def table(run: RunRecord) -> list[dict]:
    return [row.as_dict() for row in read_rows(RunRecord(run.path))]


def numbers(rows: list[dict]) -> list[dict]:
    return [{key: value for key, value in row.items() if key != "flags"} for row in rows]


def evaluate(run: RunRecord, *more: Override) -> Ran:
    run = RunRecord(run.path)
    return run_plan(more_asked(run, more, HERE), run, device=CPU, roots=HERE, train=False)


@pytest.fixture
def run(finished: RunRecord, tmp_path: Path) -> RunRecord:
    return RunRecord(Path(shutil.copytree(finished.path, tmp_path / "run")))


class Killed(BaseException):
    """Stands for a kill."""


def killed(*_: object) -> None:
    raise Killed


SQUARE = asked("attack", {"name": "square", "eps": 0.3, "queries": 50})


def test_an_evaluation_that_is_stopped_changes_no_number(run: RunRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    before, plan, done = table(run), run.plan_file.read_bytes(), 0

    def until_killed(*args: object) -> None:
        nonlocal done
        done += 1
        if done > 2:  # the first seed of both rows; twins are not asked
            raise Killed
        do_cell(*args)

    with monkeypatch.context() as patch:
        patch.setattr("bascule.running.cell.do_cell", until_killed)
        with pytest.raises(Killed):
            evaluate(run, SQUARE)
    assert run.plan_file.read_bytes() == plan
    stopped = table(run)
    assert numbers(stopped) == numbers(before)
    said = "unfinished: attack square has answers for 1 of 2 seeds and is left out"
    assert [row["flags"].count(said) for row in stopped] == [1, 1]
    assert evaluate(run, SQUARE).cells == 2
    assert not run.asked_file.exists()
    after = table(run)
    assert not any("unfinished" in flag for row in after for flag in row["flags"])
    assert numbers(after) != numbers(before)


def test_an_evaluation_that_fails_for_a_seed_stays_out(run: RunRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    before, tried = table(run), 0

    def fail_once(*args: object) -> None:
        nonlocal tried
        tried += 1
        if tried == 1:
            raise RuntimeError("no memory left")
        do_cell(*args)

    with monkeypatch.context() as patch:
        patch.setattr("bascule.running.cell.do_cell", fail_once)
        assert len(evaluate(run, SQUARE).failures) == 1
    rows = table(run)
    assert numbers(rows) == numbers(before)
    assert "unfinished: attack square has answers for 1 of 2 seeds and is left out" in rows[0]["flags"]
    assert any(flag.startswith("failed: seed 0: no memory left") for flag in rows[0]["flags"])
    assert evaluate(run, SQUARE).failures == ()
    assert not any("failed" in flag or "unfinished" in flag for row in table(run) for flag in row["flags"])


def test_a_curve_stays_until_the_one_after_the_new_attack_is_there(
    tmp_path: Path, plan_of, run_here, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunRecord(tmp_path / "run")
    run_here(plan_of("curve=[0.05]", "attack=[{name: fgsm, eps: 0.1}]", "twin=false", "train.epochs=1"), run)
    curve = [row["curve"] for row in table(run)]
    pgd = asked("attack", {"name": "pgd", "eps": 0.1, "steps": 2})
    with monkeypatch.context() as patch:
        patch.setattr("bascule.running.run.try_cell", killed)
        with pytest.raises(Killed):
            evaluate(run, pgd)
    assert [row["curve"] for row in table(run)] == curve
    evaluate(run, pgd)
    assert len(table(run)[0]["curve"]) == len(curve[0])


NETS = """\
from torch import nn


def small(size, classes):
    channels, height, width = size
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, classes))
"""
OWN = """\
base:
  data: {name: npz, path: PLACE/data.npz}
  model: "PLACE/nets.py:small"
  train: {objective: standard, epochs: 1}
  attack: {name: fgsm, eps: 0.1}
rows: {Own: {}}
"""


@pytest.fixture
def own(tmp_path: Path) -> RunRecord:
    """A run with data and a network of one's own."""
    write_data(tmp_path, train=60)
    (tmp_path / "nets.py").write_text(NETS)
    plan = make_plan(parse_study(OWN.replace("PLACE", str(tmp_path)), name="own", source="own.yaml"), roots=HERE)
    run = RunRecord(tmp_path / "run")
    assert run_plan(plan, run, device=CPU, roots=HERE).failures == ()
    return run


def write_data(folder: Path, train: int) -> None:
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (100, 8, 8, 1), dtype=np.uint8)
    labels = np.arange(100) % 2
    np.savez(
        folder / "data.npz", x_train=images[:train], y_train=labels[:train], x_test=images[60:], y_test=labels[60:]
    )


def refused(run: RunRecord) -> str:
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    rows = table(run)
    with pytest.raises(RequestError) as raised:
        evaluate(run, asked("attack", "square"))
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before
    assert table(run) == rows
    assert rows[0]["metrics"]["accuracy"]["value"] is not None
    return str(raised.value)


def test_one_picture_more_is_refused_before_anything_is_written(own: RunRecord, tmp_path: Path) -> None:
    write_data(tmp_path, train=61)
    assert "row 'Own': the data changed: 60 training images then, 61 now" in refused(own)


def test_other_pictures_are_refused(own: RunRecord, tmp_path: Path) -> None:
    content = dict(np.load(tmp_path / "data.npz"))
    content["x_test"] = 255 - content["x_test"]
    np.savez(tmp_path / "data.npz", **content)
    assert "the data changed: other pictures or labels" in refused(own)


def test_other_code_is_refused(own: RunRecord, tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(NETS.replace("nn.Flatten()", "nn.Flatten(), nn.Identity()"))
    assert f"was made with other code: {tmp_path}/nets.py:small changed since, or is gone" in refused(own)
    with pytest.raises(RequestError, match=r"row 'Own': model: the code or file changed \(code\)"):
        more_asked(RunRecord(own.path), [asked("measure", "accuracy")], HERE, trust_code=True)


def test_a_comment_is_no_other_code(own: RunRecord, tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(f"# A comment.\n{NETS}")
    assert evaluate(own, asked("measure", "robust-accuracy")).failures == ()


def test_another_default_is_refused(own: RunRecord) -> None:
    content = json.loads(own.plan_file.read_text())
    content["text"] = content["text"].replace("epochs: 1", "epochs: 2")
    own.plan_file.write_text(json.dumps(content))
    own.plan_file.with_name("study.json.sha256").unlink()
    assert "row 'Own': train.epochs: 1 then, 2 now" in refused(own)


def test_a_plan_of_other_models_is_not_evaluated(run: RunRecord, plan_of) -> None:
    before = table(run)
    with pytest.raises(RequestError, match=r"train\.epochs: 2 then, 1 now"):
        run_plan(plan_of("train.epochs=1"), run, device=CPU, roots=(), train=False)
    with pytest.raises(RequestError, match=r"train\.clip_norm: the default then, 2\.0 now"):
        run_plan(plan_of("train.clip_norm=2"), run, device=CPU, roots=(), train=False)
    assert table(run) == before


def test_more_of_the_same_is_taken(own: RunRecord) -> None:
    assert evaluate(own, asked("attack", {"name": "square", "eps": 0.1, "queries": 2})).failures == ()
    assert evaluate(own, asked("certify", {"name": "interval", "eps": 0.01}), asked("measure", "certified-accuracy"))
    assert table(own)[0]["metrics"]["certified_accuracy"]["value"] is not None


def test_running_the_study_again_says_what_it_shows_no_more(run: RunRecord, plan_of) -> None:
    evaluate(run, SQUARE)
    said: list[str] = []
    run_plan(plan_of(), RunRecord(run.path), device=CPU, roots=(), warn=said.append)
    (text,) = said
    assert text.startswith("not in the study, and so not in its table any more, but kept: attack+=")
    assert evaluate(run, SQUARE) == Ran(0, ())


def test_answers_of_detectors_of_earlier_versions_hinder_nobody(plan_of, tmp_path: Path) -> None:
    """They met other images, and so stand under other keys: they are asked anew, and nothing else is lost."""
    plan, run = plan_of("detect=strip", "data.held_out=60"), RunRecord(tmp_path / "old")
    run.write_plan(plan.recorded())
    (new,) = (one.key for one in plan.rows[0].cells[0].questions if one.kind == "detect")
    text = run.plan_file.read_text()
    assert new in text
    run.plan_file.write_text(text.replace(new, "detect:0123456789abcdef"))
    run.plan_file.with_name("study.json.sha256").unlink()
    refuse_loss(run, plan, ())
    with pytest.raises(RequestError, match="its table would lose it"):
        refuse_loss(run, plan_of("detect=strip", "data.held_out=60", "poison.rate=0.2"), ())
