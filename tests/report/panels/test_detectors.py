"""Whether detectors tell inputs apart, and what is left when suspects are refused."""

from __future__ import annotations

import re
from pathlib import Path

from findings import DETECT, HOSTILE, finding, full, row_with, run_of, watched
from pages import check_whole, page_of, plain, said, sections


def test_what_is_told_apart_and_what_is_left(tmp_path: Path) -> None:
    rows = [
        row_with("Seen", {"detect:1": finding(watched(1.0, 0.225, evaded=0.5), DETECT)}),
        row_with("Blind", {"detect:1": finding(watched(0.475, 0.475), DETECT)}),
        row_with("Bare", {}),
    ]
    section = sections(run_of(tmp_path / "run", *rows), tmp_path)["detectors"]
    text = said(section)
    apart, left = re.findall(r"Seen \|(.*?)Blind \|", text)
    # AUROC 100; of 20 benign ones 5 lie below 0.225; no threshold for 1 %; one of 20 lies above 0.9.
    assert re.match(r" strip \| 100\.0 \|[^|]*\| 25\.0 \|[^|]*\| 100\.0 \|[^|]*\| — \| 5\.0 \|", apart)
    # All clean images are right, one is refused. Triggered inputs are refused unless they evade it.
    numbers = re.findall(r"(?<=\| )\d+\.\d(?= \|)", f"|{left}|")
    assert numbers[:2] == ["100.0", "95.0"]
    assert numbers[-3:] == ["0.0", "0.0", "0.0"]
    told = "inputs that work are told from clean ones"
    assert f"Triggered {told} better than chance by strip on Seen; at chance by strip on Blind." in text
    assert f"Adversarial {told} at chance by strip on Blind; worse than chance by strip on Seen." in text
    assert "gets the trigger past strip on Seen (ASR 100 %)." in text
    assert "strip: overlays 30" in text
    spoken = plain(section)
    assert "refused at 5 % false alarms: benign 5 %, triggered 100 %, adversarial 0 %, both 100 %, " in spoken
    assert "triggered, 15 inputs: median 1, 100 % refused" in spoken


def test_without_an_evading_attacker_none_is_spoken_of(tmp_path: Path) -> None:
    row = row_with("Seen", {"detect:1": finding(watched(1.0, 0.5), DETECT)})
    text = said(sections(run_of(tmp_path / "run", row), tmp_path)["detectors"])
    assert "evading attacker" not in text
    assert "gets the trigger" not in text


def test_many_rows_are_counted_and_hostile_names_are_names(tmp_path: Path) -> None:
    rows = [row_with(f"Row {n}", {"detect:1": finding(watched(1.0, 0.5, evaded=0.5), DETECT)}) for n in range(8)]
    page = page_of(tmp_path, *rows, row_with(HOSTILE, {"detect:1": finding(watched(1.0, 0.5), DETECT)}))
    check_whole(page)
    assert "Triggered inputs that work are told from clean ones better than chance by 9 detectors." in plain(
        page.source
    )
    assert "gets the trigger past 8 detectors." in plain(page.source)


def test_without_a_detector_there_is_no_panel(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", row_with("None", {"inspect:1": full()["inspect:1"]}))
    assert set(sections(run, tmp_path)) == {"filters"}
