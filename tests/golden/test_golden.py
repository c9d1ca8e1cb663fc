"""What later versions must not change without a word: identities, records of earlier versions, and their tables.

The run in `run/` was recorded at commit 1544950 by `bascule run golden.yaml`, the tables beside it were printed by that
version, and the identities are those that version gave the cells of every built-in study. Since then two things have
changed in the tables: intervals over seeds are on the logit scale, and the lines below a table name the attacks and
bounds and say each flag once.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch

from bascule.core import catalog
from bascule.core.fingerprint import fingerprint
from bascule.data.contract import Facts
from bascule.plan.document import built_in_names, read_study
from bascule.plan.resolve import make_plan
from bascule.record.run import RunRecord
from bascule.report.runs import rows_of
from bascule.report.tables.tables import More, render

HERE = Path(__file__).parent
FINGERPRINTS = json.loads((HERE / "fingerprints.json").read_text())
SIZES = {"mnist": (1, 28, 28), "cifar10": (3, 32, 32), "digits": (1, 8, 8), "folder": (3, 224, 224)}
TABLES = {
    "table.text": ("text", More()),
    "table.json": ("json", More()),
    "table.csv": ("csv", More()),
    "table.latex": ("latex", More()),
    "table.markdown": ("markdown", More()),
    "against.json": ("json", More(against="None", pareto=True)),
    "against.text": ("text", More(against="None")),
    "before.text": ("text", More(before=True)),
    "by-class.text": ("text", More(pareto=True, by_class=True)),
}
STUDIES = [
    (name, scale) for name in built_in_names() for scale in read_study(name).content.get("scales") or {None: None}
]


def digest(texts: list[str]) -> str:
    return hashlib.sha256(" ".join(texts).encode()).hexdigest()[:16]


@pytest.fixture
def made_up_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every source has content of the right size, with no file read; no network is built to try its size."""
    labels = torch.arange(70_000) % 10
    for name, size in SIZES.items():
        facts = Facts(
            size=size,
            classes=tuple(map(str, range(10))),
            train_labels=labels[:60_000],
            test_labels=labels[60_000:],
            digest="golden",
        )
        monkeypatch.setattr(catalog.load("data", name), "facts", lambda source, roots, facts=facts: facts)
    monkeypatch.setattr("bascule.plan.checks.check_network", lambda *_, **__: None)


@pytest.mark.usefixtures("made_up_data")
@pytest.mark.parametrize(("name", "scale"), STUDIES)
def test_models_and_evaluations_of_the_built_in_studies_keep_their_identity(name: str, scale: str | None) -> None:
    plan = make_plan(read_study(name), scale=scale)
    cells = plan.cells()
    assert FINGERPRINTS[plan.folder] == {
        "cells": len(cells),
        "models": digest([cell.fingerprint for cell in cells]),
        "questions": digest([fingerprint("golden", [question.key for question in cell.questions]) for cell in cells]),
    }


def test_every_built_in_study_is_pinned() -> None:
    folders = {name if scale is None else f"{name}-{scale}" for name, scale in STUDIES}
    assert folders == set(FINGERPRINTS)


@pytest.mark.parametrize("name", TABLES)
def test_a_record_of_an_earlier_version_gives_its_tables_byte_for_byte(name: str) -> None:
    form, more = TABLES[name]
    assert render(rows_of([RunRecord(HERE / "run")]), form, more).encode() == (HERE / "tables" / name).read_bytes()
