"""Text from outside in messages, tables and file names: cut to what can be read, without what steers a terminal."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from reprlib import Repr
from typing import Any

_STEERING = (
    "\\x00-\\x1f\\x7f-\\x9f"  # control characters, escape sequences among them
    "\\u061c\\u200e\\u200f\\u202a-\\u202e\\u2066-\\u2069"  # the order of letters (bidirectional controls)
    "\\u2028\\u2029"  # line and paragraph separators
    "\\ud800-\\udfff\\ufeff\\ufffe\\uffff"  # halves of pairs, and what is no character
)
_CHARACTERS = re.compile(f"[{_STEERING}]")
_EXCEPT_LINES = re.compile(f"(?![\\n\\t])[{_STEERING}]")

FRACTION = r"-?[0-9]+(\.[0-9]+)?/0*[1-9][0-9]*"
"""A fraction as study files write it, for example 8/255 or 8.8/255."""

LONGEST_NAME = 200
"""Most characters of a name: of a row, a scale, a key."""
_LONGEST_VALUE = 120
_LONGEST_MESSAGE = 4000


def steers(text: str, *, lines: bool = False) -> str:
    """The first character that steers what shows it instead of being seen, escaped; "" where there is none.

    Args:
        text: Any.
        lines: Whether line breaks and tabs may be in it.
    """
    found = (_EXCEPT_LINES if lines else _CHARACTERS).search(text)
    return "" if found is None else _escape(found)


def printable(text: str, *, lines: bool = False) -> str:
    r"""The text with every character that `steers` names written out: `\x1b`, `\u202e`."""
    return (_EXCEPT_LINES if lines else _CHARACTERS).sub(_escape, text)


_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


def csv_field(value: object) -> object:
    """A field of a CSV file: text is printable, and none that a spreadsheet would calculate.

    Text that begins like a formula (=, +, -, @, also in full width) gets an apostrophe in front, as OWASP advises
    ("CSV injection"); numbers stay numbers, also negative ones.
    """
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def json_text(text: str) -> str:
    """JSON in which what would steer a terminal is escaped, as JSON does it: the values stay what they are."""
    return _EXCEPT_LINES.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def quote(value: object) -> str:
    """A value as Python writes it, tuples as lists, for messages: of a long one its beginning, and how much is left."""
    text = _shortened(value) if isinstance(value, (list, tuple, dict)) else repr(value)
    return _cut(text, _LONGEST_VALUE)


PERCENT = r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*%\s*"
"""A share in percent, as texts for a number may be: 0.5 %."""


def ratio(text: str) -> float:
    """The number that a text which is a `FRACTION` says: `8/255`."""
    above, _, below = text.partition("/")
    return float(above) / float(below)


def radius(eps: float) -> str:
    """A radius as people write it: `8/255`, or `0.3`."""
    steps = 255 * eps
    if eps < 0.2 and abs(steps - round(steps)) < 1e-3:
        return f"{round(steps)}/255"
    return f"{eps:.4g}"


def ball_of(part: Mapping[str, Any]) -> str:
    """Where an attack searches or a bound proves, as `linf, eps 8/255`; nothing of an attack without a ball."""
    return f"{part.get('norm', 'linf')}, eps {radius(float(part['eps']))}" if "eps" in part else ""


def with_ball(part: Mapping[str, Any]) -> str:
    """Its name, and the ball where there is one: `pgd (linf, eps 8/255)`."""
    ball = ball_of(part)
    return f"{part['name']} ({ball})" if ball else str(part["name"])


def number_said(text: str) -> float | None:
    """The number that a text says as a fraction or in percent: `8/255`, `0.5 %`; None where it says none."""
    if re.fullmatch(FRACTION, text.strip()):
        return ratio(text.strip())
    percent = re.fullmatch(PERCENT, text)
    return None if percent is None else float(percent[1]) / 100


def count(number: int, noun: str, plural: str = "") -> str:
    """`1 seed`, `5 seeds`, `1,437 images`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def joined(parts: Sequence[str], last: str = "and") -> str:
    """`a, b and c`."""
    return f" {last} ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))


def message(text: str) -> str:
    """A message for a terminal: printable, and not endless."""
    return _cut(printable(text, lines=True), _LONGEST_MESSAGE)


class _Written(Repr):
    """Lists of a study file are tuples once they are in a component, and are shown as they were written."""

    def repr_tuple(self, x: tuple[object, ...], level: int) -> str:
        return self.repr_list(list(x), level)


def _shortened(value: object) -> str:
    # Not repr of the whole: a value that others wrote may take a gigabyte in words.
    short = _Written()
    short.maxlevel, short.maxlist, short.maxtuple, short.maxdict = 4, 20, 20, 20
    short.maxstring = short.maxother = _LONGEST_VALUE
    return short.repr(value)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"


def _escape(found: re.Match[str]) -> str:
    return ascii(found[0])[1:-1]
