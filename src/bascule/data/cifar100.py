"""CIFAR-100, as parquet or in its authors' pickles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

from bascule.core.catalog import component
from bascule.core.images import Splits
from bascule.data._cifar import Cifar
from bascule.data.contract import Facts, Source, find
from bascule.data.download import Remote

_FINE = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree
wolf woman worm
"""
_COARSE = """
aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices household_furniture
insects large_carnivores large_man-made_outdoor_things large_natural_outdoor_scenes large_omnivores_and_herbivores
medium_mammals non-insect_invertebrates people reptiles small_mammals trees vehicles_1 vehicles_2
"""
_SET = Cifar(
    title="CIFAR-100",
    folder="cifar-100-python",
    archive="cifar-100-python.tar.gz",
    train=("train",),
    test="test",
    meta="meta",
    labels="fine_labels",
    names="fine_label_names",
    column="fine_label",
    classes=tuple(_FINE.split()),
    misspelt=(("cra", "crab"),),  # in the annotation of the copy on the Hugging Face hub
)
_SETS = {
    "fine": _SET,
    "coarse": replace(
        _SET,
        labels="coarse_labels",
        names="coarse_label_names",
        column="coarse_label",
        classes=tuple(_COARSE.split()),
    ),
}


@component
class Cifar100(Source):
    """CIFAR-100: 50,000 / 10,000 images, 3 x 32 x 32, 100 classes in 20 superclasses.

    Reads parquet files (column `img` or `image`, and `fine_label` or `coarse_label`; file names as in `data/parquet`),
    the authors' folder `cifar-100-python`, or their `cifar-100-python.tar.gz` (MD5 eb9058c3a382ffc7106e4002c42a8d85)
    without unpacking it. Nothing that the authors' pickles name is ever run.
    Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009,
    https://www.cs.toronto.edu/~kriz/cifar.html; no licence is stated there.
    """

    remote: ClassVar[tuple[Remote, ...] | None] = (
        Remote(
            path=_SET.archive,
            places=("https://www.cs.toronto.edu/~kriz",),
            size=169_001_437,
            sha256="85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
        ),
    )

    path: str | None = None
    """Folder or archive; by default `cifar100`, `cifar-100-python` or `cifar-100-python.tar.gz` under the data
    folder."""
    labels: Literal["fine", "coarse"] = "fine"
    """`fine`: the 100 classes; `coarse`: the 20 superclasses."""

    def read(self, roots: Sequence[Path]) -> Splits:
        return self._set.read(self._place(roots))

    def peek(self, roots: Sequence[Path]) -> Facts:
        return self._set.facts(self._place(roots))

    @property
    def _set(self) -> Cifar:
        return _SETS[self.labels]

    def _place(self, roots: Sequence[Path]) -> Path:
        usual = ("cifar100", _SET.folder, _SET.archive)
        return _SET.inside(find(roots, self.path) if self.path else find(roots, *usual, download="cifar100"))
