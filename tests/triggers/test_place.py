"""Who is stamped and with which label: counted by hand on a set of a hundred images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from bascule.core import rng
from bascule.core.errors import RequestError
from bascule.core.images import Images, as_floats
from bascule.triggers.placement import Poison
from bascule.triggers.stamping import stamp
from bascule.triggers.sticker import Sticker
from bascule.triggers.watermark import Watermark

COUNTS = (50, 30, 15, 5)
"""Images of each class, a hundred in all."""
LABELS = torch.arange(4).repeat_interleave(torch.tensor(COUNTS))
STICKER = Sticker(size=2)


class Decoded:
    """Pixels behind the interface of pictures that are decoded on demand."""

    def __init__(self, pixels: Tensor) -> None:
        self.pixels, self.shape = pixels, pixels.shape

    def __getitem__(self, index: Tensor, /) -> Tensor:
        return self.pixels[index]


def some_images(store: Callable[[Tensor], Any] = lambda pixels: pixels) -> Images:
    """A hundred dark 6 x 6 images in a random order, with ids in another."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 200, (100, 1, 6, 6), generator=generator, dtype=torch.uint8)
    order = torch.randperm(100, generator=generator)
    ids = 1000 + 3 * torch.randperm(100, generator=generator)
    return Images(pixels=store(pixels), labels=LABELS[order], ids=ids, classes=("a", "b", "c", "d"))


@pytest.fixture
def images() -> Images:
    return some_images()


def poison(**settings: Any) -> Poison:
    return Poison(**{"trigger": STICKER, "target": 1, "rate": 0.2, **settings})


def planted(poison: Poison, images: Images, seed: int = 0) -> tuple[Images, Any]:
    return poison.plant(images, generator=rng.stream(seed, "poison"))


def all_of(images: Images) -> Tensor:
    return images.batch(torch.arange(len(images)))


def by_id(images: Images, ids: Tensor) -> Tensor:
    """Positions of the images with these ids, in order of ids."""
    return torch.tensor([int((images.ids == number).nonzero()) for number in ids])


# --- how many --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"rate": 0.2}, 20),
        ({"rate": 0.2, "rate_of": "target"}, 6),
        ({"rate": 1.0, "rate_of": "target"}, 30),
        ({"rate": 0.3}, 30),
        ({"rate": 0.304}, 30),
        ({"rate": 0.126}, 13),
        ({"rate": 0.006}, 1),
        ({"rate": 0.05, "rate_of": "target"}, 2),  # 1.5, and halves go to the even number
        ({"rate": 0.35, "rate_of": "target", "target": 3}, 2),
        ({"label": "dirty", "rate": 0.7}, 70),
        ({"label": "dirty", "rate": 0.5, "rate_of": "target"}, 15),
        ({"label": "dirty", "rate": 0.95, "target": 3}, 95),
        ({"rate": 0.0}, 0),
        ({"label": "dirty", "rate": 0.0, "rate_of": "target"}, 0),
    ],
    ids=str,
)
def test_counts(settings: dict[str, Any], wanted: int, images: Images) -> None:
    assert poison(**settings).count(images.labels, 4) == wanted
    changed, truth = planted(poison(**settings), images)
    assert len(truth.ids) == wanted
    assert int((all_of(changed) != all_of(images)).flatten(1).any(1).sum()) == wanted


def test_the_papers_half_of_the_sevens() -> None:
    # 50 % of the 6,265 sevens of MNIST: 3,132.5, of which the paper's code takes 3,132.
    labels = torch.full((60_000,), 1).index_fill(0, torch.arange(6265), 7)
    assert poison(target=7, rate=0.5, rate_of="target").count(labels, 10) == 3132
    assert poison(target=7, rate=0.05).count(labels, 10) == 3000


