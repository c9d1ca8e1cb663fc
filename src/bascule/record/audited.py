"""What the study of an audit says of itself, in comments that its record keeps with it."""

from __future__ import annotations

from typing import NamedTuple

MARKS = {
    "model": "# An audit of one model, proposed by `bascule audit`.",
    "images": "# An audit of a data set alone, proposed by `bascule audit`.",
}
"""First line of the study of an audit, by what it is about."""
PROPOSED = "# Proposed, and why:"
LEFT_OUT = "# Not looked at:"
AFTERWARDS = "# Asked once the scanners had answered:"
"""The line after which the rows stand that only the scanners' answers lead to."""


class Notes(NamedTuple):
    """What an audit is about, and a sentence each."""

    about: str
    """A key of `MARKS`."""
    reasons: tuple[str, ...]
    """Why the study asks what it asks."""
    left_out: tuple[str, ...]
    """What it does not look at."""


def notes_of(text: str) -> Notes | None:
    """What the study says of itself; None where it is no audit's.

    Args:
        text: Of the study file.
    """
    lines = text.splitlines()
    about = next((about for about, mark in MARKS.items() if lines[:1] == [mark]), None)
    if about is None:
        return None
    parts: dict[str, list[str]] = {PROPOSED: [], LEFT_OUT: []}
    current: list[str] = []
    for line in lines[1:]:
        if not line.startswith("#"):
            break
        if line in parts:
            current = parts[line]
        elif line.startswith("# - "):
            current.append(line.removeprefix("# - "))
    return Notes(about, tuple(parts[PROPOSED]), tuple(parts[LEFT_OUT]))
