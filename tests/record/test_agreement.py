"""Whether scanners agree, and what an audit's study says of itself."""

from __future__ import annotations

import numpy as np
import pytest

from bascule.record.agreement import INVERTING, Conclusion, Scanned, agreed, conclude, named_most, stands_out
from bascule.record.audited import LEFT_OUT, MARKS, PROPOSED, Notes, notes_of


def scans(*suspects: tuple[int, ...]) -> list[Scanned]:
    return [
        Scanned(row=str(place), method=f"scanner {place}", suspects=named, anomaly=np.zeros(4))
        for place, named in enumerate(suspects)
    ]


@pytest.mark.parametrize(
    ("suspects", "label"),
    [
        ([], None),
        ([()], None),
        ([(2,)], None),  # alone
        ([(2,), ()], None),  # one of two
        ([(2,), (2,)], 2),
        ([(2,), (2,), (), ()], None),  # half
        ([(2,), (2,), ()], 2),
        ([(2,), (2,), (), (), ()], None),
        ([(2,), (3,), (1,), ()], None),
        ([(3, 2), (2,), (2,), ()], 2),  # not named first by all
    ],
)
def test_scanners_agree_when_more_than_half_of_them_name_a_class(
    suspects: list[tuple[int, ...]], label: int | None
) -> None:
    assert agreed(scans(*suspects)) == label


def test_of_classes_named_as_often_the_one_named_first_counts() -> None:
    assert named_most(scans((3, 1), (3, 1))) == (3, 2)
    assert named_most(scans((3,), (1,))) == (1, 1)
    assert named_most(scans((), ())) == (None, 0)


def test_of_classes_named_as_often_the_one_with_the_smallest_recovered_trigger_comes_first() -> None:
    sizes = np.array([9.0, 2.0, 1.0, 5.0])
    inverting = Scanned(row="i", method=INVERTING, suspects=(3, 1), anomaly=np.zeros(4), size=sizes)
    assert named_most([inverting, *scans((3, 1))]) == (1, 2)
    assert named_most([inverting, *scans((3,))]) == (3, 2)


@pytest.mark.parametrize(
    ("suspects", "small", "said"),
    [
        ([], None, "no answer"),
        ([(), ()], None, "nothing found"),
        ([(2,)], None, "undecided"),  # who looked alone
        ([(2,), ()], None, "undecided"),
        ([(2,), (2,)], None, "suspicion"),
        ([(2,), (), ()], None, "nothing found"),
        ([(2,), (), ()], 2, "undecided"),  # one alone, but with a small trigger
        ([(2,), (2,), (), ()], None, "undecided"),
        ([(2,), (2,), (), ()], 2, "suspicion"),
        ([(2,), (2,), (), ()], 3, "undecided"),  # the trigger of another class
        ([(2,), (2,), (2,), ()], 3, "suspicion"),
        ([(2,), (2,), (), (), ()], None, "nothing found"),
        ([(2,), (2,), (), (), ()], 2, "suspicion"),
        ([(2,), (3,), (1,), ()], None, "nothing found"),
    ],
)
def test_what_scanners_come_to(suspects: list[tuple[int, ...]], small: int | None, said: Conclusion) -> None:
    assert conclude(scans(*suspects), small=small) == said


def test_a_trigger_stands_out_by_its_size_and_by_what_it_does_to_images_that_nobody_saw() -> None:
    assert stands_out(5.0, 10.0, 0.5)
    assert not stands_out(5.1, 10.0, 0.99)
    assert not stands_out(1.0, 10.0, 0.49)
    assert not stands_out(1.0, 10.0, None)
    assert not stands_out(None, None, 0.9)


def test_the_study_of_an_audit_says_what_it_leaves_out() -> None:
    text = f"{MARKS['model']}\n# more\n{PROPOSED}\n# - one\n# - two\n{LEFT_OUT}\n# - three\ntitle: x\n# - four\n"
    assert notes_of(text) == Notes("model", ("one", "two"), ("three",))
    assert notes_of(f"{MARKS['images']}\n") == Notes("images", (), ())
    assert notes_of("title: x\n") is None
    assert notes_of("") is None
