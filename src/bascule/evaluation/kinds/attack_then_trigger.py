"""The first attack on the images as they are, and the trigger stamped on what it made of them."""

from __future__ import annotations

import torch

from bascule.attacks.run import run_attack
from bascule.core.inference import Filled, labels_of
from bascule.core.restore import evaluating
from bascule.evaluation.question import Asking, Question
from bascule.evaluation.subject import Answer, Subject

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
    attacking, stamping, filled = subject.generator(question), subject.generator(stamped), Filled(subject.model)
    columns = []
    with subject.progress.stage(str(question.settings["name"]), len(subject.test)):
        for index, x in subject.all_batches():
            chosen = right[index]
            if bool(chosen.any()):
                y = subject.test.labels[index[chosen]]
                attack, precision = question.component, question.precision
                x[chosen] = run_attack(filled, attack, x[chosen], y, generator=attacking, precision=precision).x
            x = subject.stamped_at(stamped.component, index, x, generator=stamping)
            with evaluating(subject.model), torch.no_grad():
                columns.append(labels_of(subject.model(x)).cpu())
            subject.progress.update(int(index[-1]) + 1)
    return Answer(torch.cat(columns))
