"""The panel of projections: which images lie beside which."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bascule.record.run import RunRecord
from bascule.report.page.page import write_page
from bascule.report.panels import latents
from bascule.report.panels.latents import neighbours
from bascule.report.view import view_of
from records import Spec, record_of

SETTINGS = {"name": "latents", "layer": None, "method": "ica"}


def run_of(path: Path, *found: tuple[str, np.ndarray, np.ndarray]) -> RunRecord:
    """A run with one model for each row's name, points and poison."""
    settings = {"settings": SETTINGS}
    findings = {
        name: {"explain:1": ({"points": points, "poisoned": poisoned}, settings)} for name, points, poisoned in found
    }
    return record_of(path, [Spec(name, seeds=1, findings=[part]) for name, part in findings.items()])


def grid(count: int, across: float) -> np.ndarray:
    """Points in a column, far from each other's neighbours in other columns."""
    return np.stack([np.full(count, across), np.arange(count) / 100], axis=1)


def test_neighbours_by_hand() -> None:
    apart = np.concatenate([grid(20, 0.0), grid(20, 50.0)])
    poisoned = np.arange(40) < 20
    assert neighbours(apart, poisoned) == 1.0
    # Every second image of one column: of the ten nearest of an inner image, four or six are of its own kind.
    mixed = neighbours(grid(400, 0.0), np.arange(400) % 2 == 0)
    assert mixed == pytest.approx(0.4, abs=0.02)
    # All at one place: the image itself is not its own neighbour.
    same = neighbours(np.zeros((40, 2)), poisoned)
    assert same is not None
    assert 0 <= same <= 1
    assert neighbours(apart, np.zeros(40, dtype=bool)) is None
    assert neighbours(apart[:5], poisoned[:5]) is None


def test_the_numbers_are_on_the_page(tmp_path: Path) -> None:
    points, poisoned = np.concatenate([grid(30, 0.0), grid(10, 50.0)]), np.arange(40) >= 30
    holes = points.copy()
    holes[0] = np.nan
    run = run_of(
        tmp_path / "run",
        ("Apart", points, poisoned),
        ("<b>Holes</b>", holes, poisoned),
        ("Empty", points * np.nan, poisoned),
    )
    context = latents.context(view_of([run]))
    assert context is not None
    apart, hurt = context["plots"]
    assert (apart.near.replace("\u00a0", " "), apart.share.replace("\u00a0", " ")) == ("90 %", "25 %")
    assert hurt.share.replace("\u00a0", " ") == "26 %"
    page = write_page([run], tmp_path / "page.html").read_text()
    assert "Where the poison lies" in page
    assert "40 training images with the target" in page
    assert "<b>Holes" not in page


def test_nothing_is_shown_without_projections(tmp_path: Path) -> None:
    assert (
        latents.context(view_of([run_of(tmp_path, ("Empty", np.full((4, 2), np.nan), np.ones(4, dtype=bool)))])) is None
    )
