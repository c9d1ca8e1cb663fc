"""What every model scanner keeps, whichever file or package it comes from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bascule.core import catalog
from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.core.images import Images
from bascule.core.rng import stream
from bascule.scanners.contract import Scan, Scanner
from bascule.scanners.run import run_scanner

NAMES = catalog.names("scan")
BRIEF: dict[str, Any] = {"mm-bd": {"steps": 4, "starts": 3}}
"""Settings for tests that look at form and not at findings; by default two looks."""

names = pytest.mark.parametrize("name", NAMES)


def brief(name: str) -> Scanner:
    fields = {doc.name for doc in catalog.documentation("scan", name).fields}
    return catalog.build("scan", {"name": name, **BRIEF.get(name, {"max_looks": 2} if "max_looks" in fields else {})})


def images(channels: int = 1, classes: int = 3, count: int = 24) -> Images:
    draws = stream(0, "images")
    return Images(
        pixels=torch.randint(256, (count, channels, 6, 5), dtype=torch.uint8, generator=draws),
        labels=torch.arange(count) % classes,
        ids=torch.arange(count),
        classes=tuple("abcdefgh"[:classes]),
    )


def net(channels: int = 1, classes: int = 3) -> nn.Module:
    architecture = catalog.build("models", {"name": "digits-cnn", "width": 2, "hidden": 4})
    return architecture.initialised((channels, 6, 5), classes, seed=0)


def same(first: Scan, second: Scan) -> bool:
    pairs = [(first.anomaly, second.anomaly), *((value, second.details[key]) for key, value in first.details.items())]
    if first.pattern is not None:
        pairs += [(first.pattern, second.pattern), (first.mask, second.mask)]
    return all(torch.equal(a.nan_to_num(-1), b.nan_to_num(-1)) for a, b in pairs)


def check_form(found: Scan, model: nn.Module, of: Images) -> None:
    classes = len(of.classes)
    assert found.anomaly.shape == (classes,)
    assert found.anomaly.is_floating_point()
    assert found.anomaly.isfinite().all()
    assert all(value.shape == (classes,) for value in found.details.values())
    assert found.passes is not None
    assert found.passes.forward > 0, "never asked the model"
    order = found.anomaly.argsort(descending=True)
    assert list(found.suspects) == [int(label) for label in order if found.anomaly[label] > found.threshold]
    assert (found.pattern is None) == (found.mask is None)
    if found.pattern is None or found.mask is None:
        return
    assert found.pattern.shape == (classes, *of.size)
    assert found.mask.shape in [(classes, *of.size), (classes, 1, *of.size[1:])]
    for value in (found.pattern, found.mask):
        assert 0 <= value.min() <= value.max() <= 1
    for label in range(classes):
        others = (of.labels != label).nonzero().squeeze(1)
        with torch.no_grad():
            moved = model(found.stamp(of.batch(others), label)).argmax(1) == label
        assert found.details["success"][label] == pytest.approx(moved.double().mean().item())


def check_scanner(scanner: Scanner, planted: Callable[[int, bool], Any]) -> None:
    """The contract on digits: the planted class stands out where there is one, and not where there is none."""
    accused = 0
    for seed in (0, 1):
        model, of, target = planted(seed, True)
        found = run_scanner(model, scanner, of, generator=stream(seed, "contract"))
        check_form(found, model, of)
        assert int(found.anomaly.argmax()) == target, "another class stands out"
        assert (found.anomaly == found.anomaly[target]).sum() == 1, "no class stands out"
        model, of, _ = planted(seed, False)
        twin = run_scanner(model, scanner, of, generator=stream(seed, "contract"))
        assert twin.anomaly[target] < found.anomaly[target], "the twin is as suspicious"
        accused += bool(twin.suspects)
    assert accused < 2, "every clean model is accused"


def test_the_room_is_not_empty() -> None:
    assert {"neural-cleanse", "mm-bd", "universal-perturbation", "feature-inversion"} <= set(NAMES)


@names
def test_scanner(name: str, planted: Any) -> None:
    check_scanner(catalog.build("scan", name), planted)


@names
@pytest.mark.parametrize(("channels", "classes"), [(1, 3), (3, 5)])
def test_shapes(name: str, channels: int, classes: int) -> None:
    model, of = net(channels, classes).eval(), images(channels, classes)
    check_form(run_scanner(model, brief(name), of, generator=stream(0, "contract")), model, of)


@names
def test_same_seed_same_scan(name: str) -> None:
    model, of = net(), images()
    before = torch.get_rng_state()
    first, again, other = (
        run_scanner(model, brief(name), of, generator=stream(seed, "contract")) for seed in (0, 0, 1)
    )
    assert same(first, again)
    assert not same(first, other)
    assert torch.equal(torch.get_rng_state(), before), "the global generator was used"


class Mixed(nn.Module):
    """Modes and gradients that differ from part to part."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.net = net()
        self.norm.eval()
        self.net[0].weight.requires_grad_(False)
        self.net[0].bias.grad = torch.ones(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.norm(x))


