"""Runs on disk written by hand, the way a study leaves them, from what each row's models shall say."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bascule.metrics.contract import MISSING
from bascule.record.answers import Column
from bascule.record.cell import FILTERED, CellRecord
from bascule.record.plan import (
    PublishedValues,
    Reach,
    RecordedCell,
    RecordedPlan,
    RecordedQuestion,
    RecordedRow,
    RecordedSeed,
)
from bascule.record.run import RunRecord

METRICS = ("accuracy", "robust-accuracy", "asr", "asr-paper", "asr-twin", "triggered-accuracy")
TRIGGER = {"name": "sticker", "size": 2, "position": "bottom-right", "picture": None}
POISON = {
    "trigger": TRIGGER, "target": 7, "label": "clean", "rate": 0.05, "rate_of": "all", "test_trigger": None,
}  # fmt: skip
ATTACK = {"name": "fgsm", "norm": "linf", "eps": 0.3, "restarts": 1}
LABELS = np.repeat(np.arange(10), 20)
"""200 test images, 20 of each class, so 180 are not of the target class."""

Arrays = dict[str, Any]
Findings = Mapping[str, tuple[Arrays, Mapping[str, Any]]]
"""By key: what is found that is not one value per image, and what is kept beside it."""


# --- plans -----------------------------------------------------------------------------------------------------------


NOTHING: Mapping[str, Any] = {}


def asked(
    *keys: str, reaches: Mapping[str, Reach] = NOTHING, values: Mapping[str, float] = NOTHING
) -> tuple[RecordedQuestion, ...]:
    """Questions by their keys, `clean:1`."""
    return tuple(
        RecordedQuestion(key=key, kind=key.partition(":")[0], reach=reaches.get(key), value=values.get(key))
        for key in keys
    )


def row_of(*seeds: RecordedSeed, **more: Any) -> RecordedRow:
    """A row of a plan."""
    plain = {"row": "None", "data": "digits", "vary": {}, "target": None, "settings": {}, "given": {}}
    return RecordedRow(seeds=seeds, **(plain | more))


def seed_of(cell: str, *keys: str, seed: int = 0) -> RecordedSeed:
    """A seed whose model is asked some questions, and which has no twin."""
    return RecordedSeed(seed=seed, cell=RecordedCell(fingerprint=cell, questions=asked(*keys)))


def plan_of_rows(*rows: RecordedRow, **more: Any) -> RecordedPlan:
    """A plan."""
    plain = {
        "study": "tiny", "title": "A tiny study", "about": "What it is about.", "text": "rows: {}\n",
        "metrics": METRICS,
    }  # fmt: skip
    return RecordedPlan(rows=rows, **(plain | more))


# --- records ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spec:
    """A row for a test: what its models shall say, the same for every seed; None leaves the question unanswered."""

    name: str = "None"
    accuracy: float | None = 0.9
    robust: float | None = 0.0
    asr: float | None = 0.1
    twin: float | None = 0.0
    """Of the twin, its ASR."""
    poison: dict[str, Any] | None = field(default_factory=lambda: POISON)
    seeds: int = 2
    vary: dict[str, Any] = field(default_factory=dict)
    picture: bytes | None = b"sheet"
    failure: str | None = None
    info: dict[str, Any] = field(default_factory=dict)
    made_from: int | None = None
    """Place of the row whose models were repaired."""
    settings: dict[str, Any] = field(default_factory=dict)
    published: PublishedValues | None = None
    test: str = "1"
    """Of the keys of its questions; another one stands for other data."""
    first: int = 0
    """Id of the first test image."""
    labels: np.ndarray = field(default_factory=lambda: LABELS)
    """Of the test images."""
    epochs: int = 3
    twins: bool = True
    """Whether a poisoned model has a twin."""
    also: tuple[str, ...] = ()
    """Keys of further questions, whose answers a test adds itself."""
    retuned: Mapping[float, tuple[float, float]] = field(default_factory=dict)
    """By the number of poisoned images that copies were trained further on: their ASR and the twin's."""
    fooled: Mapping[str, int] = field(default_factory=dict)
    """Test images that fall under each attack of the security curve, by its key."""
    findings: Sequence[Findings] = ()
    """By seed."""
    of_twins: Sequence[Findings] = ()
    """What was found of the twins, by seed."""
    cells: str = ""
    """Start of the names of its models, where rows share them."""


