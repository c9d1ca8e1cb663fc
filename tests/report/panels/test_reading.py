"""How to read the page."""

from __future__ import annotations

from pathlib import Path

from pages import page_of
from records import PAIR


def test_metrics_are_explained_in_their_own_words(tmp_path: Path) -> None:
    section = page_of(tmp_path, *PAIR, metrics=["asr", "asr-twin"]).section("reading")
    assert "ASR Attack success rate: share of triggered test images whose LABEL is not the target" in section
    assert "The control: asr of the twin" in section
    assert "`" not in section
    assert "Triggered accuracy" not in section
    assert "All intervals are 95 % intervals." in section
