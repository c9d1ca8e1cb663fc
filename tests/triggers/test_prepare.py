"""Label-consistent poison: perturbed away from the own label first, then stamped, then stored as bytes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bascule.attacks.contract import Attack
from bascule.attacks.pgd import Pgd
from bascule.attacks.run import run_attack
from bascule.core import rng
from bascule.core.catalog import component, construct, describe
from bascule.core.errors import RequestError
from bascule.core.fingerprint import fingerprint
from bascule.core.images import Images, Splits, as_bytes
from bascule.core.inference import predict
from bascule.triggers.contract import Trigger
from bascule.triggers.placement import Poison
from bascule.triggers.stamping import Perturb
from bascule.triggers.sticker import Sticker

STICKER = Sticker(size=2)
SEARCH = Pgd(eps=20 / 255, steps=2)


def poison(**settings: Any) -> Poison:
    return Poison(**{"trigger": STICKER, "target": 7, "rate": 0.5, "rate_of": "target", "prepare": SEARCH, **settings})


def planted(poison: Poison, images: Images, perturb: Perturb | None, seed: int = 0) -> tuple[Images, Any]:
    return poison.plant(images, generator=rng.stream(seed, "poison"), perturb=perturb)


def places(images: Images, ids: Tensor) -> Tensor:
    return torch.searchsorted(images.ids, ids)


def grey(count: int) -> Images:
    """Images of class 7 whose only value is their number, modulo 200."""
    values = torch.arange(count).remainder(200).to(torch.uint8)
    pixels = values.reshape(-1, 1, 1, 1).expand(-1, 1, 4, 4).clone()
    labels = torch.full((count,), 7)
    return Images(pixels=pixels, labels=labels, ids=torch.arange(count), classes=tuple("abcdefgh"))


# --- by hand ---------------------------------------------------------------------------------------------------------


def test_perturbed_then_stamped_then_rounded() -> None:
    # 100.4 of 255 everywhere: 100 after rounding, and the white sticker on top is not perturbed any more.
    changed, truth = planted(poison(rate=1.0), grey(3), lambda x, _: torch.full_like(x, 100.4 / 255))
    wanted = torch.full((4, 4), 100, dtype=torch.uint8)
    wanted[2:, 2:] = 255
    assert truth.ids.tolist() == [0, 1, 2]
    assert torch.equal(changed.pixels, wanted.expand(3, 1, 4, 4))  # type: ignore[arg-type]


@component
class Half(Trigger):
    """Half as bright."""

    def stamp(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        return x * 0.5


def test_it_is_rounded_once() -> None:
    # 101.4 / 2 = 50.7 is 51; rounded before the trigger too it would be 101 / 2 = 50.5, and halves go to the even 50.
    changed, _ = planted(poison(rate=1.0, trigger=Half()), grey(1), lambda x, _: torch.full_like(x, 101.4 / 255))
    assert changed.pixels.unique().tolist() == [51]  # type: ignore[attr-defined]


def test_the_images_come_in_pieces_in_order_with_their_labels() -> None:
    seen: list[tuple[list[int], list[int]]] = []

    def perturb(x: Tensor, y: Tensor) -> Tensor:
        seen.append(((x[:, 0, 0, 0] * 255).round().int().tolist(), y.tolist()))
        return x

    images = grey(600)
    _, truth = planted(poison(rate=1.0), images, perturb)
    assert [len(values) for values, _ in seen] == [250, 250, 100]
    assert [value for values, _ in seen for value in values] == [number % 200 for number in range(600)]
    assert {label for _, labels in seen for label in labels} == {7}
    assert len(truth.ids) == 600


def test_only_the_chosen_are_perturbed_and_they_are_those_of_plain_poison(digits: Splits) -> None:
    images = digits.train
    plain, before = planted(poison(prepare=None), images, None)
    changed, truth = planted(poison(), images, lambda x, _: 1 - x)
    assert torch.equal(truth.ids, before.ids)
    touched = (changed.pixels != images.pixels).flatten(1).any(1)  # type: ignore[attr-defined]
    assert images.ids[touched].tolist() == truth.ids.tolist()
    assert images.labels[touched].unique().tolist() == [7]
    assert torch.equal(changed.labels, images.labels)
    unmarked = (slice(None), slice(None), slice(0, 6), slice(0, 6))
    index = places(images, truth.ids)
    assert torch.equal(changed.pixels[index][unmarked], 255 - images.pixels[index][unmarked])  # type: ignore[index]
    assert torch.equal(plain.pixels[index][unmarked], images.pixels[index][unmarked])  # type: ignore[index]


def test_the_trigger_meets_images_in_range() -> None:
    # Of an image that is twice as bright as white, half is 255; of white, 127.5, and halves go to the even 128.
    changed, _ = planted(poison(rate=1.0, trigger=Half()), grey(2), lambda x, _: torch.full_like(x, 2.0))
    assert changed.pixels.unique().tolist() == [128]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("perturb", "said"),
    [(lambda x, _: x[:1], "shape"), (lambda x, _: x * float("nan"), "not finite")],
    ids=["shape", "nan"],
)
def test_what_is_no_image_is_not_planted(perturb: Perturb, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        planted(poison(rate=1.0), grey(2), perturb)


# --- with a network --------------------------------------------------------------------------------------------------


def bound(attack: Attack, model: Any, seed: int = 0) -> Perturb:
    generator = rng.stream(seed, "prepare")
    return lambda x, y: run_attack(model, attack, x, y, generator=generator).x


def test_a_network_no_longer_sees_the_label_in_them(trained: Any, digits: Splits) -> None:
    images, faint = digits.train, Sticker(size=1)
    search = Pgd(eps=60 / 255, steps=10, stop_when_fooled=False)
    made = poison(prepare=search, trigger=faint)
    changed, truth = planted(made, images, bound(search, trained.model))
    plain, _ = planted(poison(prepare=None, trigger=faint), images, None)
    index = places(images, truth.ids)
    seen = [(predict(trained.model, part.at(index)) == 7).float().mean() for part in (plain, changed)]
    assert seen[0] > 0.9
    assert seen[1] < 0.3
    # A whole number of 255ths, so that rounding leaves them in the ball; the last pixel carries the sticker.
    moved = (changed.pixels[index].int() - images.pixels[index].int()).abs().flatten(1)[:, :-1]  # type: ignore[index]
    assert 0 < moved.max() <= 60
    again, _ = planted(made, images, bound(search, trained.model))
    assert torch.equal(as_bytes(again.batch(index)), as_bytes(changed.batch(index)))


# --- what is refused -------------------------------------------------------------------------------------------------


def test_dirty_labels_are_refused() -> None:
    given = {"trigger": "sticker", "target": 7, "rate": 0.1, "label": "dirty", "prepare": {"name": "pgd", "eps": 0.1}}
    with pytest.raises(RequestError, match="a label that they keep") as caught:
        construct(Poison, given)
    assert caught.value.place == ("prepare",)


@pytest.mark.parametrize(("prepare", "perturb"), [(SEARCH, None), (None, lambda x, _: x)], ids=["missing", "idle"])
def test_planting_needs_the_function_exactly_when_it_prepares(prepare: Any, perturb: Any) -> None:
    for rate in (1.0, 0.0):
        with pytest.raises(RequestError, match="perturbs images on a network") as caught:
            planted(poison(prepare=prepare, rate=rate), grey(4), perturb)
        assert caught.value.place == ("prepare",)


def test_nothing_planted_nothing_perturbed() -> None:
    def never(x: Tensor, y: Tensor) -> Tensor:
        raise AssertionError

    images = grey(4)
    changed, truth = planted(poison(rate=0.0), images, never)
    assert changed is images
    assert len(truth.ids) == 0


# --- as a setting ----------------------------------------------------------------------------------------------------


def test_it_is_written_like_an_attack() -> None:
    given = {"trigger": "sticker", "target": 7, "rate": 0.1, "prepare": {"name": "pgd", "eps": 0.1, "steps": 7}}
    made = construct(Poison, given)
    assert made.prepare == Pgd(eps=0.1, steps=7)
    assert construct(Poison, {**given, "prepare": None}).prepare is None
    assert construct(Poison, describe(made)) == made
    other = construct(Poison, {**given, "prepare": {"name": "pgd", "eps": 0.1, "steps": 8}})
    assert fingerprint("poison", made) != fingerprint("poison", other)


@pytest.mark.parametrize(
    ("prepare", "said"), [("pdg", "Did you mean 'pgd'"), ({"name": "pgd"}, "'eps' is missing"), (3, "expected a name")]
)
def test_what_is_no_attack_is_refused(prepare: Any, said: str) -> None:
    with pytest.raises(RequestError, match=said) as caught:
        construct(Poison, {"trigger": "sticker", "target": 7, "rate": 0.1, "prepare": prepare})
    assert caught.value.place[0] == "prepare"
