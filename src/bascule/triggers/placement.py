"""Who is stamped and with which label: planting a trigger in a training set, and stamping test images."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Literal, Protocol

import torch
from annotated_types import Ge, Interval
from torch import Tensor, nn

from bascule.core.catalog import Of, component, name_of
from bascule.core.errors import RequestError
from bascule.core.fingerprint import fingerprint
from bascule.core.images import Images
from bascule.core.restore import trainable_copy
from bascule.triggers._counting import checked_count
from bascule.triggers.aims import NOWHERE, Aims, aim_of, all_to_all, from_sources
from bascule.triggers.contract import Found, Searched, Trigger
from bascule.triggers.fit import DataFacts, check_test
from bascule.triggers.found import FoundTrigger
from bascule.triggers.stamping import Perturb, stamp_bytes


class Search(Protocol):
    """An evasion attack as this room knows it. What it does is not poison's business."""

    @property
    def restarts(self) -> int:
        """Independent tries."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Truth:
    """Which training images were poisoned. Goes to the record and the measures, never to a defence."""

    ids: Tensor
    """int64, ids of the stamped images, ascending."""
    labels_before: Tensor
    """int64, their labels in the unpoisoned set; -1 where nobody knows them."""
    labels_after: Tensor
    """int64, their labels in the poisoned set."""
    covers: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    """int64, ids of stamped images that kept a label other than the target's, ascending; these are not poisoned."""
    known: bool = True
    """Whether anybody knows it; if not, the above are empty."""

    @property
    def count(self) -> int | None:
        """How many images are poisoned; None where nobody knows."""
        return len(self.ids) if self.known else None


