"""Every setting is documented, without importing the component."""

from __future__ import annotations

import dataclasses
from typing import Any

from bascule.core import catalog


def test_every_setting_is_documented(each: Any) -> None:
    shown = catalog.documentation(*each)
    cls = catalog.load(*each)
    assert shown.summary
    assert " ".join(shown.text.split()).startswith(shown.summary)
    assert shown.summary[-1] in ".?"
    assert [field.name for field in shown.fields] == [field.name for field in dataclasses.fields(cls)]
    assert {field.name: field.text for field in shown.fields if len(field.text) < 10} == {}
    no_default = {
        field.name
        for field in dataclasses.fields(cls)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    assert {field.name for field in shown.fields if field.default is None} == no_default


def test_documentation_lists_inherited_settings_first_with_type_and_default() -> None:
    eps, steps = (
        next(field for field in catalog.documentation("attack", "pgd").fields if field.name == name)
        for name in ("eps", "steps")
    )
    assert (eps.type, eps.default, eps.text) == ("Eps", None, "Radius of the ball in [0, 1] pixel units.")
    assert (steps.type, steps.default, steps.text) == ("Annotated[int, Ge(1)]", "20", "Gradient steps per try.")
