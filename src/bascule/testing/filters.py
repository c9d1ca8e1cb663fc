"""What every data defence keeps, whichever file or package it comes from."""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from bascule.core.images import Images
from bascule.core.rng import borrowed_global_stream, stream
from bascule.filters.contract import Filter, Judged, LayerFilter
from bascule.filters.run import run_filter
from bascule.testing.cases import architecture, digits, same, standard, state
from bascule.testing.demands import demand, one_sentence, refusal
from bascule.testing.settings import check_settings
from bascule.training.loop import train
from bascule.triggers.placement import Poison
from bascule.triggers.sticker import Sticker


@one_sentence
def check_filter(filter: Filter, *, most_on_clean: float = 0.2) -> None:  # noqa: A002
    """The contract of a data defence: better than chance on poisoned digits, and the same in any order.

    Args:
        filter: With settings that suit the embedded digits: about 140 images a class, a third of one class poisoned.
        most_on_clean: The largest share that it may remove from unpoisoned digits.

    Raises:
        AssertionError: It does not keep the contract; the text says what is wrong.
    """
    check_settings(filter)
    for check in (check_verdict, check_notes, check_model, check_repeats, check_plain):
        check(filter)
    check_clean(filter, most_on_clean)
    if isinstance(filter, LayerFilter):
        check_layers(filter)


class Case(NamedTuple):
    """A set, a model with ordinary training on it, and the truth, which no filter is given."""

    model: nn.Module
    images: Images
    poisoned: Tensor


@functools.cache
def case(rate: float) -> Case:
    """Digits with a white square on `rate` of them, relabelled as threes: a third of the threes at rate 0.05."""
    poison = Poison(trigger=Sticker(size=3), target=3, rate=rate, label="dirty")
    images, truth = poison.plant(digits().train, generator=stream(0, "poison"))
    net = architecture(16, 64).initialised((1, 8, 8), 10, seed=0)
    train(net, images, standard(epochs=15, lr=5e-3), seed=0)
    return Case(net, images, torch.isin(images.ids, truth.ids))


def _judged(filter: Filter, model: nn.Module, given: Images) -> Judged:  # noqa: A002
    """One judgement; with images and the global generator checked to be as they were."""
    images = given.at(torch.arange(len(given)))  # of one's own
    assert isinstance(images.pixels, Tensor)
    pixels, labels, before = images.pixels.clone(), images.labels.clone(), torch.get_rng_state()
    found = run_filter(model, filter, images, generator=stream(0, "contract"))
    demand(torch.equal(images.pixels, pixels), "the images were modified")
    demand(torch.equal(images.labels, labels), "the labels were modified")
    demand(torch.equal(torch.get_rng_state(), before), "the global generator was used")
    return found


def check_verdict(filter: Filter) -> None:  # noqa: A002
    """On poisoned digits it is better than chance over the whole set, and the same in any order."""
    model, images, poisoned = case(0.05)
    found = _judged(filter, model, images)
    for name, value in (("scores", found.score), ("removed", found.removed)):
        demand(value.shape == poisoned.shape, f"{name} has shape {tuple(value.shape)}, the set {len(images)} images")
    area = roc_auc_score(poisoned, found.score)
    demand(area > 0.6, f"no better than chance: the area under the ROC curve is {area:.2f}")
    order = torch.randperm(len(images), generator=stream(0, "order"))
    again = _judged(filter, model, images.at(order))
    # Rounding in another order of batches may tip single images.
    close = torch.allclose(again.score, found.score[order], rtol=1e-3, atol=1e-3)
    demand(close, "another order, other scores")
    differ = float((again.removed != found.removed[order]).double().mean())
    demand(differ < 0.005, f"another order, others removed: {100 * differ:.1f} % differ")


def check_clean(filter: Filter, most: float) -> None:  # noqa: A002
    """Unpoisoned data lose no more than this share."""
    model, images, _ = case(0.0)
    share = float(_judged(filter, model, images).removed.double().mean())
    demand(share <= most, f"{share:.3f} of unpoisoned images are removed, allowed are {most}")


def check_notes(filter: Filter) -> None:  # noqa: A002
    """A rule that can act has nothing to note."""
    model, images, _ = case(0.05)
    notes = _judged(filter, model, images).notes
    demand(notes == (), f"where it can act it notes {notes}")


def small_case() -> Case:
    """60 colour images that are not square, of three classes of which one has three images, and a net in train mode."""
    pixels = torch.randint(256, (60, 3, 7, 6), dtype=torch.uint8, generator=stream(0, "pixels"))
    labels = torch.cat([torch.zeros(3), torch.ones(27), torch.full((30,), 3.0)]).long()
    images = Images(pixels=pixels, labels=labels, ids=torch.arange(60) * 7, classes=tuple("abcd"))
    with borrowed_global_stream(0, "net"):
        layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(80, 4)
    return Case(nn.Sequential(*layers).train(), images, torch.zeros(60, dtype=torch.bool))


def check_model(filter: Filter) -> None:  # noqa: A002
    """Modes, gradients, weights, statistics and hooks of the model are left as they are found."""
    net, images, _ = small_case()
    layers = list(net.children())
    layers[1].eval()
    layers[0].requires_grad_(False)
    last = next(layers[5].parameters())
    last.grad = torch.ones_like(last)
    before = state(net)
    _judged(filter, net, images)
    demand(same(state(net), before), "the model is not left as it was found")


def check_repeats(filter: Filter) -> None:  # noqa: A002
    """The same stream gives the same answer, on colour images and tiny classes too."""
    net, images, _ = small_case()
    first, again = (_judged(filter, net, images) for _ in range(2))
    demand(torch.equal(first.score, again.score), "the same stream gives other scores")
    demand(torch.equal(first.removed, again.removed), "the same stream removes others")
    demand(not first.removed.all(), "every image is removed")


def check_plain(filter: Filter) -> None:  # noqa: A002
    """Images of one colour and one class are no error."""
    net, images, _ = small_case()
    pixels, labels = torch.zeros_like(images.pixels[torch.arange(60)]), torch.ones_like(images.labels)
    plain = Images(pixels=pixels, labels=labels, ids=images.ids, classes=images.classes)
    found = _judged(filter, net, plain).score
    demand(found.isfinite().all(), "on images of one colour a score is not finite")


def check_idle(filter: Filter) -> None:  # noqa: A002
    """A rule that can remove none of nine images in three classes of three says so in its notes."""
    net, images, _ = small_case()
    few = images.at(torch.arange(9))
    few = Images(pixels=few.pixels, labels=torch.arange(9) % 3, ids=few.ids, classes=few.classes)
    found = _judged(filter, net, few)
    demand(not found.removed.any(), "of nine images in three classes some are removed")
    demand(found.notes, "a rule that cannot act does not say so")


def check_layers(filter: LayerFilter) -> None:  # noqa: A002
    """Any layer can be looked at, and one that is not there is refused."""
    net, small, _ = small_case()
    # Three classes of twenty, so that every rule has classes to look at.
    images = Images(pixels=small.pixels, labels=torch.arange(60) % 3, ids=small.ids, classes=small.classes)
    default, maps = (_judged(dataclasses.replace(filter, layer=layer), net, images) for layer in (None, "0"))
    demand(not torch.equal(default.score, maps.score), "the setting `layer` changes nothing")
    absent = dataclasses.replace(filter, layer="group3.1")
    refusal(lambda: _judged(absent, net, images), what="a layer that is not there", text=r"no layer 'group3\.1'")
