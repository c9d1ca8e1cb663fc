"""Numbers and settings in words, as the page writes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from bascule.core.text import count as count  # as they are part of what this file is for
from bascule.core.text import joined as joined

SPACE = "\N{NO-BREAK SPACE}"


def percent(share: float, decimals: int = 0) -> str:
    """A share in percent with at least `decimals`; never 0 % or 100 % for a share that is not exactly that."""
    for places in range(decimals, 3):
        text = f"{100 * share:.{places}f}"
        if share in (0, 1) or float(text) not in (0, 100):
            return f"{text}{SPACE}%"
    return f"{'under 0.01' if share < 0.5 else 'over 99.99'}{SPACE}%"


def percent_pair(first: float, second: float) -> tuple[str, str]:
    """Two shares in percent, with as many decimals (at most two) as it takes to tell them apart."""
    places = _places(first, second)
    return percent(first, places), percent(second, places)


def percent_interval(value: float, low: float, high: float) -> tuple[str, str]:
    """A share and its interval, `35 %` and `31 to 39 %`, with decimals that tell the ends of the interval apart."""
    places = _places(low, high)
    return percent(value, places), f"{_bare(low, places)} to {percent(high, places)}"


def points(low: float, high: float) -> str:
    """The ends of a difference of shares, both at least 0: `31 to 39 points`, `0.4 to 1.2 points`."""
    places = max(_places(low, high), 1 if low < 0.05 else 0)
    return f"{_bare(low, places)} to {_bare(high, places)} points"


def points_around(low: float, high: float) -> str:
    """The ends of any difference of shares: `from 2.1 points lower to 4.0 higher`, `2.1 to 4.0 points higher`."""
    if low > 0 or high < 0:
        return f"{points(low, high)} higher" if low > 0 else f"{points(-high, -low)} lower"
    return f"from {_bare(-low, 1)} points lower to {_bare(high, 1)} higher"


def _bare(share: float, places: int) -> str:
    return percent(share, places).removesuffix("%").rstrip()


def _places(first: float, second: float) -> int:
    if first == second:
        return 0
    return next((places for places in range(2) if percent(first, places) != percent(second, places)), 2)


def duration(seconds: float) -> str:
    """`1.4 s`, `63 s`, `12 min`, `3 h 5 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    return f"{minutes // 60:,} h {minutes % 60} min"


def moment(text: str) -> str:
    """A time of the record for people; as it stands when it is no ISO time."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return text
    zone = when.tzname()
    return f"{when:%Y-%m-%d %H:%M}" + (f" {zone}" if zone else "")


def setting(value: Any) -> str:
    """A value of a study in words: components as their name with their settings in brackets."""
    if isinstance(value, Mapping):
        parts = _settings((key, item) for key, item in value.items() if key != "name")
        return " ".join(filter(None, (str(value.get("name", "")), f"({parts})" if parts else "")))
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(setting, value))}]"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def component(value: Mapping[str, Any]) -> str:
    """A component in words, settings that are not used left out: `sticker: size 2, position bottom-right`."""
    parts = _settings((key, item) for key, item in value.items() if key != "name")
    return f"{value.get('name', '')}: {parts}" if parts else str(value.get("name", ""))


def flag_lines(flagged: Iterable[tuple[str, Sequence[str]]], *, every: int | None = None) -> list[str]:
    """Each flag once, behind the names of the rows that carry it.

    Args:
        flagged: Names of rows with their flags.
        every: How many rows there are, to say `all rows` where all carry it.
    """
    rows: dict[str, list[str]] = {}
    for name, flags in flagged:
        for flag in dict.fromkeys(flags):
            rows.setdefault(flag, []).append(name)
    return [f"{'all rows' if 1 < len(names) == every else joined(names)}: {flag}" for flag, names in rows.items()]


def _settings(items: Iterable[tuple[str, Any]]) -> str:
    return ", ".join(f"{str(key).replace('_', ' ')} {setting(item)}" for key, item in items if item is not None)
