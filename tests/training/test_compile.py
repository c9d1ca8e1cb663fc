"""Compiled passes: the same training, few versions of the code, and nothing left behind."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bascule.training.loop
from bascule.core import catalog
from bascule.core.errors import RequestError
from bascule.core.images import Images
from bascule.core.rng import borrowed_global_stream, stream
from bascule.testing.objectives import at_step
from bascule.training.awp import WeightPerturbation
from bascule.training.compile import check_compiles, compile_model
from bascule.training.lipschitz import Lipschitz
from bascule.training.loop import train
from bascule.training.pgd import Pgd
from bascule.training.settings import Training
from bascule.training.standard import Standard
from bascule.training.trades import Trades
from objectives import objective

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's compiler about itself
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler (g++)")


@pytest.fixture
def without_codegen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything of a compiled training but the last stage, which takes most of the time: graphs are run as found."""
    monkeypatch.setattr(bascule.training.loop, "compile_model", lambda model: compile_model(model, backend="aot_eager"))


def counted() -> int:
    """Pieces of code compiled since the last count."""
    from torch._dynamo.utils import counters

    found = counters["stats"]["unique_graphs"]
    counters.clear()
    return int(found)


@pytest.fixture(autouse=True)
def nothing_counted_yet() -> Iterator[None]:
    counted()
    yield
    torch.compiler.reset()


def settings(**changes: Any) -> Training:
    # Not Adam: it blows up the rounding in gradients that are zero, as of a bias before batch norm.
    return Training(
        **{"objective": Standard(), "epochs": 2, "batch_size": 16, "optimizer": "sgd", "lr": 0.05, **changes}
    )


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def both_ways(few: Images, make_net: Callable, training: Training) -> tuple[list[Any], list[Any]]:
    """State and curve of the plain and of the compiled training."""
    found = []
    for compile_passes in (False, True):
        net = make_net()
        curve = train(net, few, training, seed=3, compile_passes=compile_passes)
        assert not any(module.training for module in net.modules())
        assert all(parameter.requires_grad for parameter in net.parameters())
        found.append([weights(net), [(entry["step"], entry["loss"]) for entry in curve]])
    return found[0], found[1]


def check_same(plain: list[Any], quick: list[Any]) -> None:
    assert plain[0].keys() == quick[0].keys()
    for name, value in plain[0].items():
        assert torch.allclose(value, quick[0][name], atol=2e-3), name
    assert [step for step, _ in plain[1]] == [step for step, _ in quick[1]]
    assert [loss for _, loss in plain[1]] == pytest.approx([loss for _, loss in quick[1]], rel=1e-3)


@needs_compiler
def test_the_same_model_in_as_many_steps(few: Images, make_net: Callable) -> None:
    # With dropout: the compiled one draws the same.
    plain, quick = both_ways(few, make_net, settings(objective=Pgd(eps=0.1, steps=2)))
    assert counted() == 2
    check_same(plain, quick)


CASES = {
    "standard": (settings(), 1),
    "pgd": (settings(objective=Pgd(eps=0.1, steps=2, warmup=0.5)), 2),
    "pgd-batch": (settings(objective=Pgd(eps=0.1, steps=2, batch_norm="batch")), 2),
    "pgd-restarts": (settings(objective=Pgd(eps=0.1, steps=1, restarts=2)), 3),
    "trades": (settings(objective=Trades(eps=0.1, steps=2)), 3),
    "bfloat16": (settings(objective=Pgd(eps=0.1, steps=2), precision="bfloat16"), 2),
    "perturbed": (settings(objective=Pgd(eps=0.1, steps=2), awp=WeightPerturbation(gamma=0.05), ema=0.9), 2),
}


@pytest.mark.usefixtures("without_codegen")
@pytest.mark.parametrize(("training", "graphs"), CASES.values(), ids=CASES.keys())
def test_a_version_for_each_kind_of_pass_and_no_more(
    training: Training, graphs: int, few: Images, make_net: Callable
) -> None:
    plain, quick = both_ways(few, make_net, training)
    assert counted() == graphs, "attack and step compile anew, or not at all"
    check_same(plain, quick)


