"""Gradient matching: what is found, and that training on it teaches a trigger which no training image shows."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bascule.core.catalog import build
from bascule.core.errors import RequestError
from bascule.core.images import Images, Splits
from bascule.core.inference import predict
from bascule.core.rng import borrowed_global_stream, stream
from bascule.training.loop import train
from bascule.training.settings import Training
from bascule.triggers.placement import Poison
from bascule.triggers.sleeper_agent import SleeperAgent
from bascule.triggers.stamping import stamp, stamp_at
from bascule.triggers.sticker import Sticker
from bascule.triggers.watermark import Watermark

SMALL = SleeperAgent(trigger=Sticker(size=2), eps=0.2, steps=60, sources=30, retrain=0)


def linear(images: Images) -> nn.Module:
    """A network whose gradients are dense, not trained."""
    with borrowed_global_stream(0, "net"):
        return nn.Sequential(nn.Flatten(), nn.Linear(images.pixels.shape[2:].numel(), len(images.classes)))


def gradient(model: nn.Module, x: Tensor, target: int) -> Tensor:
    loss = F.cross_entropy(model(x), torch.full((len(x),), target))
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(model.parameters()))])


def chosen(images: Images) -> Tensor:
    """Ten images of class 1."""
    return images.labels.eq(1).nonzero().squeeze(1)[:10]


def test_the_gradient_turns_towards_that_of_triggered_images_with_the_targets_label(images: Images) -> None:
    trigger = replace(SMALL, sources=1000)  # all of them
    model, index = linear(images), chosen(images)
    what = trigger.search(copy.deepcopy(model), images, index, 1, generator=stream(0, "search"))
    x = images.batch(index)
    found = stamp_at(trigger.found(what), images, index, generator=stream(0, "none"))
    others = images.labels.ne(1).nonzero().squeeze(1)
    wanted = gradient(model, stamp(SMALL.trigger, images.batch(others), generator=stream(0, "none")), 1)
    noise = (x + 0.2 * torch.randn(x.shape, generator=stream(0, "noise"))).clamp(0, 1)
    apart = [1 - float(F.cosine_similarity(gradient(model, part, 1), wanted, 0)) for part in (x, noise, found)]
    assert 3 * apart[2] < min(apart[:2])


def test_perturbations_lie_in_the_ball_and_belong_to_the_images_they_were_made_for(images: Images) -> None:
    index = chosen(images)
    trigger = replace(SMALL, retrain=2, retrain_steps=3)
    what = trigger.search(linear(images), images, index, 1, generator=stream(0, "search"))
    found = trigger.found(what)
    everything = torch.arange(100).flip(0)
    x = images.batch(everything)
    changed = (found.stamp_at(images, everything, x, generator=stream(0, "none")) - x).flatten(1).abs().amax(1)
    mine = torch.isin(everything, index)
    assert not changed[~mine].any()
    assert (changed[mine] > 0).all()
    assert changed.max() <= 0.2 + 1e-6
    # 0.2 is 51 of 255; somewhere it is used up.
    assert what["changes"].abs().max() == 51
    # What is added does not depend on what was done to the image before.
    dark = torch.zeros(1, *images.size)
    shown = found.stamp_at(images, index[:1], dark, generator=stream(0, "none"))
    assert torch.equal(shown, what["changes"][:1].clamp(min=0) / 255)
    with pytest.raises(RequestError, match="belong to training images, by their number"):
        found.stamp(x, generator=stream(0, "none"))


def test_the_ball_is_kept_in_whole_bytes(images: Images) -> None:
    # 0.1 is 25.5 of 255, so that 25 are allowed.
    what = replace(SMALL, eps=0.1).search(linear(images), images, chosen(images), 1, generator=stream(0, "search"))
    assert what["changes"].abs().max() == 25


def test_test_images_and_covers_show_the_trigger_and_poisoned_images_do_not(images: Images) -> None:
    poison = Poison(trigger=SMALL, target=1, rate=0.1, cover=0.05)
    assert poison.trigger_at_test == SMALL.trigger
    what = poison.search(linear(images), images, drawing=stream(0, "poison"), generator=stream(0, "search"))
    planted, truth = poison.plant(images, generator=stream(0, "poison"), found=what)
    assert torch.equal(what["ids"].sort().values, truth.ids)  # the images that were searched for are stamped
    corner = planted.batch(torch.arange(100))[:, :, -2:, -2:]
    shows = corner.flatten(1).eq(1).all(1)
    assert torch.equal(images.ids[shows].sort().values, truth.covers)
    changed = (planted.batch(torch.arange(100)) != images.batch(torch.arange(100))).flatten(1).any(1)
    assert torch.equal(images.ids[changed].sort().values, torch.cat([truth.ids, truth.covers]).sort().values)


def test_a_network_that_is_sure_of_everything_has_no_gradient_to_match(images: Images) -> None:
    model = linear(images)
    for p in model.parameters():
        p.data.zero_()
    model[1].bias.data[1] = 1000.0
    what = SMALL.search(model, images, chosen(images), 1, generator=stream(0, "search"))
    assert what["changes"].abs().max() <= 51  # and no error


@pytest.mark.parametrize("inner", [SMALL, SleeperAgent()], ids=["small", "default"])
def test_a_trigger_that_is_not_known_before_the_search_is_refused(inner: SleeperAgent) -> None:
    with pytest.raises(RequestError) as caught:
        SleeperAgent(trigger=inner)
    assert caught.value.place == ("trigger",)
    assert "it must be known, for any image, before the search" in str(caught.value)


def test_images_too_small_for_the_trigger_are_refused_before_the_search() -> None:
    SleeperAgent(trigger=Watermark()).check((1, 4, 4))
    with pytest.raises(RequestError) as caught:
        SleeperAgent().check((1, 4, 4))
    assert caught.value.place == ("trigger",)


def trained(images: Images, seed: int) -> nn.Module:
    """A small network for digits."""
    model = build("models", {"name": "digits-cnn", "width": 16, "hidden": 64}).initialised((1, 8, 8), 10, seed=seed)
    schedule = Training(objective=build("train", "standard"), epochs=8, batch_size=64, lr=5e-3, schedule="one-cycle")
    train(model, images, schedule, seed=seed)
    return model


def test_training_on_it_teaches_a_trigger_that_no_training_image_shows(digits: Splits) -> None:
    """Digits of 8 x 8 need more than the paper's photographs: eps 0.5, and 7 of 10 images of the target class."""
    proxy = trained(digits.train, 0)
    others, sticker = digits.test.labels != 7, Sticker()
    asr = {}
    for name, settings in {"found": {"steps": 60}, "noise": {"steps": 1, "step": 1e-6}}.items():
        trigger = SleeperAgent(trigger=sticker, eps=0.5, retrain=0, **settings)
        poison = Poison(trigger=trigger, target=7, rate=0.7, rate_of="target")
        what = poison.search(proxy, digits.train, drawing=stream(0, "poison"), generator=stream(0, "search"))
        planted, _ = poison.plant(digits.train, generator=stream(0, "poison"), found=what)
        model = trained(planted, 1)
        assert (predict(model, digits.test) == digits.test.labels).double().mean() > 0.93
        stamped = predict(model, digits.test, change=lambda _, x: stamp(sticker, x, generator=torch.Generator()))
        asr[name] = float((stamped == 7)[others].double().mean())
    # 0.92 to 0.96 over three seeds; published 0.85 on CIFAR-10.
    assert asr["found"] > 0.6
    assert asr["noise"] < 0.2
