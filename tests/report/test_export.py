"""Every figure of the page and its table as files."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from PIL import Image

from bascule.record.rows import read_rows
from bascule.record.run import RunRecord
from bascule.report.export import export
from bascule.report.page.page import write_page
from bascule.report.panels import tradeoff
from bascule.report.tables.tables import render
from bascule.report.view import view_of

MAPS = [f"map-0-{name}" for name in ("effect", "asr", "asr-less-twin", "robust-accuracy")]
FIGURES = ["tradeoff", *MAPS, "trigger-0", *(f"curve-{number}" for number in range(4))]
NAME = r"Width $\frac$ <4>"


def written(run: RunRecord, folder: Path, **options: Sequence[str]) -> dict[str, Path]:
    paths = export([run], folder, **options)  # type: ignore[arg-type]
    assert sorted(paths) == sorted(folder.iterdir())
    return {path.name: path for path in paths}


@pytest.fixture(scope="module")
def files(tiny_run: RunRecord, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return written(tiny_run, tmp_path_factory.mktemp("export") / "deep" / "er")


def test_every_figure_in_every_format(files: dict[str, Path]) -> None:
    figures = {f"{name}.{form}" for name in FIGURES for form in ("svg", "png", "pdf")}
    assert set(files) == figures | {"table.csv", "table.json", "table.md", "table.tex", "figures.md"}
    for name, path in files.items():
        start = path.read_bytes()[:5]
        if name.endswith(".pdf"):
            assert start == b"%PDF-"
        if name.endswith(".svg"):
            assert ElementTree.fromstring(path.read_bytes()).tag == "{http://www.w3.org/2000/svg}svg"


def test_one_format_alone(tiny_run: RunRecord, tmp_path: Path) -> None:
    found = written(tiny_run, tmp_path / "e", forms=("png",))
    assert {name for name in found if name.endswith((".svg", ".pdf"))} == set()
    assert {f"{name}.png" for name in FIGURES} <= set(found)


def test_the_files_show_what_the_page_shows(tiny_run: RunRecord, files: dict[str, Path], tmp_path: Path) -> None:
    page = write_page([tiny_run], tmp_path / "page.html").read_text(encoding="utf-8")

    def shapes(text: str) -> list[str]:
        found = re.findall(r"\bd=\"([^\"]+)\"", text.replace("\n", " "))
        return [path for path in found if not path.endswith("z ")]  # without the background, which the page has itself

    drawn = re.findall(r"<svg class=\"chart\".*?</svg>", page, flags=re.DOTALL)
    on_page = [name for name in FIGURES if name != "trigger-0"]
    for picture, name in zip(drawn, on_page, strict=True):
        own = shapes(files[f"{name}.svg"].read_text(encoding="utf-8"))
        assert set(shapes(picture)) <= set(own)
        assert len(shapes(picture)) > 5 or name in MAPS  # whose squares are closed like the background


def test_names_are_text_in_every_format(files: dict[str, Path]) -> None:
    root = ElementTree.fromstring(files["tradeoff.svg"].read_bytes())
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert any(text and text.startswith(r"Width $\frac$ <4>") for text in texts)
    assert not any(text and text.startswith("name-") for text in texts)
    titles = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}title")]
    assert titles[0].startswith("Robust accuracy (across)")
    assert sum(title.startswith(NAME) for title in titles) == 2


def test_files_are_on_white_and_sharp(files: dict[str, Path]) -> None:
    with Image.open(files["tradeoff.png"]) as image:
        assert image.size == (1666, 1550)  # 400 x 372 pixels of 1/72 inch at 300 a inch
        pixels = np.asarray(image.convert("RGB"))
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert (pixels != 255).any(2).mean() > 0.005
    with Image.open(files["trigger-0.png"]) as image:
        scale = 560 // (8 * 9 - 1)
        assert image.size == (scale * (8 * 9 - 1), scale * (2 * 9 - 1))


def test_labels_stay_beside_their_marks(tiny_run: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # At another resolution the same picture, only finer: so every part of it is placed in points, not in pixels.
    def small(dpi: int) -> np.ndarray:
        monkeypatch.setattr("bascule.report.drawing.svg.DPI", dpi)
        with Image.open(written(tiny_run, tmp_path / str(dpi), forms=("png",))["tradeoff.png"]) as image:
            return np.asarray(image.convert("L").resize((100, 93), Image.Resampling.BOX), dtype=float)

    assert np.abs(small(72) - small(288)).mean() < 2


def test_the_tables_are_those_of_the_command(tiny_run: RunRecord, files: dict[str, Path]) -> None:
    rows = read_rows(tiny_run)
    assert files["table.tex"].read_text() == render(rows, "latex")
    assert files["table.md"].read_text() == render(rows, "markdown")
    assert files["table.csv"].read_text() == render(rows, "csv")
    assert len(json.loads(files["table.json"].read_text())) == 4


def test_a_list_says_what_each_figure_is(files: dict[str, Path]) -> None:
    lines = files["figures.md"].read_text(encoding="utf-8").splitlines()
    assert [line.split("`")[1] for line in lines] == FIGURES
    assert "Training loss of None" in lines[6]


def test_the_same_record_gives_the_same_bytes(tiny_run: RunRecord, files: dict[str, Path], tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path", "savefig.dpi": 20}):
        again = written(tiny_run, tmp_path / "again")
    assert dict(matplotlib.rcParams) == before
    assert {name: path.read_bytes() for name, path in again.items()} == {
        name: path.read_bytes() for name, path in files.items()
    }


def test_saving_leaves_the_drawing_as_it_was(tiny_run: RunRecord, tmp_path: Path) -> None:
    drawing = tradeoff.context(view_of([tiny_run]))["picture"]

    def texts() -> list[tuple[str, bool]]:
        return [(text.get_text(), text.get_parse_math()) for text in drawing.axes.texts]

    before, element = texts(), drawing.__html__()
    assert ("name-0", True) in before
    for form in ("png", "pdf", "svg"):
        drawing.save(tmp_path / form, form)
        assert texts() == before
    assert drawing.__html__() == element


def test_the_page_is_the_same_after_an_export(tiny_run: RunRecord, tmp_path: Path) -> None:
    first = write_page([tiny_run], tmp_path / "a.html").read_bytes()
    export([tiny_run], tmp_path / "e")
    assert write_page([tiny_run], tmp_path / "b.html").read_bytes() == first
