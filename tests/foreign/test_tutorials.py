"""The tutorial about one's own model, with a network of timm's."""

from __future__ import annotations

from pathlib import Path

import pytest

import notebooks

pytest.importorskip("timm")


def test_your_own_model_runs(tmp_path: Path) -> None:
    names = notebooks.run(notebooks.FOLDER / "your-own-model.ipynb", tmp_path)
    assert names["timm"] is not None
