"""A model scanned for backdoors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PIL import Image


def test_a_scan_names_the_class(said: Callable, cell: Path, tmp_path: Path) -> None:
    output = said("scan", cell, "--images", 120, "--output", tmp_path)
    assert "backdoored: yes, towards class 7 (7)" in output
    assert len([line for line in output.splitlines() if "trigger moves" in line]) == 10
    with Image.open(tmp_path / "triggers.png") as sheet:
        assert sheet.size == (10 * 66, 66)


def test_a_scan_may_use_every_test_image(said: Callable, cell: Path, tmp_path: Path) -> None:
    output = said("scan", cell, "--with", "mm-bd", "--images", 1000, "--output", tmp_path)
    assert "% of 200 images" in output
