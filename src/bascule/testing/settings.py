"""What the settings of every component keep: they are all that it is, and can be written down and read back."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

from bascule.core import catalog
from bascule.testing.demands import demand


def check_settings(component: Any) -> None:
    """Its description (what a record keeps) and its `repr` both rebuild the component, and nobody can change it.

    Raises:
        AssertionError: They do not.
    """
    room = getattr(type(component), "room", None)
    demand(room is not None, f"{type(component).__name__} subclasses no contract of bascule")
    own = "__dataclass_fields__" in vars(type(component))
    demand(own, f"{type(component).__name__} lacks @component above it")
    described = catalog.describe(component)
    demand(described["name"] == catalog.name_of(component), "its description has another name")
    if described["name"] in catalog.names(str(room)):
        again = catalog.build(str(room), described)
    else:  # nobody has announced it yet
        again = catalog.construct(
            type(component), {key: value for key, value in described.items() if key not in ("name", "code")}
        )
    demand(again == component, "its description builds another component: a setting that is no field decides")
    text, cls = repr(component), type(component)
    if text.startswith(f"{cls.__qualname__}("):  # that of a class inside another, or a function, says where it stands
        text = text.replace(cls.__qualname__, cls.__name__, 1)
    demand(eval(text, _known_to(component)) == component, "its repr builds another component")
    for field in dataclasses.fields(component):
        try:
            setattr(component, field.name, getattr(component, field.name))
        except dataclasses.FrozenInstanceError:
            continue
        raise AssertionError(f"its setting {field.name} can be changed afterwards")


def _known_to(component: Any) -> dict[str, Any]:
    """What the text of a component may speak of: its own class, those of its parts, and what their modules know."""
    known: dict[str, Any] = {}
    for field in dataclasses.fields(component):
        value = getattr(component, field.name)
        for part in value if isinstance(value, (list, tuple)) else (value,):
            if dataclasses.is_dataclass(part) and not isinstance(part, type):
                known |= _known_to(part)
    for cls in reversed(type(component).__mro__):
        known |= vars(sys.modules.get(cls.__module__, object))
        known[cls.__name__] = cls
    return known
