"""Mixed precision: rounder passes, the same loop; and nothing that is kept or evaluated is rounded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import bascule.core.rounded
from bascule.core import catalog
from bascule.core.catalog import component, construct
from bascule.core.errors import RequestError
from bascule.core.images import Images, Splits
from bascule.core.inference import predict
from bascule.core.rng import borrowed_global_stream, stream
from bascule.models.denoise import DenoisingBlock
from bascule.testing.objectives import at_step
from bascule.training.contract import Objective
from bascule.training.loop import train
from bascule.training.pgd import Pgd
from bascule.training.precision import Mixed
from bascule.training.search import search_mode
from bascule.training.settings import Training
from bascule.training.standard import Standard
from objectives import objective

BOUNDED = ("ibp", "crown-ibp")


def settings(**changes: Any) -> Training:
    return Training(
        **{"objective": Standard(), "epochs": 2, "batch_size": 16, "lr": 0.01, "precision": "bfloat16", **changes}
    )


def plain_net(seed: int = 0) -> nn.Module:
    with borrowed_global_stream(seed, "net"):
        return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10)).train()


@pytest.fixture(scope="module")
def accuracies(digits: Splits) -> dict[str, tuple[float, nn.Module]]:
    """Accuracy on test images, and the network, after adversarial training in both precisions."""
    found = {}
    for precision in ("float32", "bfloat16"):
        model = catalog.build("models", {"name": "digits-cnn", "width": 8, "hidden": 32})
        net = model.initialised((1, 8, 8), 10, seed=0)
        training = settings(
            objective=Pgd(eps=0.1, steps=2), epochs=6, batch_size=32, schedule="one-cycle", precision=precision
        )
        train(net, digits.train, training, seed=0)
        found[precision] = (float((predict(net, digits.test) == digits.test.labels).float().mean()), net)
    return found


def test_it_learns_as_well_but_not_the_same(accuracies: dict[str, tuple[float, nn.Module]]) -> None:
    (full, net), (mixed, rounded) = accuracies["float32"], accuracies["bfloat16"]
    assert full > 0.9
    assert mixed == pytest.approx(full, abs=0.03)
    pairs = zip(net.parameters(), rounded.parameters(), strict=True)
    assert not any(torch.equal(one, other) for one, other in pairs)


def test_what_is_kept_is_float32(few: Images, make_net: Callable, kept: Callable) -> None:
    net, checkpoints = make_net(), kept()
    train(net, few, settings(objective=Pgd(eps=0.1, steps=1)), seed=0, checkpoints=checkpoints, checkpoint_seconds=0)
    state = checkpoints.load()
    memory = [value for entry in state["optimizer"]["state"].values() for value in entry.values()]
    for values in (net.state_dict().values(), state["model"].values(), memory, [p.grad for p in net.parameters()]):
        assert {value.dtype for value in values if value.is_floating_point()} == {torch.float32}
    assert state["model"].keys() == make_net().state_dict().keys()


def test_the_network_is_found_in_eval_mode_and_answers_in_float32(few: Images, make_net: Callable) -> None:
    net = make_net()
    train(net, few, settings(), seed=0)
    assert not any(module.training for module in net.modules())
    x = few.batch(torch.arange(8))
    with torch.no_grad():
        exact = net.double()(x.double())
        assert (net.float()(x) - exact).abs().max() < 1e-5
        assert (Mixed(net)(x) - exact).abs().max() > 1e-4


class Watched(nn.Module):
    """Notes the type in which each image batch leaves the first layer, and whether the pass is that of an attack."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.types: list[tuple[torch.dtype, bool]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.types.append((self.net[0](x).dtype, not self.training))  # type: ignore[index]
        return self.net(x)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_passes_of_attack_and_step_are_in_it(precision: Any, few: Images) -> None:
    watched = Watched(plain_net())
    train(watched, few, settings(objective=Pgd(eps=0.1, steps=2), epochs=1, precision=precision), seed=0)
    wanted = getattr(torch, precision)
    assert watched.types == 4 * [(wanted, True), (wanted, True), (wanted, False)]
    assert not torch.is_autocast_enabled("cpu")


def test_what_is_computed_from_logits_is_in_float32(few: Images) -> None:
    types: set[torch.dtype] = set()

    @component
    class Notes(Objective):
        """A product outside the network, which autocast would round."""

        def loss(self, model: nn.Module, x: Tensor, y: Tensor, *, progress: float, generator: Any) -> Tensor:
            logits = model(x)
            types.update((logits.dtype, (logits @ logits.mT).dtype, logits.log_softmax(1).dtype))
            return F.cross_entropy(logits, y)

    train(plain_net(), few, settings(objective=Notes(), epochs=1), seed=0)
    assert types == {torch.float32}


