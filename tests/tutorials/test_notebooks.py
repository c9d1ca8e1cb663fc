"""Every tutorial runs as it stands, and what is committed is what such a run gives."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

import notebooks

ROOT = Path(__file__).parents[2]
ALL = sorted(notebooks.FOLDER.glob("*.ipynb"))
LARGEST = 300_000
"""Bytes of a notebook."""


def test_all_are_there() -> None:
    named = {path.stem for path in ALL}
    assert named == {"ten-minutes", "your-own-model", "suspicious-checkpoint", "paper-table", "own-trigger"}


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_it_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without timm; with it: tests/foreign/test_tutorials.py."""
    monkeypatch.setitem(sys.modules, "timm", None)
    notebooks.run(path, tmp_path)


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_its_output_is_committed(path: Path) -> None:
    """All cells were run, once and in order, and none failed or wrote into the error stream."""
    cells = notebooks.cells(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert outputs
    for output in outputs:
        assert output["output_type"] in ("stream", "display_data", "execute_result")
        assert output.get("name") != "stderr", output["text"]


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_it_may_be_published(path: Path) -> None:
    """Small, and nothing of the machine that it was run on."""
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) < LARGEST
    for wrong in (r"(?<![\w.:/])/(?:home|root|tmp|work|Users|private|var|opt|mnt)/", r"[A-Z]:\\\\", str(Path.home())):
        assert not re.search(wrong, text), re.search(wrong, text)


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_its_links_lead_somewhere(path: Path) -> None:
    """To files and headings of the documentation; a link of the guide that moves must move here too."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    text = "".join("".join(cell["source"]) + "\n" for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert links
    for link in links:
        name, _, heading = link.partition("#")
        page = (path.parent / name).resolve()
        assert page.is_file(), link
        if heading:
            titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert heading in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, link


def test_the_numbers_of_the_full_table_are_those_of_the_reproduction() -> None:
    """Row by row: accuracy, robust accuracy and the paper's count of ASR, with the published value beside each."""
    said = "".join(
        "".join(cell["source"]) + "\n"
        for cell in json.loads((notebooks.FOLDER / "paper-table.ipynb").read_text(encoding="utf-8"))["cells"]
    )
    page = (ROOT / "docs/reproduction.md").read_text(encoding="utf-8")
    page = page[page.index("### Table 1a, MNIST") : page.index("**Claim 1**")]
    pair = r" \| ([\d.]+), \*([\d.]+)\*"
    pairs = re.findall(rf"^\| ([^|]+?){pair * 3} \|$", said, flags=re.MULTILINE)
    assert len(pairs) == 6
    for name, *values in pairs:
        ours, published = (
            [part.strip().partition(" ")[0] for part in line.split("|")]
            for line in re.findall(rf"\| {re.escape(name)} \|.*\n\|   published .*", page)[0].splitlines()
        )
        assert values[0::2] == [ours[3], ours[4], ours[6]], name
        assert values[1::2] == [published[3], published[4], published[6]], name
