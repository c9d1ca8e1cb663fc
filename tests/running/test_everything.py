"""One study that uses every component there is, on the CPU and, with the same code, on a CUDA device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from bascule.core import catalog
from bascule.plan.document import parse_study
from bascule.plan.resolve import make_plan
from bascule.record.rows import RowResult, read_rows
from bascule.record.run import RunRecord
from bascule.running.run import run_plan

EPS = 0.1
QUICK: dict[str, dict[str, Any]] = {
    "attack": {
        "apgd": {"steps": 4}, "autoattack": {"version": "light"}, "cw": {"steps": 4}, "deepfool": {"steps": 4},
        "fab": {"steps": 3, "targets": 2}, "patch": {"size": 2, "steps": 2}, "pgd": {"steps": 3},
        "spatial": {"search": "random", "tries": 2, "pixels": 1}, "square": {"queries": 10},
    },
    "poison": {
        "input-aware": {"steps": 5, "mask_steps": 5, "batch_size": 16, "width": 4}, "low-frequency": {"steps": 5},
        "narcissus": {"steps": 5, "warmup": 1}, "sleeper-agent": {"steps": 4, "retrain": 1, "retrain_steps": 2},
    },
    "certify": {"interval": {"eps": 0.001}, "crown-ibp": {"eps": 0.001}, "smoothing": {"eps": 0.1, "n": 50, "n0": 10}},
    "filter": {"strip": {"overlays": 4}},
    "detect": {"strip": {"overlays": 4}},
    "scan": {
        "neural-cleanse": {"max_looks": 3}, "feature-inversion": {"max_looks": 3}, "mm-bd": {"steps": 5},
    },
    "repair": {
        "anp": {"steps": 5}, "i-bau": {"rounds": 1, "steps": 2, "search_steps": 2},
        "fine-pruning": {"epochs": 1}, "fine-tune": {"epochs": 1}, "ft-sam": {"epochs": 1}, "sau": {"epochs": 1},
        "rnp": {"unlearn_epochs": 2, "recover_epochs": 2}, "pbe": {"epochs": 1}, "pud": {"epochs": 1},
        "nad": {"epochs": 1, "teacher_epochs": 1},
        "unlearn": {"epochs": 1, "always": True, "scanner": {"name": "neural-cleanse", "max_looks": 3}},
    },
}  # fmt: skip
"""Settings that make a component quick; where none is given its defaults are."""
NEEDED = {"eps": EPS, "attacks": [{"name": "fgsm", "eps": EPS}]}
"""A value for settings of attacks and objectives without a default, by their name."""
NORMED = {"model": {"name": "resnet9", "widths": [4, 4, 4, 4], "stem": 1}}
NETWORKS = {"ibd-psc": NORMED, "bnp": NORMED}
"""Of components that cannot work on the network of the other rows: these need batch norm."""
NOT_HERE = {"channel", "stamped", "sticker"}
"""One needs colour images, one a file (tests/running/test_given_poison.py), and one is in every other row."""


def parts(room: str) -> list[dict[str, Any]]:
    """Every component of a room with settings."""
    found = []
    for name in (name for name in catalog.names(room) if name not in NOT_HERE):
        settings = {"name": name, **QUICK.get(room, {}).get(name, {})}
        if room in ("attack", "train"):
            fields = {field.name for field in catalog.documentation(room, name).fields if field.default is None}
            settings |= {key: value for key, value in NEEDED.items() if key in fields}
        found.append(settings)
    return found


def everything() -> str:
    """The study: a row for everything that changes the training, and one whose model is asked everything."""
    rows: dict[str, Any] = {
        "asked": {key: parts(key) for key in ("attack", "certify", "explain")} | {"inspect": "gram"}
    }
    paths = {"poison": "trigger", "train": "objective", "filter": "", "scan": "", "detect": "", "repair": ""}
    for room, path in paths.items():
        for part in parts(room):
            row = {"poison": {"trigger": part}} if room == "poison" else {room: {path: part} if path else part}
            rows[f"{room} {part['name']}"] = row | NETWORKS.get(part["name"], {})
    rows["perturbed first"] = {
        "poison": {"label": "clean", "rate": 0.05, "prepare": {"name": "pgd", "eps": EPS, "steps": 2}}
    }
    base = {
        "data": {"name": "digits", "max_train": 300, "max_test": 60, "held_out": 60},
        "poison": {"trigger": {"name": "sticker", "size": 2}, "target": 7, "label": "dirty", "rate": 0.1},
        "model": {"name": "digits-cnn", "width": 4, "hidden": 16},
        "train": {"objective": "standard", "epochs": 10, "batch_size": 50, "lr": 1e-2},
        "probe": {"images": 50, "every": 5},
        "attack": {"name": "fgsm", "eps": EPS},
    }
    return yaml.safe_dump({"title": "Everything", "base": base, "rows": rows, "seeds": 1, "twin": False})


@pytest.fixture(scope="module", params=["cpu", "cuda"])
def table(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, RowResult]:
    """The rows of the study by name, on each device that is there."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    run = RunRecord(tmp_path_factory.mktemp("everything") / Path(request.param))
    plan = make_plan(parse_study(everything(), name="everything", source="everything.yaml"))
    done = run_plan(plan, run, device=torch.device(request.param), roots=())
    assert done.failures == ()
    return {row.row: row for row in read_rows(run)}


def test_every_row_has_its_numbers(table: dict[str, RowResult]) -> None:
    for name, row in table.items():
        for metric in ("accuracy", "robust_accuracy", "asr"):
            value = row.metrics[metric].value
            assert value is not None, (name, metric)
            assert 0 <= value <= 1, (name, metric)
    assert np.median([row.metrics["accuracy"].value for row in table.values()]) > 0.5


def test_everything_asked_has_an_answer(table: dict[str, RowResult]) -> None:
    (seed,) = table["asked"].planned
    for kind, least in (("attack", len(parts("attack"))), ("certify", 3), ("explain", len(parts("explain")))):
        assert len(seed.cell.of(kind)) >= least, kind  # each attack of an ensemble for itself
    for room in ("scan", "detect"):
        for name in catalog.names(room):
            assert len(table[f"{room} {name}"].planned[0].cell.of(room)) == 1
    for name in catalog.names("detect"):
        assert table[f"detect {name}"].outcomes[0].detection is not None
