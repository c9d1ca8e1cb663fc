"""The panels of evidence say what the findings of the record hold, and stay whole whatever these hold."""

from __future__ import annotations

import base64
import html
import io
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bascule.measure import Judgement
from bascule.record.cell import FILTERED
from bascule.record.run import RunRecord
from bascule.report.drawing import tiles
from bascule.report.export import export
from bascule.report.page.page import write_page
from bascule.report.panels.filters import curve
from bascule.report.words import SPACE
from records import POISON, Arrays, Findings, Spec, record_of, sheet

PANELS = ("security", "saliency", "recovered", "filters", "spectrum")
HOSTILE = "<script>alert(1)</script> \"'&amp; 対抗 $x_1$ " + "w" * 150
LABELS = np.repeat(np.arange(4), 5)

# --- findings by hand ------------------------------------------------------------------------------------------------


def heat(attention: float, **more: Any) -> Arrays:
    """Two images of 2 x 2 with the trigger in the last pixel."""
    images = np.zeros((2, 1, 2, 2), dtype=np.uint8)
    stamped = images.copy()
    stamped[..., 1, 1] = 255
    spot = np.zeros((2, 2, 2), dtype=np.float32)
    spot[:, 0, 0], spot[:, 1, 1] = 0.5, 2.0
    return {
        "clean": images, "stamped": stamped, "heat_clean": spot, "heat_stamped": spot,
        "attention": np.full(9, attention) + np.linspace(-0.01, 0.01, 9), "attention_clean": np.full(9, 0.125),
        "chance": np.full(9, 0.25), **more,
    }  # fmt: skip


def scan(anomaly: Sequence[float], **more: Any) -> Arrays:
    count = len(anomaly)
    mask = np.zeros((count, 1, 2, 2), dtype=np.uint8)
    mask[:, 0, 1, 1] = 255
    return {
        "anomaly": np.array(anomaly, dtype=np.float32), "success": np.full(count, 0.75, dtype=np.float32),
        "pattern": np.full((count, 1, 2, 2), 200, dtype=np.uint8), "mask": mask, **more,
    }  # fmt: skip


def judged(score: Sequence[float], *, poisoned: int = 2, removed: Sequence[int] = (0, 2)) -> Arrays:
    """The first images are the poisoned ones."""
    count = len(score)
    return {
        "id": np.arange(count), "label": np.zeros(count, dtype=np.int64), "score": np.array(score, dtype=np.float32),
        "removed": np.isin(np.arange(count), removed), "poisoned": np.arange(count) < poisoned,
    }  # fmt: skip


def bands(*response: float) -> Arrays:
    return {
        "frequencies": np.arange(len(response))[:, None] / 8.0, "response": np.array(response, dtype=np.float32),
        "count": np.full(len(response), 9),
    }  # fmt: skip


def fourier(*response: float) -> Arrays:
    found = bands(*response)
    return found | {"frequencies": np.array([[0.0, 0.0], [0.0, 0.5], [-0.5, 0.0], [0.5, 0.5]])[: len(response)]}


SCAN = {"settings": {"name": "neural-cleanse", "threshold": 2.0, "target": 3}, "threshold": 2.0}
HEAT = {"settings": {"name": "saliency", "score": "loss", "target": 3}}
INSPECT = {"settings": {"name": "strip", "overlays": 16}}
BANDS = {"settings": {"name": "band-energy", "score": "loss", "target": 3}}
FOURIER = {"settings": {"name": "fourier", "rms": 0.125, "target": 3}}


def finding(arrays: Arrays, info: Mapping[str, Any], **more: Any) -> tuple[Arrays, dict[str, Any]]:
    return arrays, {**info, **more}


