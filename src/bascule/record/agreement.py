"""What several scanners say of one model, whether they agree, and what follows from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bascule.record.outcomes import verdict_of
from bascule.record.run import RunRecord

Conclusion = Literal["suspicion", "undecided", "nothing found", "no answer"]
"""What an audit comes to. `no answer`: no scanner has looked, or not everything is answered."""

INVERTING = "neural-cleanse"
"""The scanner whose triggers are a picture and a mask for each pixel: their size is counted in pixels, and a picture
file can hold them."""
SMALL = 0.5
"""Share of what the median of the other classes needs from which a recovered trigger is small. Above it a class may
stand out by many deviations, where the others are much alike, and be none that a trigger makes easy."""
WORKS = 0.5
"""Share of images of other classes from which a trigger is said to work."""


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
    """The class that most scanners name, and how many do; of several, the one with the smallest trigger recovered by
    `INVERTING`, then the one named first by more, then the lower label. None where no scanner names any."""
    named = Counter(label for scan in scans for label in set(scan.suspects))
    first = Counter(scan.suspects[0] for scan in scans if scan.suspects)
    if not named:
        return None, 0
    sizes = next((scan.size for scan in scans if scan.method == INVERTING and scan.size is not None), None)

    def size(label: int) -> float:
        return np.inf if sizes is None or not np.isfinite(sizes[label]) else float(sizes[label])

    label = min(named, key=lambda label: (-named[label], size(label), -first[label], label))
    return label, named[label]


def agreed(scans: Sequence[Scanned]) -> int | None:
    """The class that more than half of the scanners name, and at least two; None where there is none.

    One alone is not enough: each names a class of many a clean model. Nor is half: of the four that there are, three
    search in the same way, and two of those are easily taken in by the same thing.
    """
    label, count = named_most(scans)
    return label if count > max(1, len(scans) / 2) else None


def stands_out(size: float | None, usual: float | None, success: float | None) -> bool:
    """Whether a recovered trigger is small for this model, and moves images that no scanner saw.

    Args:
        size: Of the trigger.
        usual: Of the median of the other classes' triggers; None, as `size`, where nobody counted.
        success: Share of the unseen images of other classes that it moves; None where it was not tried.
    """
    if size is None or usual is None or success is None:
        return False
    return size <= SMALL * usual and success >= WORKS


def conclude(scans: Sequence[Scanned], *, small: int | None) -> Conclusion:
    """What the scanners of one model come to.

    A suspicion where they agree on a class, or where two at least name the one whose recovered trigger stands out.
    Undecided where half of them name a class, or any names the one that stands out. Else nothing was found.

    Args:
        scans: Their answers.
        small: The class of the recovered trigger that `stands_out`; None where it does not, or none was tried.
    """
    label, count = named_most(scans)
    if not scans:
        return "no answer"
    if label is None:
        return "nothing found"
    if agreed(scans) is not None or (label == small and count > 1):
        return "suspicion"
    return "undecided" if label == small or 2 * count >= len(scans) else "nothing found"
