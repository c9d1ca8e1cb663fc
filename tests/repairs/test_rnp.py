"""RNP: unlearning, the masks that recover, and what is pruned."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bascule.core import catalog, rng
from bascule.core.images import Images, Splits
from bascule.core.inference import accuracy_on, predict
from bascule.core.rng import stream
from bascule.repairs.layers import hidden_layers_of, scaled
from bascule.repairs.rnp import Rnp
from bascule.repairs.run import run_repair
from bascule.training.loop import train
from bascule.training.settings import Training
from bascule.triggers.placement import Poison
from bascule.triggers.stamping import stamp


def with_norm() -> nn.Sequential:
    with rng.borrowed_global_stream(0, "net"):
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)
        ).eval()


def masks_by_the_authors(net: nn.Sequential, images: Images, *, passes: int) -> torch.Tensor:
    """The masks after `train_step_recovering` in `main.py` of bboylyg/RNP, from what it says, where a batch is a pass:
    train mode; a mask of ones times the gain of batch norm (`MaskBatchNorm2d`), not its shift; SGD at 0.2 with momentum
    0.9 on 0.2 * cross-entropy; cut to [0, 1] after every step."""
    conv, norm, relu, flatten, linear = net
    x, y = images.batch(images.ids), images.labels
    mask = torch.ones(4, requires_grad=True)
    optimizer = torch.optim.SGD([mask], lr=0.2, momentum=0.9)
    for _ in range(passes):
        optimizer.zero_grad()
        seen = F.batch_norm(conv(x), None, None, norm.weight * mask, norm.bias, True, 0.1, norm.eps)  # type: ignore[arg-type, operator]
        (0.2 * F.cross_entropy(linear(flatten(relu(seen))), y)).backward()
        optimizer.step()
        with torch.no_grad():
            mask.clamp_(0, 1)
    return mask.detach()


def test_masks_are_those_of_the_authors_code(some: Images) -> None:
    net = with_norm()
    with torch.no_grad():
        net[4].weight.mul_(4)  # so that masks move
    wanted = masks_by_the_authors(copy.deepcopy(net), some, passes=12)
    before = copy.deepcopy(net.state_dict())
    (found,) = Rnp(recover_epochs=12)._recover(net, some, generator=stream(0, "r"))
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
    assert wanted.min() < 0.9
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_unlearning_climbs_until_few_are_right(some: Images) -> None:
    """The first step is that of `train_step_unlearning` of bboylyg/RNP: SGD at 0.01, decay 5e-4, on the loss's
    negative; it ends after the pass with few enough right."""
    net = with_norm()
    one = copy.deepcopy(net)
    Rnp(unlearn_epochs=1)._unlearn(one, some, generator=stream(0, "r"))
    net.train()
    loss = F.cross_entropy(net(some.batch(some.ids)), some.labels)
    gradient = torch.autograd.grad(-loss, list(net.parameters()))
    for (name, was), slope in zip(net.named_parameters(), gradient, strict=True):
        wanted = was - 0.01 * (slope + 5e-4 * was)
        torch.testing.assert_close(dict(one.named_parameters())[name], wanted, rtol=1e-4, atol=1e-6)
    known = replace(some, labels=with_norm().train()(some.batch(some.ids)).argmax(1))
    assert Rnp(unlearn_epochs=1)._unlearn(with_norm(), known, generator=stream(0, "r")) == 1
    assert Rnp(unlearn_lr=0.1)._unlearn(with_norm(), known, generator=stream(0, "r")) <= 0.2
    assert Rnp(unlearn_lr=0.1, clean_threshold=1.0)._unlearn(with_norm(), known, generator=stream(0, "r")) == 1


@pytest.mark.parametrize(("max_drop", "wanted"), [(1.0, 3), (0.0, 2)])
def test_the_lowest_masks_go_as_far_as_the_accuracy_bears(max_drop: float, wanted: int) -> None:
    """Channel 0 alone sees the class; its mask is the third lowest, and the fourth is above the threshold."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]))
        net[1].bias.zero_()
        net[3].weight.copy_(torch.tensor([[-8.0, 0, 0, 0], [8.0, 0, 0, 0]]))
        net[3].bias.copy_(torch.tensor([4.0, -4.0]))
    pixels = torch.full((10, 1, 1, 2), 255, dtype=torch.uint8)
    pixels[::2, 0, 0, 0] = 0
    images = Images(pixels=pixels, labels=torch.tensor([0, 1] * 5), ids=torch.arange(10), classes=("a", "b"))
    masks = (torch.tensor([0.5, 0.1, 0.3, 0.8]),)
    assert Rnp(max_drop=max_drop)._prune(net, hidden_layers_of(net, images.size), masks, images) == wanted
    assert (net[1].weight == 0).all(1).tolist() == [wanted == 3, True, True, False]
    assert accuracy_on(net, images) == (0.5 if wanted == 3 else 1.0)


def test_shifts_stay_when_weights_are_masked(plain: nn.Module, some: Images) -> None:
    layers = hidden_layers_of(plain, some.size)
    assert scaled(layers, [torch.ones(layer.channels) for layer in layers]).keys() == {
        f"{layer.name}.weight" for layer in layers
    }


def test_a_backdoor_weakens(digits: Splits) -> None:
    """One real training: a quarter of the ASR goes, and no more accuracy than the budget's few points."""
    poison = Poison(trigger=catalog.build("poison", {"name": "sticker", "size": 2}), target=7, label="dirty", rate=0.1)
    planted, _ = poison.plant(digits.train, generator=stream(0, "poison"))
    model = catalog.build("models", {"name": "digits-cnn", "width": 32, "hidden": 128}).initialised(
        (1, 8, 8), 10, seed=0
    )
    train(model, planted, Training(objective=catalog.build("train", "standard"), epochs=10, lr=5e-3), seed=0)
    places = torch.arange(len(digits.test))
    ours, judged = digits.test.at(places[::2]), digits.test.at(places[1::2])
    others = judged.at((judged.labels != 7).nonzero().squeeze(1))

    def success(net: nn.Module) -> float:
        taken = predict(net, others, change=lambda _, x: stamp(poison.trigger, x, generator=stream(0, "test")))
        return (taken == 7).double().mean().item()

    found = run_repair(model, Rnp(), ours, generator=stream(0, "contract"))
    assert success(model) > 0.95
    assert success(found.model) < 0.9
    assert accuracy_on(found.model, judged) > accuracy_on(model, judged) - 0.06
    assert found.notes["pruned"] > 0
