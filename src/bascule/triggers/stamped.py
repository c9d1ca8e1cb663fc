"""Test images that others have stamped."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor

from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.core.images import Shown, as_floats
from bascule.triggers._reading import read_stored, stored_digest
from bascule.triggers._stored import Pictures, check_labels, fitted, places_of
from bascule.triggers.contract import Trigger


@component
class Stamped(Trigger):
    """Test images that others have stamped, each known by its number in the data: a trigger that nobody can describe.

    An image as it is becomes its stamped picture to the byte. One that was perturbed or weakened gets what the stamp
    changed: x + (stamped - clean), cut to [0, 1]. Images without a stamped picture stay as they are; those may only be
    of the target class, which does not count in ASR.
    """

    numbered: ClassVar[bool] = True

    path: str
    """An `attack_result.pt` of BackdoorBench, a folder that holds `bd_test_dataset/LABEL/NUMBER.png`, or an `.npz` file
    with `test_index` and `test_images`."""
    sha256: str | None = None
    """Filled in from what lies there."""
    target: Annotated[int, Ge(0)] | None = None
    """Label that the pictures aim at; needed where they have no numbers (the first version of BackdoorBench) and the
    file does not tell it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha256", stored_digest(self.path, self.sha256))

    def stamp(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        raise RequestError(
            f"the stamped pictures in {self.path!r} belong to test images of a data set, by their number"
        )

    def check(self, size: tuple[int, int, int]) -> None:
        fitted(self._pictures.pixels[:1], size, repr(self.path))

    def check_test(self, ids: Tensor, labels: Tensor, target: int) -> None:
        pictures = self._pictures
        index = self._index(ids, labels)
        places, found = places_of(index, ids)
        needed = labels != target
        missing = ids[needed & ~found]
        if len(missing):
            raise RequestError(
                f"{len(missing)} of {int(needed.sum())} test images that are not of the target class {target} have no "
                f"stamped picture in {self.path!r} (the first is image {int(missing.min())}); ASR would count them as "
                "failures of the attack. Give the trigger itself, or leave these images out of the data",
                place=("path",),
            )
        if pictures.before is not None:
            check_labels(pictures.before[places[found]], labels[found], ids[found], f"{self.path!r}: test")

    def stamp_at(self, images: Shown, index: Tensor, x: Tensor, *, generator: torch.Generator) -> Tensor:
        ids = images.ids.cpu()
        places, found = places_of(self._index(ids, images.labels.cpu()), ids[index.cpu()])
        pixels = fitted(self._pictures.pixels[places[found]], (x.shape[1], x.shape[2], x.shape[3]), repr(self.path))
        clean = images.batch(index).to(x)
        stamped, chosen = as_floats(pixels).to(x), found.to(x.device)
        changed = x.clone()
        changed[chosen] = (x[chosen] + (stamped - clean[chosen])).clamp(0, 1)
        return changed

    @property
    def _pictures(self) -> Pictures:
        assert self.sha256 is not None
        pictures = read_stored(self.path, self.sha256).test
        if pictures is None:
            raise RequestError(f"{self.path!r} holds no stamped test images", place=("path",))
        return pictures

    def _index(self, ids: Tensor, labels: Tensor) -> Tensor:
        """The numbers of the pictures; where the file has none, those of the test images that are to be stamped."""
        pictures = self._pictures
        if pictures.index is not None:
            return pictures.index
        target = self.target
        if target is None:
            assert self.sha256 is not None
            target = read_stored(self.path, self.sha256).target()
        others = ids[labels != target].sort().values
        index = next((one for one in (others, ids.sort().values) if len(one) == len(pictures.pixels)), None)
        if index is None:
            raise RequestError(
                f"{self.path!r} holds {len(pictures.pixels)} stamped test images without numbers, and {len(others)} "
                f"test images are not of class {target}: whose they are can be told only of a whole test set, without "
                "`max_test`",
                place=("path",),
            )
        return index
