"""The sentences about a row: what it does to both ends, and how sure that is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bascule.core.catalog import build
from bascule.metrics.contract import Measure
from bascule.metrics.paired import Difference
from bascule.record.rows import RowResult
from bascule.report import words
from bascule.report.compare.pairwise import Comparison
from bascule.report.compare.sentences import Statement, describe, describe_alone

POISON = {"trigger": {"name": "sticker"}, "target": 7}
ATTACK = {"name": "fgsm"}
BETTER = {"asr": "lower", "asr_twin": "lower"}


def measure(value: float | None, better: str = "higher") -> Measure:
    doubt = None if value is None else 0.01
    low, high = (None, None) if value is None or doubt is None else (max(0.0, value - doubt), min(1.0, value + doubt))
    return Measure(value=value, low=low, high=high, n=None if value is None else 100, unit="fraction", better=better)


def row(
    robust: float | None, asr: float | None, accuracy: float | None = None, twin: float | None = None, **changes: Any
) -> RowResult:
    numbers = {"accuracy": accuracy, "robust_accuracy": robust, "asr": asr, "asr_twin": twin}
    found = RowResult(
        study="tiny", row="A", data="digits", vary={}, seeds=5, flags=(), planned=(),
        metrics={name: measure(value, BETTER.get(name, "higher")) for name, value in numbers.items()},
        kinds={name: build("measure", name.replace("_", "-")) for name in numbers},
        settings={"poison": POISON, "attack": [ATTACK]},
    )  # fmt: skip
    return replace(found, **changes)


def difference(before: float | None, after: float | None, doubt: float, **changes: Any) -> Difference:
    if before is None or after is None:
        nothing = dict.fromkeys(("value", "low", "high", "before", "after", "n"))
        return Difference(**{**nothing, "seeds": 5, "unit": "fraction", "better": "higher"} | changes)  # type: ignore[arg-type]
    numbers = {"value": after - before, "low": after - before - doubt, "high": after - before + doubt}
    found = Difference(**numbers, before=before, after=after, n=100, seeds=5, unit="fraction", better="higher")
    return replace(found, **changes)


def compare(reference: RowResult, other: RowResult, doubt: float = 0.02, **changes: Any) -> Statement:
    """The verdict when every difference is known within `doubt`."""
    changes = {"seeds": min(reference.seeds, other.seeds)} | changes
    found = {
        name: difference(reference.metrics[name].value, other.metrics[name].value, doubt, **changes)
        for name in other.metrics
        if name in reference.metrics
    }
    return describe(Comparison(reference, other, found))


def plain(text: str) -> str:
    return text.replace(words.SPACE, " ")


UP, DOWN = "raises robust accuracy from 30 % to 60 %", "lowers robust accuracy from 30 % to 10 %"
OTHER_WAY = "That is the trade-off, taken the other way, for this trigger and training."
NO_ROBUST = "Robust accuracy cannot be compared: not measured in this row."
NO_ASR = "ASR cannot be compared: not measured in this row."


@pytest.mark.parametrize(
    ("robust", "asr", "text"),
    [
        (0.6, 0.7, f"{UP} (by 28 to 32 points) and ASR from 40 % to 70 % (by 28 to 32 points): "
                   "safer against adversarial examples, but easier to backdoor. "
                   "That is the trade-off, for this trigger and training."),
        (0.6, 0.1, f"{UP} (by 28 to 32 points) and lowers ASR from 40 % to 10 % (by 28 to 32 points): "
                   "safer at both ends."),
        (0.1, 0.7, f"{DOWN} (by 18 to 22 points) and raises ASR from 40 % to 70 % (by 28 to 32 points): "
                   "weaker at both ends."),
        (0.1, 0.1, f"{DOWN} (by 18 to 22 points) and ASR from 40 % to 10 % (by 28 to 32 points): "
                   f"weaker against adversarial examples, but harder to backdoor. {OTHER_WAY}"),
        (0.6, 0.41, f"{UP} (by 28 to 32 points): safer against adversarial examples. The difference in ASR "
                    "(40 % and 41 %, from 1.0 points lower to 3.0 higher) is not clear at 5 seeds."),
        (0.1, 0.41, f"{DOWN} (by 18 to 22 points): weaker against adversarial examples. The difference in ASR "
                    "(40 % and 41 %, from 1.0 points lower to 3.0 higher) is not clear at 5 seeds."),
        (0.31, 0.7, "raises ASR from 40 % to 70 % (by 28 to 32 points): easier to backdoor. The difference in robust "
                    "accuracy (30 % and 31 %, from 1.0 points lower to 3.0 higher) is not clear at 5 seeds."),
        (0.31, 0.1, "lowers ASR from 40 % to 10 % (by 28 to 32 points): harder to backdoor. The difference in robust "
                    "accuracy (30 % and 31 %, from 1.0 points lower to 3.0 higher) is not clear at 5 seeds."),
        (0.31, 0.4, "does not clearly differ in robust accuracy (30 % and 31 %, from 1.0 points lower to 3.0 higher) "
                    "or ASR (40 % in both, from 2.0 points lower to 2.0 higher) at 5 seeds."),
        (None, 0.7, f"raises ASR from 40 % to 70 % (by 28 to 32 points): easier to backdoor. {NO_ROBUST}"),
        (None, 0.1, f"lowers ASR from 40 % to 10 % (by 28 to 32 points): harder to backdoor. {NO_ROBUST}"),
        (0.6, None, f"{UP} (by 28 to 32 points): safer against adversarial examples. {NO_ASR}"),
        (0.1, None, f"{DOWN} (by 18 to 22 points): weaker against adversarial examples. {NO_ASR}"),
        (0.3, None, "does not clearly differ in robust accuracy (30 % in both, from 2.0 points lower to 2.0 higher) "
                    f"at 5 seeds. {NO_ASR}"),
        (None, 0.4, "does not clearly differ in ASR (40 % in both, from 2.0 points lower to 2.0 higher) at 5 seeds. "
                    f"{NO_ROBUST}"),
        (None, None, "cannot be compared. Robust accuracy and ASR: not measured in this row."),
    ],
)  # fmt: skip
def test_a_row_is_compared_at_both_ends(robust: float | None, asr: float | None, text: str) -> None:
    assert plain(compare(row(0.3, 0.4), row(robust, asr)).text) == text


def test_only_the_paired_difference_decides_not_the_two_intervals() -> None:
    """The rows' own intervals, a point to each side, overlap; the difference is known much better."""
    reference, other = row(0.3, 0.4), row(0.305, 0.4)
    assert plain(compare(reference, other, doubt=0.002).facts) == (
        "raises robust accuracy from 30.0 % to 30.5 % (by 0.3 to 0.7 points)"
    )
    far = row(0.6, 0.4)  # and here they do not, but the difference may be anything
    assert plain(compare(reference, far, doubt=0.4).facts).startswith("does not clearly differ in robust accuracy")


