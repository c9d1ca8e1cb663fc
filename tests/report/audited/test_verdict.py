"""Verdicts in plain words, from made-up facts."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bascule.metrics.contract import Measure
from bascule.record.agreement import Scanned
from bascule.report.audited.audit import Audit
from bascule.report.audited.facts import Facts, Repaired, Robust, Trigger, filtered
from bascule.report.audited.verdict import conclusion, verdict_of
from bascule.report.words import SPACE


def share(value: float, low: float, high: float, n: int = 200) -> Measure:
    return Measure(value=value, low=low, high=high, n=n, unit="fraction", better="up")


def scan(method: str, *suspects: int) -> Scanned:
    return Scanned(row=method, method=method, suspects=suspects, anomaly=np.zeros(4))


PLAIN = Facts(title="Audit of x", images=200, classes=("0", "dog", "2", "3"), accuracy=share(0.9, 0.85, 0.93))


def said(**facts: Any) -> str:
    return str(verdict_of(replace(PLAIN, **facts))).replace(SPACE, " ")


def headline(**facts: Any) -> str:
    return said(**facts).splitlines()[0]


def test_the_first_line_says_whom_scanners_suspect() -> None:
    one, two, none = scan("mm-bd", 1), scan("neural-cleanse", 1), scan("feature-inversion")
    assert headline(scans=(one, two)) == ("Suspicion of a backdoor towards class 1 (dog): 2 of 2 scanners name it.")
    assert headline(scans=(one, none, none)) == (
        "No backdoor that scanners agree on: 1 of 3 scanners names class 1 (dog)."
    )
    assert headline(scans=(one,)) == "Undecided: mm-bd alone looked for a backdoor, and names class 1 (dog)."
    assert headline(scans=(one, none)) == (
        "Undecided whether there is a backdoor towards class 1 (dog): 1 of 2 scanners names it."
    )
    assert headline(scans=(none,)) == "No backdoor was found by feature-inversion."
    assert headline() == "Nothing has looked for a backdoor in this model."
    assert headline(done=False).endswith("The audit is not finished.")


def test_half_of_the_scanners_suspect_a_class_whose_recovered_trigger_is_small_and_works() -> None:
    half = (scan("mm-bd"), scan("neural-cleanse", 1), scan("feature-inversion"), scan("universal-perturbation", 1))
    small = Trigger(label=1, asr=share(0.97, 0.95, 0.99), size=3.2, usual=10.0, pixels=64)
    assert headline(scans=half, recovered=small) == (
        "Suspicion of a backdoor towards class 1 (dog): 2 of 4 scanners name it, and the trigger recovered for it is "
        "small and works."
    )
    large = said(scans=half, recovered=replace(small, size=8.9))
    assert large.startswith("Undecided whether there is a backdoor towards class 1 (dog): 2 of 4 scanners name it.")
    assert "Undecided is no all-clear" in large
    assert conclusion(replace(PLAIN, scans=half, recovered=replace(small, label=2))) == "undecided"
    alone = (scan("mm-bd"), scan("neural-cleanse", 1), scan("feature-inversion"))
    assert "1 of 3 scanners names it, and the trigger recovered for it is small" in headline(
        scans=alone, recovered=small
    )
    assert conclusion(replace(PLAIN, scans=half, recovered=small, done=False)) == "suspicion"
    assert conclusion(replace(PLAIN, scans=alone, done=False)) == "no answer"
    assert conclusion(replace(PLAIN, about="images")) == "no answer"


@pytest.mark.parametrize(
    ("suspects", "failed", "said", "suspicious", "code"),
    [
        ([(1,), (1,)], {}, "suspicion", True, 3),
        ([(1,), ()], {}, "undecided", None, 3),
        ([(), ()], {}, "nothing found", False, 0),
        ([], {}, "no answer", None, 1),
        ([(), ()], {"mm-bd": "it broke"}, "no answer", None, 1),
    ],
)
def test_what_is_not_surely_good_does_not_end_with_0(
    suspects: list[tuple[int, ...]], failed: dict[str, str], said: str, suspicious: bool | None, code: int
) -> None:
    audit = Audit.__new__(Audit)  # what a record would be read as
    scans = tuple(scan(f"s{place}", *named) for place, named in enumerate(suspects))
    vars(audit).update(facts=replace(PLAIN, scans=scans), run=SimpleNamespace(failed=failed))
    assert (audit.conclusion, audit.suspicious, audit.exit_code) == (said, suspicious, code)


def test_no_verdict_calls_a_model_clean() -> None:
    text = said(scans=(scan("mm-bd"), scan("neural-cleanse")), left_out=("Triggers of a kind.",))
    assert "clean" not in text.replace("neural-cleanse", "").lower()
    assert "Not looked at\n  Triggers of a kind." in text


@pytest.mark.parametrize(("asr", "suspicious"), [(0.9, True), (0.2, False)])
def test_the_models_own_record_counts_too(asr: float, suspicious: bool) -> None:
    planted = Trigger(label=3, asr=share(asr, asr - 0.05, asr + 0.05))
    verdict = verdict_of(replace(PLAIN, scans=(scan("mm-bd"), scan("neural-cleanse")), planted=planted))
    assert verdict.suspicious == suspicious
    assert ("by the model's own record" in verdict.headline) == suspicious


def test_scanners_that_agree_on_another_class_than_the_record() -> None:
    planted = Trigger(label=3, asr=share(0.9, 0.85, 0.95))
    assert "another class than the scanners agree on" in said(scans=(scan("mm-bd", 2), scan("x", 2)), planted=planted)
    assert "another class" not in said(scans=(scan("mm-bd", 3),), planted=planted)


def test_robust_accuracy_by_radius_and_what_is_proved() -> None:
    text = said(
        robust=(
            Robust(norm="linf", eps=8 / 255, measure=share(0.4, 0.3, 0.5), attacks=("fgsm", "pgd")),
            Robust(norm="l2", eps=0.43, measure=share(0.0, 0.0, 0.02), attacks=("pgd",)),
        ),
        certified=share(0.2, 0.15, 0.26),
        bounds=(Robust(norm="linf", eps=0.3, measure=share(0.2, 0.15, 0.26), attacks=("interval",)),),
    )
    assert "Within 8/255 in Linf: right on 40 % (30 to 50 %) under fgsm and pgd." in text
    assert "Within 0.43 in L2: right on 0 % (0 to 2 %) under pgd." in text
    assert "upper bounds" in text
    assert "Proved within 0.3 in Linf by interval: 20 % (15 to 26 %), whatever the attack." in text


def test_a_recovered_trigger_has_a_size_and_a_success_on_images_nobody_saw() -> None:
    small = Trigger(label=1, asr=share(0.97, 0.95, 0.99), size=3.2, usual=10.0, pixels=64)
    text = said(scans=(scan("neural-cleanse", 1),), recovered=small)
    assert (
        "The trigger recovered for class 1 (dog) covers 3.2 of 64 pixels (the median of the other classes needs 10.0) "
        "and moves 97 % (95 to 99 %) of the test images of other classes there, none of which a scanner saw."
    ) in text
    assert "more than half" not in text
    assert "That is more than half: as much can be found" in said(recovered=replace(small, size=5.1))
    weak = replace(small, asr=share(0.2, 0.15, 0.25))
    assert "does not carry over" in said(recovered=weak)


def test_a_model_that_guesses_is_told_first() -> None:
    assert "hardly better than guessing" in said(accuracy=share(0.3, 0.25, 0.35))
    assert "hardly better than guessing" not in said()


def test_filters_say_which_class_would_lose_most() -> None:
    labels = np.repeat(np.arange(4), 10)
    of_one = np.isin(np.arange(40), range(10, 16))
    spread = np.arange(40) % 10 == 0
    most = of_one | (np.arange(40) == 0)
    text = said(
        filters=(
            filtered("a", of_one, labels), filtered("b", spread, labels), filtered("c", most, labels),
            filtered("d", np.zeros(40, dtype=bool), labels, ("it cannot.",)),
        )
    )  # fmt: skip
    assert "a would remove 6 of 40 images (15.0 %), all of class 1 (dog): 60 % of that class." in text
    assert "b would remove 4 of 40 images (10.0 %), of no class far more than of the others" in text
    assert "c would remove 7 of 40 images (17.5 %): 60 % of class 1 (dog), 3.3 % of the others." in text
    assert "d would remove none of 40 images." in text
    assert "d: it cannot." in text
    assert "a and c agree on class 1 (dog)." in text
    assert "the scanners point to" not in text
    text = said(filters=(filtered("a", of_one, labels),), scans=(scan("mm-bd", 1), scan("neural-cleanse", 1)))
    assert "a and the scanners point to the same class, 1 (dog)." in text


def test_repairs_are_told_at_both_ends() -> None:
    before = {"accuracy": share(0.97, 0.95, 0.98), "robust_accuracy": share(0.5, 0.4, 0.6), "asr": share(1, 0.98, 1)}
    after = {"accuracy": share(0.9, 0.86, 0.93), "robust_accuracy": share(0.1, 0.06, 0.15), "asr": share(0, 0, 0.02)}
    ball = Robust(norm="linf", eps=2 / 255, measure=before["robust_accuracy"], attacks=("pgd",))
    text = said(repairs=(Repaired(name="anp", before=before, after=after, ball=ball),))
    assert (
        "anp: accuracy from 97 % to 90 % (86 to 93 %), robust accuracy within 2/255 in Linf from 50 % to 10 % "
        "(6 to 15 %) and ASR from 100 % to 0 % (0 to 2 %)."
    ) in text
    del before["asr"], after["asr"]
    assert "not known, since no trigger is" in said(repairs=(Repaired(name="anp", before=before, after=after),))


def test_a_data_set_alone_gets_no_word_about_a_model() -> None:
    labels, removed = np.repeat(np.arange(4), 10), np.arange(40) % 10 == 0
    text = said(about="images", filters=(filtered("strip", removed, labels),))
    assert text.startswith("The training images, ranked by strip; nothing is said of any model.")
    assert "The network that judged is right on 90 %" in text
