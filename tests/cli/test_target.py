"""The class that a trigger aims at, by its name, as people give it on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

STUDY = """\
base:
  data: {name: npz, path: colours.npz, classes: [blue, green, red]}
  poison: {trigger: sticker, target: blue, label: dirty, rate: 0.2}
  model: {name: digits-cnn, width: 2, hidden: 8}
  train: {objective: standard, epochs: 1, batch_size: 10}
rows: {A: {}}
twin: false
"""


def test_a_class_is_given_by_number_or_name(bascule: Callable) -> None:
    pixels, y = np.random.default_rng(0).integers(0, 255, (60, 8, 8), np.uint8), np.arange(60) % 3
    np.savez("colours.npz", x_train=pixels, y_train=y, x_test=pixels, y_test=y)
    Path("s.yaml").write_text(STUDY)
    assert bascule("run", "s.yaml", "--set", "poison.target=red").code == 0
    cell = str(next(Path("runs/s/cells").iterdir()))
    said = [bascule("evaluate", cell, "--trigger", "sticker", "--target", target) for target in ("green", "1", "rot")]
    assert said[0].code == said[1].code == 0
    assert "ASR" in said[0].out
    assert said[0].out == said[1].out
    assert (said[2].code, said[2].out) == (2, "")
    assert "bascule: --target: 'rot' is no class of these data. " in said[2].err
    assert "Classes and their numbers: 0 blue, 1 green, 2 red" in said[2].err
    assert "--target: there is no class 3" in bascule("evaluate", cell, "--target", "3", "--trigger", "sticker").err
