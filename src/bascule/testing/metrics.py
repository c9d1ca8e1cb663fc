"""What every metric keeps, whichever file or package it comes from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bascule.evaluation.kinds import kinds
from bascule.metrics.contract import MISSING, Judgement, Metric, Number, Outcomes, Verdict
from bascule.metrics.detection import SORTS, Detection, Inputs
from bascule.metrics.interval import summarise
from bascule.testing.demands import demand, one_sentence
from bascule.testing.settings import check_settings

CLASSES, TARGET = 4, 3
RETUNED = (5.0, 0.0)
"""How many poisoned images a copy was trained further on, one after the other."""


@one_sentence
def check_metric(metric: Metric, *, aims: Sequence[int] | None = None) -> None:
    """The contract of a metric: a share of images that each are a success or not, or one number per model (`Number`).

    Args:
        metric: Whichever; it has no settings.
        aims: For one of poison that is not meant to move all classes: what each of the four classes aims at, `MISSING`
            for nothing; the target is class 3.

    Raises:
        AssertionError: It does not keep the contract; the text says what is wrong.
    """
    check_settings(metric)
    demand(metric.title, "it has no title")
    demand(metric.better in ("higher", "lower"), f"better is {metric.better!r}, neither higher nor lower")
    if isinstance(metric, Number):
        check_number(metric)
    else:
        check_share(metric, aims)
    empty = random_outcomes(0).at(np.array([], dtype=np.int64))
    demand(summarise(metric, [empty]).value is None, "a number from a sample of no images")


def random_outcomes(seed: int, count: int = 60, aims: Sequence[int] | None = None) -> Outcomes:
    """Complete outcomes of a model that is right about half of the time."""
    draws, further = np.random.default_rng(seed), np.random.default_rng(1000 + seed)  # one more kind moves nothing else
    label = draws.integers(CLASSES, size=count)

    def predictions() -> NDArray[Any]:
        return np.where(draws.random(count) < 0.5, label, draws.integers(CLASSES, size=count))

    adversarial = [np.where(draws.random(count) < 0.2, MISSING, predictions()) for _ in range(2)]

    def more() -> dict[str, list[tuple[float | None, NDArray[Any]]]]:
        values = {kind: RETUNED if kind.startswith("retuned") else (None,) for kind in kinds()}
        return {kind: [(value, further.permutation(label)) for value in some] for kind, some in values.items()}

    def model(adversarial: list[NDArray[Any]], **more: Any) -> Outcomes:
        return Outcomes(
            label=label,
            clean=predictions(),
            triggered=predictions(),
            adversarial=adversarial,
            attacks=2,
            target=TARGET,
            aims=aims,
            judgement=_judgement(draws, count),
            verdict=_verdict(draws),
            detection=_detection(further, label),
            **more,
        )

    return model(
        adversarial,
        toward=predictions(),
        away=predictions(),
        triggered_adversarial=[predictions() for _ in range(2)],
        strengths={0.5: np.where(draws.random(count) < 0.8, TARGET, label)},
        certified=draws.random(count) < 0.5,
        attention=draws.random(20),
        more=more(),
        twin=model([predictions() for _ in range(2)], more=more()),
        before=Outcomes(
            label=label,
            clean=further.permutation(label),
            triggered=further.permutation(label),
            target=TARGET,
            aims=aims,
        ),
    )


def _judgement(draws: np.random.Generator, count: int) -> Judgement:
    poisoned, removed = draws.random(count) < 0.3, draws.random(count) < 0.4
    score = draws.random(count, dtype=np.float32) + np.float32(0.3) * poisoned.astype(np.float32)
    return Judgement(score=score, removed=removed, poisoned=poisoned)


def _verdict(draws: np.random.Generator) -> Verdict:
    return Verdict(anomaly=3 * draws.random(CLASSES), suspects=(3, 1)[: draws.integers(3)], overlap=draws.random())


def _detection(draws: np.random.Generator, label: NDArray[Any]) -> Detection:
    count, calm = len(label), np.sort(draws.random(40, dtype=np.float32))
    sorts = {
        sort: Inputs(
            suspicion=np.where(made, draws.random(count), np.nan).astype(np.float32),
            prediction=np.where(made, np.where(draws.random(count) < 0.5, TARGET, label), MISSING),
        )
        for sort in SORTS[1:]
        for made in [draws.random(count) < 0.8]
    }
    benign = Inputs(suspicion=draws.random(count, dtype=np.float32), prediction=label)
    return Detection(calm=calm, thresholds=calm[[38, 30]], sorts={"benign": benign, **sorts})


def at(outcomes: Outcomes, index: NDArray[Any]) -> Outcomes:
    """The outcomes of these images, in this order, with what is known of the model as a whole."""
    whole = {name: getattr(outcomes, name) for name in ("judgement", "verdict", "attention")}
    twin = None if outcomes.twin is None else at(outcomes.twin, index)
    return dataclasses.replace(outcomes.at(index), **whole, twin=twin)


def copies(outcomes: Any) -> Iterator[NDArray[Any]]:
    """Copies of all arrays in it."""
    for value in vars(outcomes).values():
        parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else [value]
        for part in parts:
            if isinstance(part, np.ndarray):
                yield part.copy()
            elif dataclasses.is_dataclass(part):
                yield from copies(part)


def check_unchanged(before: Sequence[NDArray[Any]], found: Outcomes) -> None:
    """Outcomes are as they were."""
    pairs = zip(before, copies(found), strict=True)
    demand(all(np.array_equal(old, new, equal_nan=True) for old, new in pairs), "outcomes changed")


def check_number(metric: Number) -> None:
    """One number per model, the same whatever the order of the images; unknown without outcomes."""
    values = []
    for seed in range(8):
        found = random_outcomes(seed)
        before = list(copies(found))
        estimate = metric.number(found)
        check_unchanged(before, found)
        if estimate is None:
            raise AssertionError("no number where every outcome is there")
        demand(np.isfinite(estimate.value), f"the number is {estimate.value}")
        demand(estimate.n > 0, f"its n is {estimate.n}")
        if estimate.interval is not None:
            low, high = estimate.interval
            demand(low <= estimate.value <= high, f"{estimate.value} is not in its interval [{low}, {high}]")
        if metric.yes_or_no:
            demand(estimate.value in (0, 1), f"{estimate.value} is neither yes nor no")
        measure = summarise(metric, [found])
        demand(
            measure.value is not None and math.isclose(measure.value, estimate.value, rel_tol=1e-6, abs_tol=1e-12),
            f"one model alone is summarised as {measure.value} instead of {estimate.value}",
        )
        demand((measure.n, measure.unit) == (estimate.n, metric.unit), "a summary has another n or unit")
        if metric.unit == "fraction":
            demand(0 <= estimate.value <= 1, f"a fraction of {estimate.value}")
        shuffled = at(found, np.random.default_rng(seed).permutation(len(found.label)))
        demand(metric.number(shuffled) == estimate, "the order of the images matters")
        values.append(estimate.value)
    demand(len(set(values)) > 1, "the same number for every model")
    demand(metric.number(Outcomes(label=np.array([0, 1, 2]))) is None, "a number from nothing")


def check_share(metric: Metric, aims: Sequence[int] | None = None) -> None:
    """A share of images that each are a success or not, whatever their order; unknown without outcomes."""
    demand(metric.unit, "it has no unit")
    values = []
    for seed in range(5):
        found = random_outcomes(seed, aims=aims)
        before = list(copies(found))
        sample = metric.per_sample(found)
        check_unchanged(before, found)
        demand(isinstance(sample, np.ndarray), f"the sample is {type(sample).__name__}, no array")
        assert sample is not None
        demand(sample.dtype == np.bool_, f"the sample has dtype {sample.dtype}, not bool")
        demand(sample.ndim == 1, f"the sample has shape {sample.shape}")
        demand(0 < len(sample) <= len(found.label), f"the sample has {len(sample)} of {len(found.label)} images")
        check_counted(metric, found)
        measure = summarise(metric, [found])
        demand(measure.value is not None, "no number where every outcome is there")
        ordered = 0 <= measure.low <= measure.value <= measure.high <= 1  # type: ignore[operator]
        demand(ordered, f"{measure.value} is not in its interval, or no share")
        told = (measure.n, measure.unit, measure.better) == (len(sample), metric.unit, metric.better)
        demand(told, "a summary has another n, unit or direction")
        shuffled = at(found, np.random.default_rng(seed).permutation(len(found.label)))
        demand(summarise(metric, [shuffled]) == measure, "the order of the images matters")
        values.append(measure.value)
    demand(len(set(values)) > 1, "the same number for every model")
    bare = Outcomes(label=np.array([0, 1, 2]))
    demand(metric.per_sample(bare) is None, "a number from nothing")
    demand(summarise(metric, [bare]).value is None, "a number from nothing")


def check_counted(metric: Metric, found: Outcomes) -> None:
    """`counted` names the images of the sample: those alone give the sample, and each its own part of it."""
    sample, counted = metric.per_sample(found), metric.counted(found)
    assert sample is not None
    demand(counted.dtype == np.bool_, f"what it counts has dtype {counted.dtype}, not bool")
    demand(counted.shape == found.label.shape, f"what it counts has shape {counted.shape}")
    for place, image in enumerate(np.flatnonzero(counted)[:10]):
        alone = metric.per_sample(at(found, np.array([image])))
        same = alone is not None and place < len(sample) and list(alone) == [sample[place]]
        demand(same, "other images count than it says")
    demand(counted.sum() == len(sample), "other images count than it says")
