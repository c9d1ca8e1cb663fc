"""YAML as study files are written in it: the core schema of YAML 1.2, within limits that hold before any work.

The schema is that of section 10.3.2 of the YAML 1.2.2 specification, with three things more: `<<` merges a mapping as
in YAML 1.1, a fraction such as `8/255` is a number, and every key is the text that stands there. The limits are far
above what a study needs; without them a few lines take all memory (aliases of aliases) or all of Python's stack.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

import yaml

from bascule.core.text import FRACTION, LONGEST_NAME, quote, ratio, steers

LARGEST = 2**19
"""Most characters of a study file."""
MAX_DEPTH = 24
"""Most levels of values inside values."""
_MAX_VALUES = 20_000
"""Most values, those that aliases repeat counted each time."""
_MAX_DIGITS = 100
_LARGEST_NUMBER = 2**63 - 1

_TAG = "tag:yaml.org,2002:"
_FRACTION = "!fraction"


class Loader(yaml.SafeLoader):
    """YAML's safe loader with the scalars of YAML 1.2, and within limits."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012  (as PyYAML declares it)
    yaml_constructors: ClassVar[dict[Any, Any]] = {}

    def __init__(self, text: str) -> None:
        if len(text) > LARGEST:
            raise _refusal(f"{len(text):,} characters, more than the {LARGEST:,} that a study may have")
        super().__init__(text)
        self._depth = 0
        self._values = 0
        self._open: list[str] = []
        """Anchors of what is being read."""
        self._sizes: dict[str, tuple[int, int]] = {}
        """Values and levels of what each anchor names."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """The next value, while it stays within the limits."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        mark, anchor = event.start_mark, str(getattr(event, "anchor", None) or "")
        if isinstance(event, yaml.AliasEvent):
            if anchor in self._open:
                raise _refusal(f"*{anchor} stands inside of what it names, which has no end", mark)
            values, levels = self._sizes.get(anchor, (1, 1))
            self._count(values, self._depth + levels, mark)
            return super().compose_node(parent, index)
        self._count(1, self._depth + 1, mark)
        before, deepest, self._deepest = self._values - 1, self._deepest, self._depth + 1
        self._depth += 1
        self._open += [anchor] if anchor else []
        node = super().compose_node(parent, index)
        self._depth -= 1
        if anchor:
            self._open.remove(anchor)
            self._sizes[anchor] = (self._values - before, self._deepest - self._depth)
        self._deepest = max(deepest, self._deepest)
        return node

    _deepest = 0
    """The deepest level reached inside of what is being read."""

    def _count(self, values: int, level: int, mark: yaml.Mark) -> None:
        self._values += values
        self._deepest = max(self._deepest, level)
        if self._values > _MAX_VALUES:
            raise _refusal(f"more than {_MAX_VALUES:,} values, those that aliases repeat included", mark)
        if level > MAX_DEPTH:
            raise _refusal(f"more than {MAX_DEPTH} levels of values inside values", mark)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """A mapping whose keys are the texts that stand there."""
        node = super().compose_mapping_node(anchor)
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _refusal("a key must be text, not a list or a mapping", key.start_mark)
            if key.value == "<<" and key.style is None:
                key.tag = f"{_TAG}merge"
            else:
                key.tag = f"{_TAG}str"
                _check_key(key)
        return node

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        """A scalar without characters that steer a terminal."""
        node = super().compose_scalar_node(anchor)
        if found := steers(node.value, lines=True):
            raise _refusal(f"the text {quote(node.value)} holds the character {found}; remove it", node.start_mark)
        return node


def _check_key(key: yaml.ScalarNode) -> None:
    if not key.value.strip():
        raise _refusal("an empty key", key.start_mark)
    if len(key.value) > LONGEST_NAME:
        raise _refusal(f"the key {quote(key.value)} is longer than {LONGEST_NAME} characters", key.start_mark)
    if found := steers(key.value):
        raise _refusal(f"the key {quote(key.value)} holds the character {found}; remove it", key.start_mark)


def _refusal(problem: str, mark: yaml.Mark | None = None) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


# --- scalars ---------------------------------------------------------------------------------------------------------

_BOOLEANS = {"true": True, "false": False}
_BASES = {"0o": 8, "0x": 16}


def _text(loader: Loader, node: Any) -> str:
    return str(loader.construct_scalar(node))


def _scalar(node: yaml.Node, pattern: str) -> str:
    """Its text, which also an explicit tag (`!!int x`) cannot make into what it is not."""
    text = str(node.value) if isinstance(node, yaml.ScalarNode) else "a list or a mapping"
    if not re.fullmatch(pattern, text):
        raise _refusal(f"{quote(text)} is no {node.tag.rpartition(':')[2]}", node.start_mark)
    if len(text) > _MAX_DIGITS:
        raise _refusal(f"{quote(text)}: a number of {len(text):,} characters", node.start_mark)
    return text


def _boolean(loader: Loader, node: yaml.Node) -> bool:
    return _BOOLEANS[_scalar(node, _BOOLEAN).lower()]


def _nothing(loader: Loader, node: yaml.Node) -> None:
    _scalar(node, _NULL)


def _whole(loader: Loader, node: yaml.Node) -> int:
    text = _scalar(node, _INT)
    number = int(text, _BASES.get(text[:2], 10))
    if abs(number) > _LARGEST_NUMBER:
        raise _refusal(f"{text} is beyond the whole numbers of 64 bits", node.start_mark)
    return number


def _number(loader: Loader, node: yaml.Node) -> float:
    text = _scalar(node, f"{_FLOAT}|{_INFINITE}").lower()
    number = float(text.replace(".inf", "inf").replace(".nan", "nan"))
    if number in (float("inf"), float("-inf")) and "inf" not in text:
        raise _refusal(f"{text} is beyond the numbers of 64 bits", node.start_mark)
    return number


def _fraction(loader: Loader, node: yaml.Node) -> float:
    return ratio(_scalar(node, FRACTION))


_NULL = r"~|null|Null|NULL|"
_BOOLEAN = r"true|True|TRUE|false|False|FALSE"
_INT = r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"
_FLOAT = r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
_INFINITE = r"[-+]?(\.inf|\.Inf|\.INF)|\.nan|\.NaN|\.NAN"

for _tag, _pattern, _first in (
    (f"{_TAG}null", _NULL, ["~", "n", "N", ""]),
    (f"{_TAG}bool", _BOOLEAN, list("tTfF")),
    (f"{_TAG}int", _INT, list("-+0123456789")),
    (f"{_TAG}float", f"{_FLOAT}|{_INFINITE}", list("-+0123456789.")),
    (_FRACTION, FRACTION, list("-0123456789")),
):
    Loader.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), _first)

for _tag, _construct in (
    (f"{_TAG}null", _nothing),
    (f"{_TAG}bool", _boolean),
    (f"{_TAG}int", _whole),
    (f"{_TAG}float", _number),
    (_FRACTION, _fraction),
    (f"{_TAG}str", _text),
    (f"{_TAG}seq", yaml.SafeLoader.construct_yaml_seq),
    (f"{_TAG}map", yaml.SafeLoader.construct_yaml_map),
):
    Loader.add_constructor(_tag, _construct)
Loader.add_constructor(None, yaml.SafeLoader.construct_undefined)  # type: ignore[type-var]