def record_of(path: Path, rows: Sequence[Spec], **plan: Any) -> RunRecord:
    """A run on disk."""
    run = RunRecord(path)
    run.write_plan(plan_of_rows(*(_written(run, number, spec) for number, spec in enumerate(rows)), **plan))
    return run


def _written(run: RunRecord, number: int, spec: Spec) -> RecordedRow:
    """Write the models of a row."""
    seeds = []
    name = spec.cells or f"row{number}"
    for seed in range(spec.seeds):
        base = {} if spec.made_from is None else {"base": f"row{spec.made_from}seed{seed}"}
        findings, of_twin = (dict(part[seed]) if part else {} for part in (spec.findings, spec.of_twins))
        cell = RecordedCell(fingerprint=f"{name}seed{seed}", questions=_questions(spec, findings))
        _write_cell(run.cell(cell.fingerprint), spec, seed, base)
        _write_findings(run.cell(cell.fingerprint), findings)
        twin = None
        if spec.poison is not None and spec.twins:
            twin = RecordedCell(fingerprint=f"{name}twin{seed}", questions=_questions(spec, of_twin, twin=True))
            _write_twin(run.cell(twin.fingerprint), spec, seed)
            _write_findings(run.cell(twin.fingerprint), of_twin)
        seeds.append(RecordedSeed(seed=seed, cell=cell, twin=twin))
    settings = {"data": {"name": "digits"}, "poison": spec.poison, "attack": [ATTACK], **spec.settings}
    return row_of(
        *seeds, row=spec.name, data=settings["data"]["name"], vary=spec.vary, settings=settings, given=settings,
        target=None if spec.poison is None else spec.poison["target"], published=spec.published,
    )  # fmt: skip


def _questions(spec: Spec, findings: Findings, *, twin: bool = False) -> tuple[RecordedQuestion, ...]:
    kinds = ["clean", *(["triggered"] if spec.poison is not None else []), *([] if twin else ["attack"])]
    keys = [f"{kind}:{spec.test}" for kind in kinds] + [key for key in findings if key != FILTERED]
    keys += [] if twin else spec.also
    if spec.retuned:
        again = {f"retuned-triggered:{number:.0f}": number for number in spec.retuned}
        again |= {f"retuned:{number:.0f}": number for number in spec.retuned}
        return asked(*keys, *again, values=again)
    if not spec.fooled or twin:
        return asked(*keys)
    reaches = {
        f"attack:{spec.test}": Reach(norm="linf", eps=0.1),
        "certify:1": Reach(norm="linf", eps=0.05, of_model=True),
    }
    values = {"curve:1": 0.05, "curve:2": 0.2}
    return asked(*keys, "curve:1", "curve:2", "certify:1", reaches=reaches, values=values)


def _write_cell(cell: CellRecord, spec: Spec, seed: int, base: Mapping[str, Any]) -> None:
    if spec.failure is not None:
        cell.write_info({"seed": seed, "failure": {"kind": "DivergedError", "message": spec.failure}})
    if spec.accuracy is None:
        return
    write_training(cell, seed, spec.epochs, **{"poisoned": 72 if spec.poison else 0, **spec.info, **base})
    if spec.picture is not None and spec.poison is not None:
        cell.artefacts.mkdir(exist_ok=True)
        (cell.artefacts / "trigger.png").write_bytes(sheet() if spec.picture == b"sheet" else spec.picture)
    clean = right(spec.accuracy, spec.labels)
    answer(cell, spec, "clean", clean)
    if spec.asr is not None and spec.poison is not None:
        answer(cell, spec, "triggered", taken(spec.asr, spec.labels))
    if spec.robust is not None:
        answer(cell, spec, "attack", np.where(clean == spec.labels, right(spec.robust, spec.labels), MISSING))
    _write_curve(cell, spec)
    _write_retuned(cell, spec, 0)


def _write_twin(cell: CellRecord, spec: Spec, seed: int) -> None:
    if spec.accuracy is None or spec.twin is None:
        return
    write_training(cell, seed, spec.epochs, **({"data": spec.info["data"]} if "data" in spec.info else {}))
    answer(cell, spec, "clean", right(spec.accuracy, spec.labels))
    answer(cell, spec, "triggered", taken(spec.twin, spec.labels))
    _write_retuned(cell, spec, 1)