@component
class Poison:
    """A trigger, who gets it, and which label.

    Clean-label poison stamps images of the target class and keeps their label (Turner et al. 2019; Weng, Lee & Wu
    2020). Dirty-label poison stamps images of the other classes and relabels them to the target (Gu et al. 2019);
    with `sources` only images of these classes. All-to-all poison stamps images of any class and relabels them to the
    next one, (label + 1) mod the number of classes, and has no target (Gu et al. 2019).

    With `cover` further images get the trigger and keep their label, so that the trigger alone does not tell the
    poisoned ones (TaCT: Tang et al. 2021; Qi et al. 2023). They are drawn from the classes that are neither target nor
    source, and never among the poisoned. Departure: Tang et al. name the cover classes, and Qi et al. draw covers from
    all classes, where those of the target would be clean-label poison.

    With `prepare` clean-label poison is label-consistent (Turner, Tsipras & Madry 2019, by adversarial perturbations):
    before they are stamped, the images are perturbed away from their own label on a network trained on the unpoisoned
    data. What they show then teaches less, and the trigger more. The perturbation is fixed before the training that is
    attacked; the images are rounded to bytes once, after stamping; test images are stamped only. The fainter trigger
    that the paper stamps on training images is `trigger` beside a full `test_trigger`.
    """

    known: ClassVar[bool] = True
    """Which images are poisoned is known of what is planted here."""

    later: ClassVar[tuple[str, ...]] = ("sources", "cover", "cover_trigger", "proxy")

    trigger: Annotated[Trigger, Of("poison")]
    """What is stamped on the chosen training images."""
    target: Annotated[int, Ge(0)] | None = None
    """Label number of the class that triggered images are meant to be taken for, in a study also its name; none with
    label `all-to-all`, which takes every class for the next one."""
    label: Literal["clean", "dirty", "all-to-all"] = "clean"
    """`clean`: stamp images of the target class; `dirty`: stamp images of other classes and relabel them; `all-to-all`:
    stamp images of all classes and relabel each to the next one."""
    sources: tuple[Annotated[int, Ge(0)], ...] = ()
    """Labels of the classes whose images are stamped and relabelled, in a study also their names, and whose triggered
    test images count in ASR; by default all but the target. Dirty label only."""
    rate: Annotated[float, Interval(ge=0, le=1)]
    """Poisoned share; 0 plants nothing, a control."""
    rate_of: Literal["all", "target"] = "all"
    """What `rate` is a share of: the whole training set, or as many images as the target class has."""
    cover: Annotated[float, Interval(ge=0, le=1)] = 0.0
    """Share, of what `rate` is one of, of further images that get the trigger and keep their label; none at rate 0."""
    cover_trigger: Annotated[Trigger | None, Of("poison")] = None
    """What is stamped on the covers; by default what `trigger` shows on them: with most triggers itself."""
    test_trigger: Annotated[Trigger | None, Of("poison")] = None
    """What is stamped on test images; by default `trigger`, all of it where training images show a part."""
    prepare: Annotated[Search | None, Of("attack")] = None
    """The evasion attack that perturbs the chosen images before they are stamped, for example
    `{name: pgd, eps: 0.0627, steps: 100, stop_when_fooled: false}`; by default none. Clean label only."""
    proxy: Literal["same", "standard"] = "same"
    """On whose network images are prepared, and triggers searched for that are: `same`, one trained as the recipe says,
    but on the unpoisoned data, unfiltered and unrepaired (the attacker knows the training); `standard`, the same with
    standard training (an attacker who has not heard of the defence)."""

    def __post_init__(self) -> None:
        self._check_label()
        if self.proxy != "same" and not self.needs_proxy:
            raise RequestError(
                "nothing is prepared and the trigger is not searched for, so that there is no proxy; leave it out",
                place=("proxy",),
            )
        if self.cover_trigger is not None and not self.cover:
            raise RequestError("there are no covers; give their share as `cover`", place=("cover_trigger",))
        for place in ("cover_trigger", "test_trigger"):
            if isinstance(getattr(self, place), Searched):
                raise RequestError("only `trigger` can be searched for", place=(place,))
        if isinstance(self.trigger, Searched) and self.target is None:
            raise RequestError("it is searched for with one target; all-to-all has none", place=("trigger",))
        if self.prepare is not None and self.label != "clean":
            raise RequestError(
                f"images are perturbed away from a label that they keep; with label {self.label!r} they lose it. "
                "Leave `prepare` out, or give label 'clean'.",
                place=("prepare",),
            )
        if self.trigger.numbered:
            raise RequestError(
                "it is made of stamped test images and has none for training images. A training set that others have "
                "poisoned is given with: poison: {name: given, path: ...}",
                place=("trigger",),
            )

    def _check_label(self) -> None:
        if self.label == "all-to-all":
            given = [name for name in ("target", "sources") if getattr(self, name) not in (None, ())]
            if given:
                nothing = "null" if given[0] == "target" else "[]"
                problem = (
                    "with label 'all-to-all' every class is poisoned and aims at the next one: leave it out, or set it "
                    f"to {nothing} in a row whose base has it"
                )
                raise RequestError(problem, place=(given[0],))
            if self.rate_of == "target":
                problem = "with label 'all-to-all' there is no target class: give the share of all images"
                raise RequestError(problem, place=("rate_of",))
            return
        if self.target is None:
            raise RequestError("the key 'target' is missing: only label 'all-to-all' does without")
        if self.sources and self.label != "dirty":
            raise RequestError(
                "clean-label poison stamps images of the target class alone; give label 'dirty', or leave it out",
                place=("sources",),
            )
        if self.target in self.sources:
            raise RequestError(f"{self.target} is the target, whose images have that label already", place=("sources",))

    def aims(self, classes: int) -> Aims | None:
        """What triggered images of each class are meant to be taken for; None where every other class aims at
        `target`."""
        if self.label == "all-to-all":
            return all_to_all(classes)
        return from_sources(self.sources, self._the_target, classes) if self.sources else None

    @property
    def _the_target(self) -> int:
        assert self.target is not None, "all-to-all has none"
        return self.target

    @property
    def trigger_at_test(self) -> Trigger:
        """The trigger stamped on test images; a `FoundTrigger` where that is known only after the search."""
        if self.test_trigger is not None:
            return self.test_trigger
        shown = self.trigger.at_test
        return FoundTrigger(trigger=shown, key=self.search_key) if isinstance(shown, Searched) else shown

    @property
    def needs_proxy(self) -> bool:
        """Whether a network trained on the unpoisoned data has a part in it."""
        return self.prepare is not None or isinstance(self.trigger, Searched)

    @property
    def search_key(self) -> str:
        """Key of the question to the proxy by which the trigger is searched for."""
        return f"search:{fingerprint('search', self.planting)}"

    def search(
        self, proxy: nn.Module, images: Images, *, drawing: torch.Generator, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """What the search for the trigger finds on a copy of the proxy; it must be a `Searched` one.

        Args:
            proxy: From [0, 1] images to logits; trained on the unpoisoned data, and found as it was.
            images: The unpoisoned set, on the proxy's device.
            drawing: As `generator` of `plant`, with which the same images are drawn.
            generator: Of the search, on the device of the images.
        """
        assert isinstance(self.trigger, Searched)
        labels, classes = images.labels.to(drawing.device), len(images.classes)
        chosen = _drawn(self.eligible(labels, classes), self.count(labels, classes), drawing).to(images.device)
        with torch.enable_grad():
            found = self.trigger.search(trainable_copy(proxy), images, chosen, self._the_target, generator=generator)
        broken = [name for name, values in found.items() if not bool(values.isfinite().all())]
        if broken:
            raise ValueError(f"the search for {name_of(self.trigger)} found what is not finite: {', '.join(broken)}")
        return {name: values.detach().cpu() for name, values in found.items()}

    @property
    def planting(self) -> Poison:
        """What of it changes the training set, for the name of the model."""
        return replace(self, test_trigger=None)

    def check_data(self, facts: DataFacts) -> None:
        """Refuse settings that cannot work on these data."""
        self.check(facts.size, facts.train_labels, len(facts.classes))
        check_test(self, facts, "trigger" if self.test_trigger is None else "test_trigger")

    def count(self, labels: Tensor, classes: int) -> int:
        """Number of images that will be poisoned, given the training labels.

        Raises:
            RequestError: No such class, or more images asked for than there are; names the largest possible rate.
        """
        for place, label in (("target", self.target), *(("sources", source) for source in self.sources)):
            if label is not None and label >= classes:
                raise RequestError(f"there is no class {label}; the classes are 0..{classes - 1}", place=(place,))
        whole = self._whole(labels)
        if whole == 0 and self.rate > 0:
            raise RequestError(f"no training image is of the target class {self.target}", place=("target",))
        who = {"clean": "the target class has", "dirty": "the other classes have"}.get(self.label, "the set has")
        who = "the source classes have" if self.sources else who
        return checked_count("rate", self.rate, whole, int(self.eligible(labels, classes).sum()), who)

    def count_covers(self, labels: Tensor, classes: int) -> int:
        """Number of images that will be stamped and keep their label.

        Raises:
            RequestError: As `count`, and of `cover`.
        """
        poisoned = self.count(labels, classes)
        if not poisoned or not self.cover:
            return 0
        available = int(self.coverable(labels).sum())
        if self.label != "clean" and not self.sources:
            available -= poisoned
        who = "the other classes have" if self.label == "clean" or self.sources else "what is not poisoned has"
        return checked_count("cover", self.cover, self._whole(labels), available, who)

    def _whole(self, labels: Tensor) -> int:
        return len(labels) if self.rate_of == "all" else int(labels.eq(self._the_target).sum())

    def eligible(self, labels: Tensor, classes: int) -> Tensor:
        """Which images may be poisoned."""
        if self.label == "clean":
            return labels.eq(self._the_target)
        return aim_of(labels, self.target, self.aims(classes)) != NOWHERE

    def coverable(self, labels: Tensor) -> Tensor:
        """Which images may be covers, as long as they are not poisoned."""
        others = torch.ones_like(labels, dtype=torch.bool) if self.target is None else labels.ne(self.target)
        return others & ~torch.isin(labels, torch.tensor(self.sources, dtype=labels.dtype, device=labels.device))

    def check(self, size: tuple[int, int, int], labels: Tensor, classes: int) -> None:
        """Refuse settings that cannot work on images of this size with these training labels."""
        self.count_covers(labels, classes)
        for key in ("trigger", "cover_trigger", "test_trigger"):
            trigger = getattr(self, key)
            if trigger is not None:
                try:
                    trigger.check(size)
                except RequestError as error:
                    raise error.at(key) from None

    def plant(
        self,
        images: Images,
        *,
        generator: torch.Generator,
        perturb: Perturb | None = None,
        found: Found | None = None,
        taken: Tensor | None = None,
    ) -> tuple[Images, Truth]:
        """The poisoned training set, and which images were changed. The images are drawn at random, the covers last,
        so that the poisoned ones are the same with and without them.

        Args:
            images: The unpoisoned set.
            generator: On the device of `images`. Which images are chosen does not depend on `prepare`.
            perturb: `prepare`, bound to a network that was trained on the unpoisoned data; called with at most 250
                images at a time, in their order in the set, and not at all where nothing is planted.
            found: What `search` found, where the trigger is searched for.
            taken: Images that are left alone, bool, shape (N,); by default none.

        Raises:
            RequestError: The poison does not fit the set, or `perturb` is missing where `prepare` asks for it, or is
                given where it does not.
        """
        if (perturb is None) != (self.prepare is None):
            problem = "needs" if self.prepare is not None else "is absent, so there is no use for"
            raise RequestError(
                f"{problem} a function that perturbs images on a network trained on the unpoisoned data",
                place=("prepare",),
            )
        trigger = self.trigger
        if isinstance(trigger, Searched):
            if found is None:
                raise RequestError("it must be searched for before it is planted", place=("trigger",))
            trigger = trigger.found(found)
        labels, classes = images.labels, len(images.classes)
        count, covers = self.count(labels, classes), self.count_covers(labels, classes)
        free = torch.ones_like(labels, dtype=torch.bool) if taken is None else ~taken
        chosen = _drawn(self.eligible(labels, classes) & free, count, generator)
        before = labels[chosen]
        after = (
            torch.full_like(before, self._the_target)
            if self.label == "clean"
            else aim_of(before, self.target, self.aims(classes))
        )
        ids, by_id = images.ids[chosen].sort()
        truth = Truth(ids=ids, labels_before=before[by_id], labels_after=after[by_id])
        if count == 0:
            return images, truth
        pixels = stamp_bytes(images, chosen, trigger, generator=generator, perturb=perturb)
        planted = images.with_replaced(chosen, pixels, after)
        if covers == 0:
            return planted, truth
        covering = _drawn((self.coverable(labels) & free).index_fill(0, chosen, False), covers, generator)
        pixels = stamp_bytes(images, covering, self.cover_trigger or trigger.on_covers, generator=generator)
        planted = planted.with_replaced(covering, pixels, labels[covering])
        return planted, replace(truth, covers=images.ids[covering].sort().values)


def _drawn(eligible: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Positions of `count` of the eligible images, ascending."""
    candidates = eligible.nonzero().squeeze(1)
    order = torch.randperm(len(candidates), generator=generator, device=candidates.device)
    return candidates[order[:count]].sort().values
