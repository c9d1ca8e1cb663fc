"""What is guaranteed whatever a repair does; the rest is in the contract."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import nn

from bascule.core.batches import batches
from bascule.core.catalog import component
from bascule.core.images import Images
from bascule.core.rng import stream
from bascule.repairs.contract import Repair, Repaired
from bascule.repairs.run import run_repair


@component
class Fails(Repair):
    """Changes everything, then gives up."""

    def repair(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Repaired:
        assert not any(m.training for m in model.modules())
        assert all(p.requires_grad for p in model.parameters())
        assert torch.is_grad_enabled()
        for p in model.parameters():
            p.data.zero_()
            p.requires_grad_(False)
        model.train()
        raise ZeroDivisionError


@component
class Halves(Repair):
    """Halves every weight."""

    def repair(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Repaired:
        for p in model.parameters():
            p.data.div_(2)
            p.grad = torch.ones_like(p)
        return Repaired(model.train(), {"halved": 2.0})


@component
class Curious(Repair):
    """Needs no images, and notes what it is shown all the same."""

    needs_images: ClassVar[bool] = False

    def repair(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Repaired:
        assert images.device == generator.device
        return Repaired(model, {"count": float(len(images)), "light": float(images.batch(images.ids).sum())})


def test_a_repair_without_images_is_told_their_size_only(plain: nn.Module, some: Images) -> None:
    class Sized(Curious):
        def repair(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Repaired:
            assert images.size == some.size
            return super().repair(model, images, generator=generator)

    assert some.batch(some.ids).sum() > 0
    found = run_repair(plain, Sized(), some, generator=stream(0, "r"))
    assert found.notes == {"count": 1.0, "light": 0.0, "distance": 0.0}


def test_nothing_happens_to_the_model_when_a_repair_fails(plain: nn.Module, some: Images) -> None:
    plain[0].requires_grad_(False)
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    with pytest.raises(ZeroDivisionError), torch.no_grad():
        run_repair(plain, Fails(), some, generator=stream(0, "r"))
    assert all(torch.equal(value, before[name]) for name, value in plain.state_dict().items())
    assert not plain.training
    assert [p.requires_grad for p in plain.parameters()] == [False] * 2 + [True] * 6


def test_distance_and_state_of_the_result(plain: nn.Module, some: Images) -> None:
    plain[0].requires_grad_(False)
    plain.train()
    found = run_repair(plain, Halves(), some, generator=stream(0, "r"))
    assert found.notes == {"halved": 2.0, "distance": pytest.approx(0.5)}
    assert not any(m.training for m in found.model.modules())
    assert [p.requires_grad for p in found.model.parameters()] == [False] * 2 + [True] * 6
    assert all(p.grad is None for p in found.model.parameters())
    assert plain.training


def test_batches_use_every_image_once_per_pass(some: Images) -> None:
    seen = [x for x, _ in batches(some, 16, steps=7, generator=stream(0, "b"))]
    assert [len(x) for x in seen] == [16] * 7
    first, second = (torch.cat(seen[i : i + 3]).flatten(1) for i in (0, 3))
    assert len(first.unique(dim=0)) == len(second.unique(dim=0)) == 48
    assert not torch.equal(first, second)
    labels = {tuple(x.flatten().tolist()): int(y) for x, y in zip(some.batch(some.ids), some.labels, strict=True)}
    for x, y in batches(some, 100, steps=2, generator=stream(0, "b")):
        assert len(x) == 50
        assert [labels[tuple(image.flatten().tolist())] for image in x] == y.tolist()


def test_no_steps_draw_nothing(some: Images) -> None:
    generator = stream(0, "b")
    before = generator.get_state()
    assert list(batches(some, 16, steps=0, generator=generator)) == []
    assert torch.equal(generator.get_state(), before)
