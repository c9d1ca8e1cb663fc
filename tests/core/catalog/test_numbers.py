"""Numbers as texts, where a field is a number and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import torch
from annotated_types import Gt

from bascule.core.catalog import build, component
from bascule.core.errors import RequestError
from bascule.core.text import number_said
from bascule.plan.document import parse_value


@component
class Settings:
    """Fields of every sort."""

    eps: Annotated[float, Gt(0)] | None = 0.5
    radii: tuple[float, ...] = ()
    pairs: tuple[tuple[int, Annotated[float, Gt(0)]], ...] = ()
    free: float | Literal["8/255", "auto"] = 1.0
    name: str = ""
    either: float | str = 0.0
    whole: int = 1
    flag: bool = False


@pytest.mark.parametrize(
    ("text", "number"),
    [("8/255", 8 / 255), ("-1/2", -0.5), (" 1.5/3 ", 0.5), ("0.5 %", 0.005), ("50%", 0.5), ("1e-1 %", 0.001),
     ("8/0", None), ("0.3", None), ("5 percent", None), ("", None), ("1/2/3", None), ("%", None)],
)  # fmt: skip
def test_fractions_and_percent_are_numbers(text: str, number: float | None) -> None:
    assert number_said(text) == (number if number is None else pytest.approx(number, rel=1e-15))


def test_only_numbers_are_read_so() -> None:
    made = Settings(eps="8/255", radii=("1/4", 0.5, "1 %"), pairs=((0, "1/2"),))  # type: ignore[arg-type]
    assert (made.eps, made.radii, made.pairs) == (8 / 255, (0.25, 0.5, 0.01), ((0, 0.5),))
    assert Settings(name="8/255").name == "8/255"
    assert Settings(either="8/255").either == "8/255"
    assert Settings(free="1/2").free == 0.5  # type: ignore[arg-type]
    assert Settings(free="auto").free == "auto"
    for wrong in ({"whole": "2/1"}, {"flag": "1/1"}, {"eps": "0.3"}, {"eps": "-1/2"}, {"pairs": (("1/2", 1.0),)}):
        with pytest.raises(RequestError):
            Settings(**wrong)  # type: ignore[arg-type]


def test_files_and_python_say_the_same_number() -> None:
    read = parse_value("{name: pgd, eps: 8/255, step_size: 1 %}")
    assert build("attack", read) == build("attack", {"name": "pgd", "eps": "8/255", "step_size": 0.01})
    assert read["eps"] == number_said("8/255")


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.array, torch.tensor])
def test_numbers_of_numpy_and_torch_are_pythons(kind: Callable[[float], Any]) -> None:
    made = Settings(eps=kind(0.25), radii=(kind(0.5), 1.0), either=kind(0.75))
    assert made == Settings(eps=0.25, radii=(0.5, 1.0), either=0.75)
    assert [type(number) for number in (made.eps, *made.radii, made.either)] == [float] * 4


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.array, torch.tensor])
def test_whole_numbers_and_truths_of_numpy_and_torch_are_pythons(kind: Callable[[int], Any]) -> None:
    made = Settings(whole=kind(3), eps=kind(1), flag=kind(1) == 1)
    assert made == Settings(whole=3, eps=1.0, flag=True)
    assert (type(made.whole), type(made.flag)) == (int, bool)


@pytest.mark.parametrize("truth", [True, np.True_, torch.tensor(True)])
def test_a_truth_is_no_number(truth: Any) -> None:
    for name in ("eps", "whole"):
        with pytest.raises(RequestError, match=f"{name}: must be a valid .*; got True"):
            Settings(**{name: truth})
    with pytest.raises(RequestError, match=r"whole: must be a valid integer; got 3\.0"):
        Settings(whole=np.float64(3))  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="whole: must be a valid integer"):
        Settings(whole=torch.tensor(3, device="meta"))  # type: ignore[arg-type]
