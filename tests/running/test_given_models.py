"""Rows that name weights instead of a training: the model is measured as it is, like any other row."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from bascule.auditing.open import open_model
from bascule.core import rng
from bascule.core.errors import RequestError
from bascule.core.inference import predict
from bascule.plan.document import parse_study
from bascule.plan.overrides import Override
from bascule.plan.plan import Plan
from bascule.plan.resolve import make_plan
from bascule.record.rows import read_rows
from bascule.record.run import RunRecord
from bascule.report.tables.tables import ONE_SEED, More, render
from bascule.running.extend import more_asked
from bascule.running.run import Ran, run_plan

PlanMaker = Callable[..., Plan]
Runner = Callable[[Plan, RunRecord], Ran]

STUDY = """\
base:
  data: {{name: digits, max_test: 200, held_out: 20}}
  poison: {{trigger: {{name: sticker, size: 2}}, target: 7, rate: 0.1, label: dirty}}
  model: {{name: digits-cnn, width: 8, hidden: 32}}
  train: none
  attack: {{name: fgsm, eps: 0.1}}
rows:
{rows}
seeds: {seeds}
"""


def study(seeds: int = 1, **rows: str) -> str:
    return STUDY.format(rows="\n".join(f"  {name}: {text}" for name, text in rows.items()), seeds=seeds)


@pytest.fixture
def weights(trained, planted, tmp_path: Path) -> dict[str, str]:
    """Two networks: an ordinary one, and one with a backdoor."""
    models = {"plain": trained.model, "poisoned": planted(2, True).model}
    files = {name: str(tmp_path / f"{name}.safetensors") for name in models}
    for name, model in models.items():
        safetensors.torch.save_file({key: value.clone() for key, value in model.state_dict().items()}, files[name])
    return files


def row(file: str, more: str = "") -> str:
    return f"{{model: {{weights: '{file}'}}{more}}}"


def test_two_checkpoints_are_compared_image_by_image(
    plan_of: PlanMaker, run_here: Runner, weights: dict[str, str], trained, tmp_path: Path
) -> None:
    plan = plan_of(text=study(2, plain=row(weights["plain"]), poisoned=row(weights["poisoned"])))
    run = RunRecord(tmp_path / "run")
    assert not run_here(plan, run).failures
    plain, poisoned = read_rows(run)
    assert (plain.seeds, poisoned.seeds) == (1, 1), "one file is one model, whatever the number of seeds"
    assert plain.metrics["asr_twin"].value is None, "the twin of a model that came as it is would be the same model"
    assert not any("seed" in flag for flag in (*plain.flags, *poisoned.flags)), "nothing is trained anew"
    images = plan.rows[0].setup.data.load(()).test
    share = float((predict(trained.model, images) == images.labels).double().mean())
    assert plain.metrics["accuracy"].value == pytest.approx(share)
    text = render([plain, poisoned], "text", More(against="plain"))
    assert "raises ASR from 0 % to" in " ".join(text.split())
    assert ONE_SEED not in text
    assert "training again" not in text


def test_a_trained_row_beside_it_keeps_the_rule_of_two_seeds(
    plan_of: PlanMaker, run_here: Runner, weights: dict[str, str], tmp_path: Path
) -> None:
    taught = "{train: {objective: standard, epochs: 1, batch_size: 64}}"
    plan = plan_of("twin=false", text=study(plain=row(weights["plain"]), taught=taught))
    run = RunRecord(tmp_path / "run")
    assert not run_here(plan, run).failures
    rows = read_rows(run)
    assert ONE_SEED in render(rows, "text", More(against="plain"))
    assert any(flag.startswith("one seed") for flag in rows[1].flags)
    assert not any(flag.startswith("twin from the same weights") for row in rows for flag in row.flags)


def test_a_twin_that_begins_with_the_weights_of_its_row_is_flagged(
    plan_of: PlanMaker, run_here: Runner, weights: dict[str, str], tmp_path: Path
) -> None:
    taught = "{train: {objective: standard, epochs: 1, batch_size: 64}}"
    on = row(weights["poisoned"], ", train: {objective: standard, epochs: 1, batch_size: 64, lr: 1e-5}")
    run = RunRecord(tmp_path / "run")
    assert not run_here(plan_of(text=study(fresh=taught, on=on)), run).failures
    fresh, on_top = read_rows(run)
    assert any(flag.startswith("twin from the same weights: it began") for flag in on_top.flags)
    assert not any(flag.startswith("twin from the same weights") for flag in fresh.flags)


def test_a_file_for_each_seed(plan_of: PlanMaker, run_here: Runner, weights: dict[str, str], tmp_path: Path) -> None:
    for seed, name in enumerate(("plain", "poisoned")):
        shutil.copy(weights[name], tmp_path / f"net-{seed}.safetensors")
    plan = plan_of(text=study(2, both=row(f"{tmp_path}/net-{{seed}}.safetensors")))
    run = RunRecord(tmp_path / "run")
    assert not run_here(plan, run).failures
    (both,) = read_rows(run)
    assert both.seeds == 2
    for cell, name in zip(plan.rows[0].cells, ("plain", "poisoned"), strict=True):
        kept = safetensors.torch.load_file(run.cell(cell.fingerprint).model_file)
        given = safetensors.torch.load_file(weights[name])
        assert all(torch.equal(kept[key], given[key]) for key in given)


def test_one_model_of_several_says_nothing_clear_of_its_row(
    plan_of: PlanMaker, run_here: Runner, weights: dict[str, str], tmp_path: Path
) -> None:
    for seed, name in enumerate(("poisoned", "plain")):
        shutil.copy(weights[name], tmp_path / f"net-{seed}.safetensors")
    plan = plan_of(text=study(2, plain=row(weights["plain"]), both=row(f"{tmp_path}/net-{{seed}}.safetensors")))
    run = RunRecord(tmp_path / "run")
    assert not run_here(plan, run).failures
    text = " ".join(render(read_rows(run), "text", More(against="plain", pareto=True)).split())
    assert ONE_SEED in text
    assert "perhaps differs in" in text or "does not clearly differ in" in text
    assert "Clearly beaten" not in text


def test_the_same_file_under_two_seeds_is_refused(plan_of: PlanMaker, weights: dict[str, str], tmp_path: Path) -> None:
    for seed in range(2):
        shutil.copy(weights["plain"], tmp_path / f"net-{seed}.safetensors")
    with pytest.raises(RequestError, match=r"model\.weights: the files of seeds 0 and 1 are the same"):
        plan_of(text=study(2, both=row(f"{tmp_path}/net-{{seed}}.safetensors")))


def test_a_cell_is_looked_at_without_the_file_that_it_came_from(
    plan_of: PlanMaker, run_here: Runner, weights: dict[str, str], tmp_path: Path
) -> None:
    plan = plan_of(text=study(plain=row(weights["plain"])))
    run = RunRecord(tmp_path / "run")
    run_here(plan, run)
    Path(weights["plain"]).unlink()
    folder = run.cell(plan.cells()[0].fingerprint).path
    audited = open_model(folder, device=torch.device("cpu"), roots=())
    assert audited.accuracy(audited.test) == pytest.approx(read_rows(run)[0].metrics["accuracy"].value)


@pytest.mark.parametrize("folder", ["", "audits"])
def test_a_run_is_asked_more_without_the_files_that_its_models_came_from(
    folder: str, run_here: Runner, weights: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(folder).mkdir(exist_ok=True)
    files = [Path(shutil.move(file, Path(folder) / Path(file).name)) for file in weights.values()]
    plain, poisoned = (file.name for file in files)
    on = row(plain, ", train: {objective: standard, epochs: 1, batch_size: 64, lr: 1e-4}")
    text = study(plain=row(plain), clean=row(poisoned, ", repair: clp"), on=on)
    document = parse_study(text, name="tiny", source="tiny.yaml", folder=Path(folder))
    run = RunRecord(tmp_path / "run")
    assert not run_here(make_plan(document), run).failures
    before = [result.metrics["accuracy"] for result in read_rows(run)]
    for file in files:
        file.unlink()
    more = Override(path="attack", value={"name": "fgsm", "eps": 0.2}, origin="--attack", adds=True)
    plan = more_asked(RunRecord(run.path), [more], ())
    assert run_plan(plan, RunRecord(run.path), device=torch.device("cpu"), roots=(), train=False).failures == ()
    found = read_rows(RunRecord(run.path))
    assert [result.metrics["accuracy"] for result in found] == before
    assert all(len(one.adversarial) == 2 for result in found for one in result.outcomes.values())


def test_the_weights_stand_in_the_record_and_the_file_may_move(
    plan_of: PlanMaker, run_here: Runner, weights: dict[str, str], tmp_path: Path
) -> None:
    plan = plan_of(text=study(plain=row(weights["plain"])))
    run = RunRecord(tmp_path / "run")
    run_here(plan, run)
    (cell,) = plan.cells()
    info = json.loads(run.cell(cell.fingerprint).info_file.read_text())
    assert info["settings"]["train"] is None
    assert len(info["settings"]["model"]["weights_sha256"]) == 64
    moved = shutil.move(weights["plain"], tmp_path / "moved.safetensors")
    (same,) = plan_of(text=study(plain=row(str(moved)))).cells()
    assert same.fingerprint == cell.fingerprint
    other = plan_of(text=study(plain=row(weights["poisoned"]))).cells()
    assert other[0].fingerprint != cell.fingerprint


def test_repaired_scanned_inspected_and_explained_like_a_trained_one(
    plan_of: PlanMaker, run_here: Runner, weights: dict[str, str], tmp_path: Path
) -> None:
    plan = plan_of(
        text=study(
            before=row(weights["poisoned"], ", scan: mm-bd, inspect: spectral-signatures, explain: saliency"),
            repaired=row(weights["poisoned"], ", repair: clp"),
        )
    )
    run = RunRecord(tmp_path / "run")
    assert not run_here(plan, run).failures
    before, repaired = read_rows(run)
    (outcomes,) = before.outcomes.values()
    assert outcomes.verdict is not None
    assert outcomes.attention is not None
    assert outcomes.judgement is not None
    assert outcomes.judgement.poisoned.any(), "`poison` says what the training set held"
    assert repaired.made_from == (plan.rows[0].cells[0].fingerprint,), "the repair starts from the row before"


def test_a_network_of_ones_own_takes_weights_too(
    plan_of: PlanMaker, run_here: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("nets.py").write_text(
        "from torch import nn\n\n\ndef line(size, classes, bias=True):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(size[1] * size[2], classes, bias=bias))\n"
    )
    state = {"module.1.weight": torch.randn(10, 64, generator=rng.stream(0, "given"))}
    torch.save({"state_dict": state}, "net.pth")
    text = study(own="{model: {name: 'nets.py:line', bias: false, weights: net.pth}}")
    run = RunRecord(tmp_path / "run")
    plan = plan_of(text=text)
    assert not run_here(plan, run).failures
    (cell,) = plan.cells()
    kept = safetensors.torch.load_file(run.cell(cell.fingerprint).model_file)
    assert torch.equal(kept["1.weight"], state["module.1.weight"])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            "{}",
            r"base\.train: trains nothing, so that .*: model: \{name: digits-cnn, weights: FILE\}",
        ),
        ("{filter: spectral-signatures, model: {weights: FILE}}", r"filter: nothing is trained.*`inspect`"),
        ("{probe: {}, model: {weights: FILE}}", r"probe: nothing is trained \(`train: none`\); leave it out"),
        ("{model: {weights: FILE, hidden: 16}}", r"model.*does not fit this network.*has other shapes"),
        ("{model: {weights: 'nowhere-{seed}.pth'}}", r"cannot read the weights 'nowhere-0\.pth'"),
        ("{model: {weights: FILE}, data: {name: mnist}}", r"mnist|does not fit"),
    ],
)
def test_what_cannot_be_is_refused_before_work(
    plan_of: PlanMaker, weights: dict[str, str], more: str, said: str
) -> None:
    with pytest.raises(RequestError, match=said):
        plan_of(text=study(first=more.replace("FILE", f"'{weights['plain']}'")))


def test_a_last_layer_for_other_classes_does_not_start_fresh(plan_of: PlanMaker, trained, tmp_path: Path) -> None:
    state = {key: value[:3] if key.startswith("fc2") or value.shape[:1] == (10,) else value
             for key, value in trained.model.state_dict().items()}  # fmt: skip
    torch.save(state, tmp_path / "three.pth")
    with pytest.raises(RequestError, match="does not fit this network"):
        plan_of(text=study(first=row(str(tmp_path / "three.pth"))))
