"""1,797 real 8 x 8 images of handwritten digits that ship inside scikit-learn; need no file and no network."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from bascule.core.catalog import component
from bascule.core.images import Images, Splits
from bascule.data.contract import Facts, Source, named_classes
from bascule.data.download import Remote


@component
class Digits(Source):
    """The embedded default: UCI optical digits, 1 x 8 x 8, 10 classes, every fifth image held out for testing.

    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI repository, 1998, test part, as
    shipped by scikit-learn (`sklearn.datasets.load_digits`). The 17 grey levels are spread over 0..255.
    """

    remote: ClassVar[tuple[Remote, ...] | None] = ()

    def read(self, roots: Sequence[Path]) -> Splits:
        table = _table()
        pixels = torch.from_numpy(np.rint(table[:, :64] * (255 / 16)).astype(np.uint8)).reshape(-1, 1, 8, 8)
        labels = torch.from_numpy(table[:, 64].copy())
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
            train_ids=train.ids,
            test_ids=test.ids,
        )


def _table() -> np.ndarray:
    """64 grey levels (0..16) and the label of each image, int64, 1797 x 65.

    Read straight from scikit-learn's folder: importing scikit-learn takes longer than everything else a finished study
    does when it is run again.
    """
    package = find_spec("sklearn")
    assert package is not None
    assert package.origin is not None
    return np.loadtxt(
        Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz", delimiter=",", dtype=np.int64
    )
