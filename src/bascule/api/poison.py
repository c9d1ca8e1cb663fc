"""A poisoned training set."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from bascule.api.given import as_set, check_module, numbered, part_of, with_numbers
from bascule.api.verb import verb
from bascule.attacks.contract import Evasion
from bascule.attacks.run import run_attack
from bascule.core import rng
from bascule.core.apart import apart
from bascule.core.catalog import construct, name_of
from bascule.core.documented import documented
from bascule.core.errors import RequestError
from bascule.core.given import Data, Labels, labelled, unlabelled
from bascule.core.grid import Grid, TableCell
from bascule.core.images import Floats, Images, as_bytes
from bascule.core.shown import Part, Picture, Pictures, Shown
from bascule.core.text import count
from bascule.core.tiles import tile
from bascule.evaluation.kinds.search import search_for
from bascule.triggers.contract import Found, Searched, Trigger
from bascule.triggers.found import FoundTrigger
from bascule.triggers.placement import Poison
from bascule.triggers.stamping import Perturb, stamp


@documented
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Poisoned(Shown):
    """A poisoned training set, and who knows what was done to it."""

    x: Tensor
    """All images, N x C x H x W, as they were given: uint8 or floats. Stamped ones are whole bytes in both."""
    y: Tensor
    """Their labels, int64, shape (N,)."""
    y_before: Tensor
    """Their labels before, int64, shape (N,)."""
    index: Tensor
    """Positions of the poisoned images, int64, ascending."""
    covers: Tensor
    """Positions of images that are stamped and kept another label than the target's, int64, ascending."""
    poison: Poison
    """What was planted."""
    trigger: Trigger
    """What test images are stamped with."""

    @property
    def target(self) -> int | None:
        """The class that triggered images are meant to be taken for; None where every class aims at the next one."""
        return self.poison.target

    def stamp(self, x: Data, *, seed: int = 0) -> Tensor:
        """Test images with the trigger on them, rounded as if saved to a file: floats, N x C x H x W.

        Args:
            x: N x C x H x W, floats in [0, 1] or uint8 (0 to 255); or a data set or loader.
            seed: Of what the trigger draws.

        Raises:
            RequestError: A wrong type, shape or range, or images of another size.
        """
        with apart(seed), torch.no_grad():
            given = unlabelled(x)
            return stamp(self.trigger, given, generator=rng.stream(seed, "trigger", device=given.device))

    def __str__(self) -> str:
        there, aim = len(self.y), "each class to the next" if self.target is None else f"target {self.target}"
        covers = f", {count(len(self.covers), 'cover')}" if len(self.covers) else ""
        share = 100 * len(self.index) / there
        return (
            f"Poisoned: {len(self.index):,} of {count(there, 'image')} ({share:.3g} %){covers}\n"
            f"  {name_of(self.poison.trigger)}, label {self.poison.label}, {aim}"
        )

    def shown(self) -> Sequence[Part]:
        facts = {
            "images": f"{len(self.y):,}",
            "poisoned": f"{len(self.index):,}",
            "covers": f"{len(self.covers):,}",
            "trigger": name_of(self.poison.trigger),
            "label": self.poison.label,
            "target": "the next class" if self.target is None else f"{self.target}",
        }
        lines = [[TableCell(name), TableCell(value)] for name, value in facts.items()]
        few = self.index[:_SHOWN]
        pixels = self.x[few].cpu() if self.x.dtype == torch.uint8 else as_bytes(self.x[few].cpu().float())
        pictures = [
            Picture(tile(image), f"image {place}, label {label}")
            for image, place, label in zip(pixels.numpy(), few.tolist(), self.y[few].tolist(), strict=True)
        ]
        return [Grid(["Poisoned"], [""], lines), Pictures(pictures)]


_SHOWN = 8
"""Poisoned images that a notebook shows."""


