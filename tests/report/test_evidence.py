"""The panels of evidence together say what the findings of the record hold, and stay whole whatever these hold."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from bascule.record.cell import FILTERED
from bascule.report.export import export
from bascule.report.page.page import write_page
from findings import (
    BANDS,
    EVIDENCE,
    FOOLED,
    FOURIER,
    HEAT,
    HOSTILE,
    bands,
    finding,
    fourier,
    full,
    heat,
    judged,
    row_with,
    run_of,
    scan,
    twin_of,
    watched,
)
from pages import pictures, said, sections


def test_all_panels_are_there(page: dict[str, str]) -> None:
    assert tuple(page) == EVIDENCE


def test_rows_with_the_same_models_come_once(tmp_path: Path) -> None:
    shared = {key: found for key, found in full().items() if key != "inspect:1"}
    rows = [
        row_with("None", shared | {f"inspect:{name}": finding(judged([4, 1, 3, 2]), {"settings": {"name": name}})},
            cells="same", vary={"inspect": name}, fooled=FOOLED)
        for name in ("gram", "strip")
    ]  # fmt: skip
    found = sections(run_of(tmp_path / "run", *rows), tmp_path)
    assert len(pictures(found["saliency"])) == 2
    assert "inspect" not in said(found["saliency"]) + said(found["security"]) + said(found["recovered"])
    assert "None | gram" in said(found["filters"])
    assert "None | strip" in said(found["filters"])


def test_nothing_recorded_shows_nothing(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", row_with("None", full(), fooled=FOOLED))
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
        "detect:1": finding(watched(nan, nan), {}),
    }
    found = sections(run_of(tmp_path / "run", row_with("None", findings, picture=None)), tmp_path)
    assert set(found) == set(EVIDENCE) - {"security"}
    assert "Nothing found in the only seed." in said(found["recovered"])
    assert not re.search(r"\bnan\b|\binf\b", "".join(said(part) for part in found.values()))
    assert "nan" not in "".join(re.findall(r'aria-label="[^"]*"', "".join(found.values()))).lower()


def test_names_are_text(tmp_path: Path) -> None:
    hostile = {
        key: (arrays, info | {"settings": {"name": HOSTILE, HOSTILE: HOSTILE}})
        for key, (arrays, info) in full().items()
    }
    rows = [
        row_with(HOSTILE, hostile, twins=[twin_of(hostile)], cells="a", fooled=FOOLED, classes=[HOSTILE] * 4,
            vary={HOSTILE: 1}),
        row_with("None", hostile | {FILTERED: finding(judged([1, 2]), {})}, filter_={"name": HOSTILE}, fooled=FOOLED),
    ]  # fmt: skip
    found = sections(run_of(tmp_path / "run", *rows), tmp_path)
    assert tuple(found) == EVIDENCE
    for source in found.values():
        assert "<script" not in source
        assert " ".join(HOSTILE.split()) in said(source)


def test_panels_need_no_torch(tmp_path: Path) -> None:
    run_of(tmp_path / "run", row_with("None", full(), fooled=FOOLED))
    code = (
        "import sys; from pathlib import Path; from bascule.report.page.page import write_page;"
        "from bascule.record.run import RunRecord;"
        f"write_page([RunRecord(Path({str(tmp_path / 'run')!r}))], Path({str(tmp_path / 'p.html')!r}));"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_same_record_gives_the_same_bytes(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", row_with("None", full(), twins=[twin_of(full())], fooled=FOOLED))
    first = write_page([run], tmp_path / "a.html").read_bytes()
    assert write_page([run], tmp_path / "b.html").read_bytes() == first


def test_the_figures_are_exported(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", row_with("None", full(), twins=[twin_of(full())], fooled=FOOLED))
    names = {path.stem for path in export([run], tmp_path / "e", forms=("png",))}
    assert {
        "security-0", "attention-0", "saliency-0-0-with", "saliency-0-0-without", "anomaly-0", "recovered-0-3",
        "true-0", "filter-0", "detector-0", "spectrum-0", "spectrum-1-0",
    } <= names  # fmt: skip


def test_a_large_record_has_a_small_page(tmp_path: Path) -> None:
    # 100 rows and their twins, 200 cells.
    names = [f"Row {chr(97 + place // 26)}{chr(97 + place % 26)}" for place in range(100)]
    rows = [row_with(name, full(), twins=[twin_of(full())], fooled=FOOLED) for name in names]
    found = sections(run_of(tmp_path / "run", *rows), tmp_path)
    assert tuple(found) == EVIDENCE
    assert (tmp_path / "page.html").stat().st_size < 4e6
    assert found["security"].count('<svg class="chart"') == 1
    assert found["recovered"].count('<svg class="chart"') == 24
