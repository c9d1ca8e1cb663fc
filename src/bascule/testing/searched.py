"""What every trigger keeps that is searched for on a proxy, whichever file or package it comes from."""

from __future__ import annotations

import copy
import functools

import torch
from torch import Tensor, nn

from bascule.core.images import Images, as_bytes
from bascule.core.rng import borrowed_global_stream, stream
from bascule.testing.demands import demand, refusal
from bascule.testing.marks import SIDES, Place, check_mark, stamped_by
from bascule.triggers.contract import Found, Searched

TARGET = 1
"""The class that searches aim at."""


def check_searched(trigger: Searched) -> None:
    """The contract of a trigger that is searched for, on colour and on grey images.

    Raises:
        AssertionError: It does not keep the contract; the text says what is wrong.
    """
    check_unsearched(trigger)
    for channels in (3, 1):
        what = check_search(trigger, channels)
        for dtype in (torch.float32, torch.float64) if channels == 3 else (torch.float32,):
            check_found(trigger, what, channels, dtype)
        if channels == 3:
            for check in (check_alone, check_empty, check_at_test):
                check(trigger, what)


@functools.cache
def training_set(channels: int) -> Images:
    """40 random images of four classes; nobody may change them."""
    pixels = torch.randint(256, (40, channels, *SIDES), generator=stream(1, "images"), dtype=torch.uint8)
    labels = torch.arange(40) % 4
    return Images(pixels=pixels, labels=labels, ids=100 + torch.arange(40), classes=("a", "b", "c", "d"))


class _Plain(nn.Module):
    """A small CNN that normalises its images."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * SIDES[0] * SIDES[1], classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.body((x - 0.5) / 0.25)
        return logits


@functools.cache
def proxy(channels: int) -> nn.Module:
    """A network that knows some of them; searches get copies."""
    with borrowed_global_stream(0, "proxy"):
        net = _Plain(channels, 4)
    images, adam = training_set(channels), torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(10):
        logits = net(images.batch(torch.arange(40)))
        adam.zero_grad()
        nn.functional.cross_entropy(logits, images.labels).backward()
        adam.step()
    return net.eval()


def chosen(images: Images) -> Tensor:
    """Positions of what will be stamped: six of the ten images of the target class."""
    return images.labels.eq(TARGET).nonzero().squeeze(1)[:6]


def _search(trigger: Searched, channels: int = 3) -> Found:
    """What a search finds; with the images, and torch's own state, checked to be as they were."""
    images, net = training_set(channels).at(torch.arange(40)), copy.deepcopy(proxy(channels))
    assert isinstance(images.pixels, Tensor)
    before, state, grad = images.pixels.clone(), torch.get_rng_state(), torch.is_grad_enabled()
    what = trigger.search(net, images, chosen(images), TARGET, generator=stream(0, "search"))
    demand(torch.equal(images.pixels, before), "the images were modified")
    demand(torch.equal(torch.get_rng_state(), state), "the global generator was used")
    demand(torch.is_grad_enabled() == grad, "gradients were switched on or off")
    return what


def check_search(trigger: Searched, channels: int = 3) -> Found:
    """What a search finds is there, can be kept, and is the same each time; what that is."""
    what, again = _search(trigger, channels), _search(trigger, channels)
    demand(what, "nothing was found")
    for name, value in what.items():
        demand(not value.requires_grad, f"{name} wants a gradient")
        demand(value.isfinite().all(), f"{name} is not finite")
        demand(name in again, f"the same stream finds no {name}")
        demand(torch.equal(value, again[name]), f"the same stream finds another {name}")
    with torch.no_grad():
        for name, value in _search(trigger, channels).items():
            demand(torch.equal(value, what[name]), f"where gradients are off it finds another {name}")
    return what


def _kept(what: Found) -> Found:
    """What a record gives back: floats of 32 bits, on the processor."""
    return {name: value.cpu().float() if value.is_floating_point() else value.cpu() for name, value in what.items()}


def check_found(trigger: Searched, what: Found, channels: int = 3, dtype: torch.dtype = torch.float32) -> None:
    """What was found is two triggers, which a record of it rebuilds to the byte."""
    images = training_set(channels)
    place = Place(images, chosen(images))
    x = images.batch(place.positions).to(dtype)
    shown, rebuilt = trigger.found(what), trigger.found(_kept(what))
    check_mark(shown, x, place)
    check_mark(shown.at_test, x)
    for one, other, where in ((shown, rebuilt, place), (shown.at_test, rebuilt.at_test, None)):
        same = torch.equal(as_bytes(stamped_by(one, x, place=where)), as_bytes(stamped_by(other, x, place=where)))
        demand(same, "what is kept of it stamps otherwise")


def check_alone(trigger: Searched, what: Found) -> None:
    """A found mark without chance is the same alone and in a batch."""
    shown, images = trigger.found(what), training_set(3)
    place = Place(images, chosen(images))
    for part, where in ((shown, place), (shown.at_test, None)):
        x = images.batch(place.positions)
        together = stamped_by(part, x, place=where)
        if not torch.equal(stamped_by(part, x, seed=1, place=where), together):
            continue  # drawn per image
        alone = [
            stamped_by(part, image, place=where and Place(images, at))
            for image, at in zip(x.split(1), place.positions.split(1), strict=True)
        ]
        close = torch.allclose(torch.cat(alone), together, atol=1e-6)  # a network may be part of it
        demand(close, "an image alone is marked otherwise than in a batch")


def check_empty(trigger: Searched, what: Found) -> None:
    """No images are stamped as no images."""
    images, none = training_set(3), torch.empty(0, dtype=torch.int64)
    shown, x = trigger.found(what), images.batch(none)
    for stamped in (stamped_by(shown, x, place=Place(images, none)), stamped_by(shown.at_test, x)):
        demand(stamped.shape == (0, 3, *SIDES), f"no images become {tuple(stamped.shape)}")


def check_unsearched(trigger: Searched) -> None:
    """Before the search it stamps nothing but says so."""
    x = torch.rand(2, 3, *SIDES, generator=stream(0, "images"))
    refusal(lambda: stamped_by(trigger, x), what="stamping before the search", text="searched for")


def check_at_test(trigger: Searched, what: Found) -> None:
    """What test images show is said before the search where that needs none."""
    told = trigger if isinstance(trigger.at_test, Searched) else trigger.found(what).at_test
    demand(trigger.at_test == told, "what test images show is another thing before the search and after it")