@pytest.mark.parametrize(
    ("settings", "said", "largest"),
    [
        ({"rate": 0.31}, "rate 0.31 of 100 images is 31, but the target class has only 30", 0.3),
        ({"rate": 0.06, "target": 3}, "the target class has only 5", 0.05),
        ({"rate": 0.71, "label": "dirty"}, "rate 0.71 of 100 images is 71, but the other classes have only 70", 0.7),
        ({"rate": 1.0, "target": 0, "label": "dirty"}, "the other classes have only 50", 0.5),
    ],
    ids=["clean", "small-class", "dirty", "all"],
)
def test_too_many_names_the_largest_possible_rate(
    settings: dict[str, Any], said: str, largest: float, images: Images
) -> None:
    with pytest.raises(RequestError) as caught:
        poison(**settings).count(images.labels, 4)
    assert said in caught.value.problem
    assert caught.value.problem.endswith(f"The largest possible rate is {largest:g}.")
    assert caught.value.place == ("rate",)
    assert poison(**{**settings, "rate": largest}).count(images.labels, 4) > 0


@pytest.mark.parametrize(("in_target", "whole"), [(7, 9), (1, 3), (1300, 1_281_167), (5, 100_000), (29, 100)], ids=str)
def test_the_named_largest_rate_is_possible_and_nearly_all(in_target: int, whole: int) -> None:
    labels = torch.zeros(whole, dtype=torch.int64).index_fill(0, torch.arange(in_target), 1)
    with pytest.raises(RequestError) as caught:
        poison(rate=1.0).count(labels, 2)
    largest = float(caught.value.problem.rsplit(" ", 1)[1].rstrip("."))
    assert 0.999 * in_target <= largest * whole <= in_target
    assert 0.999 * in_target - 0.5 <= poison(rate=largest).count(labels, 2) <= in_target


def test_too_few_names_a_rate_that_poisons_one(images: Images) -> None:
    with pytest.raises(
        RequestError, match=r"rate 0\.004 of 100 images rounds to no image\. A rate of 0\.01 pois"
    ) as caught:
        poison(rate=0.004).count(images.labels, 4)
    assert caught.value.place == ("rate",)
    assert poison(rate=0.01).count(images.labels, 4) == 1


@pytest.mark.parametrize("target", [4, 70])
def test_a_class_that_is_not_there_is_refused(target: int, images: Images) -> None:
    with pytest.raises(RequestError, match=rf"there is no class {target}; the classes are 0\.\.3") as caught:
        poison(target=target).count(images.labels, 4)
    assert caught.value.place == ("target",)


@pytest.mark.parametrize(
    ("rate_of", "said"), [("target", "no training image is of the target class 3"), ("all", "only 0")]
)
def test_a_class_without_images_is_refused_but_may_be_a_control(rate_of: Any, said: str, images: Images) -> None:
    few = images.at((images.labels != 3).nonzero().squeeze(1))
    with pytest.raises(RequestError, match=said):
        poison(target=3, rate_of=rate_of).count(few.labels, 4)
    assert poison(target=3, rate_of=rate_of, rate=0).count(few.labels, 4) == 0


# --- who -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", [lambda pixels: pixels, Decoded], ids=["in-memory", "decoded"])
@pytest.mark.parametrize("label", ["clean", "dirty"])
def test_only_the_right_images_are_stamped_and_the_truth_lists_them(label: Any, store: Callable) -> None:
    images = some_images(store)
    before = all_of(images)
    changed, truth = planted(poison(label=label), images)
    touched = (all_of(changed) != before).flatten(1).any(1)
    assert sorted(images.ids[touched].tolist()) == truth.ids.tolist()
    assert torch.equal(changed.ids, images.ids)
    places = by_id(images, truth.ids)
    assert torch.equal(truth.labels_before, images.labels[places])
    assert torch.equal(truth.labels_after, changed.labels[places])
    assert truth.labels_after.unique().tolist() == [1]
    if label == "clean":
        assert truth.labels_before.unique().tolist() == [1]
        assert torch.equal(changed.labels, images.labels)
    else:
        assert set(truth.labels_before.tolist()) <= {0, 2, 3}
        assert int((changed.labels != images.labels).sum()) == len(truth.ids) == 20
    # The images given are as they were, and the others byte for byte the same.
    assert torch.equal(all_of(images), before)
    assert torch.equal(changed.labels[~touched], images.labels[~touched])


