"""Names of classes where a study gives labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bascule.core.errors import RequestError
from bascule.plan.document import Document, parse_study
from bascule.plan.labels import label_of, warn_of_numbers, with_labels
from bascule.plan.resolve import make_plan

COLOURS = ("blue", "green", "red")


def test_a_name_is_the_number_of_its_class() -> None:
    assert [label_of(name, COLOURS) for name in COLOURS] == [0, 1, 2]
    assert label_of("2", ("1", "10", "2")) == 2  # a text is a name, also one of digits


@pytest.mark.parametrize(
    ("name", "classes", "said"),
    [
        ("redd", COLOURS, "'redd' is no class of these data. Did you mean 'red'? Classes and their numbers: 0 blue, "),
        ("7", COLOURS, "'7' is no class of these data. Classes and their numbers: 0 blue, 1 green, 2 red"),
        ("blue", ("blue", "blue"), "'blue' is the name of several classes: give the number. Classes"),
        ("x", tuple(f"c{label}" for label in range(1000)), "18 c18, 19 c19, ... (0 to 999)"),
    ],
)
def test_what_is_no_class_is_told_the_classes(name: str, classes: tuple[str, ...], said: str) -> None:
    with pytest.raises(RequestError) as refused:
        label_of(name, classes)
    assert said in str(refused.value)


def test_only_labels_are_read_and_numbers_ask_for_no_names() -> None:
    def names() -> Any:
        raise AssertionError("not needed")

    numbers = {"poison": {"target": 2, "sources": [0], "trigger": "red"}, "model": {"name": "m", "target": "red"}}
    assert with_labels(numbers, names) == numbers
    settings = {
        "poison": {"name": "several", "parts": [{"target": "red", "sources": ["blue", 1]}]},
        "scan": {"name": "neural-cleanse", "target": "green"},
        "filter": {"name": "own.py:Own", "target": "green"},
    }
    assert with_labels(settings, lambda: COLOURS) == {
        "poison": {"name": "several", "parts": [{"target": 2, "sources": [0, 1]}]},
        "scan": {"name": "neural-cleanse", "target": 1},
        "filter": {"name": "own.py:Own", "target": "green"},
    }
    with pytest.raises(RequestError) as refused:
        with_labels({"poison": {"name": "several", "parts": [{"target": 0}, {"sources": ["rot"]}]}}, lambda: COLOURS)
    assert refused.value.place == ("poison", "parts[1]", "sources[0]")


STUDY = """\
base:
  data: {name: npz, path: colours.npz, classes: [blue, green, red]}
  poison: {trigger: sticker, target: 2, label: dirty, sources: [0], rate: 0.2}
  model: {name: digits-cnn, width: 2, hidden: 8}
  train: {objective: standard, epochs: 1, batch_size: 10}
rows: {A: {}}
twin: false
"""


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    pixels, y = np.random.default_rng(0).integers(0, 255, (60, 8, 8), np.uint8), np.arange(60) % 3
    np.savez("colours.npz", x_train=pixels, y_train=y, x_test=pixels, y_test=y)
    return STUDY


def test_a_number_that_is_also_a_name_gets_a_word() -> None:
    classes = ("0", "1", "10", "2")
    warn_of_numbers({"poison": {"target": 1, "sources": ["10", 0]}}, classes)
    warn_of_numbers({"poison": {"target": "2"}}, classes)
    warn_of_numbers({"poison": {"target": 3}}, classes)
    with pytest.warns(UserWarning, match="the class with the number 2 is called '10' .*: give \"2\", in quotes"):
        warn_of_numbers({"poison": {"target": 2}}, classes)
    with pytest.warns(UserWarning, match="number 2 is called '10'"):
        warn_of_numbers({"poison": {"sources": [0, 2]}}, classes)


def study_of_text(text: str) -> Document:
    return parse_study(text, name="s", source="s.yaml")


def test_a_model_is_the_same_by_name_and_by_number(study: str) -> None:
    by_name = study.replace("target: 2", "target: red").replace("sources: [0]", "sources: [blue]")
    plans = [make_plan(study_of_text(text), roots=[Path()]) for text in (study, by_name)]
    assert [cell.fingerprint for cell in plans[0].cells()] == [cell.fingerprint for cell in plans[1].cells()]
    assert [row.setup for row in plans[0].rows] == [row.setup for row in plans[1].rows]
    with pytest.raises(RequestError, match=r"line 3: base.poison.target: 'rot' is no class .* 0 blue, 1 green, 2 red"):
        make_plan(study_of_text(study.replace("target: 2", "target: rot")), roots=[Path()])
