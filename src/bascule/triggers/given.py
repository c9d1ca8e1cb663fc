"""A training set that others have poisoned."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from bascule.core.catalog import Of, component, describe
from bascule.core.errors import RequestError
from bascule.core.fingerprint import checked_digest
from bascule.core.images import Images
from bascule.triggers._reading import read_stored, stored_digest
from bascule.triggers._stored import Stored, check_labels, fitted, places_of, read_numbers
from bascule.triggers.aims import Aims
from bascule.triggers.contract import Found, Trigger
from bascule.triggers.fit import DataFacts, check_test
from bascule.triggers.placement import Truth
from bascule.triggers.stamped import Stamped
from bascule.triggers.stamping import Perturb


@component
class GivenPoison:
    """Poison that others have planted, in place of a trigger that is planted here.

    Where `path` holds pictures of training images, these replace the data's own, by their numbers, with the labels that
    they were given. Otherwise the data are poisoned already: nothing is replaced, there is no unpoisoned twin, and
    `indices` says which images are poisoned, if anybody knows.
    """

    name: Literal["given"]
    """In place of the `trigger` and `rate` of poison that is planted here."""
    path: str | None = None
    """An `attack_result.pt` of BackdoorBench; a folder that holds `bd_train_dataset/LABEL/NUMBER.png`,
    `bd_test_dataset/LABEL/NUMBER.png`, or both, with the label before poisoning; or an `.npz` file with some of
    `train_index`, `train_images`, `train_labels`, `test_index`, `test_images`. Nothing in it is run."""
    sha256: str | None = None
    """Filled in from what lies there."""
    target: Annotated[int, Ge(0)] | None = None
    """Label that stamped images are meant to be taken for; read from the file where that tells it."""
    trigger: Annotated[Trigger | None, Of("poison")] = None
    """What is stamped on test images; by default the stamped test images in `path`."""
    indices: str | None = None
    """A text file with the number of a poisoned training image a line, for data that are poisoned already."""
    indices_sha256: str | None = None
    """Filled in from the file."""

    def __post_init__(self) -> None:
        if self.path is not None:
            object.__setattr__(self, "sha256", stored_digest(self.path, self.sha256))
        if self.indices is not None:
            digest = checked_digest(self.indices, self.indices_sha256, what="list", place="indices")
            object.__setattr__(self, "indices_sha256", digest)
        told = self._stored.target()
        if told is not None and self.target not in (None, told):
            raise RequestError(f"{self.target} is given, and {self.path!r} aims at {told}", place=("target",))
        if told is None and self.target is None:
            where = "it" if self.path is None else repr(self.path)
            raise RequestError(f"{where} does not tell the class that is aimed at: give its label", place=("target",))
        object.__setattr__(self, "target", self.target if told is None else told)
        if self.trigger is None and self._stored.test is None:
            raise RequestError(
                "there are no stamped test images, so give the trigger. Where nobody knows it, there is nothing to "
                "measure of the backdoor: leave `poison` out and let `inspect` rank the training images",
                place=("trigger",),
            )
        if self.indices is not None and (self._stored.train is not None or self._stored.poisoned is not None):
            raise RequestError(f"{self.path!r} says which images are poisoned; leave it out", place=("indices",))

    @property
    def _stored(self) -> Stored:
        if self.path is None:
            return Stored()
        assert self.sha256 is not None
        return read_stored(self.path, self.sha256)  # kept there, not here: this is sent to other processes

    @cached_property
    def trigger_at_test(self) -> Trigger:
        """The trigger stamped on test images."""
        if self.trigger is not None:
            return self.trigger
        assert self.path is not None
        return Stamped(path=self.path, sha256=self.sha256, target=self.target)

    def aims(self, classes: int) -> Aims | None:
        """Every class but the target at the target."""
        return None

    @property
    def needs_proxy(self) -> bool:
        """Its images are as they are."""
        return False

    @property
    def known(self) -> bool:
        """Whether anybody knows which training images are poisoned."""
        return self.indices is not None or self._stored.train is not None or self._stored.poisoned is not None

    @property
    def planting(self) -> dict[str, Any]:
        """What of it changes the training set, for the name of the model: not where it lies."""
        others = ("path", "trigger", "indices")
        return {key: value for key, value in describe(self).items() if key not in others}

    @property
    def _poisoned(self) -> Tensor | None:
        """Ids of the images that are poisoned in the data; None where nobody knows."""
        if self.indices is not None:
            return read_numbers(self.indices)
        return self._stored.poisoned

    def count(self, labels: Tensor, classes: int) -> int:
        """Number of images that are replaced; none where the data are poisoned already."""
        return 0 if self._stored.train is None else len(self._stored.train.pixels)

    def check_data(self, facts: DataFacts) -> None:
        """Refuse poison that does not belong to these data.

        Raises:
            RequestError: Pictures of another size, of images that there are not, or of other labels than the data have;
                no such class; test images without a stamped picture.
        """
        assert self.target is not None
        if self.target >= len(facts.classes):
            raise RequestError(
                f"there is no class {self.target}; the classes are 0..{len(facts.classes) - 1}", place=("target",)
            )
        ids = torch.arange(len(facts.train_labels)) if facts.train_ids is None else facts.train_ids
        everything = ids if facts.left_out is None else torch.cat([ids, facts.left_out])
        place = "path" if self.indices is None else "indices"
        pictures = self._stored.train
        if pictures is not None:
            assert pictures.index is not None
            fitted(pictures.pixels[:1], facts.size, repr(self.path))
            _check_numbers(pictures.index, everything, place)
            places, found = places_of(pictures.index, ids)
            if pictures.before is not None:
                check_labels(pictures.before[places[found]], facts.train_labels[found], ids[found], f"{self.path!r}:")
            after = pictures.after
            if after is not None and int(after.max()) >= len(facts.classes):
                raise RequestError(
                    f"a picture has the label {int(after.max())}; the classes are 0..{len(facts.classes) - 1}",
                    place=("path",),
                )
        elif self._poisoned is not None:
            _check_numbers(self._poisoned, everything, place)
        check_test(self, facts, *([] if self.trigger is None else ["trigger"]))

    def plant(
        self, images: Images, *, generator: torch.Generator, perturb: Perturb | None = None, found: Found | None = None
    ) -> tuple[Images, Truth]:
        """The poisoned training set, and which of its images are poisoned.

        Pictures of images that are not in the set (held out, or cut off) are left out. A replaced image that keeps a
        label other than the target's, as WaNet's noise images do, is no poisoned one.

        Args:
            images: The set as the data have it.
            generator: Nothing is drawn.
            perturb: Nothing is prepared.
            found: Nothing is searched for.

        Raises:
            RequestError: The pictures do not fit the set, or none of them belongs to it.
        """
        assert self.target is not None
        pictures, ids = self._stored.train, images.ids
        if pictures is None:
            return images, self._truth_of_data(images)
        assert pictures.index is not None
        at, there = places_of(pictures.index, ids.cpu())
        chosen, at = there.nonzero().squeeze(1), at[there]
        if len(chosen) == 0:
            raise RequestError(f"none of the pictures in {self.path!r} is of an image of the training set")
        before = images.labels[chosen]
        after = torch.full_like(before, self.target) if pictures.after is None else pictures.after[at].to(before)
        pixels = fitted(pictures.pixels[at], images.size, repr(self.path))
        poisoned = (after == self.target) | (after != before)
        order = ids[chosen[poisoned]].argsort()
        truth = Truth(
            ids=ids[chosen[poisoned]][order],
            labels_before=before[poisoned][order],
            labels_after=after[poisoned][order],
        )
        return images.with_replaced(chosen, pixels, after), truth

    def _truth_of_data(self, images: Images) -> Truth:
        """Of a set that is poisoned already; what labels its images had before, nobody says."""
        nothing = torch.empty(0, dtype=torch.int64)
        if self._poisoned is None:
            return Truth(ids=nothing, labels_before=nothing, labels_after=nothing, known=False)
        ids, order = images.ids.sort()
        chosen = order[torch.isin(ids, self._poisoned)]
        labels = images.labels[chosen]
        return Truth(ids=images.ids[chosen], labels_before=torch.full_like(labels, -1), labels_after=labels)


def _check_numbers(index: Tensor, ids: Tensor, place: str) -> None:
    strangers = index[~torch.isin(index, ids)]
    if len(strangers):
        raise RequestError(
            f"there is no training image {int(strangers[0])}; the data have {len(ids)}, numbered "
            f"{int(ids.min())} to {int(ids.max())}",
            place=(place,),
        )
