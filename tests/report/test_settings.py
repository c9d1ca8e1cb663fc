"""Where settings differ, told by hand-made ones."""

from __future__ import annotations

from typing import Any

import pytest

from bascule.report.compare.settings import differing, same

PGD = {"name": "pgd", "eps": 0.3, "steps": 5}


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (1, 1, True),
        (1, 2, False),
        (PGD, {**PGD, "later": True}, True),
        (PGD, {**PGD, "steps": 6}, False),
        ({"train": PGD}, {"train": {**PGD, "eps": 0.1}}, False),
        ([PGD], [{**PGD, "later": 1}], True),
        ([PGD], [PGD, PGD], False),
        (None, PGD, False),
    ],
)
def test_same(first: Any, second: Any, expected: bool) -> None:
    assert same(first, second) is expected
    assert same(second, first) is expected


def test_what_is_the_same_in_all_is_left_out() -> None:
    assert differing([[PGD], [PGD], [dict(reversed(PGD.items()))]]) == {}
    assert differing([[{"a": None, "b": []}], [{}]]) == {}
    assert differing([[PGD, {"name": "fast"}], [{"name": "fast"}, PGD]]) == {}  # the same values, in other rows


def test_components_of_one_name_are_looked_into() -> None:
    first, second = {"model": {"name": "net", "width": 4}, "train": PGD}, {"model": {"name": "net"}, "train": PGD}
    assert differing([[first], [second]]) == {"model.width": [[4], [None]]}
    assert differing([[{"train": PGD}], [{"train": {**PGD, "eps": 0.1}}]]) == {"train.eps": [[0.3], [0.1]]}


def test_components_of_other_names_stand_whole() -> None:
    fast = {"name": "fast", "eps": 0.3}
    assert differing([[{"train": PGD}], [{"train": fast}]]) == {"train": [[PGD], [fast]]}
    assert differing([[{"train": PGD}], [{}]]) == {"train": [[PGD], [None]]}
    both = [{"train": PGD}, {"train": fast}]
    assert differing([both, [{"train": PGD}]]) == {"train": [[PGD, fast], [PGD]]}


def test_lists_stand_whole() -> None:
    assert differing([[{"attack": [PGD]}], [{"attack": [PGD, PGD]}]]) == {"attack": [[[PGD]], [[PGD, PGD]]]}
