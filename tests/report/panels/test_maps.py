"""Maps on the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from bascule.report.export import export
from bascule.report.panels.maps import ink_on
from pages import check_whole, page_of
from records import PAIR, POISON, Spec, record_of


def grid(*, seeds: int = 2) -> list[Spec]:
    """Standard and hardened models under three watermarks; one is not trained yet."""
    specs = []
    for eps in (0.0, 0.1, 0.3):
        for strength in (0.2, 0.4, 0.8):
            objective = {"name": "pgd", "eps": eps} if eps else {"name": "standard"}
            asr = 0.2 if not eps or (eps, strength) == (0.1, 0.2) else 0.9 if strength > eps else 0.0
            specs.append(
                Spec(
                    f"Adv. {eps}" if eps else "None", asr=asr, robust=0.4, seeds=seeds,
                    accuracy=None if (eps, strength) == (0.3, 0.4) else 0.9,
                    vary={"poison.trigger.strength": strength},
                    poison={**POISON, "trigger": {"name": "watermark", "strength": strength}},
                    settings={"train": {"objective": objective}},
                )
            )  # fmt: skip
    return specs


def test_a_map_shows_every_value_its_doubt_and_what_is_missing(tmp_path: Path) -> None:
    page = page_of(tmp_path, *grid())
    check_whole(page)
    section = page.section("maps")
    assert "Hardening at eps 0.3 lowers ASR for triggers of strength up to 0.2 (clear) and raises it" in section
    assert "not measured at 0.4. It turns between 0.2 and 0.8, near 0.33." in section
    labels = [has["aria-label"] for has in page.all("svg", **{"class": "chart"})]
    (effect,) = (label for label in labels if label.startswith("ASR less that of None"))
    assert "eps 0.1: 0? at 0.2, +70 at 0.4, +70 at 0.8; eps 0.3: \N{MINUS SIGN}20 at 0.2, +70 at 0.8." in effect
    titles = page.text("title")
    assert "trigger strength 0.2, eps 0.3: ASR less that of None -20.0 points (-26.4 to -14.8)" in titles
    assert any(title.startswith("trigger strength 0.2, eps 0.1: ASR less that of None +0? points") for title in titles)
    drawn = next(text for text in page.text("svg", **{"class": "chart"}) if "ref." in text)
    assert drawn.count("ref.") == 3
    assert drawn.count("—") == 1


def test_at_one_seed_every_difference_is_doubtful(tmp_path: Path) -> None:
    section = page_of(tmp_path, *grid(seeds=1)).section("maps")
    assert "at one seed no change of ASR is clear" in section
    assert "It turns" not in section


def test_without_two_numbers_there_is_no_map(tmp_path: Path) -> None:
    assert not page_of(tmp_path / "pair", *PAIR).all("section", id="maps")
    assert not page_of(tmp_path / "one", *grid()[:3]).all("section", id="maps")


def test_maps_are_exported(tmp_path: Path) -> None:
    written = export([record_of(tmp_path / "run", grid())], tmp_path / "out", forms=["svg"])
    assert {f"map-0-{name}" for name in ("effect", "asr", "asr-less-twin", "robust-accuracy")} <= {
        path.stem for path in written
    }


@pytest.mark.parametrize("colours", ["cividis", "RdBu_r"])
def test_a_value_can_be_read_on_every_colour_of_a_map(colours: str) -> None:
    def light(colour: Sequence[float]) -> float:
        red, green, blue = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in colour[:3])
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05

    for place in np.linspace(0, 1, 256):
        colour = matplotlib.colormaps[colours](place)
        both = sorted((light(colour), light(to_rgb(ink_on(colour)))))
        assert both[1] / both[0] >= 4.5  # WCAG 2, level AA
