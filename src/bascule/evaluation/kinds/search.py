"""The search for a trigger on a model that was trained on the unpoisoned data: what an attacker does before he poisons.

Not asked by settings: the plan asks it of the proxies of poison whose trigger is searched for.
"""

from __future__ import annotations

from bascule.core import rng
from bascule.core.catalog import describe
from bascule.evaluation.question import Asking, Question
from bascule.evaluation.subject import Answer, Subject
from bascule.triggers.placement import Poison

FOLLOWS = None


def search_for(poison: Poison) -> Question:
    """The question to the proxy of this poison."""
    return Question(
        key=poison.search_key,
        kind="search",
        settings={"name": "search", **(describe(poison.planting) or {})},
        component=poison.planting,
        target=poison.target,
    )


def ask(asking: Asking) -> None:
    """Of a proxy alone, whatever is measured."""


def answer(question: Question, subject: Subject) -> Answer:
    """What was found, as arrays. The images that will be stamped are those that planting draws with the same seed."""
    images, _ = subject.training_set()
    drawing = rng.stream(subject.seed, "poison", device="cpu")
    with subject.progress.stage("search", 1):
        poison: Poison = question.component
        found = poison.search(subject.model, images, drawing=drawing, generator=subject.generator(question))
    return Answer(arrays=found)
