"""Numbers and settings in words."""

from __future__ import annotations

import pytest

from bascule.report import words
from pages import plain
from records import TRIGGER


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0 %"), (1, "100 %"), (0.354, "35 %"), (0.004, "0.4 %"), (0.0004, "0.04 %"), (0.00001, "under 0.01 %"),
     (0.997, "99.7 %"), (0.999999, "over 99.99 %")],
)  # fmt: skip
def test_percentages_say_none_and_all_only_when_it_is_so(share: float, text: str) -> None:
    assert plain(words.percent(share)) == text


def test_words() -> None:
    assert words.joined([]) == ""
    assert words.joined(["a"]) == "a"
    assert words.joined(["a", "b"], "or") == "a or b"
    assert words.joined(["a", "b", "c"]) == "a, b and c"
    assert [plain(text) for text in words.percent_interval(0.35, 0.314, 0.386)] == ["35 %", "31 to 39 %"]
    assert [plain(text) for text in words.percent_interval(0.991, 0.989, 0.993)] == ["99.1 %", "98.9 to 99.3 %"]
    assert [plain(text) for text in words.percent_interval(0.5, 0.5, 0.5)] == ["50 %", "50 to 50 %"]
    assert words.points(0.31, 0.393) == "31 to 39 points"
    assert words.points(0.0004, 0.0121) == "0.04 to 1.2 points"
    assert words.points(0.9, 1) == "90 to 100 points"
    assert words.points_around(-0.021, 0.0004) == "from 2.1 points lower to 0.04 higher"
    assert [words.duration(seconds) for seconds in (1.36, 62, 600, 11000)] == ["1.4 s", "62 s", "10 min", "3 h 3 min"]
    assert words.moment("2024-05-06T07:08:09+00:00") == "2024-05-06 07:08 UTC"
    assert words.moment("<yesterday>") == "<yesterday>"
    assert words.component(TRIGGER) == "sticker: size 2, position bottom-right"
    assert words.setting({"name": "pgd", "eps": 0.1, "place": [1, 2]}) == "pgd (eps 0.1, place [1, 2])"