def _write_retuned(cell: CellRecord, spec: Spec, which: int) -> None:
    """Of the model (0) or its twin (1)."""
    for number, asr in spec.retuned.items():
        add_answers(cell, spec, f"retuned-triggered:{number:.0f}", taken(asr[which], spec.labels))
        add_answers(cell, spec, f"retuned:{number:.0f}", right(0.85, spec.labels))


def _write_curve(cell: CellRecord, spec: Spec) -> None:
    """The first images fall; the first five are proved safe at 0.06."""
    place = np.arange(len(spec.labels))
    for key, count in spec.fooled.items():
        stands = MISSING if key.startswith("curve") else spec.labels
        add_answers(cell, spec, key, np.where(place < count, wrong(spec.labels), stands))
    if spec.fooled:
        add_answers(cell, spec, "certify:1", np.where(place < 5, 0.06, 0.0))


def _write_findings(cell: CellRecord, findings: Findings) -> None:
    for key, (arrays, info) in findings.items():
        cell.add_finding(key, arrays, {"kind": key.partition(":")[0], "seconds": 0.1, **info})


def write_training(cell: CellRecord, seed: int, epochs: int = 3, **info: Any) -> None:
    """The files of a finished training."""
    cell.write_curve([{"epoch": epoch, "loss": 2.0 / epoch + 0.01 * seed} for epoch in range(1, epochs + 1)])
    facts = {
        "fingerprint": cell.path.name, "seed": seed, "poisoned": 0,
        "data": {"train": 1437, "test": 200, "size": [1, 8, 8], "classes": [str(digit) for digit in range(10)]},
        "started": f"2024-05-06T07:0{seed}:00+00:00", "seconds": 2.0,
        "versions": {"bascule": "0.1.0", "torch": "2.6.0"}, "commit": "abc123",
        "host": {"system": "Linux x86_64", "device": "cpu", "cpus": 4, "threads": 2},
        "command": "bascule run tiny", "failure": None,
    }  # fmt: skip
    cell.write_info(facts | info)
    cell.model_file.write_bytes(b"")


def answer(cell: CellRecord, spec: Spec, kind: str, predictions: np.ndarray) -> None:
    """Answer the row's question of a kind."""
    add_answers(cell, spec, f"{kind}:{spec.test}", predictions)


def add_answers(cell: CellRecord, spec: Spec, key: str, values: Column) -> None:
    """Answer the question with this key."""
    info = {"kind": key.partition(":")[0], "seconds": 0.5}
    cell.add_outcomes(np.arange(len(spec.labels)) + spec.first, spec.labels, values, key=key, info=info)


# --- answers ---------------------------------------------------------------------------------------------------------


def wrong(labels: np.ndarray) -> np.ndarray:
    """The next class of each."""
    return (labels + 1) % (labels.max() + 1)


def right(share: float, labels: np.ndarray = LABELS) -> np.ndarray:
    """Predictions that are right on this share of the images."""
    count = round(share * len(labels))
    return np.where(np.arange(len(labels)) < count, labels, wrong(labels))


def taken(share: float, labels: np.ndarray = LABELS, target: int = 7) -> np.ndarray:
    """Predictions that are the target on this share of the images of other classes, and else right."""
    others = np.flatnonzero(labels != target)
    predictions = labels.copy()
    predictions[others[: round(share * len(others))]] = target
    return predictions


def sheet(shade: int = 255, columns: int = 3, side: int = 8) -> bytes:
    """Images of 8 x 8, black above, with a bright corner below, as high as a quarter of the side."""
    pixels = np.zeros((2 * side, side * columns), dtype=np.uint8)
    pixels[2 * side - max(1, side // 4) :, side - 1 :: side] = shade
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


# --- rows ------------------------------------------------------------------------------------------------------------

PAIR = (Spec(), Spec("Adv. training", accuracy=0.8, robust=0.35, asr=0.6))

REPAIRED = (
    Spec("Hard", accuracy=0.9, robust=0.8, asr=0.9),
    Spec("Other"),
    Spec("Hard, good", accuracy=0.9, robust=0.8, asr=0.1, made_from=0),
    Spec("Hard, dear", accuracy=0.9, robust=0.2, asr=0.1, made_from=0),
    Spec("Hard, vain", accuracy=0.8, robust=0.1, asr=0.9, made_from=0),
    Spec("Tuned", asr=0.5, made_from=1),
)
