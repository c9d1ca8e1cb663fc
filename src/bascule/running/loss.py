"""A run is not asked more with other settings, data or code than it was made with: its table would lose what it has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bascule.core.catalog import describe
from bascule.core.errors import RequestError
from bascule.core.text import count, joined
from bascule.plan.plan import Plan, Row
from bascule.record.plan import RecordedCell, RecordedRow
from bascule.record.run import RunRecord

_REPLACED = ("curve", "detect")
"""Kinds whose questions may become others with the same settings, and are then answered anew: a curve starts from the
attacks, also those that are added; what detectors meet was made otherwise in earlier versions."""
_ASKED = ("attack: ", "certify: ", "curve: ", "probe: ", "probe.", "attack_precision: the default then")
"""What changes of settings start with that lead to no other model and take nothing from the table."""
_DEFAULT = "the default"
_SHOWN = 3
"""Differences and rows that a message names."""


def refuse_loss(run: RunRecord, plan: Plan, roots: Sequence[Path]) -> None:
    """See that a plan asks everything of the same models that the recorded one asks.

    Args:
        run: A run whose plan is recorded.
        plan: Of the same study, which shall take its place.
        roots: Folders searched for data.

    Raises:
        RequestError: It does not; says what changed.
    """
    if lost := lost_of(run, plan, roots):
        raise RequestError(
            f"what {run.path} has recorded was made with something else, and its table would lose it: {lost}. Nothing "
            "was written. Bring that back; or make models anew in another folder, to be given with `runs`"
        )


def lost_of(run: RunRecord, plan: Plan, roots: Sequence[Path]) -> str:
    """What the recorded plan asks, and this one does not, a few rows of many with the reason; "" where it asks all."""
    told = []
    for row in run.plan().rows:
        today = next((other for other in plan.rows if (other.name, other.vary) == (row.row, dict(row.vary))), None)
        if today is None or _loses(row, today):
            reason = "the study has no such row any more" if today is None else _reason(run, row, today, roots)
            told.append(f"{_label(row)}: {reason}")
    more = f"; and {count(len(told) - _SHOWN, 'more row')}" if len(told) > _SHOWN else ""
    return f"{'; '.join(told[:_SHOWN])}{more}"


def _label(row: RecordedRow) -> str:
    return " · ".join((f"row {row.row!r}", *(f"{path} {value}" for path, value in row.vary.items())))


def _loses(row: RecordedRow, today: Row) -> bool:
    """Whether a model or an answer of the recorded row is not in today's."""
    cells = {cell.seed: cell for cell in today.cells}
    twins = {cell.seed: cell for cell in today.twins}
    pairs = [(seed.cell, cells.get(seed.seed)) for seed in row.seeds]
    pairs += [(seed.twin, twins.get(seed.seed)) for seed in row.seeds if seed.twin is not None]
    return any(
        new is None or new.fingerprint != old.fingerprint or _asked(old) - {question.key for question in new.questions}
        for old, new in pairs
    )


def _asked(cell: RecordedCell) -> frozenset[str]:
    return frozenset(question.key for question in cell.questions if question.kind not in _REPLACED)


def _reason(run: RunRecord, row: RecordedRow, today: Row, roots: Sequence[Path]) -> str:
    """What of settings, code and data is not what it was."""
    changes = list(_differences(row.settings, describe(today.setup)))
    changes = [change for change in changes if not change.startswith(_ASKED)] or changes
    if changes:
        more = f" and {count(len(changes) - _SHOWN, 'more setting')}" if len(changes) > _SHOWN else ""
        return "; ".join(changes[:_SHOWN]) + more
    if gone := sorted({seed.seed for seed in row.seeds} - {cell.seed for cell in today.cells}):
        return f"{count(len(gone), 'seed')} then that {'is' if len(gone) == 1 else 'are'} not asked for now"
    if {seed.cell.fingerprint for seed in row.seeds} <= {cell.fingerprint for cell in today.cells}:
        return f"{joined(_no_more_asked(row, today)) or 'something of the twin'} is not asked any more"
    facts = today.setup.data.facts(roots)
    infos = [run.cell(seed.cell.fingerprint).info() for seed in row.seeds]
    made: Mapping[str, Any] = next((info["data"] for info in infos if "data" in info), {})
    counts = [
        f"{count(made[name], f'{word} image')} then, {len(labels):,} now"
        for name, word, labels in (("train", "training", facts.train_labels), ("test", "test", facts.test_labels))
        if made.get(name) not in (None, len(labels))
    ]
    return f"the data changed: {', '.join(counts) or 'other pictures or labels, as many as before'}"


def _no_more_asked(row: RecordedRow, today: Row) -> list[str]:
    keys = {question.key for cell in today.cells for question in cell.questions}
    asked = (question for seed in row.seeds for question in seed.cell.questions)
    return list(dict.fromkeys(question.words for question in asked if question.key not in keys))


def _differences(old: Any, new: Any, place: str = "") -> Iterator[str]:
    """Each setting that is not what it was; entries at the end of a list that were not there are no difference."""
    if isinstance(old, Mapping) and isinstance(new, Mapping) and old.get("name") == new.get("name"):
        for key in dict.fromkeys((*old, *new)):
            one, other = (_of(part, key, beside) for part, beside in ((old, new), (new, old)))
            yield from _differences(one, other, f"{place}.{key}".lstrip("."))
    elif isinstance(old, (list, tuple)) and isinstance(new, (list, tuple)) and len(new) >= len(old):
        for number, (one, other) in enumerate(zip(old, new, strict=False)):
            yield from _differences(one, other, f"{place}[{number}]")
    elif old != new:
        last = place.rpartition(".")[2]
        if last == "code" or last.endswith("_sha256"):
            yield f"{place.rpartition('.')[0] or place}: the code or file changed ({last})"
        else:
            yield f"{place}: {_short(old)} then, {_short(new)} now"


def _of(part: Mapping[str, Any], key: str, beside: Mapping[str, Any]) -> Any:
    """A setting; settings that came later are recorded where they are not at their default."""
    return part.get(key, None if beside.get(key) is None else _DEFAULT)


def _short(value: Any) -> str:
    text = value if value is _DEFAULT else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
