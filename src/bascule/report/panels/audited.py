"""What an audit of one model found: the verdict in plain words, and what was not looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bascule.report.audited.facts import facts_of
from bascule.report.audited.verdict import Verdict, verdict_of
from bascule.report.view import View

TITLE = "The audit"
PLACE = 5

_FOLDED = ("May not be trusted", "Why this was asked")


@dataclass(frozen=True)
class Audited:
    """One audit on the page."""

    name: str
    """Of its run, where there are several."""
    verdict: Verdict


def context(view: View) -> Mapping[str, Any] | None:
    """The verdict of each run that is an audit and has begun to answer; nothing of other runs."""
    known = [(run.name, facts) for run in view.runs if (facts := facts_of(run)) is not None]
    if not known:
        return None
    return {"audits": [Audited(name, verdict_of(facts)) for name, facts in known], "folded": _FOLDED}
