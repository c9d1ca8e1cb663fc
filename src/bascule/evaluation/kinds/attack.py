"""The evasion attacks, one after the other, each on the images that withstood those before it."""

from __future__ import annotations

from dataclasses import replace

from bascule.attacks.checks import SAMPLE, signs_of_attack, signs_of_model
from bascule.evaluation.question import Asking, Question
from bascule.evaluation.subject import Answer, Subject

FOLLOWS = "triggered"


def ask(asking: Asking) -> None:
    """One question an attack; an ensemble's parts count as attacks."""
    (clean,) = asking.of("clean")
    parts = asking.settings.attack_parts
    asking.ask_in_turn("attack", parts, clean)
    if parts:
        asking.questions[-1] = replace(asking.questions[-1], closing=True)


def answer(question: Question, subject: Subject) -> Answer:
    """Predicted labels, MISSING where an image was fooled before; a row's first and last note signs of trouble."""
    attack, wanted = question.component, subject.right(question.after)
    prediction = subject.under_attack(question, attack, subject.model, wanted, subject.test.labels)
    signs: dict[str, float] = {}
    if len(question.after) == 1:  # the images as they are, and no attack
        signs |= signs_of_model(subject.model, attack, *subject.first(wanted, SAMPLE))
    if question.closing:
        survivors = prediction.numpy() == subject.labels
        generator = subject.generator(question, "signs")
        signs |= signs_of_attack(subject.model, attack, *subject.first(survivors, SAMPLE), generator=generator)
    return Answer(prediction, {"signs": {name: round(share, 4) for name, share in signs.items()}})
