"""What the rows of an audit say, as plain values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bascule.core.text import with_ball
from bascule.metrics.contract import Measure
from bascule.record.agreement import INVERTING, Scanned, scans_of, stands_out
from bascule.record.audited import notes_of
from bascule.record.plan import came_as_it_is
from bascule.report.view import CellView, RowView, RunView

_METRICS = ("accuracy", "robust_accuracy", "asr")


@dataclass(frozen=True, kw_only=True)
class Robust:
    """Robust accuracy in one ball, or under attacks in several threat models."""

    norm: str | None
    """None, as `eps`, where the attacks do not share one ball; then their names say where each searched."""
    eps: float | None
    measure: Measure
    attacks: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """A trigger that was tried on the test images."""

    label: int
    """The class it aims at."""
    asr: Measure
    size: float | None = None
    """Pixels that it covers, weak ones in part; None where nobody counted."""
    usual: float | None = None
    """The same of the median class."""
    pixels: int = 0
    """Of an image."""

    @property
    def stands_out(self) -> bool:
        """Whether it is small, beside those of other classes, and works."""
        return stands_out(self.size, self.usual, self.asr.value)


@dataclass(frozen=True, kw_only=True)
class Filtered:
    """What a filter's rule would remove of the training set."""

    method: str
    removed: int
    total: int
    label: int | None
    """The class that would lose the largest share; None where nothing is removed."""
    share: float = 0.0
    """That share."""
    others: float = 0.0
    """The share of all other classes together."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Repaired:
    """A repair, and the numbers at both ends before and after."""

    name: str
    before: dict[str, Measure]
    after: dict[str, Measure]
    ball: Robust | None = None
    """Where robust accuracy was measured: the smallest ball of both, since at the largest most models have none."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything that the verdict is about."""

    title: str
    about: str = "model"
    """What the audit is about: a model, or images alone."""
    images: int
    classes: tuple[str, ...]
    accuracy: Measure
    robust: tuple[Robust, ...] = ()
    certified: Measure | None = None
    bounds: tuple[Robust, ...] = ()
    """Which bounds it rests on; their measures are the same."""
    scans: tuple[Scanned, ...] = ()
    planned_scans: int = 0
    """How many were to be made."""
    recovered: Trigger | None = None
    planted: Trigger | None = None
    """The trigger that the model's own record tells of."""
    filters: tuple[Filtered, ...] = ()
    repairs: tuple[Repaired, ...] = ()
    flags: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    done: bool = True
    """Whether everything that was asked is answered."""
    failures: tuple[str, ...] = field(default=())

    def name_of(self, label: int) -> str:
        """`7`, or `7 (truck)`."""
        name = self.classes[label] if label < len(self.classes) else str(label)
        return str(label) if name == str(label) else f"{label} ({name})"


def facts_of(run: RunView) -> Facts | None:
    """The facts of an audit, finished or not; None of another run, and before the model has answered at all."""
    notes = notes_of(run.plan.text)
    if notes is None or not run.rows:
        return None
    images_alone = notes.about == "images"
    own = [row for row in run.rows if images_alone or came_as_it_is(row.result.settings)]
    if not own or (accuracy := _measure(own[0], "accuracy")) is None:
        return None
    base = own[0].poison
    scans, recovered, planted = scans_of(run.record), _recovered(run, base), _planted(own[0])
    return Facts(
        title=run.plan.title,
        about=notes.about,
        images=accuracy.n or 0,
        classes=own[0].result.classes,
        accuracy=accuracy,
        robust=tuple(part for row in own if not _triggered_alone(row, base) for part in _robust(row)),
        certified=_measure(own[0], "certified_accuracy"),
        bounds=tuple(_bounds(own[0])),
        scans=tuple(scans),
        planned_scans=sum(bool(cell.keys("scan")) for row in own for cell in row.cells[:1]),
        recovered=None if recovered is None else _sized(recovered, scans),
        planted=planted,
        filters=tuple(part for row in own for part in _filtered(row)),
        repairs=tuple(_repairs(run, own)),
        flags=() if images_alone else tuple(_flags(run.rows)),  # those are about one network made only to judge
        reasons=notes.reasons,
        left_out=notes.left_out,
        done=all(cell.done for cell in run.models),
        failures=tuple(dict.fromkeys(cell.failure for cell in run.models if cell.failure is not None)),
    )


def _flags(rows: Sequence[RowView]) -> Iterator[str]:
    """Each flag once, with the rows that have it unless all have."""
    named: dict[str, list[str]] = {}
    for row in rows:
        for flag in row.result.flags:
            named.setdefault(flag, []).append(row.name)
    for flag, names in named.items():
        yield flag if len(names) == len(rows) else f"{', '.join(names)}: {flag}"


def _measure(row: RowView, name: str) -> Measure | None:
    measure = row.result.metrics.get(name)
    return measure if measure is not None and measure.value is not None else None


def _triggered_alone(row: RowView, base: dict[str, Any] | None) -> bool:
    """The row of a recovered trigger, whose other numbers are those of the model as it is; `base` is that one's poison,
    which may be given, too."""
    poison = row.poison or {}
    return row.poison != base and poison.get("name") == "given" and bool(poison.get("trigger"))


# --- adversarial examples --------------------------------------------------------------------------------------------


