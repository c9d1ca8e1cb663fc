"""What differs between the runs: what was asked, the settings, the code and the machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bascule.metrics.wording import UNKNOWN
from bascule.report.compare.settings import differing
from bascule.report.view import RunView, View
from bascule.report.words import count, joined, setting

TITLE = "What differs between the runs"
PLACE = 40

_NONE = "none"


def context(view: View) -> Mapping[str, Any] | None:
    """One column for each run, one line for what is not the same in all; nothing for one run alone."""
    if len(view.runs) == 1:
        return None
    facts = {name: [value_of(run) or UNKNOWN for run in view.runs] for name, value_of in _FACTS.items()}
    settings = differing([[row.result.settings for row in run.rows] for run in view.runs])
    return {
        "runs": view.runs,
        "lines": [(name, values) for name, values in facts.items() if len(set(values)) > 1],
        "settings": [(path, [_values(side) for side in sides]) for path, sides in settings.items()],
        "same": joined([_lowered(name) for name, values in facts.items() if len(set(values)) == 1]),
    }


def _values(values: list[Any]) -> str:
    """Different values of a setting over the rows of a run."""
    return "; ".join(_NONE if value in (None, [], {}) else setting(value) for value in values)


def _lowered(name: str) -> str:
    return name[:1].lower() + name[1:]


def _different(run: RunView, value_of: Callable[[dict[str, Any]], Any]) -> str:
    """What the models of a run have; several values where they do not agree."""
    values = dict.fromkeys(str(value) for cell in run.models if cell.info and (value := value_of(cell.info)))
    return "; ".join(values)


def _package(name: str) -> Callable[[RunView], str]:
    return lambda run: _different(run, lambda info: (info.get("versions") or {}).get(name))


def _seeds(run: RunView) -> str:
    seeds = sorted({cell.seed for row in run.rows for cell in row.cells})
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds))


def _images(run: RunView) -> str:
    sizes = {len(one.label) for row in run.rows for one in row.result.outcomes.values()}
    return ", ".join(f"{size:,}" for size in sorted(sizes))


def _done(run: RunView) -> str:
    return f"{sum(cell.done for cell in run.models)} of {count(len(run.models), 'model')}"


_FACTS: dict[str, Callable[[RunView], str]] = {
    "Title": lambda run: run.plan.title,
    "Done": _done,
    "Data": lambda run: ", ".join(dict.fromkeys(row.result.data for row in run.rows)),
    "Test images": _images,
    "Rows": lambda run: ", ".join(dict.fromkeys(row.result.row for row in run.rows)),
    "What varies": lambda run: ", ".join(dict.fromkeys(path for row in run.rows for path in row.result.vary)) or _NONE,
    "Seeds": _seeds,
    "Metrics": lambda run: ", ".join(metric.title for metric in run.metrics.values()),
    "Settings changed": lambda run: ", ".join(run.plan.overrides) or _NONE,
    "Version of Bascule": _package("bascule"),
    "Commit": lambda run: _different(run, lambda info: info.get("commit")),
    "Version of torch": _package("torch"),
    "Version of NumPy": _package("numpy"),
    "Version of Python": _package("python"),
    "Machine": lambda run: _different(run, lambda info: (info.get("host") or {}).get("system")),
    "Device": lambda run: _different(run, lambda info: (info.get("host") or {}).get("device")),
}
"""By their heading; empty where nothing is known yet."""
