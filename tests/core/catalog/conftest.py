"""A user's files, and every component there is."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from bascule.core import catalog

REQUIRED = {"attacks": ({"name": "fgsm", "eps": 0.1},), "eps": 0.1, "model": "resnet18", "path": __file__}
"""A value for every setting without a default, by its name; some look at what lies at a path."""

EVERY = [(room, name) for room in catalog.ROOMS for name in catalog.names(room)]

TRIGGER_FILE = '''\
"""A test trigger."""

from typing import Annotated

from annotated_types import Ge

from bascule import triggers
from bascule.core.catalog import component


@component
class InkBlot(triggers.Trigger):
    """Blackens a corner."""

    size: Annotated[int, Ge(1)] = 2
    """Side of the blot in pixels."""

    def stamp(self, x, *, generator):
        stamped = x.clone()
        stamped[:, :, : self.size, : self.size] = 0
        return stamped
'''


class Component(NamedTuple):
    """One that is in the catalogue."""

    room: str
    name: str

    def settings(self) -> dict[str, Any]:
        """Its name and a value for each setting it requires."""
        fields = catalog.documentation(self.room, self.name).fields
        required = {field.name: REQUIRED[field.name] for field in fields if field.default is None}
        return {"name": self.name, **required}


@pytest.fixture(params=EVERY, ids=[f"{room}/{name}" for room, name in EVERY])
def each(request: pytest.FixtureRequest) -> Component:
    """Every component in turn."""
    return Component(*request.param)


@pytest.fixture
def ink_blot() -> str:
    """The text of a user's file with the trigger `InkBlot`."""
    return TRIGGER_FILE
