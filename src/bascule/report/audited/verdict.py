"""From the facts of an audit to a verdict in plain words. It never says that a model is clean."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bascule.core.text import count, radius
from bascule.metrics.contract import Measure
from bascule.record.agreement import SMALL, WORKS, Conclusion, agreed, conclude, named_most
from bascule.report.audited.facts import Facts, Filtered, Repaired, Robust, Trigger
from bascule.report.words import joined, percent, percent_interval

_GUESSING = 2.0
"""Accuracy below so many times that of guessing is none to speak of."""
_ONE_CLASS = 3.0
"""A class loses far more than the others together if its share is so many times theirs."""
_NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}
_METRICS = {"accuracy": "accuracy", "robust_accuracy": "robust accuracy", "asr": "ASR"}


@dataclass(frozen=True)
class Topic:
    """What is said of one thing."""

    title: str
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """What an audit found."""

    conclusion: Conclusion
    headline: str
    topics: tuple[Topic, ...]

    @property
    def suspicious(self) -> bool:
        """Whether there is reason to suspect a backdoor."""
        return self.conclusion == "suspicion"

    def __str__(self) -> str:
        parts = [self.headline]
        for topic in self.topics:
            parts += ["", topic.title, *(f"  {sentence}" for sentence in topic.sentences)]
        return "\n".join(parts)


def verdict_of(facts: Facts) -> Verdict:
    """The verdict on one model."""
    topics = (
        Topic("How right it is", tuple(_accuracy(facts))),
        Topic("Adversarial examples", tuple(_robust(facts))),
        Topic("Backdoors", tuple(_backdoors(facts))),
        Topic("Training images", tuple(_filters(facts))),
        Topic("Repairs", tuple(_repairs(facts))),
        Topic("May not be trusted", facts.flags),
        Topic("Not looked at", facts.left_out),
        Topic("Why this was asked", facts.reasons),
    )
    return Verdict(conclusion(facts), _headline(facts), tuple(topic for topic in topics if topic.sentences))


def conclusion(facts: Facts) -> Conclusion:
    """What it comes to: by the scanners and the trigger that they recovered, or since the one of its own record works.

    `no answer` while the audit is not finished, and where images alone were ranked.
    """
    if facts.about != "model":
        return "no answer"
    said: Conclusion = "suspicion" if _works(facts.planted) else _by_scanners(facts)
    return said if facts.done or said == "suspicion" else "no answer"


def _by_scanners(facts: Facts) -> Conclusion:
    return conclude(facts.scans, small=_small(facts))


def _small(facts: Facts) -> int | None:
    """The class whose recovered trigger stands out."""
    return facts.recovered.label if facts.recovered is not None and facts.recovered.stands_out else None


def _works(trigger: Trigger | None) -> bool:
    return trigger is not None and trigger.asr.value is not None and trigger.asr.value >= WORKS


def _headline(facts: Facts) -> str:
    label, total = agreed(facts.scans), len(facts.scans)
    unfinished = "" if facts.done else " The audit is not finished."
    if facts.about == "images":
        methods = joined([part.method for part in facts.filters])
        doubt = (
            " The network that judged has learned next to nothing, so the ranking is worth little."
            if _guesses(facts)
            else ""
        )
        ranked = f"The training images, ranked by {methods or 'no filter yet'}; nothing is said of any model."
        return f"{ranked}{doubt}{unfinished}"
    most, named = named_most(facts.scans)
    said = _by_scanners(facts)
    what = f"{named} of {count(total, 'scanner')} {'names' if named == 1 else 'name'} it"
    if most is not None and said == "suspicion":
        what += "" if label is not None else ", and the trigger recovered for it is small and works"
        return f"Suspicion of a backdoor towards class {facts.name_of(most)}: {what}.{unfinished}"
    if _works(facts.planted):
        assert facts.planted is not None
        where = f"towards class {facts.name_of(facts.planted.label)}"
        return f"A backdoor {where} is there by the model's own record; scanners do not agree on it.{unfinished}"
    if not total:
        return f"Nothing has looked for a backdoor in this model.{unfinished}"
    if most is None:
        return f"No backdoor was found by {joined([scan.method for scan in facts.scans])}.{unfinished}"
    where = f"class {facts.name_of(most)}"
    if total == 1:
        return f"Undecided: {facts.scans[0].method} alone looked for a backdoor, and names {where}.{unfinished}"
    if said == "undecided":
        small = ", and the trigger recovered for it is small and works" if most == _small(facts) else ""
        return f"Undecided whether there is a backdoor towards {where}: {what}{small}.{unfinished}"
    return (
        f"No backdoor that scanners agree on: {named} of {count(total, 'scanner')} "
        f"{'names' if named == 1 else 'name'} {where}.{unfinished}"
    )


def _interval(measure: Measure) -> str:
    """`97 % (95 to 98 %)`."""
    if measure.value is None or measure.low is None or measure.high is None:
        return "not known"
    value, between = percent_interval(measure.value, measure.low, measure.high)
    return f"{value} ({between})"


# --- how right, and under attack -------------------------------------------------------------------------------------


def _accuracy(facts: Facts) -> Iterator[str]:
    who = "The network that judged is right" if facts.about == "images" else "Right"
    yield f"{who} on {_interval(facts.accuracy)} of {count(facts.images, 'test image')}; in brackets 95 % intervals."
    if _guesses(facts):
        why = (
            "it was trained too shortly, or on too few images; allow more time"
            if facts.about == "images"
            else "the weights may lie in the wrong network, or the network may expect other pixels"
        )
        yield f"That is hardly better than guessing: {why}. What follows is then about nothing."
    for failure in facts.failures:
        yield f"Something failed: {failure}"


def _guesses(facts: Facts) -> bool:
    """Whether the model is hardly better than guessing."""
    chance = 1 / max(1, len(facts.classes))
    return facts.accuracy.value is not None and facts.accuracy.value < min(0.9, _GUESSING * chance)


def _robust(facts: Facts) -> Iterator[str]:
    for part in facts.robust:
        right = "Right" if part.eps is None else f"Within {_ball(part)}: right"
        yield f"{right} on {_interval(part.measure)} under {joined(part.attacks)}."
    if facts.robust:
        yield "A stronger attack may find more: these numbers are upper bounds."
    if facts.certified is not None:
        names = joined([name for part in facts.bounds for name in part.attacks], "or")
        balls = dict.fromkeys(_ball(part) for part in facts.bounds)
        yield f"Proved within {joined(list(balls))} by {names}: {_interval(facts.certified)}, whatever the attack."


def _ball(part: Robust) -> str:
    return "" if part.eps is None or part.norm is None else f"{radius(part.eps)} in {_NORMS.get(part.norm, part.norm)}"


# --- backdoors -------------------------------------------------------------------------------------------------------


def _backdoors(facts: Facts) -> Iterator[str]:
    for suspects in dict.fromkeys(scan.suspects for scan in facts.scans):
        methods = [scan.method for scan in facts.scans if scan.suspects == suspects]
        named = joined([facts.name_of(label) for label in suspects])
        what = f"class{'es' if len(suspects) > 1 else ''} {named}" if suspects else "no class"
        yield f"{joined(methods)} {'name' if len(methods) > 1 else 'names'} {what}."
    if facts.planned_scans > len(facts.scans):
        yield f"{count(facts.planned_scans - len(facts.scans), 'scanner has', 'scanners have')} not answered."
    if any(scan.suspects for scan in facts.scans) and agreed(facts.scans) is None:
        yield "That is no agreement. A scanner alone often names a class of a model without any backdoor."
    if _by_scanners(facts) == "undecided":
        yield (
            "Undecided is no all-clear: look at the triggers that were recovered, or ask again with another seed, more "
            "images and more time for more scanners."
        )
    if facts.recovered is not None:
        yield from _trigger(facts, facts.recovered)
    if facts.planted is not None:
        yield (
            f"Its own record tells of a trigger towards class {facts.name_of(facts.planted.label)}: it moves "
            f"{_interval(facts.planted.asr)} of the test images of other classes there."
        )
        label = agreed(facts.scans)
        if label is not None and label != facts.planted.label:
            yield "That is another class than the scanners agree on."


def _trigger(facts: Facts, trigger: Trigger) -> Iterator[str]:
    size = ""
    if trigger.size is not None:
        size = f" covers {trigger.size:.1f} of {trigger.pixels} pixels"
        size += f" (the median of the other classes needs {trigger.usual:.1f})" if trigger.usual is not None else ""
        size += " and"
    yield (
        f"The trigger recovered for class {facts.name_of(trigger.label)}{size} moves {_interval(trigger.asr)} of the "
        f"test images of other classes there, none of which a scanner saw."
    )
    if trigger.size is not None and trigger.usual is not None and trigger.size > SMALL * trigger.usual:
        yield "That is more than half: as much can be found for a class without any backdoor."
    if trigger.asr.value is not None and trigger.asr.value < WORKS:
        yield "So it does not carry over to other images, which speaks against a backdoor of this form."


# --- the training set, and repairs -----------------------------------------------------------------------------------


def _filters(facts: Facts) -> Iterator[str]:
    for part in facts.filters:
        yield _filter(facts, part)
        yield from (f"{part.method}: {note}" for note in part.notes)
    together = [part for part in facts.filters if part.label is not None and _one_class(part)]
    for label in dict.fromkeys(part.label for part in together):
        methods = [part.method for part in together if part.label == label]
        if len(methods) > 1:
            yield f"{joined(methods)} agree on class {facts.name_of(label or 0)}."
        if label is not None and label == agreed(facts.scans):
            yield f"{joined(methods)} and the scanners point to the same class, {facts.name_of(label)}."
    if facts.filters:
        yield "Most rules remove some images of any set, also where none is poisoned: look at those that rank first."


def _filter(facts: Facts, part: Filtered) -> str:
    if part.label is None:
        return f"{part.method} would remove none of {count(part.total, 'image')}."
    share = percent(part.removed / part.total, 1)
    said = f"{part.method} would remove {part.removed} of {count(part.total, 'image')} ({share})"
    name = facts.name_of(part.label)
    if part.others == 0:
        return f"{said}, all of class {name}: {percent(part.share)} of that class."
    if _one_class(part):
        return f"{said}: {percent(part.share)} of class {name}, {percent(part.others, 1)} of the others."
    return f"{said}, of no class far more than of the others (at most {percent(part.share)}, of class {name})."


def _one_class(part: Filtered) -> bool:
    """Whether the rule would remove far more of one class than of the others."""
    return part.label is not None and part.share >= _ONE_CLASS * part.others


def _repairs(facts: Facts) -> Iterator[str]:
    for part in facts.repairs:
        changes = [
            f"{_METRICS[name]}{_within(part, name)} from {_plain(part.before[name])} to {_interval(part.after[name])}"
            for name in _METRICS
            if name in part.before and name in part.after
        ]
        yield f"{part.name}: {joined(changes)}."
        if "asr" not in part.after:
            yield f"{part.name}: whether it would remove a backdoor is not known, since no trigger is."


def _within(part: Repaired, name: str) -> str:
    """` within 0.075 in Linf`, where the number depends on it."""
    return (
        f" within {_ball(part.ball)}"
        if name == "robust_accuracy" and part.ball is not None and part.ball.eps is not None
        else ""
    )


def _plain(measure: Measure) -> str:
    return "unknown" if measure.value is None else percent(measure.value)
