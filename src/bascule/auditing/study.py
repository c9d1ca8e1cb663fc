"""The study of an audit as a file: proposed once, then edited by whoever likes, and run like any other."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from bascule.core.files import write_atomically
from bascule.record.audited import AFTERWARDS, LEFT_OUT, MARKS, PROPOSED

_WIDTH = 110


def study_text(
    study: Mapping[str, Any], *, about: str, how: str, reasons: Sequence[str], left_out: Sequence[str]
) -> str:
    """The text of an audit's study.

    Args:
        study: Its keys, `rows` last.
        about: What the audit is about, a key of `MARKS`.
        how: The command that runs it.
        reasons: Why it asks what it asks; a sentence each.
        left_out: What it does not look at; a sentence each.
    """
    head = [
        MARKS[about],
        f"# It may be edited; this, or the same audit again, runs what it says then: {_one_line(how)}",
        PROPOSED,
        *(f"# - {_one_line(reason)}" for reason in reasons),
        LEFT_OUT,
        *(f"# - {_one_line(reason)}" for reason in left_out),
    ]
    assert list(study)[-1] == "rows"
    return "\n".join(head) + "\n" + _yaml(study) + f"{AFTERWARDS}\n"


def with_rows(text: str, rows: Mapping[str, Any]) -> str:
    """The study with these rows after its own, in place of those that were added before; unchanged where somebody has
    taken out the line after which they stand."""
    own, mark, _ = text.partition(f"{AFTERWARDS}\n")
    if not mark:
        return text
    added = "".join(f"  {line}\n" for line in _yaml(rows).splitlines()) if rows else ""
    return own + mark + added


def write_study(path: Path, text: str) -> None:
    """Put the study in place, in a folder that is made where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text.encode("utf-8", errors="backslashreplace")
    write_atomically(path, functools.partial(Path.write_bytes, data=data))


def _yaml(value: Mapping[str, Any]) -> str:
    dumped = yaml.safe_dump(dict(value), sort_keys=False, default_flow_style=None, width=_WIDTH, allow_unicode=True)
    return str(dumped)


def _one_line(text: str) -> str:
    return " ".join(text.split())