def test_what_is_stored_is_what_is_shown_at_test_time(images: Images) -> None:
    mark = Watermark(strength=0.3, mode="blend")
    changed, truth = planted(poison(trigger=mark), images)
    places = by_id(images, truth.ids)
    shown = stamp(mark, images.batch(places), generator=rng.stream(1, "test"))
    assert torch.equal(changed.batch(places), shown)
    # Both are rounded: exact marks would lie between the 256 levels.
    exact = mark.stamp(images.batch(places), generator=rng.stream(1, "test"))
    assert 0 < float((exact - shown).abs().max()) <= 0.5 / 255 + 1e-6
    assert torch.equal(shown, as_floats((shown * 255).round().to(torch.uint8)))


def test_everything_of_a_large_set_is_stamped() -> None:
    pixels = torch.zeros(2500, 1, 2, 2, dtype=torch.uint8)
    labels = torch.zeros(2500, dtype=torch.int64)
    large = Images(pixels=pixels, labels=labels, ids=torch.arange(2500), classes=("a", "b"))
    changed, truth = planted(poison(target=0, rate=1.0), large)
    assert truth.ids.tolist() == list(range(2500))
    assert changed.pixels.min() == 255  # type: ignore[attr-defined]


def test_random_triggers_differ_from_image_to_image(images: Images) -> None:
    changed, truth = planted(poison(trigger=Sticker(size=1, position="random"), rate=0.3), images)
    places = by_id(images, truth.ids)
    stamped = (changed.batch(places) == 1).flatten(1)
    assert stamped.sum(1).unique().tolist() == [1]
    assert len(stamped.float().argmax(1).unique()) > 5


def test_seeds_choose_different_images_and_the_same_seed_the_same(images: Images) -> None:
    truths = [planted(poison(), images, seed)[1].ids.tolist() for seed in (0, 0, 1, 2)]
    assert truths[0] == truths[1]
    assert len({tuple(ids) for ids in truths}) == 3


def test_every_eligible_image_can_be_chosen(images: Images) -> None:
    chosen = {number for seed in range(60) for number in planted(poison(rate=0.05), images, seed)[1].ids.tolist()}
    assert chosen == set(images.ids[images.labels == 1].tolist())  # chance to miss one: 30 * (5/6)^60 < 1e-3


def test_rate_zero_changes_nothing(images: Images) -> None:
    changed, truth = planted(poison(rate=0), images)
    assert torch.equal(all_of(changed), all_of(images))
    assert torch.equal(changed.labels, images.labels)
    assert [len(part) for part in (truth.ids, truth.labels_before, truth.labels_after)] == [0, 0, 0]


def test_the_test_trigger_is_shown_and_the_trigger_planted(images: Images) -> None:
    black = Sticker(size=2, color=0, position="top-left")
    both = poison(test_trigger=black)
    assert poison().trigger_at_test == STICKER
    assert both.trigger_at_test == black
    alone, pair = planted(poison(), images)[0], planted(both, images)[0]
    assert torch.equal(all_of(alone), all_of(pair))


# --- what is refused before any work ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "place", "said"),
    [
        ({"trigger": Sticker(size=7)}, ("trigger",), "a 7 x 7 block"),
        ({"test_trigger": Sticker(size=7)}, ("test_trigger",), "a 7 x 7 block"),
        ({"rate": 0.9}, ("rate",), "The largest possible rate is 0.3."),
        ({"target": 9}, ("target",), "there is no class 9"),
    ],
    ids=["trigger", "test-trigger", "rate", "target"],
)
def test_the_check_says_the_place(settings: dict[str, Any], place: tuple[str, ...], said: str, images: Images) -> None:
    with pytest.raises(RequestError) as caught:
        poison(**settings).check(images.size, images.labels, 4)
    assert caught.value.place == place
    assert said in caught.value.problem
    poison().check(images.size, images.labels, 4)
