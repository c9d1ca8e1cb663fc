"""What every trigger keeps, whichever file or package it comes from; one that is searched for: `searched.py`."""

from __future__ import annotations

import torch
from torch import Tensor

from bascule.core.errors import RequestError
from bascule.core.images import as_floats
from bascule.core.rng import stream
from bascule.testing.demands import demand, one_sentence
from bascule.testing.marks import SIDES, check_mark, stamped_by
from bascule.testing.searched import check_searched
from bascule.testing.settings import check_settings
from bascule.triggers.contract import Searched, Trigger


@one_sentence
def check_trigger(trigger: Trigger) -> None:
    """The contract of a trigger: it marks every image visibly, stays an image and draws from its generator alone.

    One that is searched for (`Searched`) is searched for on a small proxy instead, and what it finds is checked. One
    that takes colour images only may refuse grey ones, and any may refuse a single pixel, with a `RequestError` that
    says so.

    Raises:
        AssertionError: It does not keep the contract; the text says what is wrong.
    """
    check_settings(trigger)
    if isinstance(trigger, Searched):
        check_searched(trigger)
        return
    for check in (check_colour, check_grey, check_alone, check_tiny, check_empty):
        check(trigger)


def noise(count: int = 6, *, channels: int = 3, dtype: torch.dtype = torch.float32) -> Tensor:
    """Random images whose values are whole 255ths, as after reading a file."""
    pixels = torch.randint(256, (count, channels, *SIDES), generator=stream(0, "images"), dtype=torch.uint8)
    return as_floats(pixels).to(dtype)


def _stamped_or_refused(trigger: Trigger, x: Tensor) -> Tensor | str:
    """Stamped images, or the text of the refusal; any other error is one."""
    try:
        return stamped_by(trigger, x)
    except RequestError as error:
        return str(error)


def check_colour(trigger: Trigger) -> None:
    """Colour images of either precision are marked."""
    for dtype in (torch.float32, torch.float64):
        check_mark(trigger, noise(dtype=dtype))


def check_grey(trigger: Trigger) -> None:
    """Grey images are marked, or refused by a trigger that needs three channels."""
    for dtype in (torch.float32, torch.float64):
        x = noise(channels=1, dtype=dtype)
        answer = _stamped_or_refused(trigger, x)
        if isinstance(answer, str):
            demand("3 channels" in answer, f"grey images are refused without saying '3 channels': {answer}")
        else:
            check_mark(trigger, x)


def is_drawn(trigger: Trigger) -> bool:
    """Whether another stream gives another mark."""
    return not torch.equal(stamped_by(trigger, noise(), seed=1), stamped_by(trigger, noise()))


def check_alone(trigger: Trigger) -> None:
    """A mark without chance is the same alone and in a batch."""
    if is_drawn(trigger):
        return
    x = noise()
    alone = torch.cat([stamped_by(trigger, image) for image in x.split(1)])
    demand(torch.equal(alone, stamped_by(trigger, x)), "an image alone is marked otherwise than in a batch")


def check_tiny(trigger: Trigger) -> None:
    """An image of one pixel is stamped or refused."""
    x = noise()[:, :, :1, :1]
    answer = _stamped_or_refused(trigger, x)
    if isinstance(answer, str):
        demand("1 x 1" in answer, f"an image of 1 x 1 is refused without saying so: {answer}")
    else:
        demand(answer.shape == x.shape, f"the shape is {tuple(answer.shape)}, that of the images {tuple(x.shape)}")


def check_empty(trigger: Trigger) -> None:
    """No images are stamped as no images."""
    shape = trigger.stamp(noise()[:0], generator=stream(0, "contract")).shape
    demand(shape == (0, 3, *SIDES), f"no images of 3 x {SIDES[0]} x {SIDES[1]} become {tuple(shape)}")
