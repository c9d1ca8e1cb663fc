"""Several poisons in one training set: each on images of its own, counted by hand on a hundred images."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bascule.core import rng
from bascule.core.catalog import construct_one_of, describe
from bascule.core.errors import RequestError
from bascule.core.images import Images
from bascule.triggers.given import GivenPoison
from bascule.triggers.placement import Poison
from bascule.triggers.several import SeveralPoisons
from bascule.triggers.sticker import Sticker


def part(position: str = "top-left", **settings: Any) -> Poison:
    return Poison(**{"trigger": Sticker(size=2, position=position), "label": "dirty", "target": 1, **settings})


def several(*parts: Poison, **settings: Any) -> SeveralPoisons:
    return SeveralPoisons(name="several", parts=parts, **settings)


TWO = several(part(rate=0.3, cover=0.1), part("bottom-right", target=3, rate=0.4))


def test_each_has_images_of_its_own(images: Images) -> None:
    after, truth = TWO.plant(images, generator=rng.stream(0, "poison"))
    assert TWO.count(images.labels, 4) == len(truth.ids) == 70
    assert truth.ids.tolist() == sorted(set(truth.ids.tolist()))
    assert torch.bincount(truth.labels_after, minlength=4).tolist() == [0, 30, 0, 40]
    assert len(truth.covers) == 10
    white = as_white(after)
    # 30 poisoned and 10 covers carry the first, 40 the second, nobody both.
    assert (int(white[:, 0].sum()), int(white[:, 1].sum()), int(white.all(1).sum())) == (40, 40, 0)
    assert torch.equal(after.labels[white[:, 1]], torch.full((40,), 3))
    stamped = torch.isin(images.ids, torch.cat([truth.ids, truth.covers]))
    assert torch.equal(stamped, white.any(1))
    by_id = {int(number): int(label) for number, label in zip(images.ids, images.labels, strict=True)}
    assert truth.labels_before.tolist() == [by_id[number] for number in truth.ids.tolist()]


def as_white(images: Images) -> torch.Tensor:
    """Whether each image has the sticker above on the left, and below on the right; no image has 2 x 2 such pixels."""
    pixels = images.batch(torch.arange(len(images)))
    return torch.stack([(pixels[:, 0, :2, :2] == 1).all(2).all(1), (pixels[:, 0, 4:, 4:] == 1).all(2).all(1)], dim=1)


def test_the_first_is_planted_as_it_is_alone(images: Images) -> None:
    after, _ = TWO.plant(images, generator=rng.stream(0, "poison"))
    alone, truth = TWO.parts[0].plant(images, generator=rng.stream(0, "poison"))
    index = torch.isin(images.ids, truth.ids).nonzero().squeeze(1)
    assert torch.equal(after.batch(index), alone.batch(index))
    assert torch.equal(after.labels[index], alone.labels[index])


def test_which_one_is_measured_changes_no_model() -> None:
    other = several(*TWO.parts, measured=1)
    assert other.planting == TWO.planting
    assert (TWO.target, other.target) == (1, 3)
    assert other.trigger_at_test == TWO.parts[1].trigger
    assert other.others(4) == ((TWO.parts[0].trigger, 1, None),)
    assert construct_one_of((Poison, GivenPoison, SeveralPoisons), describe(other)) == other


@pytest.mark.parametrize(
    ("parts", "place", "said"),
    [
        # The first may take 60 of the 70 that are not of class 1, so 10 + 30 - 5 (class 3) = 35 at least are left.
        ((part(rate=0.6), part(target=3, rate=0.4)), "rate", "0.4 is 40 images, of which those before may leave 35"),
        (
            (part(rate=0.5), part(rate=0.1, cover=0.11)),
            "cover",
            "0.11 is 11 images, of which those before may leave 10",
        ),
        ((part(rate=0.5), part(rate=0.9)), "rate", "the other classes have only 70"),
    ],
)
def test_too_few_images_left(parts: tuple[Poison, ...], place: str, said: str, images: Images) -> None:
    with pytest.raises(RequestError) as caught:
        several(*parts).count(images.labels, 4)
    assert said in caught.value.problem
    assert caught.value.place == ("parts[1]", place)


@pytest.mark.parametrize(
    ("settings", "place", "said"),
    [
        ({"parts": ()}, ("parts",), "at least one poison is needed"),
        ({"parts": (part(rate=0.1),), "measured": 1}, ("measured",), "there is no poison 1; they are 0..0"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], place: tuple[str, ...], said: str) -> None:
    with pytest.raises(RequestError) as caught:
        SeveralPoisons(name="several", **settings)
    assert said in caught.value.problem
    assert caught.value.place == place