def _robust(row: RowView) -> Iterator[Robust]:
    """The row's own ball, and the smaller ones of its curve."""
    measure = _measure(row, "robust_accuracy")
    attacks = row.result.settings.get("attack") or ()
    if measure is None or not attacks:
        return
    if row.result.missing("attack"):
        counted = tuple(row.result.in_words(row.result.counted("attack")))
        yield Robust(norm=None, eps=None, measure=measure, attacks=counted)
        return
    names = tuple(str(attack["name"]) for attack in attacks)
    balls = {(str(attack.get("norm", "linf")), attack.get("eps")) for attack in attacks}
    if len(balls) > 1 or None in {eps for _, eps in balls}:
        yield Robust(norm=None, eps=None, measure=measure, attacks=tuple(map(with_ball, attacks)))
        return
    norm, own = str(attacks[0].get("norm", "linf")), float(attacks[0]["eps"])
    for eps, point in sorted(row.result.curve, key=lambda one: one[0]):
        if 0 < eps != own and point.value is not None:
            yield Robust(norm=norm, eps=eps, measure=point, attacks=names)
    yield Robust(norm=norm, eps=own, measure=measure, attacks=names)


def _bounds(row: RowView) -> Iterator[Robust]:
    measure = _measure(row, "certified_accuracy")
    missing = {question.words for question in row.result.missing("certify")}
    for bound in row.result.settings.get("certify") or ():
        if measure is not None and with_ball(bound) not in missing:
            name = (str(bound["name"]),)
            yield Robust(norm=str(bound.get("norm", "linf")), eps=float(bound["eps"]), measure=measure, attacks=name)


# --- backdoors -------------------------------------------------------------------------------------------------------


def _recovered(run: RunView, base: dict[str, Any] | None) -> Trigger | None:
    """The trigger that a scanner recovered, as it does on the test images."""
    for row in run.rows:
        if came_as_it_is(row.result.settings) and _triggered_alone(row, base) and not _scanning(row):
            asr = _measure(row, "asr")
            if asr is not None and row.poison is not None:
                return Trigger(label=int(row.poison["target"]), asr=asr)
    return None


def _scanning(row: RowView) -> bool:
    return any(cell.keys("scan") or cell.keys("inspect") for cell in row.cells)


def _sized(trigger: Trigger, scans: list[Scanned]) -> Trigger:
    """With its size, where the scanner that recovered it counts pixels."""
    scan = next((scan for scan in scans if scan.method == INVERTING and scan.size is not None), None)
    if scan is None or scan.size is None or scan.mask is None or trigger.label >= len(scan.size):
        return trigger
    size, others = np.asarray(scan.size, dtype=np.float64), np.delete(scan.size, trigger.label)
    usual = float(np.nanmedian(others)) if np.isfinite(others).any() else None
    pixels = int(scan.mask.shape[-1] * scan.mask.shape[-2])
    return Trigger(label=trigger.label, asr=trigger.asr, size=float(size[trigger.label]), usual=usual, pixels=pixels)


def _planted(row: RowView) -> Trigger | None:
    """What the model's own record tells that was planted."""
    asr, poison = _measure(row, "asr"), row.poison
    return (
        None
        if asr is None or poison is None or poison["target"] is None
        else Trigger(label=int(poison["target"]), asr=asr)
    )


def _filtered(row: RowView) -> Iterator[Filtered]:
    for cell in row.cells[:1]:
        for key in cell.keys("inspect"):
            finding = cell.record.finding(key)
            if finding is not None and {"removed", "label"} <= finding.arrays.keys():
                settings = finding.info.get("settings") or {}
                notes = tuple(map(str, finding.info.get("notes") or ()))
                yield filtered(
                    str(settings.get("name", row.name)), finding.arrays["removed"], finding.arrays["label"], notes
                )


def filtered(method: str, removed: Any, labels: Any, notes: tuple[str, ...] = ()) -> Filtered:
    """Where the images lie that a rule would remove."""
    removed, labels = np.asarray(removed, dtype=bool), np.asarray(labels)
    total = len(removed)
    if not removed.any():
        return Filtered(method=method, removed=0, total=total, label=None, notes=notes)
    shares = {int(label): float(removed[labels == label].mean()) for label in np.unique(labels)}
    label = max(shares, key=lambda label: (shares[label], -label))
    rest = removed[labels != label]
    return Filtered(
        method=method, removed=int(removed.sum()), total=total, label=label, share=shares[label],
        others=float(rest.mean()) if len(rest) else 0.0, notes=notes,
    )  # fmt: skip


# --- repairs ---------------------------------------------------------------------------------------------------------


def _repairs(run: RunView, own: list[RowView]) -> Iterator[Repaired]:
    for row in run.rows:
        repair = row.result.settings.get("repair")
        if repair is None or (before := _before(row, own)) is None:
            continue
        numbers = [_numbers(one) for one in (before, row)]
        balls = [next(_robust(one), None) for one in (before, row)]
        same = all(ball is not None and balls[0] is not None and ball.eps == balls[0].eps for ball in balls)
        if same:
            for number, ball in zip(numbers, balls, strict=True):
                number["robust_accuracy"] = ball.measure if ball is not None else number["robust_accuracy"]
        if numbers[1]:
            name = row.name.removeprefix("repaired by ") or str(repair.get("name"))
            yield Repaired(name=name, before=numbers[0], after=numbers[1], ball=balls[0] if same else None)


def _numbers(row: RowView) -> dict[str, Measure]:
    return {name: measure for name in _METRICS if (measure := _measure(row, name)) is not None}


def _before(row: RowView, own: list[RowView]) -> RowView | None:
    """The row of the same model as it came, asked the same."""

    def asked(one: RowView) -> Any:
        return one.poison, one.result.settings.get("attack"), tuple(key for cell in one.cells for key in _ends(cell))

    return next((one for one in own if asked(one) == asked(row)), None)


def _ends(cell: CellView) -> tuple[str, ...]:
    return (*cell.keys("clean"), *cell.keys("attack"), *cell.keys("triggered"))
