"""Metrics. One file each: recorded per-sample outcomes -> a number with interval, n, unit and direction.

A metric is a pure function of what is stored, so old runs can be scored anew without a model. NumPy and SciPy only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bascule.core import catalog
from bascule.metrics.detection import Detection

MISSING = -1
"""Stands for "not evaluated" in arrays of predicted labels."""

OF_TWIN = "twin-"
"""Before a kind of question that a metric wants asked of the twin."""

OF_BASE = "before-"
"""Before a kind of question that a metric wants asked of the model before the repair."""

AIM = "aim"
"""Stands among the kinds of questions that a metric needs for a label that poison aims at."""

Labels = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Judgement:
    """What a filter said of a training set of N images, beside the truth."""

    score: NDArray[np.float32]
    """Suspicion, shape (N,); higher is more suspicious."""
    removed: NDArray[np.bool_]
    """What its rule removes, shape (N,)."""
    poisoned: NDArray[np.bool_]
    """What is poisoned, shape (N,)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Verdict:
    """What a scanner said of a model with K classes, beside the truth."""

    anomaly: NDArray[np.float64]
    """How far each class stands out, shape (K,); NaN where it was not examined."""
    suspects: tuple[int, ...]
    """Classes taken for targets, most suspicious first."""
    overlap: float | None = None
    """Intersection over union of the trigger recovered for the true target and the true one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcomes:
    """What one cell's model answered for each of N test images. Labels are int64 arrays of shape (N,)."""

    label: Labels
    """The true labels."""
    id: Labels | None = None
    """Ids of the images, so that two models are compared on the same ones; None when not known."""
    clean: Labels | None = None
    """Predictions on the images as they are."""
    triggered: Labels | None = None
    """Predictions on the images with the trigger."""
    adversarial: Sequence[Labels] = ()
    """Predictions under each evasion attack, in order; MISSING where an image had been fooled before its turn."""
    attacks: int = 0
    """Number of evasion attacks asked for; metrics over attacks need all of them."""
    triggered_adversarial: Sequence[Labels] = ()
    """Predictions under each evasion attack on the images with the trigger, as `adversarial`."""
    toward: Labels | None = None
    """Predictions on triggered images perturbed towards the target; MISSING where there was no need to."""
    away: Labels | None = None
    """Predictions on triggered images perturbed away from the target; MISSING where there was no need to."""
    strengths: Mapping[float, Labels] = field(default_factory=dict)
    """Predictions on images with a weakened trigger, by its share of full strength."""
    certified: NDArray[np.bool_] | None = None
    """Whether one of the study's certifiers proves the prediction at the radius asked for; shape (N,)."""
    target: int | None = None
    """Label the poison aims at; None without poison, and where each class is aimed at another one."""
    aims: Sequence[int] | None = None
    """For each class the label that its triggered images are meant to be taken for, MISSING where they are not meant to
    move; None where all but the target's are meant for `target`."""
    judgement: Judgement | None = None
    """What a filter said of the training set."""
    verdict: Verdict | None = None
    """What a scanner said of the model."""
    detection: Detection | None = None
    """What a test-time detector said of the inputs made of the images."""
    attention: NDArray[np.float64] | None = None
    """Share of the first heat map's heat that lies on the trigger, for M triggered images; NaN where there is none."""
    more: Mapping[str, Sequence[tuple[float | None, Labels]]] = field(default_factory=dict)
    """Answers to every further kind of question, by its name, in order: the question's `value` and the predictions."""
    given: bool = False
    """Whether the model came as it is: no training anew stands behind its seed."""
    before: Outcomes | None = None
    """What the model before the repair answered on the same images; None for one that nobody repaired."""
    twin: Outcomes | None = None
    """What the twin (same recipe and seed, unpoisoned data) answered on the same images."""

    @property
    def aimed(self) -> Labels | None:
        """For each image the label that it is meant to be taken for once triggered; MISSING where it is not meant to
        move; None without poison. Shape (N,)."""
        if self.aims is not None:
            return np.asarray(self.aims, dtype=np.int64)[self.label]
        return None if self.target is None else np.where(self.label == self.target, MISSING, self.target)

    @property
    def meant(self) -> NDArray[np.bool_]:
        """Which images are meant to move once triggered, and count in metrics of the trigger; all without poison."""
        aimed = self.aimed
        return np.ones(len(self.label), dtype=bool) if aimed is None else aimed != MISSING

    def reached(self, prediction: Labels, counted: NDArray[np.bool_] | None = None) -> NDArray[np.bool_] | None:
        """Whether each image that counts (by default those that are meant to move) is taken for what it is meant for;
        None without poison."""
        aimed = self.aimed
        if aimed is None:
            return None
        counted = aimed != MISSING if counted is None else counted
        return prediction[counted] == aimed[counted]

    def retuned(self, kind: str, *, poisoned: bool) -> Labels | None:
        """Predictions of a copy that was trained further, with poisoned images or without any: the `retuned` of its
        kinds on test images as they are, `retuned-triggered` on those with the trigger; None where none was."""
        found = (labels for value, labels in self.more.get(kind, ()) if value is not None and (value > 0) == poisoned)
        return next(found, None)

    def at(self, index: NDArray[Any]) -> Outcomes:
        """The outcomes of some images: a mask of shape (N,), or their places. What is not about images is left out."""
        kept = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in _OF_THE_MODEL}
        return Outcomes(**{name: _at(value, index) for name, value in kept.items()})


