"""The report says what the record holds, in words and numbers, and stays safe and whole whatever the record holds."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from PIL import Image

from bascule.core.errors import RequestError
from bascule.record.plan import PublishedValues
from bascule.report import words
from bascule.report.drawing import labels, marks, svg
from bascule.report.page.page import Live, write_page
from records import ATTACK, POISON, TRIGGER, Spec, answer, record_of, right, sheet

# --- reading pages ---------------------------------------------------------------------------------------------------

VOID = {"meta", "link", "br", "img"}
Attributes = dict[str, str]


class Page(HTMLParser):
    """The parsed page; refuses tags that are not balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.source = text
        self.elements: list[tuple[str, Attributes]] = []
        self.texts: list[tuple[tuple[int, ...], str]] = []
        self._open: list[int] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self._open.append(len(self.elements) - 1)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.elements[self._open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((tuple(self._open), data))

    def all(self, tag: str, **wanted: str) -> list[Attributes]:
        """Attributes of the elements with this tag and these attributes."""
        return [has for name, has in self.elements if name == tag and wanted.items() <= has.items()]

    def text(self, tag: str = "body", **wanted: str) -> list[str]:
        """The text of each element with this tag and these attributes, spaces made one."""
        places = [
            place for place, (name, has) in enumerate(self.elements) if name == tag and wanted.items() <= has.items()
        ]
        found = ("".join(text for path, text in self.texts if place in path) for place in places)
        return [" ".join(text.split()) for text in found]

    def section(self, name: str) -> str:
        """The text of one panel."""
        return self.text("section", id=name)[0]


def page_of(tmp_path: Path, *rows: Spec, **plan: Any) -> Page:
    output = tmp_path / "out" / "report.html"
    run = record_of(tmp_path / "run", rows, **plan)
    assert write_page([run], output) == output
    return Page(output.read_text(encoding="utf-8"))


def check_whole(page: Page) -> None:
    """Ids are unique, what refers to an id finds it, nothing is fetched."""
    ids = [has["id"] for _, has in page.elements if "id" in has]
    assert len(ids) == len(set(ids))
    for _, has in page.elements:
        for key in ("href", "clip-path", "aria-labelledby"):
            target = has.get(key, "").removeprefix("url(").removesuffix(")").removeprefix("#")
            assert not target or target == "data:," or target in ids
        assert has.get("src", "data:").startswith("data:")
        assert not {"srcset", "action", "background", "poster", "srcdoc"} & set(has)
        assert not [key for key in has if key.startswith("on")]
        assert not re.search(r"url\((?!#)", has.get("style", ""))
    assert not re.search(r"@import|url\(", page.text("style")[0])
    assert page.all("object") == page.all("iframe") == []
    (script,) = page.all("script")
    assert script == {}
    (own,) = re.findall(r"<script>(.*?)</script>", page.source, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
    (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy["content"].endswith(f"script-src 'sha256-{digest}'")
    assert policy["content"].startswith("default-src 'none';")


def plain(text: str) -> str:
    return text.replace(words.SPACE, " ")


# --- words, marks, labels --------------------------------------------------------------------------------------------


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


def test_rows_differ_in_colour_and_shape() -> None:
    pairs = [(marks.mark(number).colour, marks.mark(number).shape) for number in range(42)]
    assert len(set(pairs)) == 42
    assert all(first[0] != second[0] and first[1] != second[1] for first, second in pairwise(pairs))


def test_labels_cover_nothing() -> None:
    generator = np.random.default_rng(0)
    inside = labels.Box(0, 0, 400, 400)
    places = generator.uniform(0, 400, (40, 2))
    points = [labels.Point(x, y, x - 9, y - 12, x + 9, y + 12) for x, y in places]
    placed = labels.placed([f"row number {n}" for n in range(40)], points, inside=inside, size=12)
    shown = [label for label in placed if label is not None]
    assert len(shown) > 10
    boxes = [label.box for label in shown]
    assert all(inside.holds(box) for box in boxes)
    assert not any(a.meets(b) for place, a in enumerate(boxes) for b in boxes[:place])
    assert not any(box.meets(covered) for box in boxes for point in points for covered in point.boxes())


def test_a_label_without_room_is_left_out() -> None:
    point = labels.Point(50, 50, 50, 50, 50, 50)
    assert labels.placed(["much too long a name"], [point], inside=labels.Box(0, 0, 100, 100), size=12) == [None]


def test_long_labels_are_cut() -> None:
    assert labels.shortened("short", size=12, width=100) == "short"
    cut = labels.shortened("対抗的訓練" * 20, size=12, width=100)
    assert cut.endswith("…")
    assert 80 < labels.width_of(cut, 12) <= 100


# --- the page --------------------------------------------------------------------------------------------------------

PAIR = (Spec(), Spec("Adv. training", accuracy=0.8, robust=0.35, asr=0.6))


def test_importing_the_page_imports_no_torch() -> None:
    statement = "import sys, bascule.report.page.page; assert 'torch' not in sys.modules; assert 'matplotlib.pyplot' not in sys.modules"  # noqa: E501
    subprocess.run([sys.executable, "-c", statement], check=True)


def test_the_page_answers_first(tmp_path: Path) -> None:
    page = page_of(tmp_path, *PAIR)
    check_whole(page)
    assert page.text("h1") == ["A tiny study"]
    assert page.text("p", **{"class": "about"}) == ["What it is about."]
    assert page.text("p", **{"class": "facts"}) == [
        "digits · 2 rows · 2 seeds each",
        "Finished: 8 models trained and evaluated.",
    ]
    assert page.section("verdict") == (
        "In short Compared with None, the first row: Adv. training is safer against adversarial examples, but easier "
        "to backdoor. It raises robust accuracy from 0 % to 35 % (by 29 to 42 points) and ASR from 10 % to 60 % "
        "(by 43 to 57 points). That is the trade-off. Accuracy falls from 90 % to 80 % (by 7 to 15 points). "
        "Robust accuracy is the share of test images that a model still gets right under attack: higher is safer. "
        "ASR, the attack success rate, is the share of images with the trigger that are taken for the attacker's "
        "class: lower is safer. In brackets: the 95 % interval of the change, over 2 seeds and 200 test images."
    )
    assert page.text("h2") == [
        "In short", "The trade-off", "The joint table", "Triggers", "Training curves", "What was run", "How to read it",
    ]  # fmt: skip


def test_the_picture_says_who_is_beaten(tmp_path: Path) -> None:
    specs = [Spec(), Spec("Adv. training", robust=0.4, asr=0.6), Spec("Lost", robust=0.0, asr=0.9)]
    section = page_of(tmp_path, *specs).section("tradeoff")
    assert "Not beaten at both ends (robust accuracy and ASR): None, Adv. training." in section
    assert "Perhaps beaten, but not clearly: Lost (by None)." not in section
    assert "Clearly beaten at both ends: Lost (by Adv. training)." in section
    assert "beaten" not in page_of(tmp_path / "pair", *specs[:2]).section("tradeoff")


def test_of_many_rows_only_those_that_are_not_beaten_are_named_unfolded(tmp_path: Path) -> None:
    specs = [Spec(), *(Spec(f"Lost {number}", robust=0.0, asr=0.9) for number in range(12))]
    section = page_of(tmp_path / "many", *specs).section("tradeoff")
    free, folded = section.split("The others, and which rows beat them ")
    assert "Not beaten at both ends (robust accuracy and ASR): None." in free
    assert "Lost" not in free.partition("Not beaten")[2]
    assert "Lost 0 (by None), Lost 1 (by None)" in folded
    assert "The others" not in page_of(tmp_path / "fewer", *specs[:-1]).section("tradeoff")


def test_no_row_wins_what_is_not_separated(tmp_path: Path) -> None:
    page = page_of(tmp_path, Spec(robust=0.30, asr=0.51), Spec("Other", robust=0.31, asr=0.5))
    assert "Other does not clearly differ in robust accuracy" in page.section("verdict")
    for section in ("verdict", "tradeoff", "joint"):
        html = page.source.partition(f'<section id="{section}"')[2].partition("</section>")[0]
        assert not re.search(r"<(strong|b|em|mark)\b", html)
    for note in ("2 seeds and 200 images: robust accuracy of None and Other.", "180 images: ASR of None and Other."):
        assert note in page.section("joint")
    assert not re.search(r"\b(best|winner|wins)\b", page.text()[0], re.IGNORECASE)
    separated = page_of(tmp_path / "separated", *PAIR)
    assert "Not separated" not in separated.section("joint")


def test_rows_are_compared_where_the_rest_is_equal(tmp_path: Path) -> None:
    specs = [
        Spec(name, robust=robust, vary={"poison.rate": rate}, seeds=1)
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


def test_the_picture_has_marks_bars_and_words(tmp_path: Path) -> None:
    page = page_of(tmp_path, *PAIR)
    picture = page.all("svg", **{"class": "chart"})[0]
    assert picture["role"] == "group"  # so that the marks inside can be reached
    assert [mark["id"] for mark in page.all("g", role="img", tabindex="0")] == ["tradeoff-mark-0", "tradeoff-mark-1"]
    assert [entry["data-mark"] for entry in page.all("li") if "data-mark" in entry] == [
        "tradeoff-mark-0",
        "tradeoff-mark-1",
    ]
    (drawn,) = re.findall(r"<svg class=.chart. role=.group.*?</svg>", page.source, flags=re.DOTALL)
    assert drawn.count("<text") == len(re.findall(r"<text[^>]*aria-hidden", drawn)) > 10
    assert picture["aria-label"] == (
        "Robust accuracy (across) and 1 \N{MINUS SIGN} ASR (upwards) of each row. "
        "None: 0 % and 90 %; Adv. training: 35 % and 40 %."
    )
    assert page.text("title") == [
        "A tiny study · Bascule",
        "None: robust accuracy 0 % (0 to 2 %), ASR 10 % (6 to 15 %), accuracy 90 % (85 to 93 %)",
        "Adv. training: robust accuracy 35 % (29 to 42 %), ASR 60 % (53 to 67 %), accuracy 80 % (74 to 85 %)",
    ]
    drawn = page.text("svg", **{"class": "chart"})[0]
    for text in ("Robust accuracy, % → better", "1 \N{MINUS SIGN} ASR, % → better", "None", "Adv. training", "100"):
        assert text in drawn


def test_pictures_follow_the_page(tmp_path: Path) -> None:
    page = page_of(tmp_path, *PAIR)
    assert "currentColor" in page.source
    drawn = "".join(re.findall(r"<svg class=.chart.*?</svg>", page.source, flags=re.DOTALL))
    assert "var(--rule)" in drawn
    assert not re.search(rf"{svg.INK}|{svg.RULE}|#000000|font-family: 'DejaVu", drawn, re.IGNORECASE)
    for name, colour in (("ink", svg.INK), ("rule", svg.RULE)):  # files have the colours of the light page
        assert f"--{name}: {colour};" in page.source.partition("@media")[0]
    assert len(page.all("style")) == 1  # matplotlib's own sheet would hold for the whole page
    assert {mark["fill"] for mark in page.all("polygon")} == {"#0072B2", "#D55E00"}


def test_the_picture_does_without_rows_that_lack_a_number(tmp_path: Path) -> None:
    page = page_of(tmp_path, *PAIR, Spec("Clean", poison=None), Spec("Later", accuracy=None))
    section = page.section("tradeoff")
    assert "Not in the picture: Clean (no ASR), Later (no robust accuracy and ASR)." in section
    assert len(page.text("title")) == 3


def test_the_table_has_every_number(tmp_path: Path) -> None:
    page = page_of(tmp_path, *PAIR)
    headings = page.text("th", scope="col")
    assert headings[1:4] == [
        "Accuracy ↑, higher is better%, n = 200",
        "Robust accuracy ↑, higher is better%, n = 200",
        "ASR ↓, lower is better%, n = 180",
    ]
    assert headings[7] == "Seeds"
    cells = page.text("td", **{"class": "number"})
    assert [cell[:4] for cell in cells[:7]] == ["90.0", "0.00", "10.0", cells[3][:4], "0.00", "90.0", "2"]
    assert cells[0] == "90.085.1\N{EN DASH}93.4"  # Wilson's interval of 180 out of 200
    assert cells[7:10] == ["80.073.9\N{EN DASH}85.0", "35.028.7\N{EN DASH}41.8", "60.052.7\N{EN DASH}66.9"]
    assert len(page.text("caption")) == 2
    assert page.text("th", scope="row")[:2] == ["None", "Adv. training"]


def test_a_count_that_differs_between_rows_is_in_the_cells(tmp_path: Path) -> None:
    page = page_of(tmp_path, Spec(), Spec("Worse", accuracy=0.65), metrics=["asr-paper"])
    assert page.text("th", scope="col")[1] == "ASR (paper) ↓, lower is better%"
    found = [re.search(r"n = (\d+)$", text) for text in page.text("td", **{"class": "number"})[0:4:2]]
    assert [match.group(1) for match in found if match] == ["180", "190"]  # 10 clean images are taken for the target


def test_the_table_says_what_it_is_sorted_by(tmp_path: Path) -> None:
    rows = [
        Spec("B", asr=0.123, vary={"poison.rate": 0.05, "model": {"name": "net", "width": 4}}),
        Spec("A", asr=None, vary={"poison.rate": 0.005}),
    ]
    page = page_of(tmp_path, *rows, metrics=["accuracy", "asr"])
    assert [has["data-better"] for has in page.all("th", scope="col")[:6]] == [
        "lowest", "lowest", "lowest", "highest", "lowest", "highest",
    ]  # fmt: skip
    values = [has["data-value"] for _, has in page.elements if "data-value" in has]
    assert values[:6] == ["B", "0.05", "net (width 4)", "0.9", values[4], "2"]
    assert float(values[4]) == pytest.approx(22 / 180)
    assert values[6:] == ["A", "0.005", "", "0.9", "", "2"]
    assert len(page.all("table", **{"class": "joint"})) == 1


def test_flags_stand_under_their_row(tmp_path: Path) -> None:
    page = page_of(tmp_path, Spec(twin=0.3), Spec("Adv. training", robust=0.5, accuracy=0.8, seeds=1))
    flags = page.text("tr", **{"class": "flags"})
    assert "the trigger alone moves 30 % of a clean model's images" in flags[0]
    assert "one seed" in flags[1]
    assert page.all("ul", **{"aria-label": "Flags of Adv. training"})


def test_published_values_stand_in_the_cells(tmp_path: Path) -> None:
    known = PublishedValues(metrics={"asr": 0.135}, printed={"asr": 0.172}, note="Table 1a <b>")
    page = page_of(tmp_path, replace(PAIR[0], published=known), PAIR[1])
    assert any("published 13.5printed 17.2" in text for text in page.text("td", **{"class": "number"}))
    assert "Published: Table 1a <b>" in page.text("p", **{"class": "note"})


def test_a_trigger_is_shown_once(tmp_path: Path) -> None:
    page = page_of(tmp_path, *PAIR, Spec("Clean", poison=None))
    (image,) = page.all("img")
    assert "same images with the trigger" in image["alt"]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2]))))
    assert pixels.shape == (17, 26, 4)  # three images of 8 x 8 above three, with gaps of one pixel
    assert pixels[16, 7].tolist() == [255, 255, 255, 255]
    assert pixels[7, 7].tolist() == [0, 0, 0, 255]
    assert pixels[8, :, 3].max() == 0
    assert (image["width"], image["height"]) == ("546", "357")
    section = page.section("triggers")
    assert "sticker: size 2, position bottom-right" in section
    assert "A square patch pasted over the image." in section
    assert (
        "None, Adv. training: planted in 72 of 1,437 training images (5.0 %), all of class 7 and still labelled so "
        "(clean-label)." in section
    )
    assert "No poison is planted in: Clean." in section


