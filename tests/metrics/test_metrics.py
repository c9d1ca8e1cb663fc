"""Each metric on ten images, counted by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bascule.core.catalog import build
from bascule.metrics.contract import MISSING, Measure, Outcomes
from bascule.metrics.detection import Detection, Inputs
from bascule.metrics.interval import summarise
from bascule.metrics.paired import score_interval

X = MISSING


def outcomes(of_twin: Mapping[str, Any] | None = None, **changes: Any) -> Outcomes:
    """Ten test images of a model with a backdoor for 7, and of its twin.

    Of the sevens (images 6 to 9), one is wrong when clean (9). Of the others, one is taken for a 7 when clean (5).
    """
    arrays = {
        #                  0  1  2  3  4  5  6  7  8  9
        "label":          [0, 1, 2, 3, 4, 5, 7, 7, 7, 7],
        "clean":          [0, 1, 2, 3, 9, 7, 7, 7, 7, 1],
        "triggered":      [7, 7, 2, 8, 4, 7, 7, 7, 1, 7],
    }  # fmt: skip
    of_the_twin = {
        "clean":          [0, 1, 2, 3, 4, 5, 7, 7, 7, 1],
        "triggered":      [0, 1, 2, 3, 4, 7, 7, 7, 7, 7],
    }  # fmt: skip
    attacks = [
        [0, 1, 6, 3, X, X, 7, 0, 7, X],
        [0, 8, X, 3, X, X, 7, X, 7, X],
    ]
    found: dict[str, Any] = {key: np.array(value) for key, value in arrays.items()}
    found["certified"] = np.array([1, 0, 0, 1, 1, 0, 1, 0, 1, 1], dtype=bool)
    found |= {"adversarial": [np.array(attack) for attack in attacks], "attacks": 2, "target": 7}
    found |= changes
    twin = {key: np.array(value) for key, value in of_the_twin.items()} | {"target": found["target"]}
    return Outcomes(**found, twin=Outcomes(label=found["label"], **(twin | dict(of_twin or {}))))


def share(name: str, found: Outcomes) -> tuple[int, int] | None:
    """Successes and images that count."""
    sample = build("measure", name).per_sample(found)
    return None if sample is None else (int(sample.sum()), len(sample))


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("accuracy", (7, 10)),  # all but 4, 5, 9
        ("triggered-accuracy", (2, 6)),  # of 0 to 5: 2 and 4
        ("asr", (3, 6)),  # of 0 to 5: 0, 1, 5
        # Clean predictions other than 7: 0 to 4 and the misread seven 9; of these 0, 1 and 9.
        ("asr-paper", (3, 6)),
        ("asr-twin", (1, 6)),  # of 0 to 5: 5
        ("accuracy-twin", (9, 10)),  # all but 9
        ("robust-accuracy", (4, 10)),  # right when clean, less 2 and 7 (first attack) and 1 (second): 0, 3, 6, 8
        ("certified-accuracy", (4, 10)),  # certified, less the misread 4 and 9: 0, 3, 6, 8
    ],
)
def test_by_hand(name: str, wanted: tuple[int, int]) -> None:
    assert share(name, outcomes()) == wanted


def changed(key: str, image: int, prediction: int) -> Outcomes:
    """The outcomes with one other prediction."""
    values = getattr(outcomes(), key).copy()
    values[image] = prediction
    return outcomes(**{key: values})


CHANGES: dict[str, tuple[Callable[[], Outcomes], tuple[int, int], tuple[int, int]]] = {
    # (change, asr, asr of the paper)
    "a seven that is misread when clean": (lambda: changed("clean", 6, 1), (3, 6), (4, 7)),
    "a misread seven the trigger does not fool": (lambda: changed("triggered", 9, 1), (3, 6), (2, 6)),
    "an image wrongly taken for a seven when clean": (lambda: changed("clean", 0, 7), (3, 6), (2, 5)),
    "wrongly taken for a seven, and not fooled": (lambda: changed("clean", 2, 7), (3, 6), (3, 5)),
    "another wrong answer when clean": (lambda: changed("clean", 0, 3), (3, 6), (3, 6)),
    "a plain seven that stays one": (lambda: changed("triggered", 8, 7), (3, 6), (3, 6)),
    "one more success": (lambda: changed("triggered", 2, 7), (4, 6), (4, 6)),
}


@pytest.mark.parametrize(("change", "asr", "paper"), CHANGES.values(), ids=CHANGES.keys())
def test_the_papers_filter_is_by_prediction_ours_by_label(
    change: Callable[[], Outcomes], asr: tuple[int, int], paper: tuple[int, int]
) -> None:
    assert share("asr", change()) == asr
    assert share("asr-paper", change()) == paper


def test_robust_accuracy_counts_the_worst_case_of_each_image() -> None:
    first, second = outcomes().adversarial
    assert share("robust-accuracy", outcomes(adversarial=[first], attacks=1)) == (5, 10)
    # Alone, the second attack fools one; what it did not meet had been fooled before.
    assert share("robust-accuracy", outcomes(adversarial=[second], attacks=1)) == (6, 10)
    assert share("robust-accuracy", outcomes(adversarial=[second, first], attacks=2)) == (4, 10)
    nobody = np.full(10, MISSING)
    assert share("robust-accuracy", outcomes(adversarial=[nobody], attacks=1)) == (7, 10)
    # An attack cannot make right what is wrong when clean.
    assert share("robust-accuracy", outcomes(adversarial=[outcomes().label], attacks=1)) == (7, 10)


@pytest.mark.parametrize(("given", "asked"), [(0, 0), (0, 1), (1, 2), (2, 3)], ids=str)
def test_with_fewer_attacks_than_asked_for_robustness_is_unknown(given: int, asked: int) -> None:
    assert share("robust-accuracy", outcomes(adversarial=outcomes().adversarial[:given], attacks=asked)) is None


@pytest.mark.parametrize(
    ("name", "needs"),
    [
        ("accuracy", {"clean"}),
        ("robust-accuracy", {"clean"}),
        ("certified-accuracy", {"clean", "certified"}),
        ("asr", {"triggered", "target"}),
        ("asr-paper", {"clean", "triggered", "target"}),
        ("asr-twin", {"twin triggered", "target"}),
        ("accuracy-twin", {"twin clean"}),
        ("triggered-accuracy", {"triggered", "target"}),
    ],
    ids=lambda value: value if isinstance(value, str) else ",".join(sorted(value)),
)
def test_what_is_needed_and_nothing_else(name: str, needs: set[str]) -> None:
    every = {"clean", "triggered", "twin clean", "twin triggered", "certified", "target"}
    for key in every:
        assert (share(name, without({key})) is None) == (key in needs), key
    assert share(name, without(every - needs)) == share(name, outcomes())


def without(keys: set[str]) -> Outcomes:
    """The outcomes with some of them missing."""
    of_twin = {key for key in keys if key.startswith("twin ")}
    missing = {key.removeprefix("twin "): None for key in of_twin}
    return outcomes(missing, **dict.fromkeys(keys - of_twin))


def test_outcomes_of_some_images() -> None:
    whole = outcomes(id=np.arange(10) + 100)
    part = whole.at(whole.label == 7)
    assert part.id is not None
    assert part.id.tolist() == [106, 107, 108, 109]
    assert [list(attack) for attack in part.adversarial] == [[7, 0, 7, X], [7, X, 7, X]]
    assert (part.attacks, part.target) == (2, 7)
    assert share("accuracy", part) == (3, 4)
    assert share("robust-accuracy", part) == (2, 4)
    assert share("accuracy", whole.at(np.array([9, 0]))) == (1, 2)
    assert outcomes(clean=None).at(whole.label == 7).clean is None


def test_the_parts_add_up_to_the_whole() -> None:
    whole = outcomes()
    parts = [share("triggered-accuracy", whole.at(whole.label == label)) for label in np.unique(whole.label)]
    assert tuple(map(sum, zip(*[part for part in parts if part], strict=True))) == share("triggered-accuracy", whole)


def test_nothing_is_written_into_the_outcomes() -> None:
    found = outcomes()
    before = [part.copy() for part in (found.label, found.clean, *found.adversarial)]  # type: ignore[union-attr]
    share("robust-accuracy", found)
    for part, old in zip((found.label, found.clean, *found.adversarial), before, strict=True):
        assert np.array_equal(part, old)  # type: ignore[arg-type]


@pytest.mark.parametrize("target", [0, 7])
def test_the_success_rates_follow_the_target(target: int) -> None:
    everything_fooled = np.full(10, target)
    found = outcomes(triggered=everything_fooled, target=target)
    assert share("asr", found) == ((9, 9) if target == 0 else (6, 6))


def test_a_set_of_the_target_class_only_has_no_success_rate() -> None:
    found = replace(outcomes().at(np.arange(6, 10)), adversarial=(), attacks=0)
    assert share("asr", found) == (0, 0)
    nothing = Measure(value=None, low=None, high=None, n=None, unit="fraction", better="lower")
    assert summarise(build("measure", "asr"), [found]) == nothing


# --- against the model before a repair -------------------------------------------------------------------------------


def repaired(**of_base: Any) -> Outcomes:
    """The ten images of above after a repair. ASR 3/6 and accuracy 7/10; 5/6 and 9/10 in the model before, of which two
    of the six triggered images were right."""
    base = {
        #                  0  1  2  3  4  5  6  7  8  9
        "clean":          [0, 1, 2, 3, 4, 5, 7, 7, 7, 1],
        "triggered":      [7, 7, 7, 7, 4, 7, 7, 7, 7, 7],
    }  # fmt: skip
    found: dict[str, Any] = {key: np.array(value) for key, value in base.items()}
    found |= {"label": outcomes().label, "target": 7, **of_base}
    return outcomes(before=Outcomes(**found))


def published(acc_bd: float, acc_defence: float, bd: float, defence: float) -> float:
    """`defense_effectiveness_rate_simplied` of ASR, and `robust_improvement_rate_simplied` of -RA, in `utils/metric.py`
    of SCLBD/BackdoorBench, from what they say."""
    return (max(0.0, bd - defence) - max(0.0, acc_bd - acc_defence) + 1) / 2


def test_a_repair_rated_by_hand() -> None:
    der, rir = (summarise(build("measure", name), [repaired()]) for name in ("der", "rir"))
    assert der.value == pytest.approx((2 / 6 - 2 / 10 + 1) / 2) == pytest.approx(published(0.9, 0.7, 5 / 6, 3 / 6))
    # Triggered images that are right: 4 before, 2 and 4 now.
    assert rir.value == pytest.approx((1 / 6 - 2 / 10 + 1) / 2) == pytest.approx(published(0.9, 0.7, -1 / 6, -2 / 6))
    assert (der.n, rir.n, der.better, der.unit) == (6, 6, "higher", "fraction")


def test_neither_a_rise_of_asr_nor_of_accuracy_counts() -> None:
    label = outcomes().label
    worse = repaired(triggered=label, clean=np.array([0] * 10))  # ASR 0 and accuracy 1/10 before
    assert summarise(build("measure", "der"), [worse]).value == 0.5
    assert summarise(build("measure", "rir"), [worse]).value == 0.5
    gone = replace(repaired(triggered=np.full(10, 7), clean=label), clean=label, triggered=label)
    assert summarise(build("measure", "der"), [gone]).value == 1
    assert summarise(build("measure", "rir"), [gone]).value == 1


def test_the_interval_of_a_rating_is_put_together_from_two_paired_ones() -> None:
    """Of ASR two images fall and none rises, of accuracy two of ten fall: distances in squares, halved."""
    der = summarise(build("measure", "der"), [repaired()])
    gain_low, gain_high = score_interval(2 / 6, 0, 6)
    price_low, price_high = score_interval(2 / 10, 0, 10)
    assert der.low == pytest.approx(der.value - np.hypot(2 / 6 - max(0, gain_low), price_high - 2 / 10) / 2)
    assert der.high == pytest.approx(der.value + np.hypot(gain_high - 2 / 6, 2 / 10 - max(0, price_low)) / 2)


@pytest.mark.parametrize("name", ["der", "rir"])
def test_without_the_same_images_before_there_is_no_rating(name: str) -> None:
    assert summarise(build("measure", name), [outcomes()]).value is None
    for missing in ("clean", "triggered", "target"):
        assert summarise(build("measure", name), [repaired(**{missing: None})]).value is None
    other = replace(repaired(id=np.arange(10)), id=np.arange(10) + 1)
    assert summarise(build("measure", name), [other]).value is None


# --- when a detector refuses suspects ---------------------------------------------------------------------------------


def watched(**changes: Any) -> Outcomes:
    """The same images, with a detector that refuses what lies above 0.5 (5 % false alarms), or 0.9 (1 %)."""
    n = np.nan
    given = {
        #                0    1    2    3    4    5    6    7    8    9
        "benign":      [.1,  .2,  .6,  .4,  .3,  .1,  .2,  .7,  .1,  .2],
        "triggered":   [.8,  .5,  .1,  .9,  .1, .55,  .9,  .9,  .9,  .9],
        "adversarial": [.1,  .6,  .2,  .4,  .3,  .1,  .2,  .5,  .9,   n],
        "evading":     [.2,  .5,  .2,  .4,   n,   n,   n,   n,   n,   n],
        "both":        [.9,  .1,  .2,  .3,  .3,  .3,   n,   n,   n,   n],
        "both_evading": [.5,  .1,  .6,   n,   n,   n,   n,   n,   n,   n],
    }  # fmt: skip
    taken = {
        "benign":      [0, 1, 2, 3, 9, 7, 7, 7, 7, 1],
        "triggered":   [7, 7, 2, 8, 4, 7, 7, 7, 1, 7],
        "adversarial": [0, 8, 6, 3, 9, 7, 7, 0, 1, X],
        "evading":     [5, 8, 6, 3, X, X, X, X, X, X],
        "both":        [7, 7, 7, 7, 7, 3, X, X, X, X],
        "both_evading": [7, 7, 7, X, X, X, X, X, X, X],
    }  # fmt: skip
    sorts = {
        sort: Inputs(suspicion=np.array(values, dtype=np.float32), prediction=np.array(taken[sort]))
        for sort, values in given.items()
    }
    calm, thresholds = np.array([0.5, 0.9], dtype=np.float32), np.array([0.9, 0.5], dtype=np.float32)
    return outcomes(detection=Detection(calm=calm, thresholds=thresholds, sorts=sorts), **changes)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("detect-false-alarms", (2, 10)),  # 2 and 7
        ("accuracy-accepted", (5, 10)),  # right: all but 4, 5, 9; of these not 2, 7
        ("asr-undetected", (1, 6)),  # 0, 1, 5 reach the target; 0 and 5 are refused, 1 lies on the threshold
        # Accepted and right as they are: 0, 1, 3, 6, 8. Attacked: 1 and 8 are wrong, and refused.
        ("robust-accuracy-detected", (5, 9)),
        # Of 0 to 3: 2 is refused as it is, 0 and 1 are wrong and accepted.
        ("robust-accuracy-evaded", (1, 4)),
        ("asr-evaded", (2, 3)),  # 2 is refused
    ],
)
def test_what_is_left_when_suspects_are_refused(name: str, wanted: tuple[int, int]) -> None:
    assert share(name, watched()) == wanted
    assert share(name, outcomes()) is None


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        # Benign from below: .1 .1 .1 .2 .2 .2 .3 .4 .6 .7. Reach the target: 0 (.8), 1 (.5), 5 (.55).
        ("detect-auroc-triggered", (10 + 8 + 8) / 30),
        # Right when clean and wrong under the attack: 1 (.6, above eight and level with one), 2 (.2), 7 (.5), 8 (.9).
        ("detect-auroc-adversarial", (8.5 + 4.5 + 8 + 10) / 40),
        ("detect-auroc-both", (10 + 1.5 + 4.5 + 6.5 + 6.5) / 50),  # 0 to 4: .9 .1 .2 .3 .3
    ],
)
def test_a_detector_ranks_inputs_that_work_against_all_clean_ones(name: str, wanted: float) -> None:
    estimate = build("measure", name).number(watched())
    assert estimate.value == pytest.approx(wanted)
    assert estimate.interval[0] < wanted < estimate.interval[1]
    assert build("measure", name).number(outcomes()) is None


def test_a_detector_that_refuses_everything_leaves_nothing() -> None:
    found = watched()
    assert found.detection is not None
    everything = replace(found, detection=replace(found.detection, thresholds=np.zeros(2, dtype=np.float32)))
    nothing = replace(found, detection=replace(found.detection, thresholds=np.full(2, np.inf, dtype=np.float32)))
    names = ("accuracy-accepted", "robust-accuracy-detected", "robust-accuracy-evaded", "asr-undetected", "asr-evaded")
    assert [share(name, everything)[0] for name in names] == [0] * 5  # type: ignore[index]
    assert share("accuracy-accepted", nothing) == share("accuracy", found)
    assert share("asr-undetected", nothing) == share("asr", found)
    # Right when clean and under the attack: 0, 3 and 6; and the image that the attack never met does not count.
    assert share("robust-accuracy-detected", nothing) == (3, 9)
