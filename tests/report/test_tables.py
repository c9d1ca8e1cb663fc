"""All formats of the table say the same."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bascule.core import grid
from bascule.core.catalog import build
from bascule.core.errors import RequestError
from bascule.core.text import printable, steers
from bascule.metrics.contract import Measure, Outcomes, Verdict
from bascule.metrics.interval import summarise, wilson
from bascule.metrics.paired import difference
from bascule.metrics.wording import interval_text, value_text
from bascule.record.plan import PublishedValues
from bascule.record.rows import RowResult
from bascule.report.tables.tables import LEGEND, More, render
from records import seed_of


def measure(
    value: float | None, low: float | None = None, high: float | None = None, better: str = "higher"
) -> Measure:
    return Measure(
        value=value, low=low, high=high, n=100 if value is not None else None, unit="fraction", better=better
    )


def row(name: str, accuracy: Measure, asr: Measure, flags: tuple[str, ...] = (), rate: float = 0.05) -> RowResult:
    return RowResult(
        study="s",
        row=name,
        data="mnist",
        vary={"poison.rate": rate},
        seeds=3,
        metrics={"accuracy": accuracy, "asr": asr},
        kinds={name: build("measure", name) for name in ("accuracy", "asr")},
        flags=flags,
        settings={},
        planned=(),
    )


ROWS = [
    row("None", measure(0.9712, 0.9651, 0.978), measure(0.1, 0.05, 0.15, "lower")),
    row("A_b & 50 % | <i>", measure(0.5, 0.4, 0.6), measure(None, better="lower"), ("1 of 3 seeds finished",), 0.1),
]


def test_json_is_the_documented_shape() -> None:
    first, second = json.loads(render(ROWS, "json"))
    assert first == {
        "study": "s",
        "row": "None",
        "data": "mnist",
        "vary": {"poison.rate": 0.05},
        "seeds": 3,
        "metrics": {
            "accuracy": {
                "value": 0.9712,
                "low": 0.9651,
                "high": 0.978,
                "n": 100,
                "unit": "fraction",
                "better": "higher",
            },
            "asr": {"value": 0.1, "low": 0.05, "high": 0.15, "n": 100, "unit": "fraction", "better": "lower"},
        },
        "flags": [],
    }
    assert second["metrics"]["asr"]["value"] is None
    assert second["flags"] == ["1 of 3 seeds finished"]


def test_a_search_in_two_precisions_is_said() -> None:
    attack = {"attack": [{"name": "pgd", "eps": 0.1}]}
    mixed = replace(ROWS[0], settings={**attack, "attack_precision": "mixed"})
    others = [replace(ROWS[1], settings=attack), replace(ROWS[1], row="C", settings={"attack_precision": "mixed"})]
    said = "gradients in bfloat16 where the attack can, success in float32 (mixed precision)."
    assert f"Attacks on None · poison.rate 0.05: {said}" in " ".join(render([mixed, *others], "text").split())
    assert f"Attacks on all rows: {said}" in " ".join(render([mixed], "text").split())
    assert "bfloat16" not in render(others, "text")
    found = json.loads(render([mixed, *others], "json"))
    assert [row.get("attack_precision") for row in found] == ["mixed", None, None]


def asked(name: str, attack: list[dict[str, Any]], certify: list[dict[str, Any]] | None = None) -> RowResult:
    return replace(ROWS[0], row=name, vary={}, settings={"attack": attack, "certify": certify})


@pytest.mark.parametrize("form", ["text", "markdown"])
def test_the_attacks_and_bounds_are_named_below_the_table(form: Any) -> None:
    fgsm, pgd = {"name": "fgsm", "norm": "linf", "eps": 8 / 255}, {"name": "pgd", "norm": "linf", "eps": 0.03137}
    bound = [{"name": "interval", "norm": "l2", "eps": 0.1}]
    text = render([asked("A", [fgsm, pgd], bound), asked("B", [fgsm, pgd], bound)], form)
    assert "Attacks: fgsm and pgd (linf, eps 8/255), the worst of them for each image\n" in text
    assert "Bound: interval (l2, eps 0.1)\n" in text
    turned, other = {"name": "spatial", "degrees": 30.0}, {**pgd, "eps": 0.5, "norm": "l2"}
    text = render([asked("A", [pgd, turned]), asked("B", [other]), asked("C", [other]), asked("D", [])], form)
    assert "Attacks on A: pgd (linf, eps 8/255) and spatial, the worst of them for each image\n" in text
    assert "Attack on B and C: pgd (l2, eps 0.5)\n" in text
    assert "Attack" not in render(ROWS, form)
    assert "Bound" not in text


def test_a_flag_that_several_rows_carry_is_said_once() -> None:
    one, two, three = (replace(ROWS[0], row=name, vary={}, flags=flags) for name, flags in (
        ("A", ("few images", "random")), ("B", ("few images",)), ("C", ("few images", "random")),
    ))  # fmt: skip
    assert [line for line in render([one, two, three], "text").splitlines() if line.startswith("!")] == [
        "! all rows: few images",
        "! A and C: random",
    ]
    assert "! A: few images\n! A: random\n" in render([one], "text")


def test_csv_holds_the_same_numbers() -> None:
    first, second = csv.DictReader(io.StringIO(render(ROWS, "csv")))
    assert float(first["accuracy"]) == 0.9712
    assert float(first["asr_high"]) == 0.15
    assert first["poison.rate"] == "0.05"
    assert second["row"] == "A_b & 50 % | <i>"
    assert second["asr"] == ""
    assert second["flags"] == "1 of 3 seeds finished"


def test_markdown_has_one_line_a_row_and_escapes_bars() -> None:
    lines = render(ROWS, "markdown").splitlines()
    assert lines[0] == "| Row | poison.rate | Seeds | Accuracy % ↑ | ASR % ↓ |"
    assert lines[2] == "| None | 0.05 | 3 | 97.1 (96.5–97.8) | 10.0 (5.0–15.0) |"
    assert lines[3].startswith(r"| A_b & 50 % \| \<i> | 0.1 | 3 | 50.0")
    assert lines[3].endswith("| — |")
    assert lines[-1] == r"- A_b & 50 % | \<i> · poison.rate 0.1: 1 of 3 seeds finished"


def test_latex_escapes_what_latex_would_read() -> None:
    lines = render(ROWS, "latex").splitlines()
    assert r"None & 0.05 & 3 & 97.1 [96.5--97.8] & 10.0 [5.0--15.0] \\" in lines
    assert any(line.startswith(r"A\_b \& 50 \% | <i> & 0.1 & 3 & 50.0 [40.0--60.0] & --- \\") for line in lines)


def test_text_shows_values_intervals_and_flags() -> None:
    text = render(ROWS, "text")
    assert re.search(r"None +0\.05 +3 +97\.1 +10\.0\n +96\.5–97\.8 +5\.0–15\.0", text)
    assert "! A_b & 50 % | <i> · poison.rate 0.1: 1 of 3 seeds finished" in text


@pytest.mark.parametrize(
    "name", ["two\nlines", "a\r\tb", "\x1b[31mred\x1b[0m", "\u202eabc", "\x9b2J", "half \ud800", "\u2028"]
)
@pytest.mark.parametrize("form", ["text", "markdown", "latex", "csv", "json"])
def test_no_name_steers_what_shows_it(name: str, form: Any) -> None:
    """As they may stand in a record that somebody sent; a study with such names is refused."""
    hostile = [row(f"A{name}", measure(0.5, 0.4, 0.6), measure(None), (f"flag {name}",)), ROWS[0]]
    plain = [row(f"A{printable(name)}", measure(0.5, 0.4, 0.6), measure(None), (f"flag {printable(name)}",)), ROWS[0]]
    text = render(hostile, form)
    assert steers(text, lines=True) == ""
    assert text.encode("utf-8")
    if form == "json":
        assert json.loads(text)[0]["row"] == f"A{name}"
    else:
        assert text == render(plain, form)


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0", "+1+1", "-A", "@SUM(A1)", "  =1", "\uff1dcmd"])
def test_no_field_of_a_csv_file_is_a_formula(name: str) -> None:
    change = replace(row(name, measure(-0.4, -0.5, 0.6), measure(None), (name,)), vary={"rate": -0.4, "way": name})
    (read,) = csv.DictReader(io.StringIO(render([change], "csv")))
    assert read["row"] == read["way"] == read["flags"] == f"'{name}"
    assert read["rate"] == read["accuracy"] == "-0.4"


METRICS = ("accuracy", "robust-accuracy", "asr", "asr-paper", "asr-twin", "triggered-accuracy")


def many(name: str, start: float) -> RowResult:
    """A row with six metrics, each with numbers of its own."""
    found = {
        metric: measure(start + 0.01 * place, start + 0.01 * place - 0.003, start + 0.01 * place + 0.004)
        for place, metric in enumerate(METRICS)
    }
    return replace(row(name, measure(0), measure(0)), metrics=found, kinds={m: build("measure", m) for m in METRICS})


MANY = [many("None", 0.11), many("Adversarial training, with a rather long name, then pruned", 0.31)]


@pytest.mark.parametrize("width", [200, 120, 100, 80, 60, 50])
def test_a_narrow_table_is_whole_columns_with_every_number_and_name(width: int) -> None:
    whole, fitting = (render(MANY, "text", width=width) for width in (None, width))
    assert max(map(len, fitting.splitlines())) <= width
    tables = [text.partition("95 %")[0] for text in (whole, fitting)]
    numbers, same = (sorted(re.findall(r"\d+\.\d–\d+\.\d|\d+\.\d(?!\d)", text)) for text in tables)
    assert len(numbers) == 24
    assert same == numbers
    blocks = fitting.split(" Row ")[1:]
    assert all(re.search(r"^ None +0\.05 ", block, re.MULTILINE) for block in blocks)
    assert all("pruned" in block for block in blocks)
    assert len(blocks) == {200: 1, 120: 1, 100: 2, 80: 2, 60: 3, 50: 6}[width]
    assert " ".join(LEGEND.split()) in " ".join(fitting.split())


def test_a_table_is_broken_only_where_it_must_be() -> None:
    whole = render(MANY, "text")
    widest = max(map(len, whole.splitlines()))
    assert render(MANY, "text", width=widest) == whole
    assert render(MANY, "text", width=widest - 1) != whole
    assert render(MANY, "markdown", width=40) == render(MANY, "markdown")
    # Where not even one column fits, it stands alone, whole.
    narrow = render(MANY, "text", width=20)
    assert all(f"{low}–{high}" in narrow for low, high in (("10.7", "11.4"), ("30.7", "31.4")))


@pytest.mark.parametrize("form", ["text", "markdown", "latex"])
def test_every_format_shows_the_same_numbers(form: str) -> None:
    shown = re.findall(r"\d+\.\d", render(ROWS, form))
    for number in ("97.1", "96.5", "97.8", "10.0", "50.0", "40.0", "60.0"):
        assert number in shown


def test_units_other_than_fractions_are_not_made_percent() -> None:
    index = Measure(value=2.345, low=2.0, high=2.5, n=10, unit="MAD", better="lower")
    assert value_text(index) == "2.35"
    assert interval_text(index) == "2–2.5"
    assert value_text(measure(None)) == "—"
    assert interval_text(measure(None)) == ""


def test_published_values_stand_under_their_row() -> None:
    known = PublishedValues(metrics={"asr": 0.135}, printed={"asr": 0.172}, note="Table 1a")
    rows = [replace(ROWS[0], published=known)]
    assert json.loads(render(rows, "json"))[0]["published"] == {"asr": 0.135}
    assert re.search(r"published +13\.5\n", render(rows, "text"))
    assert "! None · poison.rate 0.05: ASR is printed as 17.2 %. Table 1a" in render(rows, "text")
    assert "|   published |  |  |  | 13.5 |" in render(rows, "markdown")


# --- against a row, by class, who beats whom -------------------------------------------------------------------------

LABELS = np.repeat(np.arange(4), 50)
TARGET = 3
MORE = More(against="None", pareto=True)


def outcomes(right: float, taken: float) -> Outcomes:
    """200 images of four classes; the first part of each class is right when clean, or taken for the target."""
    place = np.tile(np.arange(50), 4)
    clean = np.where(place < 50 * right, LABELS, (LABELS + 1) % 4)
    return Outcomes(label=LABELS, clean=clean, triggered=np.where(place < 50 * taken, TARGET, LABELS), target=TARGET)


def measured(name: str, right: float, taken: float, seeds: int = 2, **changes: Any) -> RowResult:
    """A row of the metrics `accuracy` and `asr` over seeds that are all alike; accuracy plays the robust end."""
    found = {seed: outcomes(right, taken) for seed in range(seeds)}
    kinds = {"robust_accuracy": build("measure", "accuracy"), "asr": build("measure", "asr")}
    metrics = {key: summarise(kind, list(found.values())) for key, kind in kinds.items()}
    made = row(name, measure(0.5), measure(0.5))
    settled = {"metrics": metrics, "kinds": kinds, "outcomes": found, "vary": {}, "seeds": seeds}
    return replace(made, **settled | {"classes": ("plane", "car", "bird", "cat")} | changes)  # type: ignore[arg-type]


THREE = [measured("None", 0.5, 0.2), measured("Adv. training", 0.9, 0.6), measured("Lost", 0.2, 0.9)]


def test_a_table_against_a_row_says_what_changes() -> None:
    text = render(THREE, "text", MORE)
    assert text.startswith(render(THREE, "text").partition("95 %")[0])  # the table itself stays as it is
    assert re.search(r"Row less None +Seeds +points ↑ +ASR points ↓", text)
    assert re.search(r"Adv\. training +2 +\+40\.0 +\+40\.0\n +\+33\.\d to \+4\d\.\d", text)
    assert re.search(r"Lost +2 +-30\.0 +\+70\.0", text)
    assert not re.search(r"^ *None +2 +[+-]", text, re.MULTILINE)
    assert (
        "Adv. training raises robust accuracy from 50 % to 90 % (by 33 to 47 points) and ASR from 20 % to 60 % "
        "(by 33 to 48 points): safer against adversarial examples, but easier to backdoor. "
        "That is the trade-off, for this trigger and training.\n"
    ) in text


def test_a_table_says_who_is_beaten() -> None:
    text = render(THREE, "text", MORE)
    assert "Not beaten at both ends (robust accuracy and ASR): None, Adv. training\n" in text
    assert "Clearly beaten at both ends: Lost (by None and Adv. training)\n" in text
    assert "beaten" not in render(THREE, "text")
    close = [measured("None", 0.5, 0.2), measured("Near", 0.48, 0.22)]
    assert "Perhaps beaten, but not clearly: Near (by None)\n" in render(close, "text", More(pareto=True))


def test_one_common_seed_makes_nothing_clear() -> None:
    rows = [measured("None", 0.3, 0.6, seeds=1), measured("Better", 0.9, 0.2, seeds=1)]
    text = render(rows, "text", MORE)
    assert "Perhaps beaten, but not clearly: None (by Better)\n" in text
    assert "Clearly" not in text
    assert re.search(r"Better perhaps differs in robust accuracy \(30 % and 90 %, \d+ to \d+ points higher\)", text)
    assert "At one seed no difference is clear" in text
    assert "Not separated by 1 seed" in text
    assert "; one seed has no interval over seeds" in " ".join(text.split())
    assert "At one seed" not in render(THREE, "text", MORE)


@pytest.mark.parametrize("form", ["text", "json", "csv", "markdown", "latex"])
def test_a_difference_without_an_interval_is_shown_without_one(form: str) -> None:
    rows = [measured("None", 0.3, 0.6, seeds=1), measured("Better", 0.9, 0.2, seeds=1)]
    verdicts = [Verdict(anomaly=np.array([index, 0.0]), suspects=()) for index in (1.5, 2.5)]
    for made, verdict in zip(rows, verdicts, strict=True):
        made.outcomes[0] = replace(made.outcomes[0], verdict=verdict, target=0)  # type: ignore[index]
        made.kinds["scan_anomaly"] = build("measure", "scan-anomaly")  # type: ignore[index]
        made.metrics["scan_anomaly"] = summarise(made.kinds["scan_anomaly"], list(made.outcomes.values()))
    text = render(rows, form, More(against="None"))  # type: ignore[arg-type]
    if form == "text":
        assert re.search(r" Better .* \+1$", text, re.MULTILINE)
    if form == "csv":
        found = list(csv.DictReader(io.StringIO(text)))[1]
        assert (found["scan_anomaly_difference"], found["scan_anomaly_difference_low"]) == ("1.0", "")
    if form == "json":
        found = json.loads(text)[1]["differences"]["metrics"]["scan_anomaly"]
        assert (found["value"], found["low"], found["high"]) == (1.0, None, None)


def test_json_carries_differences_and_beaters() -> None:
    none, adv, lost = json.loads(render(THREE, "json", MORE))
    assert "differences" not in none
    assert none["beaten_by"] == {"clearly": [], "perhaps": []}
    assert lost["beaten_by"] == {"clearly": ["None", "Adv. training"], "perhaps": []}
    assert adv["differences"]["to"] == "None"
    found = adv["differences"]["metrics"]["asr"]
    expected = difference(THREE[1].kinds["asr"], THREE[0].outcomes, THREE[1].outcomes)
    assert found == expected.as_dict()
    assert (found["value"], found["n"], found["seeds"]) == (pytest.approx(0.4), 150, 2)
    assert adv["differences"]["sentence"].startswith("Adv. training raises robust accuracy")
    plain = json.loads(render(THREE, "json"))
    assert [{key: entry[key] for key in plain[0]} for entry in (none, adv, lost)] == plain
    assert list(plain[0]) == ["study", "row", "data", "vary", "seeds", "metrics", "flags"]


def test_csv_carries_differences_and_beaters() -> None:
    none, adv, lost = csv.DictReader(io.StringIO(render(THREE, "csv", MORE)))
    assert none["asr_difference"] == ""
    assert float(adv["asr_difference"]) == pytest.approx(0.4)
    assert float(adv["robust_accuracy_difference_low"]) > 0.3
    assert lost["clearly_beaten_by"] == "None; Adv. training"


@pytest.mark.parametrize("form", ["markdown", "latex"])
def test_other_formats_carry_differences_too(form: str) -> None:
    text = render(THREE, form, MORE)  # type: ignore[arg-type]
    assert text.count("Row less None") == 1
    assert "+40.0" in text
    assert "That is the trade-off, for this trigger and training." in text
    assert "Clearly beaten at both ends: Lost" in text


def test_rows_are_compared_where_the_rest_is_equal() -> None:
    rows = [replace(made, vary={"rate": rate}) for rate in (1, 2) for made in THREE[:2]]
    found = json.loads(render(rows, "json", More(against="Adv. training")))
    assert ["differences" in entry for entry in found] == [True, False, True, False]
    assert "Not beaten at both ends (robust accuracy and ASR, rate 2): None, Adv. training" in render(
        rows, "text", More(pareto=True)
    )


MADE = [
    measured("Model", 0.5, 0.8, planned=tuple(seed_of(cell, seed=seed) for seed, cell in enumerate("ab"))),
    measured("Repaired", 0.5, 0.2, made_from=("a", "b")),
    measured("Repaired elsewhere", 0.5, 0.2, made_from=("a", "c")),
]


def test_repaired_models_against_themselves_before() -> None:
    text = render(MADE, "text", More(before=True))
    assert re.search(r"Row less the same models before +Seeds +points ↑ +ASR points ↓", text)
    assert re.search(r"^ *Repaired +2 +\+0 +-60\.0\n", text, re.MULTILINE)
    assert re.search(r"Repaired lowers ASR from 80 % to 20 % \(by \d+ to \d+ points\): harder to backdoor\.", text)
    model, repaired, elsewhere = json.loads(render(MADE, "json", More(before=True)))
    assert repaired["differences"]["to"] == "Model"
    assert "differences" not in model
    assert "differences" not in elsewhere
    assert float(list(csv.DictReader(io.StringIO(render(MADE, "csv", More(before=True)))))[1]["asr_difference"]) < -0.5


def test_rows_of_other_runs_were_not_there_before() -> None:
    with pytest.raises(RequestError, match="no row is repaired or filtered while"):
        render([replace(MADE[0], run="other"), MADE[1]], "text", More(before=True))


def test_one_comparison_at_a_time() -> None:
    with pytest.raises(RequestError, match="`against` or for `before`, not for both"):
        render(MADE, "text", More(before=True, against="Model"))


def test_who_names_a_row_sees_it_beside_those_with_other_poison() -> None:
    poisons = [{"poison": {"trigger": {"name": name}}} for name in ("sticker", "sticker", "watermark")]
    rows = [replace(row, settings=settings) for row, settings in zip(THREE, poisons, strict=True)]
    found = json.loads(render(rows, "json", More(against="None", pareto=True)))
    assert [row.get("differences", {}).get("to") for row in found] == [None, "None", "None"]
    assert [row.get("beaten_by", {}).get("clearly") for row in found] == [[], [], None]  # nobody is like Lost
    assert "Lost" not in "".join(line for line in render(rows, "text").splitlines() if line.startswith("Not separated"))


def test_an_unknown_row_is_refused() -> None:
    with pytest.raises(RequestError, match=r"unknown row 'Adv training'. Did you mean 'Adv. training'\?"):
        render(THREE, "text", More(against="Adv training"))


def test_what_is_not_separated_is_said_in_words() -> None:
    rows = [measured("None", 0.5, 0.2), measured("Same", 0.5, 0.6), measured("Other", 0.9, 0.22)]
    for form in ("text", "markdown", "latex"):
        text = render(rows, form)  # type: ignore[arg-type]
        assert "Not separated by 2 seeds and 200 images: robust accuracy of None and Same (1 of 3 pairs)" in text
        assert "Not separated by 2 seeds and 150 images: ASR of None and Other (1 of 3 pairs)" in text
    assert "Not separated" not in render(THREE, "text")
    alone = [measured("None", 0.5, 0.2, seeds=1), measured("Same", 0.5, 0.6, seeds=3)]
    assert "robust accuracy of None and Same; one seed has no interval over seeds\n" in render(alone, "text")


def test_no_winner_is_marked() -> None:
    for form in ("text", "markdown", "latex"):
        assert not re.search(r"\*\*|\\textbf|\x1b|\bbest\b|winner", render(THREE, form, MORE))  # type: ignore[arg-type]


def test_many_pairs_are_counted_not_listed() -> None:
    rows = [measured(f"Row {number}", 0.5, number / 9) for number in range(6)]
    (note,) = (line for line in render(rows, "text").splitlines() if "robust accuracy of" in line)
    assert note.count(" and Row") == 6
    assert note.endswith(", … (15 of 15 pairs)")


def test_a_table_by_class() -> None:
    text = render(THREE[:1], "text", More(by_class=True))
    assert re.search(r"Row +True class +Seeds +Images +Accuracy % ↑ +ASR % ↓", text)
    assert len(re.findall(r"^ None +(plane|car|bird) +2 +50 +50\.0 +20\.0$", text, re.MULTILINE)) == 3
    assert re.search(r"^ None +cat +2 +50 +50\.0 +—$", text, re.MULTILINE)  # the target's own class has no ASR
    assert "among many, about one in twenty misses" in text
    low, high = wilson(0.5, 50)
    assert f"{100 * low:.1f}–{100 * high:.1f}" in text


def test_classes_in_json_and_csv() -> None:
    (entry,) = json.loads(render(THREE[:1], "json", More(by_class=True)))
    assert [part["class"] for part in entry["by_class"]] == ["plane", "car", "bird", "cat"]
    assert [(part["label"], part["n"]) for part in entry["by_class"]] == [(0, 50), (1, 50), (2, 50), (3, 50)]
    assert entry["by_class"][0]["metrics"]["asr"]["value"] == pytest.approx(0.2)
    assert entry["by_class"][3]["metrics"]["asr"]["value"] is None
    lines = list(csv.DictReader(io.StringIO(render(THREE[:1], "csv", More(by_class=True)))))
    assert [line["class"] for line in lines] == ["plane", "car", "bird", "cat"]
    assert [line["asr"] for line in lines[2:]] == ["0.2", ""]
    with pytest.raises(RequestError, match="CSV is one table"):
        render(THREE, "csv", More(by_class=True, against="None"))


def test_classes_without_names_are_their_labels_and_other_counts_are_shown() -> None:
    found = {0: replace(outcomes(0.5, 0.2), clean=np.where(np.arange(200) < 10, TARGET, LABELS))}
    kinds = {"asr_paper": build("measure", "asr-paper")}
    metrics = {"asr_paper": summarise(kinds["asr_paper"], list(found.values()))}
    made = replace(THREE[0], outcomes=found, kinds=kinds, metrics=metrics, classes=(), seeds=1)
    text = render([made], "text", More(by_class=True))
    assert re.search(r"None +0 +1 +50 +0\.0\n +0\.0–8\.8, n 40", text)
    assert re.search(r"None +1 +1 +50 +20\.0\n +\d+\.\d–\d+\.\d\n", text)


def test_a_row_without_outcomes_has_no_classes() -> None:
    assert render([replace(THREE[0], outcomes={})], "text", More(by_class=True)).count("None") == 0


def test_wide_numbers_are_never_broken_or_cut() -> None:
    rows = [measured("A name that is much longer than a column of names should be", 0.0, 1.0), measured("B", 1.0, 0.0)]
    text = render(rows, "text", More(against="B"))
    assert "-100.0" in text
    for interval in (r"-100\.0 to -9\d\.\d", r"\+9\d\.\d to \+100\.0"):
        assert re.search(rf"{interval}(?= |$)", text, re.MULTILINE)


# --- several runs ----------------------------------------------------------------------------------------------------


def of_run(run: str, *, eps: float = 0.3, more: bool = False) -> list[RowResult]:
    """Two rows with outcomes, the second better at one end."""
    found = []
    for name, robust in (("None", 0.0), ("Adv", 0.5)):
        label = np.zeros(100, dtype=np.int64)
        fooled = np.where(np.arange(100) < 100 * robust, 0, 1)
        kinds = {key: build("measure", key.replace("_", "-")) for key in ("accuracy", "robust_accuracy")}
        outcomes = Outcomes(label=label, clean=label, adversarial=[fooled], attacks=1)
        metrics = {key: summarise(metric, [outcomes]) for key, metric in kinds.items()}
        settings = {"data": {"name": "digits"}, "attack": [{"name": "pgd", "norm": "linf", "eps": eps}]}
        if more:
            kinds, metrics = ({**part, "asr": part["accuracy"]} for part in (kinds, metrics))
        found.append(
            RowResult(
                study="s", row=name, data="digits", vary={}, seeds=1, metrics=metrics, kinds=kinds, flags=(),
                settings=settings, planned=(), outcomes={0: outcomes}, run=run,
            )
        )  # fmt: skip
    return found


def test_rows_of_several_runs_say_which_and_leave_gaps() -> None:
    rows = [*of_run("a", more=True), *of_run("b")]
    text = render(rows, "text")
    assert re.search(r"^ Row +Run +Seeds", text, re.MULTILINE)
    assert re.search(r"^ Adv +b +1 +100.0 +50.0$", text, re.MULTILINE)
    assert render(rows, "markdown").splitlines()[0].startswith("| Row | Run | Seeds |")
    lines = list(csv.DictReader(io.StringIO(render(rows, "csv"))))
    assert [(line["run"], line["row"]) for line in lines] == [("a", "None"), ("a", "Adv"), ("b", "None"), ("b", "Adv")]
    assert (lines[0]["asr"], lines[2]["asr"]) == ("1.0", "")
    parsed = json.loads(render(rows, "json"))
    assert [row["run"] for row in parsed] == ["a", "a", "b", "b"]
    assert "asr" in parsed[0]["metrics"]
    assert "asr" not in parsed[2]["metrics"]
    assert "Run" not in render(of_run(""), "text")
    assert "run" not in json.loads(render(of_run(""), "json"))[0]


def test_a_row_is_compared_within_its_run_or_with_the_named_one() -> None:
    rows = [*of_run("a"), *of_run("b")]

    def against(name: str) -> list[tuple[str, str]]:
        found = json.loads(render(rows, "json", More(against=name)))
        return [(f"{row['row']} {row['run']}", row["differences"]["to"]) for row in found if "differences" in row]

    assert against("None") == [("Adv a", "None · a"), ("Adv b", "None · b")]
    assert against("None · a") == [("Adv a", "None · a"), ("None b", "None · a"), ("Adv b", "None · a")]
    with pytest.raises(RequestError, match="unknown row 'None · c'"):
        render(rows, "json", More(against="None · c"))


def test_a_row_among_those_that_vary_is_named_with_its_value() -> None:
    files = ["/some/where/a.pth", "/some/where/b.pth", "/other/b.pth"]
    rows = [measured("None", 0.5, 0.2, vary={"model.weights": file}) for file in files]
    assert rows[0].called == ("None · model.weights /some/where/a.pth", "None · a.pth")

    def against(name: str) -> list[tuple[str, str]]:
        found = json.loads(render(rows, "json", More(against=name)))
        return [(row["vary"]["model.weights"], row["differences"]["to"]) for row in found if "differences" in row]

    to = "None · model.weights /some/where/a.pth"
    assert against("None · a.pth") == against(to) == [(file, to) for file in files[1:]]
    assert "Row less None · model.weights /some/where/a.pth" in render(rows, "markdown", More(against="None · a.pth"))
    assert against("None") == [], "rows that share a name are compared where they share the value"
    with pytest.raises(
        RequestError, match=r"'None · b\.pth' may be None · model\.weights /some/where/b\.pth or None · m"
    ):
        against("None · b.pth")
    with pytest.raises(RequestError, match=r"unknown row 'None · c\.pth'\. Did you mean"):
        against("None · c.pth")


def test_rows_that_may_not_be_compared_are_not() -> None:
    rows = [*of_run("a"), *of_run("b", eps=0.1)]
    text = render(rows, "text", More(against="None · a", pareto=True))
    assert "Rows of a are not compared with those of b: they have attacks with other norm or eps" in text
    assert "Adv · b" not in text.partition("Row less")[2]
    found = json.loads(render(rows, "json", More(against="None · a")))
    assert [("differences" in row) for row in found] == [False, True, False, False]
    assert "not compared" not in render([*of_run("a"), *of_run("b")], "text")


def test_a_row_called_like_a_tag_is_text_in_markdown() -> None:
    table = grid.Grid(["Row"], ["n"], [(grid.TableCell("<script>x</script>"), grid.TableCell("1"))])
    text = grid.render([table], [["<b>: a note"]], "markdown")
    assert "\\<script>x\\</script>" in text
    assert "- \\<b>: a note" in text
