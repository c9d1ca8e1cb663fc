"""Names of classes where a study may give labels: read as their numbers before anything is made of the settings.

A model is named by the number, so that `target: 2` and `target: red` are one model.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bascule.core.errors import RequestError, nearest
from bascule.core.text import LONGEST_NAME, quote
from bascule.plan.origins import Place

LABELS = ("target", "sources", "only_class")
"""Settings that hold labels, as far as they take whole numbers from 0."""
_OF_POISON = ("target", "sources")
_OF_COMPONENTS = {"neural-cleanse": ("target",), "activation-clustering": ("only_class",), "stamped": ("target",)}
_MOST = 20
"""Classes that a message lists."""


def label_of(given: str, classes: Sequence[str]) -> int:
    """The label of the class with this name.

    Raises:
        RequestError: There is no such class, or several; says what they are and how they are numbered.
    """
    if classes.count(given) == 1:
        return classes.index(given)
    near = nearest(given[:LONGEST_NAME], classes, most=1, likeness=0.5)
    guess = f" Did you mean {near[0]!r}?" if near and near[0] != given else ""
    known = ", ".join(f"{label} {name}" for label, name in enumerate(classes[:_MOST]))
    more = f", ... (0 to {len(classes) - 1:,})" if len(classes) > _MOST else ""
    problem = "is the name of several classes: give the number." if given in classes else "is no class of these data."
    raise RequestError(f"{quote(given)} {problem}{guess} Classes and their numbers: {known}{more}")


def warn_of_numbers(settings: Mapping[str, Any], classes: Sequence[str]) -> None:
    """Say of a number that is a label that another class is called so: folders `0` ... `10` are sorted as texts.

    Args:
        settings: Of a row, as they were given.
        classes: The names of the classes by label.
    """
    poison = settings.get("poison")
    given = [poison.get(key) for key in _OF_POISON] if isinstance(poison, Mapping) else []
    for label in (part for value in given for part in (value if isinstance(value, (list, tuple)) else [value])):
        if type(label) is int and label < len(classes) and classes[label] != str(label) in classes:
            warnings.warn(
                f"the class with the number {label} is called {quote(classes[label])} (names are sorted as texts): "
                f'give "{label}", in quotes, for the one that is called {label}',
                stacklevel=1,  # at one place, so that Python says it once
            )


def with_labels(settings: Any, classes: Callable[[], Sequence[str]]) -> Any:
    """The settings of a row with the names of classes as labels.

    Args:
        settings: Plain values.
        classes: The names of the classes by label; asked where a name is given, and then once.

    Raises:
        RequestError: As `label_of`; its place is that of the name.
    """
    known: list[Sequence[str]] = []

    def label(value: Any, place: Place) -> Any:
        if not isinstance(value, str):
            return value
        known.extend([] if known else [classes()])
        try:
            return label_of(value, known[0])
        except RequestError as error:
            raise RequestError(error.problem, place=place) from error

    def read(value: Any, place: Place) -> Any:
        if isinstance(value, Mapping):
            fields = _fields(value, place)
            return {key: (labels if key in fields else read)(part, (*place, str(key))) for key, part in value.items()}
        if isinstance(value, (list, tuple)) and place:
            return [read(part, _entry(place, number)) for number, part in enumerate(value)]
        return value

    def labels(value: Any, place: Place) -> Any:
        if isinstance(value, (list, tuple)):
            return [label(part, _entry(place, number)) for number, part in enumerate(value)]
        return label(value, place)

    return read(settings, ())


def _fields(settings: Mapping[str, Any], place: Place) -> Sequence[str]:
    """Which of these settings hold labels."""
    if place[:1] == ("poison",) and (len(place) == 1 or (len(place) == 2 and re.fullmatch(r"parts\[\d+\]", place[1]))):
        return _OF_POISON
    return _OF_COMPONENTS.get(str(settings.get("name")), ())


def _entry(place: Place, number: int) -> Place:
    return (*place[:-1], f"{place[-1]}[{number}]")
