"""Schedules, optimisers and augmentation, worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bascule.core import catalog, rng
from bascule.core.catalog import construct
from bascule.core.errors import RequestError
from bascule.training.settings import Augment, Training
from bascule.training.standard import Standard

PAPER = ((0, 0.1), (400, 1.0), (40_000, 0.1), (60_000, 0.01))
"""The study's CIFAR-10 schedule as shares of lr 0.1."""
COS_45 = 0.5 * (1 + 2**-0.5)


def training(**settings: Any) -> Training:
    return Training(**{"objective": Standard(), "epochs": 1, **settings})


# --- learning rate ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "total", "wanted"),
    [
        ({}, 7, {0: 1, 3: 1, 6: 1}),
        ({"schedule": "cosine"}, 4, {0: 1, 1: COS_45, 2: 0.5, 3: 1 - COS_45}),
        ({"schedule": "one-cycle"}, 10, {0: 0.5, 1: 1, 2: 1, 4: COS_45, 6: 0.5, 8: 1 - COS_45}),
        ({"schedule": "one-cycle", "warmup": 0.5}, 8, {0: 0.25, 1: 0.5, 2: 0.75, 3: 1, 4: 1, 5: COS_45, 6: 0.5}),
        ({"schedule": "one-cycle", "warmup": 0.0}, 4, {0: 1, 1: COS_45, 2: 0.5, 3: 1 - COS_45}),
        # The rise ends between two steps: the peak comes at the next one.
        ({"schedule": "one-cycle", "warmup": 0.25}, 10, {0: 0.4, 1: 0.8, 2: 1}),
        (
            {"schedule": "piecewise", "milestones": PAPER},
            100_000,
            {0: 0.1, 399: 0.1, 400: 1, 39_999: 1, 40_000: 0.1, 59_999: 0.1, 60_000: 0.01, 99_999: 0.01},
        ),
    ],
    ids=["constant", "cosine", "one-cycle", "half", "no-rise", "uneven-rise", "paper"],
)
def test_learning_rate_by_step(settings: dict[str, Any], total: int, wanted: dict[int, float]) -> None:
    found = training(**settings)
    assert {step: found.lr_share(step, total) for step in wanted} == pytest.approx(wanted)


@pytest.mark.parametrize("warmup", [0.0, 0.2, 0.33, 0.99])
@pytest.mark.parametrize("total", [1, 2, 3, 10, 97])
def test_one_cycle_rises_to_the_peak_and_falls(warmup: float, total: int) -> None:
    cycle = training(schedule="one-cycle", warmup=warmup)
    shares = [cycle.lr_share(step, total) for step in range(total)]
    top = shares.index(max(shares))
    assert max(shares) == pytest.approx(1)
    assert min(shares) > 0
    assert shares[:top] == sorted(shares[:top])
    assert shares[top:] == sorted(shares[top:], reverse=True)


# --- optimiser -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kept"),
    [("sgd", 1 - 0.1 * 0.5), ("adamw", 1 - 0.1 * 0.5), ("adam", None)],
)
def test_weight_decay_pulls_matrices_only(name: Any, kept: float | None) -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))
    before = {key: value.detach().clone() for key, value in net.named_parameters()}
    optimizer = training(optimizer=name, lr=0.1, weight_decay=0.5).make_optimizer(net)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for key, value in net.named_parameters():
        if key not in ("0.weight", "3.weight"):
            assert torch.equal(value, before[key]), key
        elif kept is not None:
            assert torch.allclose(value, kept * before[key]), key
        else:  # Adam sees the decay as a gradient, so its first step has length lr whatever the weight
            assert torch.allclose(value, before[key] - 0.1 * before[key].sign(), atol=1e-4), key


def test_a_module_may_be_without_weight_decay() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Conv2d(1, 1, 1), nn.Linear(2, 2)))
    net[1].without_weight_decay = True
    net[1][1].bias.requires_grad_(False)
    groups = training(weight_decay=0.5).make_optimizer(net).param_groups
    found = {group["weight_decay"]: {id(p) for p in group["params"]} for group in groups}
    assert found[0.5] == {id(net[0].weight)}
    assert found[0.0] == {id(p) for p in (net[0].bias, net[1][0].weight, net[1][0].bias, net[1][1].weight)}


def test_the_denoising_blocks_of_the_study_decay_on_imagenet_but_not_on_cifar() -> None:
    for name, count in (("cifar-paper", 0), ("resnet50", 6)):
        with torch.device("meta"):
            net = catalog.build("models", {"name": name, "denoise": True}).build((3, 32, 32), 10)
        parts = {f"{name}.{part}" for name, _ in net.named_children() for part in ("theta", "phi", "conv")}
        convolutions = {id(p) for name, p in net.named_parameters() if name.removesuffix(".weight") in parts}
        decayed, spared = ({id(p) for p in group["params"]} for group in training().make_optimizer(net).param_groups)
        assert len(convolutions) == {"cifar-paper": 9, "resnet50": 6}[name]
        assert len(convolutions & decayed) == count
        assert len(convolutions & spared) == len(convolutions) - count
        others = {id(p) for name, p in net.named_parameters() if "denoise" not in name and p.ndim > 1}
        assert others <= decayed


