"""Both ends of one model that belongs to no run: the numbers, and what may not be trusted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bascule.core.catalog import build, name_of
from bascule.core.documented import documented
from bascule.core.errors import RequestError
from bascule.core.grid import Grid
from bascule.core.shown import Lines, Part, Shown
from bascule.core.text import joined, radius
from bascule.metrics.contract import AIM, MISSING, OF_BASE, OF_TWIN, Measure, Metric, Outcomes
from bascule.metrics.interval import summarise
from bascule.metrics.needs import in_words, keys_of
from bascule.metrics.wording import UNKNOWN, metric_line
from bascule.metrics.worst import survivors
from bascule.record.answers import Answers
from bascule.record.flags import flags_of_model
from bascule.record.outcomes import outcomes_of
from bascule.record.plan import RecordedQuestion

METRICS = ("accuracy", "robust-accuracy", "certified-accuracy", "asr", "triggered-accuracy")
"""What is always told, as not measured where it was not asked for."""


def metrics_named(more: Sequence[str]) -> dict[str, Metric]:
    """`METRICS` and more, by their names in tables.

    Raises:
        RequestError: An unknown name, or a metric that needs more than the model.
    """
    metrics: dict[str, Metric] = {}
    for name in (*METRICS, *more):
        metric: Metric = build("measure", name)
        if any(need.startswith((OF_TWIN, OF_BASE)) for need in metric.needs):
            raise RequestError(f"{name} needs more than one model and its answers: measure it in a study")
        called = name_of(metric).replace("-", "_")
        if called.startswith(_RETUNED):
            raise RequestError(
                f"{name} needs the model's twin beside it, or nobody can tell what was woken from what was learnt: "
                "measure it in a study, with `retune`"
            )
        metrics[called] = metric
    return metrics


_RETUNED = ("asr_retuned", "accuracy_retuned")
"""How metrics begin that are about a model trained a little further."""


def check_measurable(asked: Sequence[str], given: Mapping[str, bool]) -> None:
    """Refuse metrics that nothing will be known of, before anything is measured.

    Args:
        asked: Names of metrics that somebody wants.
        given: What the model is measured with, by the name of the argument, and whether it is there.

    Raises:
        RequestError: One of them needs what is not there.
    """
    for name in asked:
        metric: Metric = build("measure", name)
        called = name_of(metric).replace("-", "_")
        wanted = _wanted(metric)
        if not given.keys() >= set(wanted):
            raise RequestError(
                f"{called} is made from what a study asks with {in_words(keys_of(metric.needs))}: measure it in one"
            )
        if missing := [f"`{one}`" for one in wanted if not given[one]]:
            raise RequestError(f"{called} cannot be measured without {joined(missing)}: give {_it(missing)}")


def check_target(target: int | None, asked: Sequence[str], *, trigger: bool) -> None:
    """Refuse a target that nothing would be done with.

    Args:
        target: The class, where somebody gave one.
        asked: Names of metrics that somebody wants, beside `METRICS`.
        trigger: Whether there is a trigger, which aims at it.

    Raises:
        RequestError: There is neither a trigger nor a metric that needs a target.
    """
    if target is not None and not trigger and not any("target" in _wanted(build("measure", name)) for name in asked):
        problem = "nothing is done with it without `trigger`: give that as well, or leave this out"
        raise RequestError(problem, place=("target",))


def _wanted(metric: Metric) -> list[str]:
    """What one model must be given so that there is something to make the metric from."""
    return list(dict.fromkeys(argument for need in metric.needs for argument in _arguments(need)))


def _arguments(need: str) -> tuple[str, ...]:
    """What one model must be given so that a metric's need is met; a study's own key where nothing can be given."""
    if need == AIM:
        return ("target",)
    return tuple(name for key in keys_of([need]) for name in (("trigger", "target") if key == "poison" else (key,)))


def _to_give(metric: Metric) -> str:
    """What to say of a metric that was not asked for."""
    wanted = _wanted(metric)
    return f"not measured: give {joined(wanted)}" if wanted else UNKNOWN


def _it(missing: Sequence[str]) -> str:
    return "it" if len(missing) == 1 else "them"


@dataclass(frozen=True)
class AttackShare:
    """What one attack did to the images that the attacks before it had left."""

    name: str
    norm: str | None
    """None, as `eps`, of an attack in a threat model that is no ball."""
    eps: float | None
    fooled: float
    """Share of all images that it fooled."""
    left: float
    """Share of all images still right after it."""
    precision: str = "float32"
    """Of its search: `mixed` where gradients were taken in bfloat16."""
    within: str | None = None
    """Of an attack without a ball: its threat model, for people."""

    @property
    def where(self) -> str:
        """In which threat model it searched, and how, in a phrase."""
        threat = f"{self.norm}, eps {radius(self.eps)}" if self.eps is not None else self.within or ""
        return threat if self.precision == "float32" else f"{threat}, {self.precision} precision"

    def as_dict(self) -> dict[str, Any]:
        """In the format of `bascule evaluate MODEL --format json`."""
        return {name: value for name, value in vars(self).items() if name != "within" or value is not None}


@documented
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Evaluation(Shown, Mapping[str, Measure]):
    """The numbers of one model by their names in tables, each with value, interval and the images that counted."""

    metrics: Mapping[str, Measure]
    kinds: Mapping[str, Metric]
    """What the metrics are, by the same names."""
    attacks: tuple[AttackShare, ...]
    """In order; the last one's `left` is the robust accuracy."""
    flags: tuple[str, ...]
    """Reasons not to trust the numbers: see docs/flags.md."""
    outcomes: Outcomes
    """What the model answered, image by image."""

    def __getitem__(self, name: str) -> Measure:
        return self.metrics[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.metrics)

    def __len__(self) -> int:
        return len(self.metrics)

    def shown(self) -> Sequence[Part]:
        table, below = self.table("images", {})
        return [table, Lines(below)]

    def table(self, about: str, hints: Mapping[str, str]) -> tuple[Grid, list[str]]:
        """A line for each metric, and what is to be said below: the images, what each attack did, the flags.

        Args:
            about: What the images are called, in a phrase.
            hints: What to say of a metric (`robust_accuracy`) that was not measured; by default what to give.
        """
        lines = []
        for name, measure in self.metrics.items():
            hint = hints.get(name, _to_give(self.kinds[name]) if name.replace("_", "-") in METRICS else UNKNOWN)
            lines.append(metric_line(self.kinds[name], [measure], hint))
        below = [f"On {len(self.outcomes.label):,} {about}. 95 % intervals over these images (Wilson)."]
        below += [
            f"{part.name} ({part.where}): "
            f"fooled {100 * part.fooled:.1f} % of the images; {100 * part.left:.1f} % are left"
            for part in self.attacks
        ]
        return Grid([""], ["Value"], lines), [*below, *(f"! {flag}" for flag in self.flags)]

    def as_dict(self) -> dict[str, Any]:
        """`metrics` and `flags` in the format of `bascule table --format json`, and `attacks`."""
        return {
            "metrics": {name: measure.as_dict() for name, measure in self.metrics.items()},
            "flags": list(self.flags),
            "attacks": [part.as_dict() for part in self.attacks],
        }


