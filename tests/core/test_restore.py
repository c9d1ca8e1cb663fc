from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bascule.core.restore import evaluating, frozen, full_precision, repeatable, untouched, using_batch_statistics

MANAGERS = [frozen, evaluating, using_batch_statistics, untouched]
Manager = Callable[[nn.Module], AbstractContextManager[None]]


class StopHereError(Exception):
    pass


def make_model() -> nn.Sequential:
    """A net in a mixed state: some submodules trained and some not, some parameters frozen, one .grad set."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 2, 3, padding=1),
            nn.BatchNorm2d(2),
            nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU()),
            nn.BatchNorm2d(3, track_running_stats=False),
            nn.Flatten(),
            nn.Dropout(0.0),
            nn.Linear(12, 3),
        )
    model.train()
    model[1].eval()
    model[2][2].eval()
    model[5].eval()
    model[0].weight.requires_grad_(False)
    model[6].bias.requires_grad_(False)
    model[6].weight.grad = torch.ones_like(model[6].weight)
    return model


def state(model: nn.Module) -> dict[str, Any]:
    return {
        "modes": {name: module.training for name, module in model.named_modules()},
        "tracking": {name: getattr(module, "track_running_stats", None) for name, module in model.named_modules()},
        "wanting": {name: p.requires_grad for name, p in model.named_parameters()},
        "grad": {name: None if p.grad is None else p.grad.tolist() for name, p in model.named_parameters()},
        "values": {name: value.tolist() for name, value in model.state_dict().items()},
    }


def images() -> Tensor:
    return torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def use(model: nn.Module) -> Tensor:
    """A forward and an input-gradient pass."""
    x = images().requires_grad_(True)
    model(x).square().sum().backward()
    assert x.grad is not None
    return x.grad


managers = pytest.mark.parametrize("manager", MANAGERS, ids=lambda m: m.__name__)


@managers
def test_all_is_as_found(manager: Manager) -> None:
    model = make_model()
    before = state(model)
    with manager(model), frozen(model):
        # `frozen` alone leaves the mode, and a train-mode pass moves the running statistics: it needs no pass here.
        if manager is not frozen:
            use(model)
        assert state(model) != before
    assert state(model) == before


@managers
def test_all_is_as_found_after_an_exception(manager: Manager) -> None:
    model = make_model()
    before = state(model)
    inside = before

    def fail() -> None:
        nonlocal inside
        with manager(model):
            inside = state(model)
            raise StopHereError

    with pytest.raises(StopHereError):
        fail()
    assert inside != before
    assert state(model) == before


@managers
def test_nested_use(manager: Manager) -> None:
    model = make_model()
    before = state(model)
    with manager(model):
        inner = state(model)
        with manager(model):
            pass
        assert state(model) == inner
    assert state(model) == before


def test_the_state_used_here_is_mixed() -> None:
    found = state(make_model())
    for key in ("modes", "wanting", "tracking"):
        assert set(found[key].values()) >= {True, False}


def test_frozen_wants_no_gradient() -> None:
    model = make_model().eval()
    with frozen(model):
        assert not any(p.requires_grad for p in model.parameters())
        use(model)
    assert [name for name, p in model.named_parameters() if p.grad is not None] == ["6.weight"]
    assert bool((model[6].weight.grad == 1).all())


@pytest.mark.parametrize("manager", [evaluating, untouched])
def test_eval_mode_inside(manager: Manager) -> None:
    model = make_model()
    with manager(model):
        assert not any(module.training for module in model.modules())


def test_untouched_differentiates_inside_no_grad() -> None:
    model = make_model()
    with torch.no_grad(), untouched(model):
        assert use(model).abs().sum() > 0
    assert torch.is_grad_enabled()
    with torch.no_grad():
        with untouched(model):
            pass
        assert not torch.is_grad_enabled()


@pytest.mark.parametrize("fails", [False, True], ids=["ends", "fails"])
def test_untouched_keeps_the_hooks(fails: bool) -> None:
    model, called = make_model(), []
    model[0].register_forward_hook(lambda *_: called.append("own"), with_kwargs=False)

    def hooks() -> list[dict[str, list[Any]]]:
        return [
            {k: list(v) for k, v in vars(m).items() if isinstance(v, dict) and "hooks" in k} for m in model.modules()
        ]

    def use_hooks() -> None:
        with untouched(model):
            model[0].register_forward_hook(lambda *_, **__: called.append("new"), with_kwargs=True, always_call=True)
            model[2][0].register_forward_pre_hook(lambda *_: called.append("before"))
            model[6].register_full_backward_hook(lambda *_: called.append("back"))
            use(model)
            if fails:
                raise StopHereError

    before = hooks()
    with pytest.raises(StopHereError) if fails else nullcontext():
        use_hooks()
    assert called == ["own", "new", "before", "back"]
    assert hooks() == before
    use(model)
    assert called[4:] == ["own"]
    model[6].register_backward_hook(lambda *_: None)  # the other kind is still allowed


def test_batch_statistics_are_used_and_running_ones_left() -> None:
    norm = nn.BatchNorm2d(1).eval()
    norm.running_mean.fill_(5.0)
    x = torch.tensor([0.0, 2.0, 4.0, 6.0]).reshape(4, 1, 1, 1)
    with using_batch_statistics(norm):
        inside = norm(x)
    # Mean 3 and variance 5 of the batch itself.
    assert inside.flatten().tolist() == pytest.approx([(v - 3) / 5**0.5 for v in (0, 2, 4, 6)], abs=1e-5)
    assert norm.running_mean.item() == 5.0
    assert norm.num_batches_tracked.item() == 0
    # The running statistics are in use again: (0 - 5) / 1.
    assert norm(x)[0].item() == pytest.approx(-5.0, abs=1e-4)


def test_batch_statistics_are_tracked_again_afterwards() -> None:
    norm = nn.BatchNorm2d(1).train()
    with using_batch_statistics(norm):
        norm(images())
    norm(images())
    assert norm.num_batches_tracked.item() == 1


@pytest.fixture
def tf32() -> Iterator[Callable[[], list[bool]]]:
    """What CUDA is allowed, which needs none to be said; left as it was."""
    parts = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [part.allow_tf32 for part in parts]
    for part in parts:
        part.allow_tf32 = True
    yield lambda: [part.allow_tf32 for part in parts]
    for part, allowed in zip(parts, before, strict=True):
        part.allow_tf32 = allowed


def broken_off(seen: list[list[bool]], tf32: Callable[[], list[bool]]) -> None:
    with full_precision(torch.device("cuda")):
        seen.append(tf32())
        raise StopHereError


def test_full_precision_on_cuda_whatever_is_allowed_outside(tf32: Callable[[], list[bool]]) -> None:
    seen: list[list[bool]] = []
    with pytest.raises(StopHereError):
        broken_off(seen, tf32)
    assert seen == [[False, False]]
    assert tf32() == [True, True]


@pytest.mark.parametrize("found", [(False, True), (True, False)], ids=["fast", "repeatable"])
def test_repeatable_on_cuda_whatever_is_set_outside(tf32: Callable[[], list[bool]], found: tuple[bool, bool]) -> None:
    cudnn = torch.backends.cudnn
    with cudnn.flags(deterministic=found[0], benchmark=found[1], allow_tf32=True):
        with repeatable(torch.device("cpu")):
            assert (cudnn.deterministic, cudnn.benchmark) == found
        with pytest.raises(StopHereError):
            ends_inside(repeatable(torch.device("cuda")))
        assert (cudnn.deterministic, cudnn.benchmark) == found
        assert tf32() == [True, True]


def ends_inside(manager: AbstractContextManager[None]) -> None:
    with manager:
        assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark) == (True, False)
        raise StopHereError


def test_full_precision_ends_autocast() -> None:
    x = torch.ones(2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (x @ x).dtype == torch.bfloat16
        with full_precision(x.device):
            assert (x @ x).dtype == torch.float32
        assert (x @ x).dtype == torch.bfloat16
