"""Which attacks robust accuracy is under, and which bounds certified accuracy is by, in sentences below a table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from bascule.core.text import ball_of, with_ball
from bascule.record.rows import RowResult
from bascule.report.compare.comparable import named
from bascule.report.words import joined


def asked_of(rows: Sequence[RowResult]) -> list[str]:
    """A sentence for each set of attacks, then of bounds; with its rows where it is not that of all."""
    attacks = _sentences(rows, "attack", "Attack", "on", "the worst of them for each image")
    return [*attacks, *_sentences(rows, "certify", "Bound", "for", "the best of them for each image")]


def _sentences(rows: Sequence[RowResult], key: str, noun: str, of: str, several: str) -> list[str]:
    sets: dict[str, list[RowResult]] = {}
    for row in rows:
        if parts := row.settings.get(key):
            missing = row.in_words(row.missing(key))
            sets.setdefault(json.dumps([missing, [with_ball(part) for part in parts]]), []).append(row)
    sentences = []
    for same in sets.values():
        counted, missing = (same[0].in_words(part) for part in (same[0].counted(key), same[0].missing(key)))
        parts = same[0].settings[key]
        whose = "" if len(same) == len(rows) else f" {of} {named(same)}"
        many = len(counted if missing else parts) > 1
        words = joined(counted) if missing else _words(parts)
        later = f"; not in it yet: {joined(missing)}" if missing else ""
        sentences.append(f"{noun}{'s' if many else ''}{whose}: {words}{f', {several}' if many else ''}{later}")
    return sentences


def _words(parts: Sequence[Mapping[str, Any]]) -> str:
    """`fgsm and pgd (linf, eps 0.1)`, or each with its own ball."""
    balls = {ball_of(part) for part in parts}
    if len(balls) == 1 and (ball := balls.pop()):
        return f"{joined([str(part['name']) for part in parts])} ({ball})"
    return joined(list(map(with_ball, parts)))
