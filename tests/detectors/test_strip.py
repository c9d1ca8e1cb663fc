"""STRIP at inference against the formula of its authors, and against the data defence of the same name."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from bascule.core.rng import stream
from bascule.detectors.strip import Strip
from bascule.filters.strip import Strip as Filter


def test_the_entropy_of_the_authors(backdoored) -> None:
    """Sum over the overlays of -p log2 p, over their number: formula 3 of the paper.

    So also in BackdoorBench, detection_infer/strip.py, with the natural logarithm.
    """
    overlays = backdoored.known.batch(torch.arange(160))
    with torch.no_grad():
        prepared = Strip(overlays=160).prepare(backdoored.model, backdoored.known, generator=stream(0, "a"))
        said = prepared.suspicion(backdoored.clean[:5])
        for x, suspicion in zip(backdoored.clean[:5], said, strict=True):
            p = backdoored.model(torch.minimum(x + overlays, torch.ones(()))).double().softmax(1).numpy()
            entropy = -np.nansum(p * np.log2(p)) / 160
            assert -float(suspicion) == pytest.approx(entropy / math.log2(10), abs=1e-5)


def test_it_says_what_the_data_defence_says(backdoored) -> None:
    """Of the same images; the data defence draws the overlays for each image anew."""
    prepared = Strip(overlays=160).prepare(backdoored.model, backdoored.known, generator=stream(0, "a"))
    with torch.no_grad():
        said = prepared.suspicion(backdoored.known.batch(torch.arange(160)))
    scores = Filter(overlays=400).judge(backdoored.model, backdoored.known, generator=stream(0, "a")).score
    assert torch.allclose(said, scores, atol=0.06)
    assert torch.corrcoef(torch.stack([said, scores]))[0, 1] > 0.97


def test_it_finds_triggered_images(backdoored) -> None:
    """Measured: AUROC 0.92; for six other seeds and targets four times 0.99 and more, and 0.33 and 0.62."""
    assert backdoored.auroc("strip") > 0.8
