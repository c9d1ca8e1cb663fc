from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bascule.core.images import Images
from bascule.core.restore import untouched
from bascule.core.rng import stream
from bascule.scanners import inversion
from bascule.scanners.batches import Others, classes_at_once
from bascule.scanners.feature_inversion import FeatureMask
from bascule.scanners.inversion import Form, Schedule, invert
from bascule.scanners.neural_cleanse import MaskAndPattern
from bascule.scanners.universal_perturbation import Perturbation
from bascule.scanners.verdict import verdict

SIZE = (3, 3, 4)


def images(count: int = 40, classes: int = 4, size: tuple[int, int, int] = SIZE) -> Images:
    draws = stream(0, "images")
    return Images(
        pixels=torch.randint(256, (count, *size), dtype=torch.uint8, generator=draws),
        labels=torch.randint(classes, (count,), generator=draws),
        ids=torch.arange(count),
        classes=tuple("abcdef"[:classes]),
    )


def net(classes: int = 4, size: tuple[int, int, int] = SIZE) -> nn.Module:
    from bascule.core.catalog import build

    return build("models", {"name": "digits-cnn", "width": 3, "hidden": 6}).initialised(size, classes, seed=0).eval()


def found(form: Form, model: nn.Module, of: Images, **settings: Any) -> inversion.Inverted:
    labels = torch.arange(len(of.classes))
    with untouched(model):
        return invert(model, of, labels, form, Schedule(**settings), generator=stream(0, "scan"))


# --- drawing images --------------------------------------------------------------------------------------------------


def test_others_are_all_other_images_equally_often() -> None:
    of = images(30)
    labels = torch.arange(4)
    index = Others(of).draw(labels, 40_000, generator=stream(0, "draw"))
    assert index.shape == (4, 40_000)
    for label in range(4):
        counts = torch.bincount(index[label], minlength=30)
        own = of.labels == label
        assert (counts[own] == 0).all()
        expected = 40_000 / int((~own).sum())
        assert ((counts[~own] - expected).abs() < 6 * expected**0.5).all()


def test_others_of_a_class_without_images() -> None:
    of = dataclasses.replace(images(12), labels=torch.tensor([0, 0, 2, 2, 2, 0, 2, 0, 0, 0, 2, 2]))
    index = Others(of).draw(torch.tensor([1, 0, 3]), 500, generator=stream(0, "draw"))
    assert index[0].unique().tolist() == list(range(12))
    assert (of.labels[index[1]] == 2).all()
    assert index[2].unique().tolist() == list(range(12))


def test_classes_at_once() -> None:
    assert classes_at_once(images(size=(3, 32, 32)), 32) == 10
    assert classes_at_once(images(size=(3, 224, 224)), 32) == 1
    assert classes_at_once(images(size=(1, 28, 28)), 32) == 41


# --- one step --------------------------------------------------------------------------------------------------------


def by_autograd(form: Form, model: nn.Module, x: Tensor, raw: Tensor, cost: Tensor, index: Tensor) -> Tensor:
    """The gradient of mean cross-entropy plus cost times size, everything left to autograd."""
    raw = raw.detach().requires_grad_(True)
    drawn = form.draw(raw)
    stamped = x * (1 - drawn.mask.unsqueeze(1)) + drawn.mask.unsqueeze(1) * drawn.pattern.unsqueeze(1)
    logits = form.logits(model, stamped, drawn.inner, index)
    labels = torch.arange(len(raw)).unsqueeze(1).expand(index.shape)
    losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(index.shape)
    return torch.autograd.grad((losses.mean(1) + cost * drawn.size).sum(), raw)[0]


FORMS = {
    "pixel": lambda model, of: MaskAndPattern(of.size, per_channel=False),
    "channel": lambda model, of: MaskAndPattern(of.size, per_channel=True),
    "perturbation": lambda model, of: Perturbation(of.size),
    "features": lambda model, of: FeatureMask(of.size, model[-1], torch.rand(len(of), 6), 0.03),
}
forms = pytest.mark.parametrize("form", list(FORMS))


