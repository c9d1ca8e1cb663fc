"""A mark under another image, by hand, and what it does to STRIP."""

from __future__ import annotations

import pytest
import torch

from bascule.core.errors import RequestError
from bascule.core.images import Images
from bascule.core.rng import stream
from bascule.triggers.narcissus import Narcissus
from bascule.triggers.overlaid import Overlaid
from bascule.triggers.placement import Poison
from bascule.triggers.sticker import Sticker


def grey(*values: int) -> Images:
    """Images of one value each, all of another class."""
    pixels = torch.tensor(values, dtype=torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 1, 4, 4).clone()
    labels = torch.arange(len(values))
    return Images(pixels=pixels, labels=labels, ids=torch.arange(len(values)), classes=tuple("abcdefgh"[: len(values)]))


def test_the_mark_lies_below_the_other_image() -> None:
    x = torch.tensor([0.25, 0.5]).reshape(2, 1, 1, 1).expand(2, 1, 4, 4).clone()
    stamped = Overlaid(mark=Sticker(size=1, color=0.0), opacity=0.5).stamp(x, generator=stream(0, "overlaid"))
    # 0.25 + 0.5 * 0.5 and 0.5 + 0.5 * 0.25; under the black mark only the half of the other is left.
    assert torch.allclose(stamped[:, 0, 0, 0], torch.tensor([0.5, 0.625]))
    assert torch.allclose(stamped[:, 0, 3, 3], torch.tensor([0.25, 0.125]))


def test_nobody_meets_himself() -> None:
    x = torch.tensor([0.1, 0.2, 0.4]).reshape(3, 1, 1, 1).expand(3, 1, 4, 4).clone()
    for seed in range(20):
        stamped = Overlaid(mark=Sticker(size=1)).stamp(x, generator=stream(seed, "overlaid"))
        others = stamped[:, 0, 0, 0] - x[:, 0, 0, 0]
        assert not torch.isclose(others, x[:, 0, 0, 0]).any()
    assert torch.equal(
        Overlaid(mark=Sticker(size=1)).stamp(x[:1], generator=stream(0, "")),
        Sticker(size=1).stamp(x[:1], generator=stream(0, "")),
    )


def test_covers_show_another_trigger_than_the_poisoned_images() -> None:
    images = grey(10, 20, 40, 80)
    poison = Poison(
        trigger=Sticker(size=1),
        label="dirty",
        target=0,
        rate=0.25,
        cover=0.25,
        cover_trigger=Overlaid(mark=Sticker(size=1)),
    )
    planted, truth = poison.plant(images, generator=stream(3, "poison"))
    (poisoned,), (cover,) = truth.ids.tolist(), truth.covers.tolist()
    assert planted.labels[poisoned] == 0
    assert planted.labels[cover] == images.labels[cover]
    assert planted.pixels[poisoned, 0, 0, 0] == images.pixels[poisoned, 0, 0, 0]  # away from the mark as it was
    laid_over = int(planted.pixels[cover, 0, 0, 0]) - int(images.pixels[cover, 0, 0, 0])
    assert laid_over in {10, 20, 40, 80} - {int(images.pixels[cover, 0, 0, 0])}
    assert planted.pixels[cover, 0, 3, 3] == 255
    untouched = [number for number in range(4) if number not in (poisoned, cover)]
    assert torch.equal(planted.pixels[untouched], images.pixels[untouched])  # type: ignore[index]


def test_a_cover_trigger_needs_covers() -> None:
    with pytest.raises(RequestError, match="there are no covers"):
        Poison(trigger=Sticker(), target=0, rate=0.1, cover_trigger=Overlaid())


def test_a_mark_that_is_searched_for_is_refused_for_what_it_is() -> None:
    with pytest.raises(RequestError, match="only the `trigger` of a poison can be searched for") as error:
        Overlaid(mark=Narcissus())
    assert error.value.place == ("mark",)