def full(shift: float = 0.0) -> dict[str, tuple[Arrays, dict[str, Any]]]:
    """One of each."""
    return {
        "explain:heat": finding(heat(0.6 + shift), HEAT),
        "explain:bands": finding(bands(0.25, 0.5, 0.25), BANDS),
        "explain:fourier": finding(fourier(0.1, 0.9, 0.5, 0.2), FOURIER),
        "scan:1": finding(scan([0.5, -1.0, 1.5, 4.5]), SCAN, suspects=[3], overlap=0.375),
        "inspect:1": finding(judged([4, 1, 3, 2, 0, -1, -2, -3]), INSPECT),
    }


def twin_of(findings: Findings) -> dict[str, tuple[Arrays, dict[str, Any]]]:
    """What the same evaluations find in the twin: nothing."""
    quiet = {
        "explain:heat": finding(heat(0.2), HEAT),
        "scan:1": finding(scan([0.5, 1.0, 0.0, -0.5]), SCAN, suspects=[], overlap=0.1),
        "inspect:1": finding(judged([1, 2, 3, 4, 5, 6, 7, 8], poisoned=0, removed=[0, 1]), INSPECT),
    }
    return {key: quiet[key] for key in findings if key in quiet}


# --- records ---------------------------------------------------------------------------------------------------------


def row_with(
    name: str,
    *findings: Findings,
    twins: Sequence[Findings] = (),
    classes: Sequence[str] = "0123",
    filter_: dict[str, Any] | None = None,
    **more: Any,
) -> Spec:
    """A row with what was found of each of its models, by seed: 20 test images of 2 x 2 pixels in four classes."""
    data = {"train": 8, "test": 20, "size": [1, 2, 2], "classes": list(classes)}
    plain = {
        "accuracy": 1.0, "robust": None, "asr": None, "labels": LABELS, "epochs": 0, "info": {"data": data},
        "poison": {**POISON, "target": 3}, "picture": sheet(side=2, columns=2), "settings": {"filter": filter_},
    }  # fmt: skip
    return Spec(name, seeds=len(findings), findings=findings, of_twins=twins, twins=bool(twins), **(plain | more))


def run_of(path: Path, *rows: Spec) -> RunRecord:
    return record_of(path, rows, metrics=("accuracy",))


RADII = {"curve:1": 4, "attack:1": 10, "curve:2": 20}
"""Test images fooled at eps 0.05, 0.1 and 0.2, out of 20."""


# --- pages -----------------------------------------------------------------------------------------------------------