def evaluation_of(
    answers: Answers,
    questions: Sequence[RecordedQuestion],
    metrics: Mapping[str, Metric],
    *,
    target: int | None,
    aims: Sequence[int] | None = None,
) -> Evaluation:
    """The numbers that the answers to all questions give: the same as in the table of a run with these answers."""
    outcomes = outcomes_of(answers, questions, target=target, aims=aims)
    measures = {name: summarise(metric, [outcomes]) for name, metric in metrics.items()}
    return Evaluation(
        metrics=measures,
        kinds=metrics,
        attacks=tuple(_shares(answers, questions, outcomes)),
        flags=tuple(flags_of_model(answers, questions, outcomes, measures)),
        outcomes=outcomes,
    )


def _shares(answers: Answers, questions: Sequence[RecordedQuestion], outcomes: Outcomes) -> Iterator[AttackShare]:
    assert outcomes.clean is not None
    attacks = [question for question in questions if question.kind == "attack"]
    for place, (question, prediction) in enumerate(zip(attacks, outcomes.adversarial, strict=True)):
        assert question.reach is not None
        fooled = (prediction != outcomes.label) & (prediction != MISSING)
        left = survivors(outcomes.label, outcomes.clean, outcomes.adversarial[: place + 1])
        notes = answers.notes[question.key]
        yield AttackShare(
            name=str(notes["settings"]["name"]),
            norm=question.reach.norm,
            eps=question.reach.eps,
            fooled=float(fooled.mean()),
            left=float(left.mean()),
            precision=str(notes.get("precision", "float32")),
            within=question.reach.within,
        )
