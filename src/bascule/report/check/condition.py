"""A condition as it is written: `asr.high < 5 %`."""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass

from bascule.core.errors import RequestError, unknown
from bascule.core.text import LONGEST_NAME, quote

PARTS = ("value", "low", "high")
"""Of a measure: the number itself, and the ends of its 95 % interval."""
_SIGNS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_FORM = re.compile(
    r"\s*(?P<metric>[A-Za-z][\w-]*|[^\s<>=:;()]+:[A-Za-z]\w*)(\.(?P<part>\w*))?\s*(?P<sign>[<>]=?)\s*"
    r"(?P<bound>[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?)\s*(?P<percent>%?)\s*",
    re.ASCII,
)
_EXAMPLE = (
    "expected a metric, METRIC.low or METRIC.high, one of < <= > >=, and a number: 'asr.high < 5 %' or "
    "'asr.high < 0.05'"
)


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One number compared with one bound."""

    text: str
    """As it was written."""
    metric: str
    """By its name in tables: `robust_accuracy`, `own.py:Metric`."""
    part: str
    """One of `PARTS`."""
    sign: str
    """`<`, `<=`, `>` or `>=`."""
    bound: float
    """In the unit of the metric: of a share in [0, 1]."""
    percent: bool
    """Whether the bound was written in percent."""
    catalogue_name: str
    """What the catalogue calls the metric: `robust-accuracy`, `own.py:Metric`."""

    def holds(self, number: float) -> bool:
        """Whether a number keeps to it."""
        return bool(_SIGNS[self.sign](number, self.bound))

    def check_unit(self, unit: str) -> None:
        """Refuse a bound that cannot be meant of this metric: `asr < 5` would always hold.

        Raises:
            RequestError: Percent of what is no share, or of a share a bound outside of 0 to 1.
        """
        if unit == "fraction" and not 0 <= self.bound <= 1:
            raise RequestError(f"{quote(self.text)}: a share lies in 0..1, or 0..100 %: write 0.05 or 5 %")
        if self.percent and unit != "fraction":
            raise RequestError(f"{quote(self.text)}: {self.metric} is no share (its unit: {unit}); leave out %")


def parse_condition(text: str) -> Condition:
    """The condition that a text says. Nothing in it is run; spaces do not matter, `-` and `_` in names are the same.

    Raises:
        RequestError: It says none.
    """
    if not isinstance(text, str):
        raise RequestError(f"conditions are texts, each an argument of its own, as 'asr.high < 5 %'; got {quote(text)}")
    if len(text) > LONGEST_NAME:
        raise RequestError(f"{quote(text)}: a condition has at most {LONGEST_NAME} characters")
    found = _FORM.fullmatch(text)
    if found is None:
        raise RequestError(f"{quote(text)}: {_EXAMPLE}")
    part = found["part"]
    if part is not None and part not in PARTS:
        raise RequestError(f"{quote(text)}: {unknown('part of a number', part, PARTS)}")
    percent, name = bool(found["percent"]), found["metric"]
    return Condition(
        text=" ".join(text.split()),
        metric=name.replace("-", "_"),
        part=part or "value",
        sign=found["sign"],
        bound=float(found["bound"]) / (100 if percent else 1),
        percent=percent,
        catalogue_name=name if ":" in name else name.replace("_", "-"),
    )
