"""What every stamp keeps: the part of the triggers' contract that known and found ones share."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bascule.core.images import Images, as_bytes
from bascule.core.returned import returned
from bascule.core.rng import stream
from bascule.testing.demands import demand
from bascule.triggers.contract import Trigger

SIDES = (12, 9)
"""Height and width: not square, and neither side a power of two."""


class Place(NamedTuple):
    """Where images lie that are stamped: some triggers know the images of a set by their position."""

    images: Images
    positions: Tensor


def stamped_by(trigger: Trigger, x: Tensor, *, seed: int = 0, place: Place | None = None) -> Tensor:
    """Stamped images; with x and the global generator checked to be as they were."""
    given, state = x.clone(), torch.get_rng_state()
    generator = stream(seed, "contract")
    stamped = trigger.stamp_at(*place, x, generator=generator) if place else trigger.stamp(x, generator=generator)
    stamped = returned(stamped, Tensor, who=trigger, method="stamp")
    who = f"{type(trigger).__name__}.{'stamp_at' if place else 'stamp'}"
    demand(torch.equal(x, given), f"{who}: the input was modified")
    demand(torch.equal(torch.get_rng_state(), state), f"{who}: the global generator was used")
    return stamped


def check_mark(trigger: Trigger, x: Tensor, place: Place | None = None) -> None:
    """The contract on one batch: images again, each of them marked, and still so once stored as bytes."""
    stamped = stamped_by(trigger, x, place=place)
    demand(stamped.shape == x.shape, f"the shape is {tuple(stamped.shape)}, that of the images {tuple(x.shape)}")
    demand(stamped.dtype == x.dtype, f"the images were {x.dtype}, the stamped ones are {stamped.dtype}")
    demand(stamped.isfinite().all(), "a pixel is not finite")
    demand(stamped.min() >= 0, "a pixel is darker than black")
    demand(stamped.max() <= 1, "a pixel is brighter than white")
    marked = (as_bytes(stamped) != as_bytes(x)).flatten(1).any(1)
    demand(marked.all(), f"images without a mark once they are stored as bytes: {int((~marked).sum())} of {len(x)}")
    again = stamped_by(trigger, x, place=place)
    demand(torch.equal(again, stamped), "the same stream gives another mark")
