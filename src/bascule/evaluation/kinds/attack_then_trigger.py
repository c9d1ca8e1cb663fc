"""The first attack on the images as they are, and the trigger stamped on what it made of them."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from bascule.attacks.run import run_attack
from bascule.core.inference import Filled
from bascule.evaluation.question import Asking, Question
from bascule.evaluation.subject import Answer, Part, Subject
from bascule.metrics.contract import MISSING

FOLLOWS = "away"


def ask(asking: Asking) -> None:
    """Where a metric wants it."""
    stamped, settings = asking.first("triggered"), asking.settings
    if stamped is not None and settings.attack_parts and "attack-then-trigger" in settings.needs:
        asking.ask("attack-then-trigger", settings.attack_parts[0], asking.of("clean"), stamped=stamped)


def answer(question: Question, subject: Subject) -> Answer:
    """Predicted labels of all images; one that is wrong as it is is stamped as it is."""
    stamped = question.stamped
    assert stamped is not None
    right = torch.from_numpy(subject.right(question.after)).to(subject.test.device)
    stamping, filled = subject.generator(stamped), Filled(subject.model)

    def parts() -> Iterator[Part]:
        for number, index, x in subject.all_batches():
            same = subject.generator(stamped)
            same.set_state(stamping.get_state())
            # Drawn as when `stamped` was answered, whatever this batch's trigger is then put on, and by whom.
            subject.stamped_at(stamped.component, index, x, generator=stamping)
            if not subject.team.takes(number):
                continue
            chosen = right[index]
            if bool(chosen.any()):
                y, generator = subject.test.labels[index[chosen]], subject.generator(question, batch=number)
                attack, precision = question.component, question.precision
                x[chosen] = run_attack(filled, attack, x[chosen], y, generator=generator, precision=precision).x
            x = subject.stamped_at(stamped.component, index, x, generator=same)
            yield Part(index, subject.labels_on(x))

    return Answer(subject.gathered(subject.told(parts(), question, len(subject.test)), MISSING))