def test_certified_accuracy_stands_in_where_no_attack_is_asked_for() -> None:
    def made(certified: float) -> RowResult:
        return row(None, None, metrics={"certified_accuracy": measure(certified), "asr": measure(0.4, "lower")})

    verdict = compare(made(0.1), made(0.5))
    assert plain(verdict.facts) == "raises certified accuracy from 10 % to 50 % (by 38 to 42 points)"
    assert verdict.meaning == "safer against adversarial examples"


def test_a_metric_that_is_not_in_the_study_is_missing() -> None:
    reference, other = (replace(r, metrics={"asr": r.metrics["asr"]}) for r in (row(0.3, 0.4), row(0.3, 0.7)))
    assert compare(reference, other).notes == ("Robust accuracy cannot be compared: the study does not measure it.",)


@pytest.mark.parametrize(
    ("seeds", "reason"),
    [(5, "not counted on the same images in both rows"), (0, "the rows have no seed in common")],
)
def test_numbers_that_cannot_be_paired_are_not_compared(seeds: int, reason: str) -> None:
    reference, other = row(0.3, 0.4), row(0.6, 0.7)
    found = {name: difference(None, None, 0, seeds=seeds) for name in other.metrics}
    verdict = describe(Comparison(reference, other, found))
    assert verdict.text == f"cannot be compared. Robust accuracy and ASR: {reason}."


@pytest.mark.parametrize(
    ("reference_poison", "poison", "reason"),
    [
        (POISON, None, "no poison is planted in this row"),
        (None, POISON, "no poison is planted in the reference row"),
        (None, None, "no poison is planted in either row"),
    ],
)
def test_a_row_without_poison_has_no_asr_to_compare(
    reference_poison: dict | None, poison: dict | None, reason: str
) -> None:
    def made(robust: float, settings: dict | None) -> RowResult:
        return row(robust, 0.4 if settings else None, settings={"poison": settings, "attack": [ATTACK]})

    verdict = compare(made(0.3, reference_poison), made(0.6, poison))
    assert plain(verdict.facts) == f"{UP} (by 28 to 32 points)"
    assert verdict.meaning == "safer against adversarial examples"
    assert verdict.notes == (f"ASR cannot be compared: {reason}.",)


def test_different_reasons_are_both_said() -> None:
    unpoisoned = row(0.3, None, settings={"poison": None, "attack": [ATTACK]})
    assert compare(unpoisoned, row(0.3, None)).notes == (
        "ASR cannot be compared: not measured in this row; no poison is planted in the reference row.",
    )


