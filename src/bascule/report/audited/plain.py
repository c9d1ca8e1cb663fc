"""The facts of an audit as plain values, for programs."""

from __future__ import annotations

import math
from typing import Any

from bascule.metrics.contract import Measure
from bascule.record.agreement import Scanned, agreed
from bascule.report.audited.facts import Facts, Filtered, Repaired, Robust, Trigger


def facts_as_dict(facts: Facts) -> dict[str, Any]:
    """Numbers as in `bascule table --format json`; classes by label, with their names once; unknown is null."""
    return {
        "about": facts.about,
        "title": facts.title,
        "done": facts.done,
        "images": facts.images,
        "classes": list(facts.classes),
        "accuracy": facts.accuracy.as_dict(),
        "robust_accuracy": [_robust(part) for part in facts.robust],
        "certified_accuracy": None
        if facts.certified is None
        else {**facts.certified.as_dict(), "bounds": [_ball(part) for part in facts.bounds]},
        "scanners": [_scanned(scan) for scan in facts.scans],
        "scanners_planned": facts.planned_scans,
        "agreed_class": agreed(facts.scans),
        "recovered_trigger": _trigger(facts.recovered),
        "trigger_of_its_record": _trigger(facts.planted),
        "filters": [_filtered(part) for part in facts.filters],
        "repairs": [_repaired(part) for part in facts.repairs],
        "flags": list(facts.flags),
        "reasons": list(facts.reasons),
        "not_looked_at": list(facts.left_out),
    }


def _ball(part: Robust) -> dict[str, Any]:
    return {"norm": part.norm, "eps": part.eps, "names": list(part.attacks)}


def _robust(part: Robust) -> dict[str, Any]:
    return {**_ball(part), **part.measure.as_dict()}


def _scanned(scan: Scanned) -> dict[str, Any]:
    return {
        "name": scan.method,
        "row": scan.row,
        "suspects": list(scan.suspects),
        "anomaly": [_number(value) for value in scan.anomaly],
    }


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _trigger(trigger: Trigger | None) -> dict[str, Any] | None:
    if trigger is None:
        return None
    sizes = {"covers": trigger.size, "median_of_other_classes": trigger.usual, "of": trigger.pixels or None}
    return {"label": trigger.label, "asr": trigger.asr.as_dict(), "pixels": sizes}


def _filtered(part: Filtered) -> dict[str, Any]:
    return {
        "name": part.method,
        "removed": part.removed,
        "images": part.total,
        "label": part.label,
        "share_of_class": part.share,
        "share_of_others": part.others,
        "notes": list(part.notes),
    }


def _repaired(part: Repaired) -> dict[str, Any]:
    def numbers(measures: dict[str, Measure]) -> dict[str, Any]:
        return {name: measure.as_dict() for name, measure in measures.items()}

    ball = None if part.ball is None else _ball(part.ball)
    return {"name": part.name, "before": numbers(part.before), "after": numbers(part.after), "ball": ball}