def state(model: nn.Module) -> Any:
    return (
        {name: value.clone() for name, value in model.state_dict().items()},
        [module.training for module in model.modules()],
        [(p.requires_grad, None if p.grad is None else p.grad.clone()) for p in model.parameters()],
        [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()],
    )


def check_untouched(model: nn.Module, before: Any) -> None:
    after = state(model)
    assert all(torch.equal(value, before[0][name]) for name, value in after[0].items())
    assert after[1] == before[1]
    for (wanted, grad), (wanted_before, grad_before) in zip(after[2], before[2], strict=True):
        assert wanted == wanted_before
        assert (grad is None) == (grad_before is None)
        assert grad is None or torch.equal(grad, grad_before)
    assert after[3] == before[3]


@names
@pytest.mark.parametrize("grad", [True, False])
def test_model_and_images_are_left_as_found(name: str, grad: bool) -> None:
    model, of = Mixed(), images()
    before, pixels = state(model), of.pixels[torch.arange(24)].clone()
    with torch.set_grad_enabled(grad):
        run_scanner(model, brief(name), of, generator=stream(0, "contract"))
    check_untouched(model, before)
    assert torch.equal(of.pixels[torch.arange(24)], pixels)


@names
def test_model_is_left_as_found_after_a_failure(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Mixed()
    before = state(model)
    calls = iter(range(100))
    real = nn.Linear.forward

    def failing(self: nn.Linear, x: Tensor) -> Tensor:
        if next(calls) >= 7:
            raise RuntimeError("out of memory")
        return real(self, x)

    monkeypatch.setattr(nn.Linear, "forward", failing)
    with pytest.raises(RuntimeError, match="out of memory"):
        run_scanner(model, brief(name), images(), generator=stream(0, "contract"))
    check_untouched(model, before)


# --- configuration ---------------------------------------------------------------------------------------------------


@names
def test_description_and_repr_rebuild_it(name: str) -> None:
    for scanner in (catalog.build("scan", name), brief(name)):
        described = catalog.describe(scanner)
        assert described["name"] == name
        assert catalog.build("scan", described) == scanner
        assert eval(repr(scanner), {type(scanner).__name__: type(scanner)}) == scanner


@names
def test_every_setting_is_explained(name: str) -> None:
    documentation = catalog.documentation("scan", name)
    assert documentation.summary
    assert all(field.text for field in documentation.fields)


@names
def test_two_classes_are_refused(name: str) -> None:
    with pytest.raises(RequestError, match=r"at least 3; these images have 2"):
        run_scanner(net(classes=2), brief(name), images(classes=2), generator=stream(0, "contract"))


# --- the contract itself ---------------------------------------------------------------------------------------------


def answer(of: Images, anomaly: Tensor) -> Scan:
    return Scan(anomaly=anomaly, threshold=2.0)


@component
class Nothing(Scanner):
    """Asks the model and finds nothing."""

    def scan(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Scan:
        model(images.batch(torch.arange(2)))
        return answer(images, torch.zeros(len(images.classes)))


@component
class Asleep(Scanner):
    """Never asks the model."""

    def scan(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Scan:
        return answer(images, torch.zeros(len(images.classes)))


@component
class Accuser(Scanner):
    """Accuses the right class of every model, which it happens to know."""

    def scan(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Scan:
        with torch.no_grad():
            stamped = images.batch(torch.arange(len(images)))
            stamped[:, :, -2:, -2:] = 1
            share = torch.bincount(model(stamped).argmax(1), minlength=len(images.classes)) / len(images)
        return answer(images, 3 + share)


@component
class Guess(Scanner):
    """Draws a class."""

    def scan(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Scan:
        model(images.batch(torch.arange(2)))
        return answer(images, torch.rand(len(images.classes), generator=generator))


@pytest.mark.parametrize(
    ("scanner", "complaint"),
    [
        (Nothing, "stands out"),
        (Asleep, "never asked the model"),
        (Accuser, "every clean model is accused"),
        (Guess, "stands out"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)
def test_a_bad_scanner_fails_the_contract(scanner: type[Scanner], complaint: str, planted: Any) -> None:
    with pytest.raises(AssertionError, match=complaint):
        check_scanner(scanner(), planted)