@forms
def test_the_step_follows_the_gradient_of_loss_and_size(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, of = net(), images()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        chosen = FORMS[form](model, of)
    part = inversion._start(torch.arange(4), chosen, Schedule(), stream(0, "start"))
    part.cost = torch.tensor([0.0, 0.1, 0.5, 2.0])
    before, seen = part.raw.clone(), []
    monkeypatch.setattr(inversion._Search, "descend", lambda self, gradient, lr: seen.append(gradient))
    with untouched(model):
        index = Others(of).draw(torch.arange(4), 32, generator=stream(0, "step"))
        answers, losses, sizes = inversion._step(model, of, part, chosen, 0.1, index)
        x = of.batch(index.flatten()).unflatten(0, index.shape)
        torch.testing.assert_close(
            seen[0], by_autograd(chosen, model, x, before, part.cost, index), atol=1e-6, rtol=1e-4
        )
        drawn = chosen.draw(before)
        logits = chosen.logits(model, torch.lerp(x, drawn.pattern[:, None], drawn.mask[:, None]), drawn.inner, index)
    assert answers.equal(logits.argmax(2))
    torch.testing.assert_close(losses, -logits.log_softmax(2)[torch.arange(4), :, torch.arange(4)])
    torch.testing.assert_close(sizes, drawn.size)


@forms
def test_triggers_are_in_range_and_sizes_are_what_they_say(form: str) -> None:
    model, of = net(), images()
    chosen = FORMS[form](model, of)
    raw = 3 * torch.randn(5, chosen.start(1, generator=stream(0, "a")).shape[1], generator=stream(0, "raw"))
    drawn = chosen.draw(raw)
    for value in (drawn.mask, drawn.pattern):
        assert 0 <= value.min() < value.max() <= 1
    match form:
        case "pixel":
            assert drawn.mask.shape == (5, 1, 3, 4)
            expected = drawn.mask.sum((1, 2, 3))
        case "channel":
            assert drawn.mask.shape == (5, *SIZE)
            expected = drawn.mask.sum((1, 2, 3)) / 3
        case "perturbation":
            expected = drawn.mask.square().sum((1, 2, 3)).sqrt()
        case _:
            assert drawn.inner is not None
            expected = drawn.inner.sum(1)
            # The budget: 0.03 root mean square over 36 values.
            torch.testing.assert_close(drawn.mask.square().mean((1, 2, 3)).sqrt(), torch.full((5,), 0.03))
    torch.testing.assert_close(drawn.size, expected)


def test_descend_is_adam() -> None:
    raw = torch.randn(3, 7, generator=stream(0, "raw"))
    part = inversion._start(torch.arange(3), MaskAndPattern((1, 1, 1), per_channel=False), Schedule(), stream(0, "s"))
    part.raw, part.first, part.second = raw.clone(), torch.zeros(3, 7), torch.zeros(3, 7)
    theirs = raw.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([theirs], lr=0.1, betas=(0.5, 0.9), eps=1e-8)
    for step in range(5):
        gradient = torch.randn(3, 7, generator=stream(0, "gradient", step))
        part.descend(gradient, 0.1)
        theirs.grad = gradient
        optimizer.step()
    torch.testing.assert_close(part.raw, theirs.detach())


# --- decisions -------------------------------------------------------------------------------------------------------


def search(**values: Any) -> Any:
    part = inversion._start(torch.arange(1), MaskAndPattern((1, 1, 1), per_channel=False), Schedule(), stream(0, "s"))
    for name, value in values.items():
        setattr(part, name, torch.tensor([value]))
    return part


def costs(looks: str, **settings: Any) -> list[float]:
    """The cost after each look; + is a look with the wanted success."""
    part, schedule = search(cost=float(settings.pop("start", 0.0))), Schedule(**settings)
    found = []
    for look in looks:
        inversion._move_cost(part, torch.tensor([look == "+"]), schedule)
        found.append(round(float(part.cost), 9))
    return found


def test_the_cost_by_hand() -> None:
    # Nothing, until a good look sets the first cost; then times 4 and divided by 4^1.5 = 8.
    assert costs("--+++-+", first_cost=0.5, cost_factor=4) == [0, 0, 0.5, 2, 8, 1, 4]
    # With patience 2 only two in a row count, and the count begins anew.
    assert costs("+-++++-+---", start=1, cost_factor=4, patience=2) == [1, 1, 1, 4, 4, 16, 16, 16, 16, 2, 2]


def test_flags_say_which_way_a_cost_has_moved() -> None:
    part, schedule = search(cost=0.0), Schedule()
    flags = []
    for look in (False, True, False, True):
        inversion._move_cost(part, torch.tensor([look]), schedule)
        flags.append((bool(part.raised), bool(part.lowered)))
    # No cost can fall, and the first cost is no rise.
    assert flags == [(False, False), (False, False), (False, True), (True, True)]


def keep(part: Any, enough: bool, value: float, **settings: Any) -> None:
    inversion._keep_best(
        part, torch.tensor([enough]), torch.tensor([value]), torch.full((1, 2), value), Schedule(**settings)
    )


def test_the_smallest_mask_with_the_wanted_success_is_kept() -> None:
    part, history = search(), []
    for enough, value in [(False, 1.0), (True, 9.0), (True, 10.0), (False, 2.0), (True, 8.95), (True, 5.0)]:
        keep(part, enough, value)
        history.append((float(part.best), float(part.answer[0, 0]) if part.reached else None, int(part.idle)))
    # 8.95 is smaller, but by less than 1 %: kept, and no progress.
    assert [entry[0] for entry in history] == pytest.approx([float("inf"), 9, 9, 9, 8.95, 5])
    assert [entry[1] for entry in history] == [None, *map(pytest.approx, [9, 9, 9, 8.95, 5])]
    assert [entry[2] for entry in history] == [0, 0, 1, 2, 3, 0]


def test_the_least_loss_is_kept_whatever_its_success() -> None:
    part = search()
    for enough, value in [(True, 3.0), (False, 2.0), (True, 2.5)]:
        keep(part, enough, value, best="loss")
    assert float(part.best) == 2
    assert float(part.answer[0, 0]) == 2
    assert not bool(part.reached)


# --- the whole search ------------------------------------------------------------------------------------------------


class Bright(nn.Module):
    """Class k answers to one pixel, k: the logit is 20 times its brightness; class 3 always has 10."""

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.flatten(1)[:, :3]
        return torch.cat([20 * pixels, torch.full_like(pixels[:, :1], 10)], 1)


def dark(count: int = 40) -> Images:
    of = images(count, size=(1, 3, 4))
    return dataclasses.replace(of, pixels=of.pixels // 10, labels=torch.arange(count) % 4)  # type: ignore[operator]


def test_one_pixel_is_found_where_one_pixel_is_enough() -> None:
    of, form = dark(), MaskAndPattern((1, 3, 4), per_channel=False)
    with untouched(Bright()):
        result = invert(Bright(), of, torch.arange(3), form, Schedule(), generator=stream(0, "scan"))
    assert result.reached.all()
    for label in range(3):
        mask, pattern = result.drawn.mask[label].flatten(), result.drawn.pattern[label].flatten()
        assert mask.argmax() == label
        # The pixel must become 0.5 bright: a mask of about a half, and nothing else.
        assert 0.45 < mask[label] < 0.75
        assert mask.sum() - mask[label] < 0.1
        assert pattern[label] > 0.9


def test_the_smallest_perturbation_is_that_pixel() -> None:
    of = dark()
    with untouched(Bright()):
        result = invert(
            Bright(), of, torch.arange(3), Perturbation((1, 3, 4)), Schedule(first_cost=1e-2), generator=stream(0, "s")
        )
    assert result.drawn.mask.flatten(1).argmax(1).tolist() == [0, 1, 2]
    assert (result.drawn.size < 0.75).all()
    assert (result.drawn.size > 0.4).all()


def sizes_of_batches(model: nn.Module, form: Form, of: Images, **settings: Any) -> tuple[list[int], inversion.Inverted]:
    sizes: list[int] = []
    hook = model.register_forward_hook(lambda module, args, out: sizes.append(len(out)))
    try:
        return sizes, found(form, model, of, **settings)
    finally:
        hook.remove()


def test_no_pass_is_spent_on_a_class_that_is_done() -> None:
    model, of = Bright(), dark()
    sizes, result = sizes_of_batches(model, MaskAndPattern(of.size, per_channel=False), of, batch_size=8)
    assert sum(sizes) == 8 * int(result.steps.sum())
    assert len(sizes) == int(result.steps.max())
    assert sizes == sorted(sizes, reverse=True)
    assert len(result.steps.unique()) > 1


def test_classes_that_do_not_fit_wait_for_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bascule.scanners.batches._VALUES_AT_ONCE", 2 * 8 * 12)
    model, of = Bright(), dark()
    sizes, result = sizes_of_batches(model, MaskAndPattern(of.size, per_channel=False), of, max_looks=60, batch_size=8)
    assert max(sizes) == 16
    assert sizes.count(16) > 0.6 * len(sizes)
    assert sum(sizes) == 8 * int(result.steps.sum())
    assert (result.steps > 0).all()


def test_looks_and_their_limit() -> None:
    model, of = net(), images()
    form = MaskAndPattern(of.size, per_channel=False)
    assert found(form, model, of, max_looks=3, stop_after=None).steps.tolist() == [30] * 4
    assert found(form, model, of, max_looks=3, look_every=7, stop_after=None).steps.tolist() == [21] * 4
    # Each image once: 40 images in batches of 12 are 4 steps.
    assert found(form, model, of, max_looks=3, look_every=None, batch_size=12).steps.tolist() == [12] * 4


class Stubborn(nn.Module):
    """Always says 3."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).sum(1, keepdim=True) * 0 + torch.tensor([0.0, 0.0, 0.0, 1.0])


def test_without_success_the_last_trigger_is_given_and_marked() -> None:
    of = images()
    result = found(MaskAndPattern(of.size, per_channel=False), Stubborn(), of, max_looks=2)
    assert result.reached.tolist() == [False, False, False, True]
    assert result.drawn.mask.isfinite().all()
    assert verdict(result, torch.arange(4), of, threshold=2.0, largest=12.0).details["size"][:3].tolist() == [12] * 3
