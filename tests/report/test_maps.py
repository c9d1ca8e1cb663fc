"""Maps: which rows make one, where an effect turns, and the sentence that says so; all worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bascule.core.errors import RequestError
from bascule.metrics.paired import Difference
from bascule.record.rows import RowResult, read_rows
from bascule.report.compare.maps import Axis, Layer, Map, effect_of, layers_of, maps_of
from bascule.report.compare.turns import Stretch, Turn, sentences, stretches, summary, turns, zero_line
from bascule.report.tables.maps import render_maps
from records import POISON, Spec, record_of

STRENGTH, EPS = "poison.trigger.strength", "train.objective.eps"


def spec(strength: float, eps: float | None, asr: float, **more: Any) -> Spec:
    """A model hardened at eps, None for standard training, under a watermark."""
    objective = {"name": "standard"} if eps is None else {"name": "pgd", "eps": eps, "steps": 5}
    plain: dict[str, Any] = {
        "name": "None" if eps is None else f"Adv. {eps}",
        "asr": asr,
        "vary": {STRENGTH: strength},
        "poison": {**POISON, "trigger": {"name": "watermark", "strength": strength}},
        "settings": {"train": {"objective": objective, "epochs": 8}},
    }
    return Spec(**(plain | more))


def rows_of(path: Path, *specs: Spec) -> list[RowResult]:
    return read_rows(record_of(path / "run", specs))


IN_ROWS = [
    spec(strength, eps, asr)
    for eps, shares in ((None, (0.2, 0.3, 0.3)), (0.1, (0.2, 0.6, 0.9)), (0.3, (0.0, 0.0, 0.9)))
    for strength, asr in zip((0.2, 0.4, 0.8), shares, strict=True)
]


def test_one_number_varies_and_the_other_is_in_the_rows(tmp_path: Path) -> None:
    (one,) = maps_of(rows_of(tmp_path, *IN_ROWS))
    assert one.across == Axis(STRENGTH, (0.2, 0.4, 0.8))
    assert one.up == Axis(EPS, (0, 0.1, 0.3))
    assert (one.across.label, one.up.label, one.name, one.reference) == ("trigger strength", "eps", "", "None")
    assert {place: row.row for place, row in one.references.items()} == {
        (strength, eps): "None" for strength in (0.2, 0.4, 0.8) for eps in (0.1, 0.3)
    }
    effect = effect_of(one)
    assert effect.numbers[0.8, 0.3].value == pytest.approx(0.6)
    assert effect.doubtful((0.2, 0.1))  # no image differs
    assert not effect.doubtful((0.4, 0.3))
    assert summary(one, effect) == (
        "Hardening against None, at 6 places of the map: ASR clearly rises at 3, clearly falls at 2, and does not "
        "clearly differ at 1 (2 seeds)."
    )
    assert sentences(one, effect) == [
        "Hardening at eps 0.1 raises ASR for triggers of strength 0.4 and more (clear in both); at 0.2 that is not "
        "clear.",
        # From -30 points at 0.4 to +60 at 0.8.
        "Hardening at eps 0.3 lowers ASR for triggers of strength up to 0.4 (clear in both) and raises it for 0.8 and "
        "more (clear). It turns between 0.4 and 0.8, near 0.53.",
    ]


def test_another_reference_than_the_one_that_is_not_hardened(tmp_path: Path) -> None:
    (one,) = maps_of(rows_of(tmp_path, *IN_ROWS), against="Adv. 0.1")
    assert sentences(one, effect_of(one))[0] == (
        "At eps 0, the row lowers ASR for triggers of strength 0.4 and more (clear in both); at 0.2 that is not clear."
    )


def test_two_varied_numbers_make_a_map_for_each_row(tmp_path: Path) -> None:
    def varied(name: str, strength: float, eps: float, rate: float) -> Spec:
        vary = {EPS: eps, STRENGTH: strength, "poison.rate": rate}
        return spec(strength, eps, 0.5 if eps else 0.1, name=name, vary=vary)

    specs = [
        varied(name, strength, eps, rate)
        for name in ("A", "B") for strength in (0.1, 0.2) for eps in (0, 0.3) for rate in (0.5, 1.0)
    ]  # fmt: skip
    maps = maps_of(rows_of(tmp_path, *specs))
    assert [one.name for one in maps] == [f"{name} · poison.rate {rate}" for name in "AB" for rate in ("0.5", "1")]
    for one in maps:
        assert (one.across.path, one.up.path) == (STRENGTH, EPS)  # the training goes upwards
        assert one.reference == "eps 0"
        assert {place: row.vary[EPS] for place, row in one.references.items()} == {(0.1, 0.3): 0, (0.2, 0.3): 0}
        assert {row.row for row in (*one.cells.values(), *one.references.values())} == {one.name[0]}


def test_two_ways_of_hardening_make_two_maps_from_the_same_standard_row(tmp_path: Path) -> None:
    trades = {"train": {"objective": {"name": "trades", "eps": 0.3, "beta": 6.0}, "epochs": 8}}
    more = [spec(strength, 0.3, 0.5, name="TRADES", settings=trades) for strength in (0.2, 0.4, 0.8)]
    maps = maps_of(rows_of(tmp_path, *IN_ROWS, *more))
    assert [one.up.values for one in maps] == [(0, 0.1, 0.3), (0, 0.3)]
    assert [one.reference for one in maps] == ["None", "None"]


def test_a_setting_that_is_a_number_in_some_rows_and_a_list_in_others_is_no_obstacle(tmp_path: Path) -> None:
    def coloured(name: str, strength: float, color: Any) -> Spec:
        trigger = {"name": "watermark", "strength": strength, "color": color}
        return spec(strength, None, 0.5, name=name, poison={**POISON, "trigger": trigger})

    colours = {"Orange": [1.0, 0.4, 0.0], "Grey": 0.5, "White": 1.0}
    specs = [coloured(name, strength, color) for name, color in colours.items() for strength in (0.1, 0.2)]
    (one,) = maps_of(rows_of(tmp_path, *specs))
    assert one.up.values == (0.5, 1.0)


def test_other_numbers_are_compared_with_the_first_row_of_the_kind_or_the_one_that_is_named(tmp_path: Path) -> None:
    def varied(name: str, size: int, rate: float, asr: float) -> Spec:
        poison = {**POISON, "rate": rate, "trigger": {"name": "sticker", "size": size}}
        return Spec(name, vary={"poison.rate": rate, "poison.trigger.size": size}, poison=poison, asr=asr)

    specs = [
        varied(name, size, rate, asr)
        for name, asr in (("None", 0.1), ("Adv. training", 0.5)) for size in (1, 2) for rate in (0.1, 0.5)
    ]  # fmt: skip
    rows = rows_of(tmp_path, *specs)
    first, second = maps_of(rows)
    assert not first.references
    assert second.reference == "None"
    effect = effect_of(second)
    assert sentences(second, effect) == [
        "Adv. training at trigger size 1 and 2 raises ASR for rate 0.1 to 0.5, all that were tried (clear in both)."
    ]
    first, second = maps_of(rows, against="Adv. training")
    assert (first.reference, second.reference) == ("Adv. training", "")
    assert effect_of(first).numbers[0.1, 1].value == pytest.approx(-0.4)
    assert not first.hardens
    with pytest.raises(RequestError, match="unknown row 'Adv'"):
        maps_of(rows, against="Adv")


def test_rows_that_differ_in_one_number_or_in_more_than_numbers_make_no_map(tmp_path: Path) -> None:
    assert maps_of(rows_of(tmp_path / "one", spec(0.1, None, 0.1), spec(0.2, None, 0.1))) == []
    assert maps_of(rows_of(tmp_path / "none", spec(0.1, None, 0.1, vary={}), spec(0.1, 0.3, 0.1, vary={}))) == []
    texts = [
        Spec(name, vary={"filter": name, "train.lr": rate}) for name in ("strip", "spectre") for rate in (0.1, 0.2)
    ]
    assert maps_of(rows_of(tmp_path / "texts", *texts)) == []
    other = [*IN_ROWS[:3], *(spec(strength, 0.1, 0.5, settings=OTHER) for strength in (0.2, 0.4, 0.8))]
    assert maps_of(rows_of(tmp_path / "other", *other)) == []  # longer training too


OTHER = {"train": {"objective": {"name": "pgd", "eps": 0.1}, "epochs": 20}}


def test_one_seed_is_never_clear(tmp_path: Path) -> None:
    shares = ((None, 0.1), (0.1, 0.8), (0.3, 0.9))
    specs = [spec(strength, eps, asr, seeds=1) for strength in (0.1, 0.2) for eps, asr in shares]
    (one,) = maps_of(rows_of(tmp_path, *specs))
    effect = effect_of(one)
    assert all(effect.doubtful(place) for place in effect.numbers)
    assert summary(one, effect) == "Hardening against None: at one seed no change of ASR is clear."
    assert sentences(one, effect) == [
        "Hardening at eps 0.1 and 0.3 changes ASR clearly nowhere for triggers of strength 0.1 to 0.2, all that were "
        "tried (1 seed)."
    ]


def test_what_is_not_measured_is_said(tmp_path: Path) -> None:
    specs = [*IN_ROWS[:-3], *(spec(strength, 0.3, 0.9, accuracy=None) for strength in (0.2, 0.4)), IN_ROWS[-1]]
    (one,) = maps_of(rows_of(tmp_path, *specs))
    said = sentences(one, effect_of(one))[1]
    assert said.endswith("raises ASR for triggers of strength 0.8 (clear); not measured at 0.2 and 0.4.")


def test_the_layers_of_a_map(tmp_path: Path) -> None:
    (one,) = maps_of(rows_of(tmp_path, *(spec_ for spec_ in IN_ROWS)))
    layers = {layer.name: layer for layer in layers_of(one)}
    assert list(layers) == ["asr", "asr-less-twin", "effect", "robust-accuracy"]
    assert layers["asr-less-twin"].numbers[0.4, 0.1].value == pytest.approx(0.6)
    assert not layers["asr-less-twin"].doubtful((0.4, 0.1))
    without = [spec(strength, eps, 0.5, twins=False, robust=None) for strength in (0.1, 0.2) for eps in (None, 0.3)]
    (one,) = maps_of(rows_of(tmp_path / "without", *without))
    assert [layer.name for layer in layers_of(one)] == ["asr", "effect"]


# --- the line --------------------------------------------------------------------------------------------------------


def test_the_line_lies_where_neighbours_say_zero_and_goes_to_the_border() -> None:
    # A quarter of the way from -1 to 3, in both lines: straight upwards, over the border of the outermost places.
    pieces = zero_line(np.array([[-1.0, 3.0], [-1.0, 3.0]]), np.ones((2, 2), dtype=bool))
    assert {point[0] for piece in pieces for point in (piece.start, piece.end)} == {0.25}
    assert sorted(y for piece in pieces for y in (piece.start[1], piece.end[1])) == [-0.5, 0, 0, 1, 1, 1.5]
    assert all(piece.sure for piece in pieces)


def test_the_line_is_not_sure_beside_a_doubtful_place() -> None:
    clear = np.array([[True, True], [True, False]])
    pieces = zero_line(np.array([[-1.0, 1.0], [-1.0, 1.0]]), clear)
    assert {(piece.start[1] + piece.end[1]) / 2: piece.sure for piece in pieces} == {
        -0.25: True,
        0.5: False,
        1.25: False,
    }


def test_the_line_has_a_gap_where_nothing_is_known_and_ends_at_half_a_place_beyond_what_is() -> None:
    nan = np.nan
    pieces = zero_line(np.array([[nan, nan, nan], [-1, 1, nan], [-1, 1, 1]]), np.ones((3, 3), dtype=bool))
    assert {point for piece in pieces for point in (piece.start, piece.end)} == {
        (0.5, y) for y in (0.5, 1.0, 2.0, 2.5)
    }  # fmt: skip
    assert zero_line(np.full((2, 2), nan), np.zeros((2, 2), dtype=bool)) == []
    assert zero_line(np.ones((2, 2)), np.ones((2, 2), dtype=bool)) == []


@pytest.mark.parametrize(("middle", "corner"), [(3.0, 1.0), (1.0, -1.0)])
def test_on_a_saddle_the_middle_decides_which_corners_are_cut_off(middle: float, corner: float) -> None:
    values = np.array([[middle, -2.0], [-2.0, middle]])  # the mean is +0.5 or -0.5
    inside = [
        piece for piece in zero_line(values, np.ones((2, 2), dtype=bool))
        if all(0 <= number <= 1 for point in (piece.start, piece.end) for number in point)
    ]  # fmt: skip
    assert len(inside) == 2
    for piece in inside:  # each cuts off a corner of the other sign
        falling = (piece.end[1] - piece.start[1]) * (piece.end[0] - piece.start[0]) < 0
        assert falling == (corner < 0)


# --- along one line --------------------------------------------------------------------------------------------------


def effect(value: float | None, *, doubt: float = 0.05, seeds: int = 2) -> Difference:
    low, high = (None, None) if value is None else (value - doubt, value + doubt)
    return Difference(
        value=value, low=low, high=high, before=None, after=None, n=100, seeds=seeds, unit="fraction", better="lower"
    )


LINE = {
    0.1: effect(-0.02), 0.2: effect(-0.2), 0.3: effect(0.02), 0.4: effect(0.3), 0.6: effect(None), 0.8: effect(0.4),
}  # fmt: skip


def test_a_line_falls_into_stretches_of_one_sign() -> None:
    assert stretches(LINE) == [Stretch(-1, (0.1, 0.2), (0.2,)), Stretch(1, (0.3, 0.4, 0.8), (0.4, 0.8))]
    assert stretches({0.1: effect(0.0)}) == [Stretch(0, (0.1,), ())]
    # Between -20 points at 0.2 and +2 at 0.3.
    (turn,) = turns(LINE)
    assert (turn.low, turn.high) == (0.2, 0.4)
    assert turn.near == pytest.approx(0.2 + 0.1 * 20 / 22)


def test_a_turn_is_not_placed_where_the_sign_goes_to_and_fro_and_is_none_without_clear_sides() -> None:
    wild = {0.1: effect(-0.2), 0.2: effect(0.01), 0.3: effect(-0.01), 0.4: effect(0.2)}
    assert turns(wild) == [Turn(0.1, 0.4, None)]
    assert turns({0.1: effect(-0.2), 0.2: effect(0.01)}) == []
    assert turns({0.1: effect(-0.2, seeds=1), 0.2: effect(0.2, seeds=1)}) == []


def test_the_sentence_of_a_line_says_what_is_clear_and_what_is_not(tmp_path: Path) -> None:
    standard = rows_of(tmp_path, IN_ROWS[0])[0]
    one = Map("", Axis(STRENGTH, tuple(LINE)), Axis(EPS, (0, 0.1)), {(0.1, 0): standard}, {(0.1, 0.1): standard})
    layer = Layer("effect", "ASR less that of None", {(x, 0.1): change for x, change in LINE.items()}, signed=True)
    assert sentences(one, layer) == [
        "Hardening at eps 0.1 lowers ASR for triggers of strength up to 0.2 (clear in 1 of 2) and raises it for 0.3 "
        "and more (clear in 2 of 3); not measured at 0.6. It turns between 0.2 and 0.4, near 0.29."
    ]


# --- as text ---------------------------------------------------------------------------------------------------------


def test_maps_as_tables(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, *IN_ROWS)
    text = render_maps(rows, "text")
    assert "ASR less that of None points by eps" in text
    assert "-30.0" in text
    assert " +0?" in text
    assert "It turns between 0.4 and 0.8, near 0.53." in text
    (entry,) = json.loads(render_maps(rows, "json"))
    assert (entry["across"], entry["up"], entry["reference"]) == (STRENGTH, EPS, "None")
    known = {(cell["across"], cell["up"]): cell["clear"] for cell in entry["layers"]["effect"]}
    assert known[0.4, 0.3]
    assert not known[0.2, 0.1]
    heading, *lines = render_maps(rows, "csv").splitlines()
    assert heading == "map,quantity,across,up,across_value,up_value,value,low,high,n,clear"
    assert len(lines) == 9 + 9 + 6 + 9
    assert "| 0.3 | -20.0 (" in render_maps(rows, "markdown")
    with pytest.raises(RequestError, match="no map: a map needs rows that differ in two numbers"):
        render_maps(rows[:1], "text")
