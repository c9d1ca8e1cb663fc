"""Study files are read strictly, and every complaint says the place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bascule.core.errors import RequestError
from bascule.plan.document import built_in_names, parse_study, parse_value, read_study


def test_numbers_are_read_as_people_write_them() -> None:
    content = parse_study("base: {a: 1e-3, b: 5E2, c: 8, d: 0.05, e: '1e-3', f: 2e-1}", name="s", source="s").content
    assert content["base"] == {"a": 0.001, "b": 500.0, "c": 8, "d": 0.05, "e": "1e-3", "f": 0.2}


def test_a_radius_may_be_a_fraction() -> None:
    assert parse_value("{eps: 8/255, half: -0.5/2, none: 8/0, path: a/2, quoted: '8/255'}") == {
        "eps": 8 / 255, "half": -0.25, "none": "8/0", "path": "a/2", "quoted": "8/255"
    }  # fmt: skip
    assert parse_value("[2/255, 4/255]") == [2 / 255, 4 / 255]
    assert parse_value("{1/2: {}}") == {"1/2": {}}


def test_an_unreadable_value_is_one_line() -> None:
    with pytest.raises(RequestError, match=r"^cannot read the value '\{name: pgd': expected ',' or '\}', but got .*$"):
        parse_value("{name: pgd")


def test_every_key_knows_its_line() -> None:
    document = parse_study("base:\n  train:\n    epochs: 3\nrows:\n  A: {}\n", name="s", source="s.yaml")
    assert document.lines["base", "train", "epochs"] == 3
    assert document.lines["base", "train"] == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rows:\n  A: {}\n  B: {}\n  A: {}\n", "s.yaml, line 4: rows.A stands twice; first in line 2"),
        ("base: {lr: 1, lr: 2}", "s.yaml, line 1: base.lr stands twice"),
        ("base: [1, 2\nrows: 3", "s.yaml, line 2: not valid YAML"),
        ("- a\n- b\n", "a study is a mapping"),
        ("", "a study is a mapping"),
        ("base: !!python/object:os.system {}", "not valid YAML"),
    ],
)
def test_a_damaged_file_is_refused_with_its_line(text: str, said: str) -> None:
    with pytest.raises(RequestError, match=r"s\.yaml") as caught:
        parse_study(text, name="s", source="s.yaml")
    assert said in str(caught.value)


def test_unknown_studies_name_the_nearest() -> None:
    with pytest.raises(RequestError, match="Did you mean 'digits'"):
        read_study("digit")
    with pytest.raises(RequestError, match=r"cannot read the study 'nowhere\.yaml'"):
        read_study("nowhere.yaml")


def test_a_file_is_named_after_itself(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("base: {}\nrows: {}\n")
    assert read_study(str(path)).name == "mine"


def test_all_built_in_studies_are_listed() -> None:
    assert {"digits", "mnist-quick"} <= set(built_in_names())


def test_values_of_overrides() -> None:
    assert parse_value("{name: pgd, eps: 8e-3}") == {"name": "pgd", "eps": 0.008}
    with pytest.raises(RequestError, match="cannot read the value"):
        parse_value("[1, 2")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((word, word) for word in ("yes", "no", "on", "off", "y", "n", "Yes", "NO", "Off", "tRUE", "<<", "=")),
        *((word, True) for word in ("true", "True", "TRUE")),
        *((word, False) for word in ("false", "False", "FALSE")),
        *((word, None) for word in ("~", "null", "Null", "NULL", "")),
        ("010", 10), ("0o10", 8), ("0x1F", 31), ("+5", 5), ("-0", 0),
        ("1_000", "1_000"), ("1:30", "1:30"), ("190:20:30", "190:20:30"), ("0b11", "0b11"),
        ("2024-01-01", "2024-01-01"),
        ("1.", 1.0), (".5", 0.5), ("1e3", 1000.0), ("-1.5E-2", -0.015), (".inf", float("inf")),
        ("-.INF", -float("inf")),
        ("!!str 5", "5"), ("!!float 3", 3.0), ("'no'", "no"), ('"null"', "null"),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    """Section 10.3.2 of the specification (core schema)."""
    read = parse_value(text)
    assert read == value
    assert type(read) is type(value)


def test_no_number_is_a_number() -> None:
    assert parse_value(".nan") != parse_value(".NaN")


def test_keys_are_the_texts_that_stand_there() -> None:
    text = "rows:\n  No: {}\n  off: {}\n  1: {}\n  010: {}\n  True: {}\n  null: {}\n  1/2: {}\n  1_0: {}\n"
    assert list(parse_study(text, name="s", source="s").content["rows"]) == [
        "No", "off", "1", "010", "True", "null", "1/2", "1_0"
    ]  # fmt: skip
    with pytest.raises(RequestError, match=r"line 1: \"1\" stands twice|line 1: 1 stands twice"):
        parse_study("{1: {}, '1': {}}", name="s", source="s")


def test_anchors_and_merges_work() -> None:
    text = "base: &b {a: 1, c: {d: 2}}\nrows: {A: {<<: *b, a: 3}, B: {<<: [*b, {e: 4}]}}"
    assert parse_study(text, name="s", source="s").content["rows"] == {
        "A": {"a": 3, "c": {"d": 2}}, "B": {"a": 1, "c": {"d": 2}, "e": 4}
    }  # fmt: skip


_LAUGHS = "\n".join(["a0: &a0 [x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9))])
_CHAIN = "\n".join(["a0: &a0 [x]", *(f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 40))])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("base: &itself {data: *itself}", "line 1: not valid YAML: *itself stands inside of what it names"),
        ("[" * 100_000, "more than 24 levels"),
        ("- " * 100_000, "more than 24 levels"),
        ("a: " + "{a: " * 5_000, "more than 24 levels"),
        (_CHAIN, "more than 24 levels"),
        (_LAUGHS, "more than 20,000 values, those that aliases repeat included"),
        (f"a: [{'1, ' * 30_000}]", "more than 20,000 values"),
        ("a: " + "x" * 600_000, "600,003 characters, more than the 524,288"),
        ("{? [a] : b}", "a key must be text"),
        ("{'': 1}", "an empty key"),
        ("a: !!timestamp 2020-01-01", "could not determine a constructor"),
        ("a: !!int x", "'x' is no int"),
        ("a: !!bool [1]", "'a list or a mapping' is no bool"),
        ("a: " + "9" * 5_000, "a number of 5,000 characters"),
        ("a: 99999999999999999999", "beyond the whole numbers of 64 bits"),
        ("a: 1e999", "beyond the numbers of 64 bits"),
        ('a: "\\U00110000"', "not valid YAML"),
        ("a: \x00", "not valid YAML"),
        ("%YAML 1." + "9" * 5_000 + "\n--- {}", "not valid YAML"),
        ('a: "\\e[31m"', "holds the character \\x1b"),
        ('a: "\\ud800"', "holds the character \\ud800"),
        ("a: \u202eb", "holds the character \\u202e"),
        ('rows: {"A\\nB": {}}', "the key 'A\\nB' holds the character \\n"),
        ("rows: {" + "x" * 300 + ": {}}", "is longer than 200 characters"),
    ],
)
def test_what_is_beyond_a_limit_is_one_message(text: str, said: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_study(text, name="s", source="s.yaml")
    assert said in str(caught.value)
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


def test_lines_may_break_in_a_value() -> None:
    assert parse_value('"a\\nb\\tc"') == "a\nb\tc"


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(RequestError, match=r"\.\.\. \(90,003 characters\)") as caught:
        parse_value("[" + "1" * 90_000)
    assert len(str(caught.value)) < 500


def test_what_is_no_plain_file_is_refused(tmp_path: Path) -> None:
    """Neither waited for nor read without end."""
    pipe, device, folder, binary, huge = (tmp_path / f"{name}.yaml" for name in ("pipe", "zero", "folder", "b", "huge"))
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    folder.mkdir()
    binary.write_bytes(b"\x93NUMPY\xff\xfe")
    with huge.open("wb") as file:
        file.truncate(2**32)
    for path, said in [
        (pipe, "is a device or a pipe"), (device, "is a device or a pipe"), (folder, "Is a directory"),
        (binary, "'utf-8' codec can't decode"), (huge, "more than the 524,288 characters"),
        (tmp_path / "null\0.yaml", "null"),
    ]:  # fmt: skip
        with pytest.raises(RequestError, match=said):
            read_study(str(path))


@pytest.mark.parametrize("name", ["..yaml", "...yaml", ".yaml", "a\x1bb.yaml"])
def test_no_study_leaves_the_folder_of_runs_by_its_name(name: str) -> None:
    with pytest.raises(RequestError, match=r"called like its file|ends in|unknown study"):
        read_study(f"folder/{name}")
