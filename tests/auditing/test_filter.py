"""The training images ranked by suspicion."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image


def test_a_ranking_and_a_contact_sheet(said: Callable, cell: Path, tmp_path: Path) -> None:
    output = said("filter", cell, "--with", "spectral-signatures", "--output", tmp_path / "out")
    with (tmp_path / "out/suspicion.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 900
    assert [int(row["rank"]) for row in rows] == list(range(1, 901))
    scores = [float(row["suspicion"]) for row in rows]
    assert sorted(scores, reverse=True) == scores
    removed = sum(int(row["removed"]) for row in rows)
    assert f"its rule would remove {removed}" in output
    assert len({row["id"] for row in rows}) == 900
    with Image.open(tmp_path / "out/suspicion.png") as sheet:
        assert sheet.size == (12 * 66, 4 * 66)


@pytest.mark.parametrize("splits", [("train", "test"), ("train",), ("",)], ids="-".join)
def test_files_are_named_and_no_test_images_are_needed(said: Callable, tmp_path: Path, splits: tuple[str, ...]) -> None:
    for split in splits:
        for label in ("cat", "dog"):
            folder = tmp_path / "set" / split / label
            folder.mkdir(parents=True)
            for number in range(12):
                noise = np.random.default_rng(number).integers(0, 255, (8, 8), dtype=np.uint8)
                Image.fromarray(noise).save(folder / f"{number:02}.png")
    from bascule.core.catalog import build

    net = build("models", {"name": "digits-cnn", "width": 2, "hidden": 4}).initialised((1, 8, 8), 2, seed=0)
    torch.save(net.state_dict(), tmp_path / "net.pt")
    data = f"{{name: folder, path: {tmp_path / 'set'}, channels: 1}}"
    said(
        "filter", tmp_path / "net.pt", "--model", "{name: digits-cnn, width: 2, hidden: 4}", "--data", data,
        "--with", "spectral-signatures", "--output", tmp_path,
    )  # fmt: skip
    with (tmp_path / "suspicion.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["file"] for row in rows} == {str(path) for path in (tmp_path / "set" / splits[0]).glob("*/*.png")}
    assert all(Path(row["file"]).parent.name == row["class"] for row in rows)


def test_a_rule_that_cannot_act_is_said(said: Callable, cell: Path, tmp_path: Path) -> None:
    output = said("filter", cell, "--with", "{name: early-loss, share: 0.0001, epochs: 1}", "--output", tmp_path)
    assert "its rule would remove 0" in output
    assert "note: no image can be removed: a share of 0.0001 of 900 images is none" in output
