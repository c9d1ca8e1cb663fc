"""A run as pandas frames."""

from __future__ import annotations

import importlib
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import bascule
from bascule.core.errors import RequestError
from bascule.record.rows import read_rows
from bascule.record.run import RunRecord
from bascule.report.frames import Frames

METRICS = ["accuracy", "robust_accuracy", "asr", "certified_accuracy"]
KEY = ["row", "train.lr", "seed", "twin", "cell"]


@pytest.fixture(scope="module")
def frames(tiny_run: RunRecord) -> Frames:
    return bascule.load(tiny_run.path).frames()


def test_rows_are_those_of_the_table(tiny_run: RunRecord, frames: Frames) -> None:
    rows = read_rows(tiny_run)
    assert list(frames.rows["row"]) == ["None", "None", r"Width $\frac$ <4>", r"Width $\frac$ <4>"]
    assert list(frames.rows["train.lr"]) == [0.01, 0.001, 0.01, 0.001]
    for name in METRICS:
        for part in ("value", "low", "high", "n"):
            column = name if part == "value" else f"{name}_{part}"
            assert list(frames.rows[column]) == [getattr(row.metrics[name], part) for row in rows]
    assert frames.rows["asr_n"].dtype == "Int64"


def test_every_model_has_a_line(frames: Frames) -> None:
    assert list(frames.cells.columns[:5]) == KEY
    assert len(frames.cells) == 16
    assert frames.cells["cell"].nunique() == 16
    assert frames.cells.groupby("twin").size().to_dict() == {False: 8, True: 8}
    own, twin = frames.cells[~frames.cells["twin"]], frames.cells[frames.cells["twin"]]
    assert own["done"].all()
    assert (own["poisoned"] == 10).all()
    assert (twin["poisoned"] == 0).all()
    assert twin[METRICS].isna().all(axis=None)
    # The mean over the seeds is the table's number.
    means = own.groupby(["row", "train.lr"])[METRICS].mean().sort_index()
    table = frames.rows.set_index(["row", "train.lr"])[METRICS].sort_index()
    assert np.allclose(means, table)


def test_every_answer_has_a_line(frames: Frames) -> None:
    found = frames.outcomes
    assert list(found.columns[:7]) == [*KEY, "id", "label"]
    assert set(found.columns[7:]) == {
        "clean", "triggered", "attack/fgsm", "attack/pgd", "attack/pgd 2", "certify/interval",
    }  # fmt: skip
    assert len(found) == 16 * 60
    assert not found.duplicated(["cell", "id"]).any()
    assert found["clean"].dtype == "Int64"
    assert found["certify/interval"].dtype == "float64"
    assert not found["clean"].isna().any()
    # The table's numbers from the answers alone.
    own = found[~found["twin"]]
    accuracy = (own["clean"] == own["label"]).groupby(own["cell"]).mean()
    cells = frames.cells[~frames.cells["twin"]].set_index("cell")
    assert np.allclose(accuracy.loc[cells.index].astype(float), cells["accuracy"])
    others = own[own["label"] != 7]
    asr = (others["triggered"] == 7).groupby(others["cell"]).mean()
    assert np.allclose(asr.loc[cells.index].astype(float), cells["asr"])
    attacks = ["attack/fgsm", "attack/pgd", "attack/pgd 2"]
    standing = (own["attack/pgd 2"] == own["label"]).fillna(False).groupby(own["cell"]).mean()
    assert np.allclose(standing.loc[cells.index].astype(float), cells["robust_accuracy"])
    # A wrong image is not attacked, a fooled one not again; twins are not attacked at all.
    wrong = own["clean"] != own["label"]
    assert own.loc[wrong, attacks].isna().all(axis=None)
    assert found.loc[found["twin"], attacks].isna().all(axis=None)
    assert not found[attacks].isin([-1]).any(axis=None)


def test_a_run_is_found_by_name(tiny_run: RunRecord) -> None:
    found = bascule.load("tiny", runs=tiny_run.path.parent)
    assert len(found.rows) == 4
    with pytest.raises(RequestError, match="no run 'other'"):
        bascule.load("other", runs=tiny_run.path.parent)


def test_a_run_that_has_not_begun(tiny_run: RunRecord, tmp_path: Path) -> None:
    run = RunRecord(tmp_path / "new")
    run.write_plan(tiny_run.plan())
    found = bascule.load(run.path)
    assert found.rows[METRICS].isna().all(axis=None)
    assert found.rows["accuracy"].dtype == "float64"
    assert not found.cells["done"].any()
    assert found.cells["seconds"].isna().all()
    assert len(found.outcomes) == 0
    assert list(found.outcomes.columns[:7]) == [*KEY, "id", "label"]


def test_images_and_evaluations_of_another_plan_are_left_out(tiny_run: RunRecord, tmp_path: Path) -> None:
    run = RunRecord(Path(shutil.copytree(tiny_run.path, tmp_path / "run")))
    (seed, _) = run.plan().rows[0].seeds
    info = {"kind": "clean", "settings": {}, "seconds": 1.0}
    one = np.array([3])
    run.cell(seed.cell.fingerprint).add_outcomes(np.array([99999]), one, one, key="clean:other", info=info)
    before, found = bascule.load(tiny_run.path).outcomes, bascule.load(run.path).outcomes
    pd.testing.assert_frame_equal(found, before)


def test_an_answer_that_is_missing_is_missing(tiny_run: RunRecord) -> None:
    assert bascule.load(tiny_run.path).outcomes["attack/pgd"].isna().any()
    assert isinstance(bascule.load(tiny_run.path).outcomes, pd.DataFrame)


def test_without_pandas_there_is_one_message(tiny_run: RunRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def missing(module: str, package: str | None = None) -> object:
        if module == "pandas":
            raise ModuleNotFoundError("No module named 'pandas'")
        return real(module, package)

    monkeypatch.setattr(importlib, "import_module", missing)
    said = "needs the package pandas, which cannot be imported (ModuleNotFoundError: No module named 'pandas')"
    with pytest.raises(RequestError, match=re.escape(said) + r".*pip install 'bascule\[frames\]'"):
        bascule.load(tiny_run.path).frames()