_OF_THE_MODEL = ("judgement", "verdict", "attention")


def _at(value: Any, index: NDArray[Any]) -> Any:
    if isinstance(value, np.ndarray):
        return value[index]
    if isinstance(value, (Outcomes, Detection)):
        return value.at(index)
    if isinstance(value, Mapping):
        return {key: _at(part, index) for key, part in value.items()}
    return [_at(part, index) for part in value] if isinstance(value, (list, tuple)) else value


@catalog.contract("measure")
@catalog.component
class Metric(ABC):
    """A number computed from outcomes. It has no settings: a record knows it by its name alone."""

    title: ClassVar[str]
    """Heading in tables."""
    unit: ClassVar[str] = "fraction"
    better: ClassVar[Literal["higher", "lower"]]
    needs: ClassVar[tuple[str, ...]] = ()
    """Kinds of questions (`evaluation/kinds`) that it is made from, each of them, beside `clean`: `attack`. Those that
    no key of a study asks, such as `attack-triggered`, are asked for its sake. With `twin-` before it, of the twin:
    `twin-attack`; with `before-`, of the model before the repair: `before-triggered`; and `AIM`. A study without a row
    in which all of them are asked is refused."""

    @abstractmethod
    def per_sample(self, outcomes: Outcomes) -> NDArray[np.bool_] | None:
        """Whether each image that counts is a success; None when the outcomes do not hold what is needed."""

    def counted(self, outcomes: Outcomes) -> NDArray[np.bool_]:
        """Which of the N images count in `per_sample`, in their order; all unless a metric says otherwise.

        Two models are compared image by image only where the same images count for both.
        """
        return np.ones(len(outcomes.label), dtype=bool)


@catalog.component
class Number(Metric):
    """A metric that is one number per model instead of a share of its test images."""

    yes_or_no: ClassVar[bool] = False
    """Whether that number is 1 or 0, so that over the seeds it is a share of models."""

    @abstractmethod
    def number(self, outcomes: Outcomes) -> Estimate | None:
        """The number; None when the outcomes do not hold what is needed, or when it does not exist."""

    def pooled(self, per_seed: Sequence[Outcomes]) -> Estimate | None:
        """One number over all seeds at once, for a metric that has none for a single seed; by default there is none."""
        return None

    def per_sample(self, outcomes: Outcomes) -> NDArray[np.bool_] | None:
        return None


def _need_of_twin(cls: type[OfTwin | NumberOfTwin]) -> None:
    """Of the twin what the metric needs of the model, unless the class says what it needs."""
    if "needs" not in vars(cls) and "metric" in vars(cls):
        cls.needs = tuple(f"{OF_TWIN}{need}" for need in cls.metric.needs or ("clean",))


@catalog.component
class OfTwin(Metric):
    """A metric of the twin: what the trigger, the filter or the attacks do to a model that never saw the poison."""

    metric: ClassVar[Metric]
    """Measured on the twin."""

    def __init_subclass__(cls) -> None:
        _need_of_twin(cls)

    def per_sample(self, outcomes: Outcomes) -> NDArray[np.bool_] | None:
        return None if outcomes.twin is None else self.metric.per_sample(outcomes.twin)

    def counted(self, outcomes: Outcomes) -> NDArray[np.bool_]:
        return self.metric.counted(outcomes.twin or outcomes)


@catalog.component
class NumberOfTwin(Number):
    """As `OfTwin`, for a metric that is one number per model."""

    metric: ClassVar[Number]
    """Measured on the twin."""

    def __init_subclass__(cls) -> None:
        _need_of_twin(cls)

    def number(self, outcomes: Outcomes) -> Estimate | None:
        return None if outcomes.twin is None else self.metric.number(outcomes.twin)


class Estimate(NamedTuple):
    """A number about one model."""

    value: float
    n: int
    """What it was estimated from: images, mostly."""
    interval: tuple[float, float] | None = None
    """Where it may lie since that sample is finite (95 %), where known."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A number that carries its doubt. All None when it could not be computed."""

    value: float | None
    low: float | None
    high: float | None
    n: int | None
    """Images that counted, per seed (the fewest over the seeds)."""
    unit: str
    better: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values, in the order of the table format."""
        return dict(vars(self))
