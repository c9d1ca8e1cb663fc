"""1,797 real 8 x 8 images of handwritten digits that ship inside scikit-learn; need no file and no network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from bascule.core.catalog import component
from bascule.core.images import Images, Splits
from bascule.data import Facts, Source, named_classes


@component
class Digits(Source):
    """The embedded default: UCI optical digits, 1 x 8 x 8, 10 classes, every fifth image held out for testing.

    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI repository, 1998, test part, as
    shipped by scikit-learn (`sklearn.datasets.load_digits`). The 17 grey levels are spread over 0..255.
    """

    def read(self, roots: Sequence[Path]) -> Splits:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        pixels = torch.from_numpy(np.rint(bunch.images * (255 / 16)).astype(np.uint8)).unsqueeze(1)
        labels = torch.from_numpy(bunch.target.astype(np.int64))
        ids = torch.arange(len(labels))
        whole = Images(pixels=pixels, labels=labels, ids=ids, classes=named_classes(10))
        return Splits(whole.at(ids[ids % 5 != 0]), whole.at(ids[ids % 5 == 0]))

    def peek(self, roots: Sequence[Path]) -> Facts:
        train, test = self.read(roots)
        return Facts(
            size=train.size,
            classes=train.classes,
            train_labels=train.labels,
            test_labels=test.labels,
            digest="scikit-learn digits",
        )
