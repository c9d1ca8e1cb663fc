"""Heat maps, and the share of the heat on the trigger."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from bascule.core import tiles
from findings import HEAT, finding, heat, row_with, run_of
from pages import pictures, said, sections


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
        row_with("Low", *[{"explain:heat": finding(heat(0.1), HEAT)}] * 2),
        row_with("Same", *[{"explain:heat": finding(heat(0.25), HEAT)}] * 2),
    ]
    text = said(sections(run_of(tmp_path / "run", *rows), tmp_path)["saliency"])
    assert "Not separated from chance: Same. Less than chance: Low." in text
    assert "Same looks at the trigger more than Low: their intervals do not overlap." in text
    alone = [replace(spec, seeds=1, findings=spec.findings[:1]) for spec in rows]
    text = said(sections(run_of(tmp_path / "alone", *alone), tmp_path)["saliency"])
    assert "One seed does not tell whether Same or Low looks at the trigger more." in text


def test_models_that_came_as_they_are_are_not_said_to_be_planted(tmp_path: Path) -> None:
    found = [{"explain:heat": finding(heat(0.5), HEAT)}] * 2
    given = row_with("Given", *found, settings={"filter": None, "train": None, "repair": None})
    text = said(sections(run_of(tmp_path / "given", given), tmp_path)["saliency"])
    assert "Filled: models that came as they are, whatever is in them. Upright line" in text
    text = said(sections(run_of(tmp_path / "both", row_with("Ours", *found), given), tmp_path)["saliency"])
    assert "Filled: models with the backdoor planted, and models that came as they are, whatever is in them." in text
    text = said(sections(run_of(tmp_path / "ours", row_with("Ours", *found)), tmp_path)["saliency"])
    assert "Filled: models with the backdoor planted. Hollow: their twins, trained without." in text


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
