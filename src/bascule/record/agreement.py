"""What several scanners say of one model, and whether they agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bascule.record.outcomes import verdict_of
from bascule.record.run import RunRecord


@dataclass(frozen=True, kw_only=True, eq=False)
class Scanned:
    """The answer of one scanner."""

    row: str
    method: str
    """The scanner's name."""
    suspects: tuple[int, ...]
    """Classes, most suspicious first."""
    anomaly: NDArray[np.float64]
    """By class."""
    size: NDArray[np.float64] | None = None
    """Of the trigger recovered for each class, in the scanner's own measure."""
    pattern: NDArray[Any] | None = None
    """uint8, K x C x H x W."""
    mask: NDArray[Any] | None = None
    """uint8, K x 1|C x H x W."""


def scans_of(run: RunRecord) -> list[Scanned]:
    """The answers of all scanners of a run about its models, row by row; the first seed's."""
    scans = []
    for row in run.plan().rows:
        for seed in row.seeds[:1]:
            record = run.cell(seed.cell.fingerprint)
            for question in seed.cell.of("scan"):
                finding = record.finding(question.key)
                if finding is None:
                    continue
                verdict, parts = verdict_of(finding), finding.arrays
                scans.append(
                    Scanned(
                        row=row.row,
                        method=str((finding.info.get("settings") or {}).get("name", row.row)),
                        suspects=verdict.suspects,
                        anomaly=verdict.anomaly,
                        size=parts.get("size"),
                        pattern=parts.get("pattern"),
                        mask=parts.get("mask"),
                    )
                )
    return scans


def named_most(scans: Sequence[Scanned]) -> tuple[int | None, int]:
    """The class that most scanners name, and how many do; of several, the one named first by more of them, then the
    lower label. None where no scanner names any."""
    named = Counter(label for scan in scans for label in set(scan.suspects))
    first = Counter(scan.suspects[0] for scan in scans if scan.suspects)
    if not named:
        return None, 0
    label = min(named, key=lambda label: (-named[label], -first[label], label))
    return label, named[label]


def agreed(scans: Sequence[Scanned]) -> int | None:
    """The class that more than half of the scanners name, and at least two; None where there is none.

    One alone is not enough: each names a class of many a clean model. Nor is half: of the four that there are, three
    search in the same way, and two of those are easily taken in by the same thing.
    """
    label, count = named_most(scans)
    return label if count > max(1, len(scans) / 2) else None
