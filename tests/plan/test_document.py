"""Study files are read strictly, and every complaint says the place."""

from __future__ import annotations

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