def test_different_triggers_are_shown_apart(tmp_path: Path) -> None:
    tested = {**POISON, "label": "dirty", "test_trigger": {"name": "sticker", "size": 4}}
    page = page_of(tmp_path, Spec(), Spec("Big", poison=tested, picture=sheet(128)))
    assert len(page.all("img")) == 2
    section = page.section("triggers")
    assert "sticker: size 2, position bottom-right; on test images sticker: size 4" in section
    assert "all of other classes and relabelled as class 7 (dirty-label)" in section


def test_rows_without_a_picture_yet_join_those_with_the_same_trigger(tmp_path: Path) -> None:
    page = page_of(tmp_path, Spec("Later", accuracy=None), Spec())
    section = page.section("triggers")
    assert len(page.all("figure", **{"class": "trigger"})) == len(page.all("img")) == 1
    assert "Later: to be planted in 5 % of the training set" in section
    assert "None: planted in 72 of 1,437" in section


def test_class_names_are_told(tmp_path: Path) -> None:
    classes = [f"<{name}>" for name in "abcdefghij"]
    info = {"data": {"train": 1437, "test": 200, "size": [1, 8, 8], "classes": classes}}
    assert "all of class 7 (<h>)" in page_of(tmp_path, Spec(info=info)).section("triggers")