@verb
def poison(
    x: Data,
    y: Labels | None,
    trigger: str | Mapping[str, Any] | Trigger,
    *,
    target: int | str | None = None,
    rate: float | str,
    label: Literal["clean", "dirty", "all-to-all"] = "clean",
    sources: Sequence[int | str] = (),
    rate_of: Literal["all", "target"] = "all",
    cover: float | str = 0.0,
    cover_trigger: str | Mapping[str, Any] | Trigger | None = None,
    test_trigger: str | Mapping[str, Any] | Trigger | None = None,
    prepare: str | Mapping[str, Any] | Evasion | None = None,
    proxy: nn.Module | None = None,
    classes: int | None = None,
    seed: int = 0,
    **settings: Any,
) -> Poisoned:
    """A training set with a backdoor in it: `bascule.poison(x, y, "sticker", target=0, rate=0.01)`.

    The same images are poisoned, in the same way, as by a study with these settings and this seed on these images.

    Args:
        x: The training set, N x C x H x W with 1 or 3 channels, floats in [0, 1] or uint8 (0 to 255); or a data set or
            loader, as `evaluate` takes it.
        y: Labels, whole numbers, shape (N,); None with a data set.
        trigger: A name (see `bascule ls poison`) with its settings as keywords; or a mapping as in a study file, or a
            trigger itself.
        target: Label that triggered images are meant to be taken for, or its name where the data set has names
            (`classes`); none with label `all-to-all`.
        rate: Poisoned share, 0 to 1 or as `"0.5 %"`.
        label: `clean` stamps images of the target class; `dirty` stamps others and relabels them to the target;
            `all-to-all` stamps images of all classes and relabels each to the next class.
        sources: Labels, or names, of the classes that are stamped; by default all but the target. Dirty label only.
        rate_of: What `rate` is a share of: all images, or as many as the target class has.
        cover: Share of further images that get the trigger and keep their label.
        cover_trigger: What is stamped on these; by default the trigger.
        test_trigger: What is stamped on test images; by default the trigger.
        prepare: The evasion attack that perturbs the images before they are stamped. Clean label only.
        proxy: A model trained on the unpoisoned images, for `prepare` and for triggers that are searched for. Found as
            it was afterwards.
        classes: Number of classes; by default the highest label and one.
        seed: Of everything that is drawn.
        settings: Of the trigger: `bascule show poison/NAME`.

    Raises:
        RequestError: A wrong name, setting, shape, range or label, more images asked for than there are, a trigger that
            does not fit them, or a proxy that is missing or not needed.
    """
    given = {
        "trigger": part_of("poison", trigger, settings, x), "target": numbered(target, x, "target"), "rate": rate,
        "label": label, "sources": tuple(numbered(one, x, "sources") for one in sources), "rate_of": rate_of,
        "cover": cover, "cover_trigger": cover_trigger, "test_trigger": with_numbers(test_trigger, x),
        "prepare": prepare,
    }  # fmt: skip
    floats = labelled(x, y, seed=seed)
    return _planted(construct(Poison, given), floats, x, proxy, classes, seed)


def _planted(
    planned: Poison, floats: Floats, given: Data, proxy: nn.Module | None, classes: int | None, seed: int
) -> Poisoned:
    """Plant in the images, as a study does it: on the CPU, with its streams."""
    device = floats.device
    images = as_set(Floats(x=floats.x.cpu(), labels=floats.labels.cpu()), _classes(floats.labels, classes))
    planned.check(images.size, images.labels, len(images.classes))
    found, perturb = _searched(planned, proxy, images, seed), _perturbing(planned, proxy, seed)
    planted, truth = planned.plant(images, generator=rng.stream(seed, "poison"), perturb=perturb, found=found)
    shown = planned.trigger_at_test
    return Poisoned(
        x=_as_given(planted, given).to(device),
        y=planted.labels.to(device),
        y_before=floats.labels,
        index=truth.ids.to(device),
        covers=truth.covers.to(device),
        poison=planned,
        trigger=shown.loaded(found) if isinstance(shown, FoundTrigger) and found is not None else shown,
    )


def _classes(labels: Tensor, classes: int | None) -> int:
    there = int(labels.max()) + 1
    if classes is not None and classes < there:
        raise RequestError(f"labels go up to {there - 1}: there are {there} classes at least", place=("classes",))
    return classes or there


def _proxy_for(planned: Poison, proxy: nn.Module | None) -> nn.Module | None:
    """The proxy, where the poison has a use for it.

    Raises:
        RequestError: It is missing, no network, or not needed.
    """
    if proxy is None:
        if planned.needs_proxy:
            what = "images are prepared" if planned.prepare is not None else "this trigger is searched for"
            raise RequestError(f"{what} on a model trained on the unpoisoned images: give it", place=("proxy",))
        return None
    check_module(proxy, "proxy")
    if not planned.needs_proxy:
        raise RequestError("nothing is prepared or searched for on a model: leave it out", place=("proxy",))
    return proxy


def _searched(planned: Poison, proxy: nn.Module | None, images: Images, seed: int) -> Found | None:
    """What the search finds, where the trigger is searched for, drawn as the question of a study."""
    model = _proxy_for(planned, proxy)
    if model is None or not isinstance(planned.trigger, Searched):
        return None
    device = next(model.parameters(), images.labels).device
    generator = rng.stream(seed, search_for(planned).key, device=device)
    return planned.search(model, images.to(device), drawing=rng.stream(seed, "poison"), generator=generator)


def _perturbing(planned: Poison, proxy: nn.Module | None, seed: int) -> Perturb | None:
    """`prepare`, bound to the proxy."""
    if proxy is None or not isinstance(planned.prepare, Evasion):
        return None
    device = next(proxy.parameters(), torch.empty(0)).device
    generator = rng.stream(seed, "poison", "prepare", device=device)
    return functools.partial(_perturbed, proxy, planned.prepare, device, generator)


def _perturbed(
    model: nn.Module, attack: Evasion, device: torch.device, generator: torch.Generator, x: Tensor, y: Tensor
) -> Tensor:
    return run_attack(model, attack, x.to(device), y.to(device), generator=generator).x.to(x.device)


def _as_given(planted: Images, given: Any) -> Tensor:
    """The pictures as uint8 where they were given so, else as floats."""
    held = given.pixels if isinstance(given, Images) else given
    as_bytes = isinstance(held, (Tensor, np.ndarray)) and held.dtype in (torch.uint8, np.uint8)
    if as_bytes and isinstance(planted.pixels, Tensor):
        return planted.pixels.clone() if planted.pixels is held else planted.pixels
    return planted.batch(torch.arange(len(planted)))
