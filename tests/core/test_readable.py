"""Types, ranges and defaults in words."""

from __future__ import annotations

import ast
import re

import pytest

from bascule.core import catalog, readable

MODULE = ast.parse("""
from bascule.core.ball import Eps, Norm as Kind
from elsewhere import Other
Side = Annotated[int, Ge(2)]
""")


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        ("int", "whole number"),
        ("bool", "true or false"),
        ("str | None", "text or null"),
        ("Annotated[int, Ge(1)]", "whole number, at least 1"),
        ("Annotated[int, Ge(1)] | None", "whole number, at least 1, or null"),
        ("Annotated[float, Gt(0), Lt(1)]", "number, above 0, below 1"),
        ("Annotated[float, Interval(gt=0, le=0.5)]", "number, above 0, at most 0.5"),
        ("Annotated[float, Interval(ge=-1, le=1)]", "number from -1 to 1"),
        ("Literal['ce', 'dlr']", "ce or dlr"),
        ("Literal[1, 3]", "1 or 3"),
        ("Eps", "number, at least 0"),
        ("Kind", "linf or l2 or l1"),
        ("Side", "whole number, at least 2"),
        ("tuple[Side, Side]", "list of 2, each a whole number, at least 2"),
        ("tuple[float, str]", "list of 2, a number then a text"),
        ("Annotated[tuple[float, ...], MinLen(1)]", "list, each a number, at least 1 of them"),
        ("dict[str, Any]", "mapping"),
        ("Other", "mapping with the settings of other"),
        ("Annotated[Objective, Of('train')]", "component of train: a name, or a mapping with name and settings"),
        (
            "Annotated[Filter | None, Of('filter')]",
            "component of filter: a name, or a mapping with name and settings, or null",
        ),
        (
            "Annotated[tuple[Attack, ...], Of('attack', many=True)]",
            "list, each a component of attack: a name, or a mapping with name and settings",
        ),
    ],
)
def test_types_in_words(annotation: str, words: str) -> None:
    assert readable.allowed(ast.parse(annotation, mode="eval").body, MODULE) == words


@pytest.mark.parametrize(
    ("default", "shown"),
    [
        ("None", "null"), ("True", "true"), ("'ce'", "ce"), ("''", "''"), ("0.5", "0.5"), ("-1", "-1"),
        ("(1, 'a')", "[1, a]"), ("8 / 255", "8/255"), ("dict()", "{}"), ("NeuralCleanse()", "neural-cleanse"),
        ("(FinePruning(rate=0.5, layer=None), Clp())", "[{name: fine-pruning, rate: 0.5, layer: null}, clp]"),
    ],
)  # fmt: skip
def test_defaults_as_in_a_study_file(default: str, shown: str) -> None:
    assert readable.written(ast.parse(default, mode="eval").body) == shown


def test_no_setting_of_ours_is_left_in_python() -> None:
    for room in catalog.ROOMS:
        for name in catalog.names(room):
            for field in catalog.documentation(room, name).fields:
                assert not re.search(r"\[[A-Za-z]|Annotated|Literal|tuple|None|\|", field.allowed), (name, field)
                assert not re.search(r"None|True|\(|\'\w", field.written or ""), (name, field)
