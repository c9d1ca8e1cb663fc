"""All-to-all and source-specific poison, and covers: counted by hand on a set of a hundred images."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bascule.core import rng
from bascule.core.catalog import describe
from bascule.core.errors import RequestError
from bascule.core.images import Images
from bascule.triggers.placement import Poison, Truth
from bascule.triggers.sticker import Sticker


def poison(**settings: Any) -> Poison:
    return Poison(**{"trigger": Sticker(size=2), "rate": 0.2, **settings})


def planted(poison: Poison, images: Images) -> tuple[Images, Truth]:
    return poison.plant(images, generator=rng.stream(0, "poison"))


def changed(before: Images, after: Images) -> Tensor:
    """Positions of the images whose pixels differ."""
    index = torch.arange(len(before))
    return (before.batch(index) != after.batch(index)).flatten(1).any(1).nonzero().squeeze(1)


def ids_of(images: Images, index: Tensor) -> list[int]:
    return sorted(images.ids[index].tolist())


def test_all_to_all_takes_every_class_for_the_next(images: Images) -> None:
    after, truth = planted(poison(label="all-to-all", rate=1.0), images)
    # 50, 30, 15 and 5 images go one further, the last 5 to class 0.
    assert torch.bincount(after.labels, minlength=4).tolist() == [5, 50, 30, 15]
    assert torch.equal(after.labels, (images.labels + 1) % 4)
    assert torch.equal(truth.labels_after, (truth.labels_before + 1) % 4)
    assert len(changed(images, after)) == 100


def test_all_to_all_leaves_the_others_alone(images: Images) -> None:
    after, truth = planted(poison(label="all-to-all"), images)
    index = changed(images, after)
    assert truth.ids.tolist() == ids_of(images, index)
    assert len(index) == 20
    assert index.tolist() == (after.labels != images.labels).nonzero().squeeze(1).tolist()
    assert len(truth.covers) == 0


def test_source_specific_poison_comes_from_the_sources_alone(images: Images) -> None:
    given = poison(label="dirty", target=1, sources=(0, 2), rate=0.65)
    after, truth = planted(given, images)
    # All 50 + 15 images of the two classes.
    assert sorted(truth.labels_before.tolist()) == [0] * 50 + [2] * 15
    assert set(truth.labels_after.tolist()) == {1}
    assert torch.bincount(after.labels, minlength=4).tolist() == [0, 95, 0, 5]
    assert given.aims(4) == (1, -1, 1, -1)


@pytest.mark.parametrize(
    ("settings", "count", "classes"),
    [
        ({"label": "dirty", "target": 1, "sources": (0, 2), "cover": 0.05}, 5, {3}),
        ({"label": "dirty", "target": 1, "rate": 0.5, "cover": 0.2}, 20, {0, 2, 3}),
        ({"label": "dirty", "target": 1, "rate_of": "target", "cover": 0.5}, 15, {0, 2, 3}),
        ({"label": "clean", "target": 1, "cover": 0.7}, 70, {0, 2, 3}),
        ({"label": "all-to-all", "cover": 0.8}, 80, {0, 1, 2, 3}),
    ],
    ids=["sources", "dirty", "rate of target", "clean", "all-to-all"],
)
def test_covers_are_stamped_and_keep_their_label(
    settings: dict[str, Any], count: int, classes: set[int], images: Images
) -> None:
    given = poison(**settings)
    after, truth = planted(given, images)
    assert given.count_covers(images.labels, 4) == len(truth.covers) == count
    cover = torch.isin(images.ids, truth.covers)
    assert torch.equal(after.labels[cover], images.labels[cover])
    assert set(images.labels[cover].tolist()) <= classes
    assert not set(truth.covers.tolist()) & set(truth.ids.tolist())
    assert ids_of(images, changed(images, after)) == sorted(truth.covers.tolist() + truth.ids.tolist())


def test_the_poisoned_images_are_the_same_with_and_without_covers(images: Images) -> None:
    with_covers, truth = planted(
        poison(label="dirty", target=1, cover=0.2, trigger=Sticker(size=2, position="random")), images
    )
    without, alone = planted(poison(label="dirty", target=1, trigger=Sticker(size=2, position="random")), images)
    assert torch.equal(truth.ids, alone.ids)
    index = torch.isin(images.ids, truth.ids).nonzero().squeeze(1)
    assert torch.equal(with_covers.batch(index), without.batch(index))


def test_without_poison_there_are_no_covers(images: Images) -> None:
    after, truth = planted(poison(label="dirty", target=1, rate=0.0, cover=0.2), images)
    assert len(changed(images, after)) == len(truth.ids) == len(truth.covers) == 0


@pytest.mark.parametrize(
    ("settings", "place", "said"),
    [
        ({}, (), "the key 'target' is missing: only label 'all-to-all' does without"),
        ({"label": "all-to-all", "target": 1}, ("target",), "leave it out, or set it to null"),
        ({"label": "all-to-all", "sources": (1,)}, ("sources",), "leave it out, or set it to []"),
        ({"label": "all-to-all", "rate_of": "target"}, ("rate_of",), "give the share of all images"),
        ({"target": 1, "sources": (0,)}, ("sources",), "give label 'dirty'"),
        ({"label": "dirty", "target": 1, "sources": (0, 1)}, ("sources",), "1 is the target"),
    ],
)
def test_settings_that_do_not_go_together(settings: dict[str, Any], place: tuple[str, ...], said: str) -> None:
    with pytest.raises(RequestError) as caught:
        poison(**settings)
    assert said in caught.value.problem
    assert caught.value.place == place


@pytest.mark.parametrize(
    ("settings", "place", "said"),
    [
        ({"sources": (0, 4)}, "sources", "there is no class 4; the classes are 0..3"),
        (
            {"sources": (3,), "rate": 0.06},
            "rate",
            "is 6, but the source classes have only 5. The largest possible rate",
        ),
        (
            {"sources": (0, 2), "cover": 0.06},
            "cover",
            "the other classes have only 5. The largest possible cover is 0.05",
        ),
        ({"rate": 0.5, "cover": 0.21}, "cover", "is 21, but what is not poisoned has only 20"),
        ({"cover": 0.004}, "cover", "rounds to no image. A cover of 0.01 stamps one"),
    ],
)
def test_counts_that_cannot_be(settings: dict[str, Any], place: str, said: str, images: Images) -> None:
    with pytest.raises(RequestError) as caught:
        poison(label="dirty", target=1, **settings).count_covers(images.labels, 4)
    assert said in caught.value.problem
    assert caught.value.place == (place,)


def test_what_came_later_is_left_out_of_the_description_by_default() -> None:
    plain = poison(label="dirty", target=1)
    assert not {"sources", "cover"} & set(describe(plain))
    assert {"sources": [0], "cover": 0.1}.items() <= describe(
        poison(label="dirty", target=1, sources=(0,), cover=0.1)
    ).items()
