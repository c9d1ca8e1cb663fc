"""Answers by spatial frequency."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from bascule.core import tiles
from findings import BANDS, bands, finding, row_with, run_of
from pages import pictures, said, sections


def test_spectra_are_means_over_the_seeds(tmp_path: Path) -> None:
    seeds = [{"explain:b": finding(bands(*values), BANDS)} for values in ((0.5, 0.5, 0.0), (0.5, 0.1, 0.4))]
    text = said(sections(run_of(tmp_path / "run", row_with("None", *seeds)), tmp_path)["spectrum"])
    assert "Mean frequency, weighted by energy, in cycles per pixel: None 0.09." in text  # 0.3 / 8 + 0.2 / 4
    assert "band-energy: score loss" in text


def test_fourier_maps_are_whole_planes_on_one_scale(page: dict[str, str]) -> None:
    ((name, plane),) = pictures(page["spectrum"]).items()
    assert name.endswith("map of None")
    assert plane.shape == (3, 3, 4)
    colours = [tiles.heat(np.array([[value, 0.8]])).getpixel((0, 0)) for value in (0.0, 0.8, 0.4, 0.1)]
    zero, right, up, corner = colours
    assert tuple(plane[1, 1]) == zero
    assert {tuple(plane[1, 0]), tuple(plane[1, 2])} == {right}
    assert {tuple(plane[0, 1]), tuple(plane[2, 1])} == {up}
    assert {tuple(plane[y, x]) for y in (0, 2) for x in (0, 2)} == {corner}
    assert re.search(r"10 % *90 %", said(page["spectrum"]))
