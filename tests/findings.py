"""Findings by hand: what explanations, scanners and filters leave in a record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bascule.record.run import RunRecord
from records import POISON, Arrays, Findings, Spec, record_of, sheet

EVIDENCE = ("security", "saliency", "recovered", "filters", "detectors", "spectrum")
HOSTILE = "<script>alert(1)</script> \"'&amp; 対抗 $x_1$ " + "w" * 150
FOUR = np.repeat(np.arange(4), 5)


def heat(attention: float, **more: Any) -> Arrays:
    """Two images of 2 x 2 with the trigger in the last pixel."""
    images = np.zeros((2, 1, 2, 2), dtype=np.uint8)
    stamped = images.copy()
    stamped[..., 1, 1] = 255
    spot = np.zeros((2, 2, 2), dtype=np.float32)
    spot[:, 0, 0], spot[:, 1, 1] = 0.5, 2.0
    return {
        "clean": images, "stamped": stamped, "heat_clean": spot, "heat_stamped": spot,
        "attention": np.full(9, attention) + np.linspace(-0.01, 0.01, 9), "attention_clean": np.full(9, 0.125),
        "chance": np.full(9, 0.25), **more,
    }  # fmt: skip


def scan(anomaly: Sequence[float], **more: Any) -> Arrays:
    count = len(anomaly)
    mask = np.zeros((count, 1, 2, 2), dtype=np.uint8)
    mask[:, 0, 1, 1] = 255
    return {
        "anomaly": np.array(anomaly, dtype=np.float32), "success": np.full(count, 0.75, dtype=np.float32),
        "pattern": np.full((count, 1, 2, 2), 200, dtype=np.uint8), "mask": mask, **more,
    }  # fmt: skip


def judged(score: Sequence[float], *, poisoned: int = 2, removed: Sequence[int] = (0, 2)) -> Arrays:
    """The first images are the poisoned ones."""
    count = len(score)
    return {
        "id": np.arange(count), "label": np.zeros(count, dtype=np.int64), "score": np.array(score, dtype=np.float32),
        "removed": np.isin(np.arange(count), removed), "poisoned": np.arange(count) < poisoned,
    }  # fmt: skip


def watched(triggered: float, adversarial: float, *, evaded: float | None = None, calm: int = 19) -> Arrays:
    """A detector on 20 images: benign ones get 0 to 0.95; all inputs of the other sorts work, but those of class 3 move
    nowhere with a trigger. Refused is what lies above 0.9."""
    ids = np.arange(20)
    wrong = (FOUR + 1) % 4
    moved = {"triggered": triggered, "both": triggered} | ({} if evaded is None else {"both_evading": evaded})
    away = {"adversarial": adversarial} | ({} if evaded is None else {"evading": evaded})
    arrays: Arrays = {
        "id": ids, "calm": np.linspace(0, 0.9, calm, dtype=np.float32),
        "thresholds": np.array([np.inf, 0.9], dtype=np.float32),
        "benign_suspicion": (ids / 20).astype(np.float32), "benign_prediction": FOUR,
    }  # fmt: skip
    for sort, level in {**moved, **away}.items():
        arrays[f"{sort}_suspicion"] = np.full(20, level, dtype=np.float32)
        arrays[f"{sort}_prediction"] = np.full(20, 3) if sort in moved else wrong
    return arrays


def bands(*response: float) -> Arrays:
    return {
        "frequencies": np.arange(len(response))[:, None] / 8.0, "response": np.array(response, dtype=np.float32),
        "count": np.full(len(response), 9),
    }  # fmt: skip


def fourier(*response: float) -> Arrays:
    found = bands(*response)
    return found | {"frequencies": np.array([[0.0, 0.0], [0.0, 0.5], [-0.5, 0.0], [0.5, 0.5]])[: len(response)]}


SCAN = {"settings": {"name": "neural-cleanse", "threshold": 2.0, "target": 3}, "threshold": 2.0}
HEAT = {"settings": {"name": "saliency", "score": "loss", "target": 3}}
INSPECT = {"settings": {"name": "strip", "overlays": 16}}
DETECT = {"settings": {"name": "strip", "overlays": 30, "target": 3}}
BANDS = {"settings": {"name": "band-energy", "score": "loss", "target": 3}}
FOURIER = {"settings": {"name": "fourier", "rms": 0.125, "target": 3}}


def finding(arrays: Arrays, info: Mapping[str, Any], **more: Any) -> tuple[Arrays, dict[str, Any]]:
    return arrays, {**info, **more}


def full(shift: float = 0.0) -> dict[str, tuple[Arrays, dict[str, Any]]]:
    """One of each."""
    return {
        "explain:heat": finding(heat(0.6 + shift), HEAT),
        "explain:bands": finding(bands(0.25, 0.5, 0.25), BANDS),
        "explain:fourier": finding(fourier(0.1, 0.9, 0.5, 0.2), FOURIER),
        "scan:1": finding(scan([0.5, -1.0, 1.5, 4.5]), SCAN, suspects=[3], overlap=0.375),
        "inspect:1": finding(judged([4, 1, 3, 2, 0, -1, -2, -3]), INSPECT),
        "detect:1": finding(watched(1.0, 0.5, evaded=0.5), DETECT),
    }


def twin_of(findings: Findings) -> dict[str, tuple[Arrays, dict[str, Any]]]:
    """What the same evaluations find in the twin: nothing."""
    quiet = {
        "explain:heat": finding(heat(0.2), HEAT),
        "scan:1": finding(scan([0.5, 1.0, 0.0, -0.5]), SCAN, suspects=[], overlap=0.1),
        "inspect:1": finding(judged([1, 2, 3, 4, 5, 6, 7, 8], poisoned=0, removed=[0, 1]), INSPECT),
    }
    return {key: quiet[key] for key in findings if key in quiet}


def row_with(
    name: str,
    *findings: Findings,
    twins: Sequence[Findings] = (),
    classes: Sequence[str] = "0123",
    filter_: dict[str, Any] | None = None,
    **more: Any,
) -> Spec:
    """A row with what was found of each of its models, by seed: 20 test images of 2 x 2 pixels in four classes."""
    data = {"train": 8, "test": 20, "size": [1, 2, 2], "classes": list(classes)}
    plain = {
        "accuracy": 1.0, "robust": None, "asr": None, "labels": FOUR, "epochs": 0, "info": {"data": data},
        "poison": {**POISON, "target": 3}, "picture": sheet(side=2, columns=2), "settings": {"filter": filter_},
    }  # fmt: skip
    return Spec(name, seeds=len(findings), findings=findings, of_twins=twins, twins=bool(twins), **(plain | more))


def run_of(path: Path, *rows: Spec) -> RunRecord:
    return record_of(path, rows, metrics=("accuracy",))


FOOLED = {"curve:1": 4, "attack:1": 10, "curve:2": 20}
"""Test images fooled at eps 0.05, 0.1 and 0.2, out of 20."""
