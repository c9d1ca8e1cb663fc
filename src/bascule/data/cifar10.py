"""CIFAR-10, as parquet or in its authors' pickles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from bascule.core.catalog import component
from bascule.core.images import Splits
from bascule.data._cifar import Cifar
from bascule.data.contract import Facts, Source, find
from bascule.data.download import Remote

_SET = Cifar(
    title="CIFAR-10",
    folder="cifar-10-batches-py",
    archive="cifar-10-python.tar.gz",
    train=tuple(f"data_batch_{i}" for i in range(1, 6)),
    test="test_batch",
    meta="batches.meta",
    labels="labels",
    names="label_names",
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
)


@component
class Cifar10(Source):
    """CIFAR-10: 50,000 / 10,000 images, 3 x 32 x 32, 10 classes.

    Reads parquet files (columns and file names as in `data/parquet`), the authors' folder `cifar-10-batches-py`, or
    their `cifar-10-python.tar.gz` without unpacking it. Nothing that the authors' pickles name is ever run.
    Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """

    remote: ClassVar[tuple[Remote, ...] | None] = (
        Remote(
            path=_SET.archive,
            places=("https://www.cs.toronto.edu/~kriz", "https://storage.googleapis.com/tensorflow/tf-keras-datasets"),
            size=170_498_071,
            sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        ),
    )

    path: str | None = None
    """Folder or archive; by default `cifar10`, `cifar-10-batches-py` or `cifar-10-python.tar.gz` under the data
    folder."""

    def read(self, roots: Sequence[Path]) -> Splits:
        return _SET.read(self._place(roots))

    def peek(self, roots: Sequence[Path]) -> Facts:
        return _SET.facts(self._place(roots))

    def _place(self, roots: Sequence[Path]) -> Path:
        """The folder of parquet files, the folder of pickles, or the archive."""
        usual = ("cifar10", _SET.folder, _SET.archive)
        return _SET.inside(find(roots, self.path) if self.path else find(roots, *usual, download="cifar10"))
