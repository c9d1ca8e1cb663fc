"""Text from outside is cut, and steers nothing."""

from __future__ import annotations

import json

import pytest

from bascule.core.text import count, csv_field, json_text, message, printable, quote, steers


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("plain é 数 👍🏽 a\u200db", "plain é 数 👍🏽 a\u200db"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\x9b\x7f\u202e\u2066\u2028\ud800\ufeff", "\\x9b\\x7f\\u202e\\u2066\\u2028\\ud800\\ufeff"),
    ],
)
def test_characters_that_steer_are_written_out(text: str, escaped: str) -> None:
    assert printable(text) == escaped
    assert bool(steers(text)) == (text != escaped)
    assert steers(printable(text)) == ""


def test_lines_may_be_kept() -> None:
    assert printable("a\n\tb\x1b", lines=True) == "a\n\tb\\x1b"
    assert steers("a\n\tb", lines=True) == ""
    assert steers("a\n") == "\\n"


def test_values_are_cut() -> None:
    assert quote("short") == "'short'"
    assert quote([1, {"a": 2}]) == "[1, {'a': 2}]"
    assert quote(()) == "[]"  # as a study file has it
    assert quote({"a": (1, (2,))}) == "{'a': [1, [2]]}"
    for value in ("x" * 10_000, list(range(10_000)), 10**200):
        assert len(quote(value)) < 200
    nested: list[object] = []
    nested.append(nested)
    assert len(quote(nested)) < 200


def test_messages_are_cut() -> None:
    assert message("one\ntwo\x07") == "one\ntwo\\x07"
    assert len(message("x" * 10**6)) < 4_100


@pytest.mark.parametrize("value", [-0.4, None, 3, "-0.4", "+5", "-1e-3", "plain", "a=b", ""])
def test_numbers_and_plain_text_are_fields_as_they_are(value: object) -> None:
    assert csv_field(value) == value


def test_json_keeps_its_values() -> None:
    value = ["\x7f\x9b\u202e\ud800", "é"]
    text = json_text(json.dumps(value, indent=1, ensure_ascii=False))
    assert steers(text, lines=True) == ""
    assert json.loads(text) == value
    assert "é" in text


def test_one_thing_is_no_plural() -> None:
    assert [count(number, "seed") for number in (0, 1, 1437)] == ["0 seeds", "1 seed", "1,437 seeds"]
    assert [count(number, "class", "classes") for number in (1, 2)] == ["1 class", "2 classes"]
