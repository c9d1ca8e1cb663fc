"""To add a panel is to add a module and its template."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from bascule.report import panels
from bascule.report.export import export
from pages import page_of
from records import PAIR, record_of

MODULE = """
from bascule.report.drawing import svg

TITLE = "Another part"
PLACE = 25


def context(view):
    with svg.drawing():
        picture = svg.svg(svg.axes_of(100, 100, left=9, right=9, top=9, bottom=9), name="another", label="Nothing.")
    return {"picture": picture, "rows": view.rows}
"""
TEMPLATE = '{% import "_parts.jinja" as parts %}{{ picture }}<p>{{ parts.names(rows) }}</p>'


def test_a_panel_is_found_in_its_folder_and_stands_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "another.py").write_text(MODULE)
    (folder / "another.jinja").write_text(TEMPLATE)
    monkeypatch.setattr(panels, "__path__", [*panels.__path__, str(folder)])
    page = page_of(tmp_path, *PAIR)
    assert page.text("h2")[1:4] == ["The trade-off", "Another part", "The joint table"]
    assert page.section("another").endswith("None, Adv. training")
    assert "another" in {
        path.stem for path in export([record_of(tmp_path / "run", PAIR)], tmp_path / "e", forms=["svg"])
    }


def test_every_panel_has_a_place_of_its_own_and_a_template() -> None:
    known = panels.panels()
    assert all(before.PLACE < after.PLACE for before, after in pairwise(known))
    assert len({panel.TITLE for panel in known}) == len(known)
    folder = Path(panels.__file__).parent
    assert {f"{panels.name_of(panel)}.jinja" for panel in known} == {path.name for path in folder.glob("*.jinja")}
