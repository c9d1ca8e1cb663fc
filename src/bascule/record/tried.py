"""What attacks and bounds found about a model, and reasons not to trust an evaluation by them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bascule.core.text import count
from bascule.metrics.contract import MISSING, Labels, Outcomes
from bascule.metrics.robust_accuracy import RobustAccuracy
from bascule.record.answers import Answers, Radii
from bascule.record.plan import Reach, RecordedQuestion

_SIGNS = {
    "random": (0.0, "randomised outputs: two passes over the same image differ for {share} of the images"),
    "mixing": (0.0, "batch-dependent outputs: the answer depends on the other images of the batch for {share}"),
    "probabilities": (0.5, "probabilities instead of logits: the model's outputs all lie in [0, 1]"),
    "no_gradient": (0.1, "zero gradients: the loss has no usable gradient at {share} of the images"),
    "no_rise": (0.25, "masked gradients: a small step along the gradient does not raise the loss for {share}"),
}
"""Share above which each sign of an evaluation counts, and what to say."""
_SIGNS_OF_SURVIVORS = {
    "unconverged": "attack not converged: twice the steps fool {share} of the images that withstood it",
    "black_box": "black box beats white box: a short search without gradients fools {share} of what withstood",
}
_OF_SURVIVORS = 0.1
"""Share of the images that withstood above which such a sign counts, ..."""
_OF_ALL = 0.005
"""... when it is also at least this share of all test images: of a handful that withstood, nothing hangs on a few."""
_BLACK_BOX_GAIN = 0.01


@dataclass(frozen=True, kw_only=True)
class Tried:
    """What attacks and bounds found about one model, with the signs noted on the way."""

    label: Labels
    """The true labels of the test images."""
    attacks: Sequence[tuple[Reach | None, Labels]] = ()
    """In order: the ball, where it is known, and the predictions under the attack."""
    proofs: Sequence[tuple[Reach, Radii]] = ()
    """Bounds: the ball and the certified radii."""
    first: Mapping[str, float] = field(default_factory=dict)
    """Signs of the model, noted with the first attack."""
    last: Mapping[str, float] = field(default_factory=dict)
    """Signs of the last attack. What withstood an earlier one says nothing; only what withstood them all does."""
    standing: float = 0.0
    """Share of the test images that withstood every attack."""


def tried_of(answers: Answers, questions: Sequence[RecordedQuestion], outcomes: Outcomes | None) -> Tried:
    """What is known of the attacks and bounds that one model was asked about."""
    attacks = [question for question in questions if question.kind == "attack"]
    bounds = [question for question in questions if question.kind == "certify"]
    signs = [answers.notes.get(question.key, {}).get("signs", {}) for question in attacks]
    return Tried(
        label=answers.label,
        attacks=[(one.reach, answers.predictions[one.key]) for one in attacks if one.key in answers.predictions],
        proofs=[
            (one.reach, answers.radii[one.key]) for one in bounds if one.key in answers.radii and one.reach is not None
        ],
        first=signs[0] if signs else {},
        last=signs[-1] if signs else {},
        standing=_standing(outcomes),
    )


def _standing(outcomes: Outcomes | None) -> float:
    """Share of the test images that withstood every attack."""
    sample = None if outcomes is None else RobustAccuracy().per_sample(outcomes)
    return 0.0 if sample is None else float(sample.mean())


def flags_of_tries(tried: Sequence[Tried]) -> Iterator[str]:
    """What the worst of several models says of an evaluation by attacks and bounds."""
    refuted = sum(map(refuted_images, tried))
    if refuted:
        yield f"certified and yet fooled: {count(refuted, 'image')} inside the certified ball; a bound is wrong"
    for name, (limit, text) in _SIGNS.items():
        worst = max((found.first.get(name, 0.0) for found in tried), default=0.0)
        if worst > limit:
            yield text.format(share=f"{100 * worst:.0f} %")
    for name, text in _SIGNS_OF_SURVIVORS.items():
        shares = [(found.last.get(name, 0.0), found.standing) for found in tried]
        counted = [share for share, left in shares if share > _OF_SURVIVORS and share * left >= _OF_ALL]
        if counted:
            yield text.format(share=f"{100 * max(counted):.0f} %")
    gain = max(map(black_box_gain, tried), default=0.0)
    if gain > _BLACK_BOX_GAIN:
        yield (
            f"black box beats white box: attacks without gradients fool {100 * gain:.1f} % of the images after "
            f"all others"
        )


def _fooled(tried: Tried, prediction: Labels) -> NDArray[np.bool_]:
    return (prediction != tried.label) & (prediction != MISSING)


def black_box_gain(tried: Tried) -> float:
    """Share of the test images that attacks without gradients fooled after those with gradients had searched there."""
    seeing = [
        place for place, (reach, _) in enumerate(tried.attacks) if reach is None or reach.uses_gradient is not False
    ]
    searched = [tried.attacks[place][0] for place in seeing]
    blind = [
        prediction
        for reach, prediction in (tried.attacks[seeing[-1] + 1 :] if seeing else [])
        if any(_holds(known, reach) for known in searched)
    ]
    if not blind:
        return 0.0
    return float(np.logical_or.reduce([_fooled(tried, prediction) for prediction in blind]).mean())


def _holds(one: Reach | None, other: Reach | None) -> bool:
    """Whether what an attack may do lies within what another one may; where it is not recorded, as far as known."""
    if one is None or other is None:
        return True
    if one.eps is None or other.eps is None:
        return one.within == other.within
    return one.norm == other.norm and other.eps <= one.eps


def refuted_images(tried: Tried) -> int:
    """Images that a bound on the model proves safe and an attack inside that ball fooled: 0 unless a bound is wrong.

    Attacks of other norms, larger radii or without a ball, and certifiers of another classifier (smoothing), refute
    nothing.
    """
    refuted = np.zeros(len(tried.label), dtype=bool)
    for (proof, radii), (attack, prediction) in itertools.product(tried.proofs, tried.attacks):
        if attack is None or attack.eps is None or proof.eps is None or attack.norm != proof.norm:
            continue
        if proof.of_model and attack.eps <= proof.eps:
            refuted |= _fooled(tried, prediction) & (radii >= proof.eps)
    return int(refuted.sum())