def test_without_an_attack_there_is_no_robust_accuracy() -> None:
    quiet = row(None, 0.4, settings={"poison": POISON, "attack": []})
    assert compare(quiet, quiet).notes == ("Robust accuracy cannot be compared: no attack is run in either row.",)


def test_the_price_in_accuracy_is_said() -> None:
    def said(before: float, after: float) -> str:
        return plain(compare(row(0, 0, before), row(0.5, 0, after)).notes[-1])

    assert said(0.97, 0.9) == "Accuracy falls from 97 % to 90 % (by 5.0 to 9.0 points)."
    assert said(0.9, 0.97) == "Accuracy rises from 90 % to 97 % (by 5.0 to 9.0 points)."
    assert said(0.9, 0.907) == (
        "Accuracy does not clearly differ (90 % and 91 %, from 1.3 points lower to 2.7 higher)."
    )


def test_numbers_that_round_to_the_same_get_more_digits() -> None:
    assert plain(compare(row(0.951, 0.0), row(0.953, 0.002), doubt=0.0011).facts) == (
        "raises robust accuracy from 95.1 % to 95.3 % (by 0.1 to 0.3 points) "
        "and ASR from 0 % to 0.2 % (by 0.1 to 0.3 points)"
    )


@pytest.mark.parametrize(
    ("seeds", "text", "note"),
    [
        ((1, 1), "at one seed", False),
        ((3, 3), "at 3 seeds", False),
        ((2, 5), "at 2 seeds", True),
        ((5, 1), "at one seed", True),
    ],
)
def test_unclear_differences_say_the_number_of_seeds(seeds: tuple[int, int], text: str, note: bool) -> None:
    verdict = compare(row(0.3, 0.4, seeds=seeds[0]), row(0.3, 0.4, seeds=seeds[1]))
    assert plain(verdict.facts).endswith(f"higher) {text}")
    assert any("that both rows have" in note for note in verdict.notes) == note


def test_a_difference_at_one_seed_is_not_taken_at_face_value() -> None:
    note = "One seed is not enough to tell: training again may move the numbers by more than these intervals."
    alone = compare(row(0.3, 0.4, seeds=1), row(0.6, 0.1))
    assert plain(alone.facts) == (
        "perhaps differs in robust accuracy (30 % and 60 %, 28 to 32 points higher) "
        "and ASR (40 % and 10 %, 28 to 32 points lower) at one seed"
    )
    assert alone.meaning == ""
    assert note in alone.notes
    part = compare(row(0.3, 0.4, seeds=1), row(0.6, 0.4))
    assert plain(part.facts) == (
        "perhaps differs in robust accuracy (30 % and 60 %, 28 to 32 points higher) but "
        "does not clearly differ in ASR (40 % in both, from 2.0 points lower to 2.0 higher) at one seed"
    )
    assert note in compare(row(0.3, 0.4, 0.5, seeds=1), row(0.3, 0.4, 0.9)).notes
    assert note not in compare(row(0.3, 0.4), row(0.6, 0.4)).notes
    assert note not in compare(row(0.3, 0.4, seeds=1), row(0.3, 0.4, seeds=1)).notes


def test_a_difference_without_an_interval_is_said_without_one() -> None:
    verdict = compare(row(0.3, 0.4, 0.9), row(0.6, 0.4, 0.7), low=None, high=None)
    assert plain(verdict.text) == (
        "does not clearly differ in robust accuracy (30 % and 60 %) or ASR (40 % in both) at 5 seeds. "
        "Accuracy does not clearly differ (90 % and 70 %)."
    )


def test_a_trigger_with_power_of_its_own_is_not_called_a_backdoor() -> None:
    verdict = compare(row(0.3, 0.4, twin=0.01), row(0.6, 0.7, twin=0.3))
    assert [plain(note) for note in verdict.notes[1:]] == [
        "In this row the trigger alone moves 30 % of the images of a clean model, so ASR overstates the backdoor."
    ]
    assert compare(row(0.3, 0.4, twin=0.3), row(0.6, 0.7)).notes[1].startswith("In the reference row the trigger alone")


def test_a_row_alone_is_described() -> None:
    assert (
        plain(describe_alone(row(0.35, 0.6, 0.97)).text) == "reaches 97 % accuracy, 35 % robust accuracy and 60 % ASR."
    )
    assert plain(describe_alone(row(None, 0.6, 0.97)).text) == (
        "reaches 97 % accuracy and 60 % ASR. Robust accuracy: not measured."
    )
    assert (
        describe_alone(row(None, None)).text == "has no numbers yet. Robust accuracy: not measured. ASR: not measured."
    )
