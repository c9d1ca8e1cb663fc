"""The evasion attacks, one after the other, each on the images that withstood those before it."""

from __future__ import annotations

from bascule.attack.checks import SAMPLE, signs_of_attack, signs_of_model
from bascule.evaluation.question import Asking, Question
from bascule.evaluation.subject import Answer, Subject

FOLLOWS = "triggered"


def ask(asking: Asking) -> None:
    """One question an attack; an ensemble's parts count as attacks."""
    (clean,) = asking.of("clean")
    asking.ask_in_turn("attack", asking.settings.attack_parts, clean)


def answer(question: Question, subject: Subject) -> Answer:
    """Predicted labels, MISSING where an image was fooled before; the first and the last note signs of trouble."""
    attack, wanted = question.component, subject.right(question.after)
    prediction = subject.under_attack(question, attack, subject.model, wanted, subject.test.labels)
    chain = [other.key for other in subject.questions if other.kind == question.kind]
    signs: dict[str, float] = {}
    if question.key == chain[0]:
        signs |= signs_of_model(subject.model, attack, *subject.first(wanted, SAMPLE))
    if question.key == chain[-1]:
        survivors = prediction.numpy() == subject.labels
        generator = subject.generator(question, "signs")
        signs |= signs_of_attack(subject.model, attack, *subject.first(survivors, SAMPLE), generator=generator)
    return Answer(prediction, {"signs": {name: round(share, 4) for name, share in signs.items()}})