class Whole(HTMLParser):
    """Refuses tags that are not balanced, ids that are not unique and anything that is fetched."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []
        assert len(self.ids) == len(set(self.ids))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        has = dict(attrs)
        self.ids += [has["id"] or ""] if "id" in has else []
        assert (has.get("src") or "data:").startswith("data:")
        assert tag != "img" or has.get("alt")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def sections(run: RunRecord, path: Path) -> dict[str, str]:
    """The source of the panels of evidence that the page has."""
    text = write_page([run], path / "page.html").read_text(encoding="utf-8")
    Whole(text)
    found = re.findall(r'<section id="(\w+)".*?>\n(.*?)</section>', text, flags=re.DOTALL)
    return {name: body for name, body in found if name in PANELS}


def said(source: str) -> str:
    """The text of a panel, cells of tables apart."""
    bare = re.sub(r"<[^>]+>", "", re.sub(r"</t[dh]>|<span class=\"under\">", " | ", source))
    return " ".join(html.unescape(bare).replace("\xa0", " ").replace(SPACE, " ").replace("\N{EN DASH}", "-").split())


def pictures(source: str) -> dict[str, np.ndarray]:
    """The pixels of the pictures by their text alternative."""
    found = {}
    for uri, alt in re.findall(r'<img class="pixels" src="data:image/png;base64,([^"]+)"[^>]*alt="([^"]*)"', source):
        with Image.open(io.BytesIO(base64.b64decode(uri))) as image:
            found[html.unescape(alt)] = np.asarray(image.convert("RGBA"))
    return found


@pytest.fixture
def page(tmp_path: Path) -> dict[str, str]:
    run = run_of(tmp_path / "run", row_with("None", full(), twins=[twin_of(full())], fooled=RADII))
    return sections(run, tmp_path)


# --- what the panels say ---------------------------------------------------------------------------------------------


def test_all_panels_are_there(page: dict[str, str]) -> None:
    assert tuple(page) == PANELS


def test_security_curves_hold_the_shares_that_stand(page: dict[str, str]) -> None:
    # Of 20 images 4, 10 and 20 are fooled at eps 0.05, 0.1 and 0.2.
    text = said(page["security"])
    assert "| eps 0 | eps 0.05 | eps 0.1 | eps 0.2 |" in text
    assert "None | 100.0 | 83.9-100.0 | 80.0 | 58.4-91.9 | 50.0 | 29.9-70.1 | 0.0 | 0.0-16.1 |" in text
    assert "Robust accuracy by eps. None: 100 % at 0, 80 % at 0.05, 50 % at 0.1, 0 % at 0.2." in page["security"]
    assert "None, eps 0.05: certified accuracy 25.0 %" in said(page["security"])
    assert page["security"].count('class="point"') == 5


def test_saliency_says_how_much_lies_on_the_trigger(page: dict[str, str]) -> None:
    text = said(page["saliency"])
    assert re.search(
        r"None \| 60\.0 \| 59\.\d-60\.\d \| 20\.0 \| [\d.-]+ \| 12\.5 \| 12\.5-12\.5 \| 25\.0 \| 1 \|", text
    )
    assert "More heat on the trigger than its area alone would get: None." in text
    assert "saliency: score loss" in text
    assert "heat for class 3, the target" in text
    assert "Trigger attention of 1 row: None 60.0 % (chance 25.0 %)." in page["saliency"]


def test_heat_is_shown_from_none_to_the_most_in_each_image(page: dict[str, str]) -> None:
    found = pictures(page["saliency"])
    sheet = found["Test images with the trigger, and below each its heat under None"]
    assert sheet.shape == (5, 5, 4)  # two rows and columns of 2 x 2 with a gap
    assert sheet[:2, :2, 0].tolist() == [[0, 0], [0, 255]]
    ends = [tiles.heat(np.array([[value, 1.0]])).getpixel((0, 0)) for value in (0.0, 0.25, 1.0)]
    assert [tuple(sheet[3, 0]), tuple(sheet[3, 1]), tuple(sheet[4, 1])] == [ends[1], ends[0], ends[2]]
    assert sheet[2].max() == 0


def test_attention_below_chance_and_around_it(tmp_path: Path) -> None:
    rows = [
        row_with("Low", {"explain:heat": finding(heat(0.1), HEAT)}),
        row_with("Same", {"explain:heat": finding(heat(0.25), HEAT)}),
    ]
    text = said(sections(run_of(tmp_path / "run", *rows), tmp_path)["saliency"])
    assert "Not separated from chance: Same. Less than chance: Low." in text
    assert "Same looks at the trigger more than Low: their intervals do not overlap." in text


def test_verdicts_over_seeds(tmp_path: Path) -> None:
    def seen(suspects: list[int], anomaly: Sequence[float] = (0, 0, 0, 3)) -> Findings:
        return {"scan:1": finding(scan(anomaly), SCAN, suspects=suspects)}

    nan = (np.nan,) * 4
    rows = [
        row_with("Mixed", seen([3]), seen([1, 3]), seen([]), twins=[seen([]), seen([2]), seen([])]),
        row_with("Sure", seen([3]), seen([3, 1]), twins=[seen([]), seen([])]),
        row_with("Given", seen([3], nan)),
    ]
    text = said(sections(run_of(tmp_path / "run", *rows), tmp_path)["recovered"])
    assert (
        "Right class in 1 of 3 seeds; wrong class in 1 of 3 seeds; nothing found in 1 of 3 seeds. "
        "Named first: 1. False alarm on the twin in 1 of 3 seeds."
    ) in text
    assert "Right class in all 2 seeds. No false alarm on the twin (2 seeds)." in text
    assert "The target was given, not searched for in the only seed." in text


def test_recovered_triggers_stand_on_grey_beside_the_true_one(page: dict[str, str]) -> None:
    text = said(page["recovered"])
    assert "| 4.5 | 1 | 37.5 |" in text
    assert "overlap with the target's 38 %" in text
    assert "class 3, the target | anomaly 4.5, moves 75 % of images" in text
    assert "most in class 3, 4.5; most in the twin 1; suspicious above 2." in page["recovered"]
    found = pictures(page["recovered"])
    assert [name.partition(" under")[0] for name in found] == [
        *(f"Trigger recovered for class {label}" for label in (3, 2, 0)),
        "The true trigger of None: what it changes in one test image, on grey",
    ]  # fmt: skip
    recovered, *_, true = found.values()
    assert recovered[..., 0].tolist() == [[128, 128], [128, 200]]
    assert true[..., 0].tolist() == [[128, 128], [128, 255]]


def test_filters_have_their_numbers_and_chance(page: dict[str, str]) -> None:
    # Poisoned images rank first and fourth of eight; one of the two removed is poisoned, one of six clean ones removed.
    text = said(page["filters"])
    row = text.partition("None | strip")[2]
    assert re.match(r" \| only asked \| 83\.3 \| [\d.-]+ \| 75\.0 \| 50\.0 \|[^|]*\| 50\.0 \|[^|]*\| 16\.7 \|", row)
    assert re.search(r"\| 25\.0 \|[^|]*\| 25\.0 \|", row)  # removed from the twin, and the poisoned share
    assert "average precision 75 %, chance 25.0 %" in page["filters"]
    assert "strip: overlays 16" in text


def test_a_filter_at_chance_is_named(tmp_path: Path) -> None:
    order = list(range(40))
    rows = [
        row_with("Good", {"inspect:1": finding(judged(order[::-1], poisoned=15), INSPECT)}),
        row_with("Bad", {"inspect:1": finding(judged(order, poisoned=15), INSPECT)}),
        row_with("None", {FILTERED: finding(judged([7] * 40, poisoned=15), {})}, filter_={"name": "gram", "orders": 8}),
    ]
    text = said(sections(run_of(tmp_path / "run", *rows), tmp_path)["filters"])
    assert "At chance, as far as the interval of the AUROC can tell: gram on None." in text
    assert "less suspicious ones: strip on Bad." in text
    assert "Better than chance: strip on Good." in text
    assert "gram | retrained without" in text


def test_precision_and_recall_at_every_cut() -> None:
    one = Judgement(
        score=np.array([3, 2, 2, np.nan], dtype=np.float32), removed=np.zeros(4, dtype=bool),
        poisoned=np.array([False, True, True, True]),
    )  # fmt: skip
    recall, precision = curve(one)
    np.testing.assert_allclose(recall, [0, 2 / 3, 1])
    np.testing.assert_allclose(precision, [0, 2 / 3, 3 / 4])


def test_spectra_are_means_over_the_seeds(tmp_path: Path) -> None:
    seeds = [{"explain:b": finding(bands(*values), BANDS)} for values in ((0.5, 0.5, 0.0), (0.5, 0.1, 0.4))]
    text = said(sections(run_of(tmp_path / "run", row_with("None", *seeds)), tmp_path)["spectrum"])
    assert "Mean frequency, weighted by energy, in cycles per pixel: None 0.09." in text  # 0.3 / 8 + 0.2 / 4
    assert "band-energy: score loss" in text


def test_fourier_maps_are_whole_planes_on_one_scale(page: dict[str, str]) -> None:
    ((name, plane),) = pictures(page["spectrum"]).items()
    assert name.endswith("map of None")
    assert plane.shape == (3, 3, 4)
    colours = [tiles.heat(np.array([[value, 0.8]])).getpixel((0, 0)) for value in (0.0, 0.8, 0.4, 0.1)]
    zero, right, up, corner = colours
    assert tuple(plane[1, 1]) == zero
    assert {tuple(plane[1, 0]), tuple(plane[1, 2])} == {right}
    assert {tuple(plane[0, 1]), tuple(plane[2, 1])} == {up}
    assert {tuple(plane[y, x]) for y in (0, 2) for x in (0, 2)} == {corner}
    assert re.search(r"10 % *90 %", said(page["spectrum"]))


def test_many_filters_are_counted_instead_of_named(tmp_path: Path) -> None:
    good, blind = judged(range(72, 0, -1), poisoned=30), judged([1] * 72, poisoned=30)
    rows = [
        row_with(f"{'Good' if place < 6 else 'Blind'} {'abcdefghi'[place]}",
            {"inspect:1": finding(good if place < 6 else blind, INSPECT)})
        for place in range(9)
    ]  # fmt: skip
    section = sections(run_of(tmp_path / "run", *rows), tmp_path)["filters"]
    assert "strip, on 9 rows: at chance on 3 and better than chance on 6." in said(section)
    assert "strip on" not in said(section)
    few = sections(run_of(tmp_path / "few", *rows[:2]), tmp_path)["filters"]
    assert "Better than chance: strip on Good a and strip on Good b." in said(few)


# --- rows with the same models ---------------------------------------------------------------------------------------


def test_rows_with_the_same_models_come_once(tmp_path: Path) -> None:
    shared = {key: found for key, found in full().items() if key != "inspect:1"}
    rows = [
        row_with("None", shared | {f"inspect:{name}": finding(judged([4, 1, 3, 2]), {"settings": {"name": name}})},
            cells="same", vary={"inspect": name}, fooled=RADII)
        for name in ("gram", "strip")
    ]  # fmt: skip
    found = sections(run_of(tmp_path / "run", *rows), tmp_path)
    assert len(pictures(found["saliency"])) == 2
    assert "inspect" not in said(found["saliency"]) + said(found["security"]) + said(found["recovered"])
    assert "None | gram" in said(found["filters"])
    assert "None | strip" in said(found["filters"])


def test_rows_that_share_only_some_models_say_which(tmp_path: Path) -> None:
    rows = [row_with("None", full(), cells=cells, vary={"x": value}) for cells, value in (("a", 1), ("a", 2), ("b", 3))]
    text = said(sections(run_of(tmp_path / "run", *rows), tmp_path)["recovered"])
    assert "None · x 1 or 2 | neural-cleanse" in text
    assert "None · x 3 | neural-cleanse" in text


# --- records that are not whole, or not kind -------------------------------------------------------------------------


def test_nothing_recorded_shows_nothing(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", row_with("None", full(), fooled=RADII))
    cell = run.cell("row0seed0")
    for path in cell.findings.iterdir():
        path.unlink()
    cell.outcomes_file.unlink()
    found = sections(run, tmp_path)
    assert set(found) == {"security"}
    assert "Not measured yet: None." in said(found["security"])


def test_values_that_are_missing_do_not_stop_the_page(tmp_path: Path) -> None:
    nan = np.nan
    cold = np.full((2, 2, 2), nan, dtype=np.float32)
    findings = {
        "explain:heat": finding(heat(nan, heat_clean=cold, chance=np.full(9, nan)), HEAT),
        "explain:none": finding({"heat_clean": np.zeros((2, 2, 2)), "clean": np.zeros((2, 3, 2, 2), np.uint8)}, {}),
        "explain:bands": finding(bands(nan, 0.5, nan), BANDS),
        "explain:empty": finding(bands(nan, nan), BANDS),
        "explain:fourier": finding(fourier(nan, 0.5), FOURIER),
        "scan:1": finding(scan([nan, nan, np.inf, 1.0], success=np.full(4, nan)), {"settings": None}, suspects=[]),
        "inspect:1": finding(judged([nan, 1, 2, 3], poisoned=0, removed=[]), {}),
    }
    found = sections(run_of(tmp_path / "run", row_with("None", findings, picture=None)), tmp_path)
    assert set(found) == set(PANELS) - {"security"}
    assert "Nothing found in the only seed." in said(found["recovered"])
    assert not re.search(r"\bnan\b|\binf\b", "".join(said(part) for part in found.values()))
    assert "nan" not in "".join(re.findall(r'aria-label="[^"]*"', "".join(found.values()))).lower()


def test_names_are_text(tmp_path: Path) -> None:
    hostile = {
        key: (arrays, info | {"settings": {"name": HOSTILE, HOSTILE: HOSTILE}})
        for key, (arrays, info) in full().items()
    }
    rows = [
        row_with(HOSTILE, hostile, twins=[twin_of(hostile)], cells="a", fooled=RADII, classes=[HOSTILE] * 4,
            vary={HOSTILE: 1}),
        row_with("None", hostile | {FILTERED: finding(judged([1, 2]), {})}, filter_={"name": HOSTILE}, fooled=RADII),
    ]  # fmt: skip
    found = sections(run_of(tmp_path / "run", *rows), tmp_path)
    assert tuple(found) == PANELS
    for source in found.values():
        assert "<script" not in source
        assert " ".join(HOSTILE.split()) in said(source)


def test_panels_need_no_torch(tmp_path: Path) -> None:
    run_of(tmp_path / "run", row_with("None", full(), fooled=RADII))
    code = (
        "import sys; from pathlib import Path; from bascule.report.page.page import write_page;"
        "from bascule.record.run import RunRecord;"
        f"write_page([RunRecord(Path({str(tmp_path / 'run')!r}))], Path({str(tmp_path / 'p.html')!r}));"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_same_record_gives_the_same_bytes(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", row_with("None", full(), twins=[twin_of(full())], fooled=RADII))
    first = write_page([run], tmp_path / "a.html").read_bytes()
    assert write_page([run], tmp_path / "b.html").read_bytes() == first


def test_the_figures_are_exported(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", row_with("None", full(), twins=[twin_of(full())], fooled=RADII))
    names = {path.stem for path in export([run], tmp_path / "e", forms=("png",))}
    assert {
        "security-0", "attention-0", "saliency-0-0-with", "saliency-0-0-without", "anomaly-0", "recovered-0-3",
        "true-0", "filter-0", "spectrum-0", "spectrum-1-0",
    } <= names  # fmt: skip


def test_large_images_are_made_small(tmp_path: Path) -> None:
    drawn = np.random.default_rng(0)
    images = drawn.integers(0, 256, (8, 3, 224, 224), dtype=np.uint8)
    spots = drawn.random((8, 224, 224), dtype=np.float32)
    big = {"clean": images, "stamped": images, "heat_clean": spots, "heat_stamped": spots}
    rows = [
        row_with(f"Row {chr(97 + place)}", {"explain:heat": finding(heat(0.5, **big), HEAT)}) for place in range(20)
    ]
    run = run_of(tmp_path / "run", *rows)
    found = sections(run, tmp_path)["saliency"]
    assert 2 <= len(pictures(found)) < 40
    assert "Not shown, to keep the page small:" in said(found)
    assert (tmp_path / "page.html").stat().st_size < 8e6


def test_a_large_record_has_a_small_page(tmp_path: Path) -> None:
    # 100 rows and their twins, 200 cells.
    names = [f"Row {chr(97 + place // 26)}{chr(97 + place % 26)}" for place in range(100)]
    rows = [row_with(name, full(), twins=[twin_of(full())], fooled=RADII) for name in names]
    found = sections(run_of(tmp_path / "run", *rows), tmp_path)
    assert tuple(found) == PANELS
    assert (tmp_path / "page.html").stat().st_size < 4e6
    assert found["security"].count('<svg class="chart"') == 1
    assert found["recovered"].count('<svg class="chart"') == 24