@pytest.mark.parametrize(
    ("name", "kind", "momentum"),
    [
        ("sgd", torch.optim.SGD, {"momentum": 0.8, "nesterov": False, "dampening": 0}),
        ("adam", torch.optim.Adam, {"betas": (0.8, 0.999)}),
        ("adamw", torch.optim.AdamW, {"betas": (0.8, 0.999)}),
    ],
)
def test_optimizers_and_their_momentum(name: Any, kind: type, momentum: dict[str, Any]) -> None:
    optimizer = training(optimizer=name, momentum=0.8, lr=0.3).make_optimizer(nn.Linear(2, 2))
    assert type(optimizer) is kind
    for group in optimizer.param_groups:
        assert {key: group[key] for key in momentum} == momentum
        assert group["lr"] == 0.3


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize(
    ("weight", "fused"),
    [
        (lambda: torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last), True),
        (lambda: torch.randn(7, 4).T, True),
        (lambda: torch.randn(4, 8)[:, :3], None),
        (lambda: torch.randn(4, 3, dtype=torch.complex64), None),
    ],
    ids=["pixels", "turned", "part", "complex"],
)
def test_the_step_is_that_of_torchs_plain_optimiser(name: Any, weight: Any, fused: bool | None) -> None:
    """In one pass over the memory of each parameter, where that is all there is in it."""
    found = []
    for plain in (False, True):
        with rng.borrowed_global_stream(0, "weight"):
            net = nn.ParameterList([nn.Parameter(weight()), nn.Parameter(torch.randn(4))])
        optimizer = training(optimizer=name, lr=0.1, weight_decay=0.1).make_optimizer(net)
        assert [group["fused"] for group in optimizer.param_groups] == [fused, fused]
        for group in optimizer.param_groups if plain else ():
            group["fused"] = None
        for _ in range(3):
            optimizer.zero_grad()
            (net[0].flatten(1).abs().sum(1) * net[1] - 1).square().sum().backward()
            optimizer.step()
        found.append([parameter.detach() for parameter in net])
    assert all(torch.allclose(ours, theirs, atol=1e-6) for ours, theirs in zip(*found, strict=True))


def test_only_parameters_that_want_gradients_are_trained() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, bias=False))
    net[0].requires_grad_(False)
    groups = training().make_optimizer(net).param_groups
    assert [p is net[1].weight for group in groups for p in group["params"]] == [True]


# --- augmentation ----------------------------------------------------------------------------------------------------


def numbered(count: int, height: int = 5, width: int = 6) -> Tensor:
    """Copies of one image whose pixels all differ and none is zero."""
    image = torch.arange(1, 2 * height * width + 1).reshape(1, 2, height, width) / 100
    return image.repeat(count, 1, 1, 1)


@pytest.mark.parametrize("flip", [False, True], ids=["crop", "crop-flip"])
@pytest.mark.parametrize("pad", [1, 2])
def test_augmentation_equals_a_loop_over_images(pad: int, flip: bool) -> None:
    x = torch.rand(20, 3, 5, 6, generator=rng.stream(0, "images"))
    given = x.clone()
    found = Augment(pad=pad, flip=flip).apply(x, generator=rng.stream(1, "augment"))
    draws = rng.stream(1, "augment")
    shifts = torch.randint(2 * pad + 1, (2, 20, 1), generator=draws)
    mirrored = torch.rand(20, 1, 1, 1, generator=draws).flatten() < 0.5 if flip else [False] * 20
    for number, image in enumerate(x):
        top, left = int(shifts[0, number]), int(shifts[1, number])
        wanted = F.pad(image, (pad,) * 4)[:, top : top + 5, left : left + 6]
        assert torch.equal(found[number], wanted.flip(2) if mirrored[number] else wanted)
    assert torch.equal(x, given)


def test_every_shift_and_both_mirror_images_come_up() -> None:
    pad, count = 1, 900
    found = Augment(pad=pad, flip=True).apply(numbered(count), generator=rng.stream(0, "augment"))
    padded = F.pad(numbered(1)[0], (pad,) * 4)
    counts: dict[tuple[int, int, bool], int] = {}
    for top in range(3):
        for left in range(3):
            for mirrored in (False, True):
                shifted = padded[:, top : top + 5, left : left + 6]
                wanted = shifted.flip(2) if mirrored else shifted
                counts[top, left, mirrored] = int((found == wanted).flatten(1).all(1).sum())
    assert sum(counts.values()) == count
    assert min(counts.values()) > 20  # 50 expected of each, standard deviation 7
    assert 0.4 < sum(number for (_, _, mirrored), number in counts.items() if mirrored) / count < 0.6


def test_no_augmentation_is_the_identity() -> None:
    assert torch.equal(Augment().apply(numbered(3), generator=rng.stream(0, "a")), numbered(3))


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"schedule": "piecewise"}, r"needs milestones that start at step 0 and rise, got \(\)"),
        ({"schedule": "piecewise", "milestones": [[5, 1.0]]}, "start at step 0"),
        ({"schedule": "piecewise", "milestones": [[0, 1.0], [9, 0.1], [5, 0.2]]}, "start at step 0 and rise"),
        ({"schedule": "piecewise", "milestones": [[0, 1.0], [5, 0.1], [5, 0.2]]}, "start at step 0 and rise"),
        ({"schedule": "cosine", "milestones": [[0, 1.0]]}, "used by schedule piecewise only, the schedule is 'cosine'"),
        ({"schedule": "stepwise"}, "unknown value 'stepwise'. Did you mean 'piecewise'?"),
        ({"lr": 0}, "lr: must be greater than 0"),
        ({"batch_size": 0}, "batch_size: must be greater than or equal to 1"),
        ({"epochs": 0}, "epochs: must be greater than or equal to 1"),
        ({"momentum": 1.0}, "momentum: must be less than 1"),
        ({"warmup": 1.0}, "warmup: must be less than 1"),
        ({"weight_decay": -1e-4}, "weight_decay: must be greater than or equal to 0"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_impossible_settings_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        construct(Training, {"objective": "standard", "epochs": 1, **settings})
