"""Whether scanners agree, and what an audit's study says of itself."""

from __future__ import annotations

import numpy as np
import pytest

from bascule.record.agreement import Scanned, agreed, named_most
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


def test_the_study_of_an_audit_says_what_it_leaves_out() -> None:
    text = f"{MARKS['model']}\n# more\n{PROPOSED}\n# - one\n# - two\n{LEFT_OUT}\n# - three\ntitle: x\n# - four\n"
    assert notes_of(text) == Notes("model", ("one", "two"), ("three",))
    assert notes_of(f"{MARKS['images']}\n") == Notes("images", (), ())
    assert notes_of("title: x\n") is None
    assert notes_of("") is None
