"""What every stamp keeps: the part of the triggers' contract that known and found ones share."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bascule.core.images import Images, as_bytes
from bascule.core.rng import stream
from bascule.triggers.contract import Trigger

SIDES = (12, 9)
"""Height and width: not square, and neither side a power of two."""


class Place(NamedTuple):
    """Where images lie that are stamped: some triggers know the images of a set by their position."""

    images: Images
    index: Tensor


def stamp(trigger: Trigger, x: Tensor, *, seed: int = 0, place: Place | None = None) -> Tensor:
    """Stamped images; with x and the global generator checked to be as they were."""
    given, state = x.clone(), torch.get_rng_state()
    generator = stream(seed, "contract")
    stamped = trigger.stamp_at(*place, x, generator=generator) if place else trigger.stamp(x, generator=generator)
    assert torch.equal(x, given), "the input was modified"
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
    return stamped


def check_trigger(trigger: Trigger, x: Tensor, place: Place | None = None) -> None:
    """The contract on one batch: images again, each of them marked, and still so once stored as bytes."""
    stamped = stamp(trigger, x, place=place)
    assert stamped.shape == x.shape
    assert stamped.dtype == x.dtype
    assert stamped.isfinite().all()
    assert stamped.min() >= 0, "darker than black"
    assert stamped.max() <= 1, "brighter than white"
    assert (as_bytes(stamped) != as_bytes(x)).flatten(1).any(1).all(), "images without a mark"
    assert torch.equal(stamp(trigger, x, place=place), stamped), "the same stream gives another mark"