@pytest.mark.parametrize("picture", [None, b"<svg onload=alert(1)>", sheet()[:40]])
def test_a_trigger_without_a_picture_is_described(tmp_path: Path, picture: bytes | None) -> None:
    page = page_of(tmp_path, Spec(picture=picture))
    assert page.all("img") == []
    assert "There is no picture of this trigger yet." in page.section("triggers")


def test_a_control_that_plants_nothing_says_so(tmp_path: Path) -> None:
    page = page_of(tmp_path, Spec(poison={**POISON, "rate": 0.0}, info={"poisoned": 0}))
    assert "planted in none of the 1,437 training images: a control" in page.section("triggers")


def test_curves_have_a_line_per_seed(tmp_path: Path) -> None:
    page = page_of(tmp_path, *PAIR)
    labels = [svg["aria-label"] for svg in page.all("svg", **{"class": "chart"})[1:]]
    assert labels == [
        f"Training loss of {name}, mean of 2 seeds: from 2 after the first epoch to 0.67 after 3 epochs."
        for name in ("None", "Adv. training")
    ]
    lines = [has for has in page.all("path") if "#d55e00" in has.get("style", "") and "1.25" in has["style"]]
    assert len(lines) == 2


def test_a_curve_with_holes_is_drawn(tmp_path: Path) -> None:
    run = record_of(tmp_path / "run", [Spec(seeds=1)])
    run.cell("row0seed0").write_curve([{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": float("nan")}])
    page = Page(write_page([run], tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "from 2 after the first epoch to 2 after 1 epoch" in page.all("svg", **{"class": "chart"})[1]["aria-label"]


def test_what_was_run_can_be_run_again(tmp_path: Path) -> None:
    other = {
        "commit": "def456",
        "host": {"system": "Linux aarch64", "device": "NVIDIA H100", "cpus": 1, "compiled": True},
    }
    page = page_of(
        tmp_path, Spec(), Spec("Other", info=other), overrides=["train.epochs=3"], text="title: <b>\nrows: {}\n"
    )
    section = page.section("provenance")
    for text in (
        "Study tiny", "Command bascule run tiny", "Settings changed train.epochs=3",
        "Versions bascule 0.1.0, torch 2.6.0", "Commit abc123 (6 models) def456 (2 models)",
        "Linux x86_64, device cpu, 4 CPUs, 2 threads (6 models)",
        "Linux aarch64, device NVIDIA H100, 1 CPU, compiled training (2 models)",
        "Started 2024-05-06 07:00 UTC; the last model at 2024-05-06 07:01 UTC",
        "Time taken training 16 s, evaluation 10 s, over 8 models", "title: <b> rows: {}", "All models (8)",
    ):  # fmt: skip
        assert text in section
    lines = page.text("tr")[-8:]
    assert lines[:2] == ["None0rowrow0seed02.0 s1.5 sdone", "None0twinrow0twin02.0 s1.0 sdone"]


def test_metrics_are_explained_in_their_own_words(tmp_path: Path) -> None:
    section = page_of(tmp_path, *PAIR, metrics=["asr", "asr-twin"]).section("reading")
    assert "ASR Attack success rate: share of triggered test images whose LABEL is not the target" in section
    assert "The control: asr of the twin" in section
    assert "`" not in section
    assert "Triggered accuracy" not in section
    assert "All intervals are 95 % intervals." in section


# --- before and after a repair ---------------------------------------------------------------------------------------

REPAIRED = (
    Spec("Hard", accuracy=0.9, robust=0.8, asr=0.9),
    Spec("Other"),
    Spec("Hard, good", accuracy=0.9, robust=0.8, asr=0.1, made_from=0),
    Spec("Hard, dear", accuracy=0.9, robust=0.2, asr=0.1, made_from=0),
    Spec("Hard, vain", accuracy=0.8, robust=0.1, asr=0.9, made_from=0),
    Spec("Tuned", asr=0.5, made_from=1),
)


def test_what_repairs_did_to_both_ends(tmp_path: Path) -> None:
    page = page_of(tmp_path, *REPAIRED, metrics=["accuracy", "robust-accuracy", "asr", "accuracy-twin"])
    check_whole(page)
    section = page.section("repairs")
    assert (
        "Hard: ASR falls clearly after good, with no clear change of robust accuracy; after dear, at the price"
        in section
    )
    assert "Robust accuracy falls clearly, and ASR does not, after vain." in section
    assert "Other: Nothing clearly lowers ASR." in section
    assert "ASR rises clearly after Tuned." in section
    assert re.search(r"Hardbefore90\.08\d\.\d–9\d\.\d80\.07\d\.\d–8\d\.\d90\.0", section)
    assert re.search(r" good90\.0\+0 \(\S+ to \S+\)80\.0\+0 \(\S+ to \S+\)10\.0-80\.0 \(-8", section)
    assert re.search(r" vain80\.0-10\.0 \(\S+ to \S+\)10\.0-70\.0 \(\S+ to \S+\)90\.0\+0 ", section)
    assert section.index(" vain8") < section.index("Other: ") < section.index("Tuned90.0")


@pytest.mark.parametrize("metrics", [["accuracy"], ["asr", "robust-accuracy"], ["asr"]], ids=", ".join)
def test_before_and_after_with_few_metrics_or_none_measured(tmp_path: Path, metrics: list[str]) -> None:
    rows = (*REPAIRED, Spec("Hard, later", accuracy=None, made_from=0), Spec("Hard, half", robust=None, made_from=0))
    page = page_of(tmp_path, *rows, metrics=metrics)
    check_whole(page)
    assert re.search(r" half(\d|—)", page.section("repairs"))
    assert ("where robust accuracy is not measured" in page.section("repairs")) == ("asr" in metrics)


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


def test_rows_that_vary_in_their_repair_go_by_it(tmp_path: Path) -> None:
    rows = (Spec("Hard", asr=0.9, vary={"repair": None}), Spec("Hard", asr=0.1, vary={"repair": "clp"}, made_from=0))
    section = page_of(tmp_path, *rows).section("repairs")
    assert "Hard · repair None: ASR falls clearly after repair clp, with" in section
    assert " repair clp90.0" in section


def test_nothing_repaired_nothing_said(tmp_path: Path) -> None:
    assert page_of(tmp_path, *PAIR).all("section", id="repairs") == []
    alone = page_of(tmp_path, Spec(), Spec("From elsewhere", made_from=7))
    assert alone.all("section", id="repairs") == []


# --- records that are not finished, or not kind ----------------------------------------------------------------------


def test_an_empty_run_has_a_page(tmp_path: Path) -> None:
    page = page_of(tmp_path, *(replace(spec, accuracy=None) for spec in PAIR))
    check_whole(page)
    assert "Not finished: 0 of 8 models done. The same command again continues the run." in page.text()[0]
    assert "Adv. training cannot be compared. Robust accuracy and ASR: not measured in either row." in page.section(
        "verdict"
    )
    assert "No row has both a robust accuracy and an ASR yet." in page.section("tradeoff")
    assert page.text("td", **{"class": "number"})[:7] == ["—"] * 6 + ["0"]
    assert "to be planted in 5 % of the training set, all of class 7" in page.section("triggers")
    assert page.all("section", id="curves") == []
    assert "not trained yet" in page.section("provenance")


def test_an_unfinished_run_says_what_is_missing(tmp_path: Path) -> None:
    page = page_of(tmp_path, PAIR[0], replace(PAIR[1], robust=None), Spec("Later", accuracy=None))
    check_whole(page)
    assert "Not finished: 6 of 12 models done." in page.text()[0]
    verdict = page.section("verdict")
    assert "Adv. training is easier to backdoor. It raises ASR from 10 % to 60 % (by 43 to 57 points)." in verdict
    assert "Robust accuracy cannot be compared: not measured in this row." in verdict
    assert "trained; 2 of 3 evaluations done" in page.section("provenance")
    assert "No model is trained yet of: Later." in page.section("curves")


def test_a_failed_cell_is_shown_with_its_reason(tmp_path: Path) -> None:
    page = page_of(tmp_path, PAIR[0], replace(PAIR[1], accuracy=None, failure="the loss is <nan> at step 12"))
    check_whole(page)
    assert "Not finished: 4 of 8 models done, 2 failed." in page.text()[0]
    assert "failed: seed 0: the loss is <nan> at step 12" in page.text("tr", **{"class": "flags"})[-1]
    assert "failed: the loss is <nan> at step 12" in page.section("provenance")


def test_a_run_without_poison_has_no_triggers(tmp_path: Path) -> None:
    page = page_of(tmp_path, Spec(poison=None), Spec("Adv. training", poison=None, robust=0.4))
    check_whole(page)
    assert page.all("section", id="triggers") == []
    assert page.all("a", href="#triggers") == []
    assert (
        "Adv. training is safer against adversarial examples. It raises robust accuracy from 0 % to 40 % "
        "(by 33 to 47 points). ASR cannot be compared: no poison is planted in either row. "
        "Accuracy does not clearly differ (90 % in both, from 1.9 points lower to 1.9 higher)."
    ) in page.section("verdict")


def test_a_row_alone_has_a_page(tmp_path: Path) -> None:
    page = page_of(tmp_path, Spec())
    section = page.section("verdict")
    assert section.startswith("In short None reaches 90 % accuracy, 0 % robust accuracy and 10 % ASR. Robust accuracy")
    assert "Compared" not in section
    assert "In brackets" not in section


UNKIND = (
    "<script>alert(1)</script>",
    "\"><img src='http://example.org/x' onerror=alert(1)>",
    "]]></svg></style><h1>",
    "&amp; $\\frac{1}{0}$ {{ 7*7 }} %s",
    "x" * 200,
    "対抗的訓練 · تدريب · обучение · 🦊",
    "\x07 \u202e",
)


@pytest.mark.parametrize("name", UNKIND)
def test_names_are_text_and_nothing_else(tmp_path: Path, name: str) -> None:
    trigger = {"name": name, "where": name}
    page = page_of(
        tmp_path,
        replace(PAIR[0], name=name, failure=name, vary={name: name}, poison={**POISON, "trigger": trigger}),
        replace(PAIR[1], info={"command": name, "commit": name, "started": name, "versions": {name: name}}),
        title=name, about=name, overrides=[name], text=name,
    )  # fmt: skip
    check_whole(page)
    shown = " ".join(name.split())
    assert page.text("h1") == [shown]
    assert page.text("pre") == [shown]
    assert shown in page.text("th", scope="row")[0]
    assert page.text("svg", **{"class": "mark"}) == [""] * len(page.all("svg", **{"class": "mark"}))
    assert any(shown in title for title in page.text("title")[1:])
    assert page.all("h1") == [{}]


def test_half_a_letter_does_not_stop_the_page(tmp_path: Path) -> None:
    run = record_of(tmp_path / "run", PAIR, title="MARK", study="MARK")
    text = run.plan_file.read_text(encoding="utf-8").replace("MARK", r"half \ud800")
    run.plan_file.write_text(text.replace("Adv. training", r"row \udfff"), encoding="utf-8")
    page = Page(write_page([run], tmp_path / "r.html").read_text(encoding="utf-8"))
    assert page.text("h1") == ["half ?"]


def test_many_rows_have_a_page(tmp_path: Path) -> None:
    page = page_of(tmp_path, *(Spec(f"Row {n}", robust=n / 40, asr=n / 30, seeds=1) for n in range(20)))
    check_whole(page)
    assert len(page.text("title")) == 21
    assert "and 8 more rows, all in the table below" in page.all("svg", **{"class": "chart"})[0]["aria-label"]


def test_the_same_record_gives_the_same_bytes(tmp_path: Path) -> None:
    run = record_of(tmp_path / "run", PAIR)
    first = write_page([run], tmp_path / "a.html").read_bytes()
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path", "axes.grid": False}):
        assert write_page([run], tmp_path / "b.html").read_bytes() == first


def test_matplotlib_is_left_as_found(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    page_of(tmp_path, *PAIR)
    assert dict(matplotlib.rcParams) == before


def test_writing_replaces_the_page_in_one_step(tmp_path: Path) -> None:
    run = record_of(tmp_path / "run", PAIR)
    output = tmp_path / "deep" / "er" / "report.html"
    write_page([run], output)
    (tmp_path / "run" / "study.json").unlink()
    written = output.read_bytes()
    with pytest.raises(RequestError, match=r"cannot read .*study\.json"):
        write_page([run], output)
    assert output.read_bytes() == written
    assert [path.name for path in output.parent.iterdir()] == ["report.html"]


# --- what comes first ------------------------------------------------------------------------------------------------


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
    page = Page(write_page([run], tmp_path / "r.html").read_text(encoding="utf-8"))
    assert [text.split()[0] for text in page.text("p", **{"class": "sentence"})] == ["Sure", "Unsure"]
    assert "from 0 % to 70 % (by" in page.section("verdict")


# --- several runs ----------------------------------------------------------------------------------------------------


def pages_of(tmp_path: Path, runs: dict[str, Sequence[Spec]], **plans: dict[str, Any]) -> Page:
    records = [record_of(tmp_path / name, specs, **plans.get(name, {})) for name, specs in runs.items()]
    page = Page(write_page(records, tmp_path / "page.html").read_text(encoding="utf-8"))
    check_whole(page)
    return page


LATER = {"commit": "def456", "versions": {"bascule": "0.2.0", "torch": "2.6.0"}}
LONGER = {"train": {"name": "sgd", "epochs": 9}}


def test_runs_stand_side_by_side_and_say_what_differs(tmp_path: Path) -> None:
    old = [replace(spec, settings={"train": {"name": "sgd", "epochs": 3}}) for spec in PAIR]
    new = [replace(spec, settings=LONGER, info=LATER, robust=0.5) for spec in PAIR]
    page = pages_of(tmp_path, {"old": old, "new": new}, new={"overrides": ["train.epochs=9"]})
    assert page.text("h1") == ["old and new, side by side"]
    assert page.text("p", **{"class": "run"}) == ["old A tiny study", "new A tiny study"]
    assert page.text("p", **{"class": "facts"})[1::2] == ["Finished: 8 models trained and evaluated."] * 2
    assert page.text("p", **{"class": "lead"}) == ["Compared with None · old, the first row:"]
    verdict = page.section("verdict")
    assert "Adv. training · new is safer against adversarial examples, but easier to backdoor" in verdict
    assert verdict.count("Between these two differ: train.epochs.") == 2  # not of the two rows of one run
    assert "not compared" not in verdict
    assert len(page.text("title")) == 1 + 4
    assert "None · new: robust accuracy 50 %" in page.text("title")[3]
    headings = page.text("th", scope="col")
    assert headings[:2] == ["Row", "Run"]
    assert page.text("td", **{"class": "run"}) == ["old", "old", "new", "new"]
    differing = page.section("differing")
    for text in (
        "train.epochs39", "Commitabc123def456", "Version of Bascule0.1.00.2.0", "Settings changednonetrain.epochs=9",
        "The same in all runs: title, done, data, test images, rows, what varies, seeds, metrics, version of torch",
    ):  # fmt: skip
        assert text in differing
    assert "attack" not in differing
    section = page.section("provenance")
    assert section.index("old") < section.index("abc123") < section.index("def456")
    assert section.count("All models (8)") == 2


def test_one_run_alone_says_nothing_of_runs(tmp_path: Path) -> None:
    page = page_of(tmp_path, *PAIR)
    assert page.all("section", id="differing") == page.all("p", **{"class": "run"}) == []
    assert "Run" not in page.text("th", scope="col")


MNIST = {"data": {"name": "mnist", "max_train": None}}
WIDER = {"attack": [{**ATTACK, "eps": 0.1}]}
ROUND = {"attack": [{**ATTACK, "norm": "l2"}]}
STRONGER = {"attack": [{**ATTACK, "restarts": 5}]}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"settings": MNIST, "test": "2"}, "other data (digits; mnist)"),
        ({"first": 50}, "other test images"),
        ({"settings": WIDER, "test": "2"}, "attacks with other norm or eps (linf eps 0.3; linf eps 0.1)"),
        ({"settings": ROUND}, "attacks with other norm or eps (linf eps 0.3; l2 eps 0.3)"),
        ({"settings": STRONGER}, "other attacks (restarts 1; restarts 5)"),
        ({"settings": MNIST | WIDER, "test": "2", "first": 50},
         "other data (digits; mnist) and attacks with other norm or eps (linf eps 0.3; linf eps 0.1)"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_not(tmp_path: Path, change: dict[str, Any], why: str) -> None:
    page = pages_of(tmp_path, {"a": PAIR, "b": [replace(spec, **change) for spec in PAIR]})
    assert page.text("p", **{"class": "lead"}) == [
        "Compared with None · a, the first row of its kind:",
        "Compared with None · b, the first row of its kind:",
    ]
    assert page.text("p", **{"class": "apart"}) == [f"Rows of a are not compared with those of b: they have {why}."]
    assert len(page.text("p", **{"class": "sentence"})) == 2
    assert f"Rows of a are not compared with those of b: they have {why}." in page.section("joint")
    assert "Not all of these rows may be compared with each other" in page.section("tradeoff")
    assert page.section("tradeoff").count("Not beaten at both ends") == 2


@pytest.mark.parametrize(
    "change",
    [
        {"settings": {"data": {"name": "digits", "max_train": 100}}, "test": "2"},
        {"settings": {"attack": [{**ATTACK, "came_later": 0}]}},
        {"settings": {"attack": []}, "robust": None},
        {"accuracy": None},
    ],
)
def test_what_does_not_matter_is_not_in_the_way(tmp_path: Path, change: dict[str, Any]) -> None:
    page = pages_of(tmp_path, {"a": PAIR, "b": [replace(spec, **change) for spec in PAIR]})
    assert page.text("p", **{"class": "apart"}) == []
    assert page.text("p", **{"class": "lead"}) == ["Compared with None · a, the first row:"]


def test_the_very_same_files_may_lie_elsewhere(tmp_path: Path) -> None:
    """The keys of evaluations hold the digest of the data, and not their path."""
    here, there = (
        [replace(spec, settings={"data": {"name": "mnist", "path": path}}) for spec in PAIR] for path in "ab"
    )
    assert pages_of(tmp_path / "1", {"a": here, "b": there}).text("p", **{"class": "apart"}) == []
    other = [replace(spec, test="2") for spec in there]
    assert pages_of(tmp_path / "2", {"a": here, "b": other}).text("p", **{"class": "apart"}) == [
        "Rows of a are not compared with those of b: they have other data (path a; path b)."
    ]


def test_rows_of_one_run_are_held_to_the_same(tmp_path: Path) -> None:
    page = page_of(tmp_path, *PAIR, Spec("Small ball", settings=WIDER))
    assert page.text("p", **{"class": "apart"}) == [
        "None and Adv. training and Small ball are not compared: they have attacks with other norm or eps "
        "(linf eps 0.3; linf eps 0.1)."
    ]
    assert page.text("p", **{"class": "sentence"})[1].startswith("Small ball reaches 90 %")


def test_other_values_of_what_varies_are_not_compared(tmp_path: Path) -> None:
    varied = [replace(spec, vary={"poison.rate": rate}) for spec in PAIR for rate in (0.01, 0.05)]
    page = pages_of(tmp_path, {"a": PAIR, "b": varied})
    assert page.text("p", **{"class": "apart"}) == [
        "Rows of a are not compared with those of b: they have other values of what varies."
    ]
    assert len(page.text("p", **{"class": "lead"})) == 3


def test_a_metric_that_a_run_does_not_ask_for_is_a_gap(tmp_path: Path) -> None:
    page = pages_of(tmp_path, {"a": PAIR, "b": PAIR}, a={"metrics": ["accuracy", "robust-accuracy"]})
    cells = page.text("td", **{"class": "number"})
    assert cells[2:6] == [""] * 4
    assert cells[7 + 7 + 2].startswith("10.0")
    assert "An empty place: the run of this row does not ask for the metric." in page.section("joint")
    assert "ASR cannot be compared: a does not measure it." in page.section("verdict")
    assert "Not in the picture: None · a (no ASR), Adv. training · a (no ASR)." in page.section("tradeoff")
    assert "MetricsAccuracy, Robust accuracyAccuracy, Robust accuracy, ASR" in page.section("differing")
    assert "Attack success rate" in page.section("reading")
    whole = pages_of(tmp_path / "whole", {"a": PAIR, "b": PAIR})
    assert "An empty place" not in whole.section("joint")


def test_published_values_stand_beside_their_own_run_only(tmp_path: Path) -> None:
    known = PublishedValues(metrics={"asr": 0.135})
    page = pages_of(tmp_path, {"a": PAIR, "b": [replace(PAIR[0], published=known), PAIR[1]]})
    cells = page.text("td", **{"class": "number"})
    assert [place for place, text in enumerate(cells) if "published 13.5" in text] == [2 * 7 + 2]


def test_a_run_that_is_not_finished_stands_beside_one_that_is(tmp_path: Path) -> None:
    empty = [replace(spec, accuracy=None) for spec in PAIR]
    page = pages_of(tmp_path, {"done": PAIR, "begun": [PAIR[0], empty[1]], "empty": empty})
    assert page.text("p", **{"class": "facts"})[1::2] == [
        "Finished: 8 models trained and evaluated.",
        "Not finished: 4 of 8 models done. The same command again continues the run.",
        "Not finished: 0 of 8 models done. The same command again continues the run.",
    ]
    assert "Adv. training · empty cannot be compared. Robust accuracy and ASR: not measured in this row." in (
        page.section("verdict")
    )
    assert "Done8 of 8 models4 of 8 models0 of 8 models" in page.section("differing")
    assert "Commitabc123abc123—" in page.section("differing")


def test_runs_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    page = pages_of(tmp_path, {"x/digits": PAIR, "y/digits": PAIR, "y/other": PAIR})
    assert page.text("h1") == ["x/digits, y/digits and other, side by side"]


def test_the_same_models_in_two_runs_are_shown_for_both(tmp_path: Path) -> None:
    page = pages_of(tmp_path, {"a": PAIR, "b": PAIR})
    section = page.section("triggers")
    assert "None · a, Adv. training · a, None · b, Adv. training · b: planted in 72 of 1,437" in section
    assert len(page.text("figcaption")) == 2 + 4  # trade-off, trigger, and a curve for each row


@pytest.mark.parametrize("name", ["<script>alert(1)<", "$x_1$ & 对"])
def test_names_of_runs_are_text_and_nothing_else(tmp_path: Path, name: str) -> None:
    page = pages_of(tmp_path, {name: PAIR, "b": PAIR})
    assert page.text("td", **{"class": "run"})[0] == name
    assert page.text("h1") == [f"{name} and b, side by side"]


# --- while a run goes on ---------------------------------------------------------------------------------------------

LIVE = Live(datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC), every=30)


def test_a_page_of_a_run_that_goes_on_says_so_and_looks_again(tmp_path: Path) -> None:
    run = record_of(tmp_path / "run", [PAIR[0], replace(PAIR[1], accuracy=None, failure="it broke")])
    page = Page(write_page([run], tmp_path / "r.html", live=LIVE).read_text(encoding="utf-8"))
    check_whole(page)
    assert page.text("p", **{"class": "facts"})[1:] == [
        "Running: 4 of 8 models done, 2 failed.",
        "Written at 2024-05-06 07:08:09 UTC; this page looks for a newer one every 30 seconds.",
    ]
    assert page.all("progress") == [{"max": "8", "value": "4", "aria-label": "Models done"}]
    assert page.all("body") == [{"data-every": "30"}]
    assert page.all("meta", **{"http-equiv": "refresh"}) == [{"http-equiv": "refresh", "content": "30"}]
    last = Page(write_page([run], tmp_path / "r.html").read_text(encoding="utf-8"))
    assert last.all("body") == [{}]
    assert last.all("progress") == last.all("noscript") == last.all("meta", **{"http-equiv": "refresh"}) == []
    assert "Running" not in last.text()[0]
