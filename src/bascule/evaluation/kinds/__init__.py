"""Kinds of questions. One file each, found by scanning this folder and named like the kind: `attack_triggered.py` holds
the kind `attack-triggered`.

A kind is a module with three things:

- `FOLLOWS`: the kind that comes right before it, whose answers it may build on; None for the first. Of several that
  follow the same kind, the order is that of their names.
- `ask(asking)`: adds the kind's questions, if the settings, the metrics (`asking.settings.needs`) and the questions
  before it call for some.
- `answer(question, subject)`: answers one of them, drawing from `subject.generator(question)` alone, with `batch` where
  it draws for batches of images (a detector's preparation from a stream of the model's: no trigger and no attack may
  move it). What costs is dealt out to the team, batch by batch, and put together by `subject.gathered`.

What changes the answer must stand in the question (its component, `value`, `target`, `stamped`), whose key holds them;
a constant of the module is in no key. A trigger is stamped with the generator of the `triggered` question, so that one
that draws is the one behind ASR. A metric that wants the answers says so in `needs` and finds them, with the `value` of
each question, in `Outcomes.more["the-kind"]`, or in a field of their own.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Iterator
from typing import Protocol, cast

from bascule.evaluation.question import Asking, Question
from bascule.evaluation.subject import Answer, Subject


class Kind(Protocol):
    """What the module of a kind holds."""

    FOLLOWS: str | None

    def ask(self, asking: Asking) -> None:
        """Add its questions."""

    def answer(self, question: Question, subject: Subject) -> Answer:
        """Answer one of them."""


@functools.cache
def kinds() -> dict[str, Kind]:
    """Every kind by its name, each after the one it follows."""
    modules = {
        info.name.replace("_", "-"): cast(Kind, importlib.import_module(f"{__name__}.{info.name}"))
        for info in pkgutil.iter_modules(__path__)
    }

    def after(name: str | None) -> Iterator[str]:
        for other in sorted(key for key, kind in modules.items() if name == kind.FOLLOWS):
            yield other
            yield from after(other)

    for name, kind in modules.items():
        if kind.FOLLOWS is not None and kind.FOLLOWS not in modules:
            raise ImportError(
                f"the kind {name!r} follows {kind.FOLLOWS!r}, which is none of {', '.join(sorted(modules))}"
            )
    return {name: modules[name] for name in after(None)}
