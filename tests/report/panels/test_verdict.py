"""The first screen: what each row does to both ends, the most important first."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from bascule.report.panels.verdict import clear_sentences
from bascule.report.result import Run
from pages import check_whole, page_of, read_page
from records import PAIR, POISON, REPAIRED, Spec, answer, record_of, right


def test_rows_are_compared_where_the_rest_is_equal(tmp_path: Path) -> None:
    specs = [
        Spec(name, robust=robust, vary={"poison.rate": rate})
        for name, robust in (("None", 0.1), ("Adv. training", 0.5))
        for rate in (0.01, 0.05)
    ]
    page = page_of(tmp_path, *specs)
    assert page.text("p", **{"class": "lead"}) == [
        "Compared with None · poison.rate 0.01, the first row of its kind:",
        "Compared with None · poison.rate 0.05, the first row of its kind:",
    ]
    sentences = page.text("p", **{"class": "sentence"})
    assert [text.partition(" is ")[0] for text in sentences] == [
        "Adv. training · poison.rate 0.01",
        "Adv. training · poison.rate 0.05",
    ]
    assert page.text("th")[:2] == ["Row", "poison.rate"]


def test_the_first_screen_compares_repaired_models_with_themselves(tmp_path: Path) -> None:
    page = page_of(tmp_path, *REPAIRED)
    assert page.text("p", **{"class": "lead"}) == [
        "Compared with Hard, the first row:",
        "Compared with Hard, the same models before:",
        "Compared with Other, the same models before:",
    ]
    sentences = page.text("p", **{"class": "sentence"})
    assert "Hard, dear is weaker against adversarial examples, but harder to backdoor." in sentences
    assert [text for text in sentences if text.startswith("Other ")] == [
        "Other is weaker against adversarial examples, but harder to backdoor."
    ]
    assert "Tuned is easier to backdoor." in sentences


def test_recipes_against_different_poison_are_not_compared(tmp_path: Path) -> None:
    """A recipe against one trigger says nothing of another one against another trigger."""
    marked = {**POISON, "trigger": {"name": "watermark"}}
    rows = (
        *PAIR,
        *(replace(spec, name=f"{spec.name}, marked", poison=marked) for spec in PAIR),
        Spec("Clean", poison=None),
    )
    page = page_of(tmp_path, *rows)
    assert page.text("p", **{"class": "lead"}) == [
        "Compared with None, the first row of its kind:",
        "Compared with None, marked, the first row of its kind:",
    ]
    assert page.text("p", **{"class": "apart"}) == []  # it is what the study is about
    assert page.section("tradeoff").count("Not beaten at both ends") == 2
    assert "and None, marked" not in page.section("joint")


def test_a_row_alone_has_a_page(tmp_path: Path) -> None:
    page = page_of(tmp_path, Spec())
    section = page.section("verdict")
    assert section.startswith("In short None reaches 90 % accuracy, 0 % robust accuracy and 10 % ASR. Robust accuracy")
    assert "Compared" not in section
    assert "In brackets" not in section


def test_the_largest_sure_trade_off_comes_first_and_the_rest_is_folded(tmp_path: Path) -> None:
    specs = [
        Spec(robust=0.3, asr=0.3),
        Spec("Nothing", robust=0.3, asr=0.3),
        Spec("Safer at both", robust=0.9, asr=0.0),
        *(Spec(f"Trade {n}", robust=0.3 + n / 20, asr=0.3 + n / 20) for n in range(4, 10)),
    ]
    page = page_of(tmp_path, *specs)
    check_whole(page)
    (section,) = re.findall(r'<section id="verdict".*?</section>', page.source, flags=re.DOTALL)
    before, _, folded = section.partition("<details>")
    names = re.compile(r'<p class="sentence"><bdi class="name">(.*?)</bdi>')
    assert names.findall(before) == [f"Trade {n}" for n in range(9, 3, -1)]
    assert names.findall(folded) == ["Safer at both", "Nothing"]
    assert "<summary>2 more, with smaller or less sure changes</summary>" in folded
    assert "In brackets" in folded.partition("</details>")[2]


def test_what_is_said_of_the_same_models_is_said_once(tmp_path: Path) -> None:
    specs = [
        Spec(name, robust=robust, vary={"inspect": filter_}, cells=name, also=(f"inspect:{filter_}",))
        for filter_ in ("strip", "gram")
        for name, robust in (("None", 0.0), ("Adv", 0.5))
    ]
    page = page_of(tmp_path, *specs)
    check_whole(page)
    assert page.text("p", **{"class": "lead"}) == ["Compared with None, the first row:"]
    assert len(page.text("p", **{"class": "sentence"})) == 1
    assert "over 2 seeds and 200 test images" in page.section("verdict")
    assert [text.partition(":")[0] for text in page.text("title")[1:]] == ["None", "Adv"]
    assert len(page.text("tbody")) >= 4
    assert page.text("th", scope="row")[:4] == ["None", "Adv"] * 2
    assert page.section("joint").count("Not separated") == 1


def test_six_are_not_folded(tmp_path: Path) -> None:
    page = page_of(tmp_path, Spec(), *(Spec(f"Row {n}", robust=n / 10) for n in range(6)))
    assert len(page.text("p", **{"class": "sentence"})) == 6
    assert "more, with" not in page.section("verdict")


def test_a_large_change_that_may_be_small_does_not_come_before_a_sure_one(tmp_path: Path) -> None:
    specs = [Spec(seeds=3), Spec("Unsure", seeds=3), Spec("Sure", robust=0.4, seeds=3)]
    run = record_of(tmp_path / "run", specs)
    for seed, robust in enumerate((0.9, 0.7, 0.5)):
        answer(run.cell(f"row1seed{seed}"), specs[1], "attack", right(robust))
    page = read_page([run], tmp_path / "r.html")
    assert [text.split()[0] for text in page.text("p", **{"class": "sentence"})] == ["Sure", "Unsure"]
    assert "from 0 % to 70 % (by" in page.section("verdict")


def test_a_run_in_python_says_what_is_clear(tmp_path: Path) -> None:
    run = Run(record_of(tmp_path / "pair", PAIR))
    (sentence,) = clear_sentences(run._view)
    assert sentence.startswith("Adv. training against None: raises robust accuracy from 0 % to 35 % ")
    assert "safer against adversarial examples, but easier to backdoor. That is the trade-off" in sentence
    assert " ".join(sentence.split()) in " ".join(str(run).split())
    assert "safer against adversarial examples, but easier to backdoor" in run._repr_html_()
    many = Run(record_of(tmp_path / "repaired", REPAIRED))
    assert "Other against Other" not in str(many)
    assert 1 < len(clear_sentences(many._view)) <= 6
    assert clear_sentences(Run(record_of(tmp_path / "alone", [Spec()]))._view) == []