@pytest.mark.parametrize("name", [name for name in catalog.names("train") if name not in BOUNDED])
def test_every_objective_nearly_agrees_with_float32(name: str, few: Images) -> None:
    """Loss and gradients, on the same draws; second derivatives (`lipschitz`) included."""
    made = objective(name)
    x, y = few.batch(torch.arange(32)), few.labels[:32]
    made = at_step(made, x, y, 0.5)
    found = []
    for wrap in (lambda net: net, Mixed):
        net = plain_net()
        loss = made.loss(wrap(net), x, y, progress=0.5, generator=stream(0, "precision"))
        loss.backward()
        assert loss.dtype == torch.float32
        found.append((loss.item(), torch.cat([p.grad.flatten() for p in net.parameters()])))  # type: ignore[union-attr]
    (full, exact), (mixed, rounded) = found
    assert mixed == pytest.approx(full, rel=0.02)
    assert mixed != full
    assert F.cosine_similarity(exact, rounded, dim=0) > 0.98
    assert rounded.norm() == pytest.approx(exact.norm().item(), rel=0.1)


def test_a_denoising_block_can_be_trained_with_a_second_derivative(few: Images) -> None:
    with borrowed_global_stream(0, "net"):
        net = nn.Sequential(nn.Conv2d(1, 4, 3), DenoisingBlock(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).train()
    curve = train(net, few, settings(objective=objective("lipschitz")), seed=0)
    assert curve[-1]["loss"] < curve[0]["loss"]


@pytest.mark.parametrize("name", BOUNDED)
def test_bounds_are_refused(name: str) -> None:
    given = {"objective": {"name": name, "eps": 0.1}, "epochs": 1, "precision": "bfloat16"}
    with pytest.raises(
        RequestError, match=rf"precision: {name} trains with bounds, which hold in float32 only"
    ) as caught:
        construct(Training, given)
    assert caught.value.place == ("precision",)
    assert construct(Training, {**given, "precision": "float32"}).precision == "float32"


def test_another_precision_is_refused() -> None:
    with pytest.raises(RequestError, match="'float16'"):
        construct(Training, {"objective": "standard", "epochs": 1, "precision": "float16"})


# --- one copy of the weights for a search ----------------------------------------------------------------------------


class Casts(TorchDispatchMode):
    """Counts how often weights become bfloat16."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.places = {parameter.data_ptr() for parameter in net.parameters()}
        self.count = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if operation._schema.name == "aten::_to_copy" and args[0].data_ptr() in self.places:
            self.count += (kwargs or {}).get("dtype") == torch.bfloat16
        return operation(*args, **(kwargs or {}))


def test_a_search_casts_weights_once_and_changes_nothing(few: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for layers in (bascule.core.rounded._LAYERS, ()):
        monkeypatch.setattr(bascule.core.rounded, "_LAYERS", layers)
        net = plain_net()
        with Casts(net) as casts:
            train(net, few, settings(objective=Pgd(eps=0.1, steps=5), epochs=1), seed=0)
        found.append((casts.count, [parameter.tolist() for parameter in net.parameters()]))
        assert all(isinstance(parameter, nn.Parameter) for parameter in net.parameters())
    (shared, ours), (single, plain) = found
    assert ours == plain
    assert (shared, single) == (4 * 2 * 4, 4 * 6 * 4), "steps, passes with a cast of their own, weights and biases"


def test_a_network_may_leave_mixed_precision_for_a_part(few: Images) -> None:
    class Precise(nn.Module):
        """Has its last layer in float32."""

        def __init__(self) -> None:
            super().__init__()
            self.net, self.last = plain_net(), nn.Linear(10, 10)

        def forward(self, x: Tensor) -> Tensor:
            logits = self.net(x)
            with torch.autocast(x.device.type, enabled=False):
                answer: Tensor = self.last(logits.float())
            return answer

    with borrowed_global_stream(0, "net"):
        net = Precise()
    curve = train(net, few, settings(objective=Pgd(eps=0.1, steps=2)), seed=0)
    assert curve[-1]["loss"] < curve[0]["loss"]


def test_weights_are_those_of_the_step(few: Images) -> None:
    """A copy that outlived a change of the weights would answer as they were."""
    net = plain_net()
    mixed, x, y = Mixed(net), few.batch(torch.arange(8)), few.labels[:8]
    for _ in range(2):
        with search_mode(mixed):
            before, wanted = mixed(x), Mixed(net)(x)
        assert torch.equal(before, wanted)
        F.cross_entropy(mixed(x), y).backward()
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.mul_(2)


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_a_weight_that_a_hook_computes_is_rounded_by_the_pass_alone(few: Images) -> None:
    net = nn.Sequential(nn.Flatten(), torch.nn.utils.weight_norm(nn.Linear(few.batch(torch.arange(1)).numel(), 10)))
    x = few.batch(torch.arange(8))
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        wanted = net(x)
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    assert torch.equal(Mixed(net)(x), wanted.float())
