"""The security curve: the same attacks in smaller and larger balls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from bascule.attacks.contract import Attack, Evasion
from bascule.core.catalog import name_of
from bascule.core.errors import RequestError
from bascule.evaluation.question import Asking, Question
from bascule.evaluation.subject import Answer, Subject
from bascule.metrics.contract import MISSING

FOLLOWS = "strength"


def ask(asking: Asking) -> None:
    """A question a radius, outwards from the study's own, so that each starts from what is known.

    Raises:
        RequestError: The attacks have several norms or radii, or one has none.
    """
    settings = asking.settings
    if not settings.curve:
        return
    own = _radius(settings.attack)
    (clean,) = asking.of("clean")
    known = [(question.key, own) for question in asking.of("attack")]
    radii = sorted(set(settings.curve) - {own, 0.0})
    for eps in [*(r for r in radii if r > own), *(r for r in reversed(radii) if r < own)]:
        parts = tuple(_resized(part, eps) for part in settings.attack_parts if isinstance(part, Attack))
        question = asking.ask("curve", parts, [clean], radii=tuple(known), value=eps)
        known.append((question.key, eps))


def answer(question: Question, subject: Subject) -> Answer:
    """Predicted labels: images fooled in a smaller ball are fooled, those standing in a larger one stand."""
    predictions, labels, eps = subject.predictions, subject.labels, question.value
    assert eps is not None
    fooled = {key: (predictions[key] != labels) & (predictions[key] != MISSING) for key, _ in question.radii}
    wanted = subject.right(question.after)
    for key, radius in question.radii:
        if radius <= eps:
            wanted &= ~fooled[key]
    larger = [radius for _, radius in question.radii if radius > eps]
    if larger:
        # Points come outwards from the study's own radius: what stands at the next larger one needs no try here.
        next_larger = [key for key, radius in question.radii if radius == min(larger)]
        wanted &= np.logical_or.reduce([fooled[key] for key in next_larger])
    column = torch.full((len(labels),), MISSING)
    for attack in question.component:
        prediction = subject.under_attack(question, attack, subject.model, wanted, subject.test.labels)
        column = torch.where(prediction == MISSING, column, prediction)
        wanted &= prediction.numpy() == labels
    return Answer(column)


def _radius(attacks: Sequence[Evasion]) -> float:
    """The radius of all these attacks.

    Raises:
        RequestError: They have several norms or radii, or one has none.
    """
    without = dict.fromkeys(name_of(attack) for attack in attacks if not isinstance(attack, Attack))
    if without:
        raise RequestError(
            f"a security curve needs attacks that have a radius; {', '.join(without)} has none. Ask for the curve in a "
            "row that is attacked in one ball alone",
            place=("curve",),
        )
    balls = {(attack.norm, attack.eps) for attack in attacks if isinstance(attack, Attack)}
    if len(balls) != 1:
        raise RequestError(
            f"a security curve needs attacks that share one norm and eps, got {len(balls)} balls", place=("curve",)
        )
    ((_, own),) = balls
    return own


def _resized(attack: Attack, eps: float) -> Attack:
    """The attack in another ball, with a step of the same share of its radius."""
    changes: dict[str, Any] = {"eps": eps}
    step = getattr(attack, "step_size", None)
    if step is not None and attack.eps:
        changes["step_size"] = step * eps / attack.eps
    return replace(attack, **changes)
