"""The embedded data are those of scikit-learn."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from bascule.data.digits import Digits


def test_every_image_and_label_is_scikit_learns() -> None:
    bunch = load_digits()
    splits = Digits().load([])
    for part in splits:
        ids = part.ids.numpy()
        assert np.array_equal(part.labels.numpy(), bunch.target[ids])
        assert np.abs(part.pixels[:, 0].numpy() / 255 - bunch.images[ids] / 16).max() <= 0.5 / 255
    assert sorted(np.concatenate([part.ids.numpy() for part in splits])) == list(range(1797))
    assert (splits.test.ids % 5 == 0).all()
    assert (len(splits.train), len(splits.test)) == (1437, 360)