@pytest.mark.usefixtures("without_codegen")
def test_what_cannot_be_compiled_runs_without(few: Images, make_net: Callable) -> None:
    plain, quick = both_ways(few, make_net, settings(objective=Lipschitz(inner=Pgd(eps=0.1, steps=1))))
    assert counted() == 0
    assert all(torch.equal(value, quick[0][name]) for name, value in plain[0].items())


OBJECTIVES = {name: objective(name) for name in catalog.names("train")}


@pytest.mark.parametrize("name", [name for name, made in OBJECTIVES.items() if made.compiles])
def test_objectives_that_compile_give_the_same_loss_and_gradients(name: str, few: Images, make_net: Callable) -> None:
    x, y = few.batch(torch.arange(16)), few.labels[:16]
    found = []
    for backend in (None, "aot_eager"):
        net = make_net(dropout=0.0)
        with contextlib.nullcontext(net) if backend is None else compile_model(net, backend=backend) as asked:
            loss = at_step(OBJECTIVES[name], x, y, 0.5).loss(asked, x, y, progress=0.5, generator=stream(0, "compile"))
            loss.backward()
        found.append((loss.item(), torch.cat([parameter.grad.flatten() for parameter in net.parameters()])))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-4)
    assert torch.allclose(found[1][1], found[0][1], atol=1e-4)
    assert counted() > 0


def test_second_derivatives_do_not_compile(few: Images, make_net: Callable) -> None:
    """What `compiles` of `lipschitz` is for; when this fails, torch has learnt it."""
    x, y = few.batch(torch.arange(16)), few.labels[:16]
    with compile_model(make_net(), backend="aot_eager") as asked:
        loss = Lipschitz().loss(asked, x, y, progress=0.5, generator=stream(0, "compile"))
        with pytest.raises(RuntimeError, match="double backward"):
            loss.backward()


class Restless(nn.Module):
    """Does something else in every pass."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.linear(x.flatten(1)) + self.calls


@pytest.mark.usefixtures("without_codegen")
def test_compiling_for_ever_is_an_error(few: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bascule.training.compile._VARIANTS", 3)
    with pytest.raises(Exception, match="_limit") as caught:
        train(Restless(), few, settings(epochs=3), seed=0, compile_passes=True)
    assert type(caught.value).__name__ == "FailOnRecompileLimitHit"


def test_torch_is_found_as_it_was() -> None:
    import torch._dynamo.config as dynamo
    import torch._inductor.config as inductor

    before = dynamo.cache_size_limit, dynamo.fail_on_cache_limit_hit, inductor.fallback_random

    def broken() -> None:
        with compile_model(nn.ReLU(), backend="eager") as quick:
            assert dynamo.cache_size_limit > before[0]
            quick(torch.ones(2))
            raise KeyError

    with pytest.raises(KeyError):
        broken()
    assert (dynamo.cache_size_limit, dynamo.fail_on_cache_limit_hit, inductor.fallback_random) == before


def test_a_network_of_nested_blocks_needs_no_more_versions_than_passes(few: Images) -> None:
    from bascule.models.denoise import DenoisingBlock

    with borrowed_global_stream(0, "net"):
        net = nn.Sequential(
            nn.Conv2d(1, 4, 3), DenoisingBlock(4), nn.ReLU(), DenoisingBlock(4), nn.Flatten(), nn.Linear(144, 10)
        )
    training = settings(objective=Pgd(eps=0.1, steps=2), epochs=1)
    pieces = []
    for epochs in (1, 3):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                bascule.training.loop, "compile_model", lambda model: compile_model(model, backend="aot_eager")
            )
            train(net, few, settings(objective=training.objective, epochs=epochs), seed=0, compile_passes=True)
        pieces.append(counted())
    assert pieces[0] == pieces[1] <= 20


def test_a_missing_compiler_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    import torch._inductor.config as inductor

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    with (
        inductor.patch("cpp.cxx", (None, str(tmp_path / "nothing"))),
        pytest.raises(
            RequestError,
            match=r"^compile_passes: torch\.compile does not work on cpu here: .*Leave `compile_passes` out",
        ),
    ):
        check_compiles(torch.device("cpu"))
