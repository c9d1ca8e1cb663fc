"""What every model scanner keeps, whichever file or package it comes from."""

from __future__ import annotations

import math
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from bascule.core.images import Images
from bascule.core.rng import stream
from bascule.scanners.contract import Scan, Scanner
from bascule.scanners.run import run_scanner
from bascule.testing.cases import architecture, planted, random_images, same, state
from bascule.testing.demands import demand, one_sentence, refusal
from bascule.testing.settings import check_settings


@one_sentence
def check_scanner(scanner: Scanner, *, brief: Scanner | None = None) -> None:
    """The contract of a model scanner: the planted class stands out where there is one, and not where there is none.

    Args:
        scanner: With settings that suit networks for the embedded digits.
        brief: The same with less search, for what looks at form and not at findings.

    Raises:
        AssertionError: It does not keep the contract; the text says what is wrong.
    """
    brief = brief or scanner
    check_settings(scanner)
    check_settings(brief)
    for check in (check_shapes, check_repeats, check_left, check_failure, check_classes):
        check(brief)
    check_findings(scanner)


def images(channels: int = 1, classes: int = 3, count: int = 24) -> Images:
    """Noise of 6 x 5 pixels."""
    return random_images(channels, count, size=(6, 5), classes=classes)


def net(channels: int = 1, classes: int = 3) -> nn.Module:
    """An untrained network for them."""
    made: nn.Module = architecture(2, 4).initialised((channels, 6, 5), classes, seed=0)
    return made


def check_findings(scanner: Scanner) -> None:
    """On digits, the planted class stands out where there is one, and not where there is none."""
    accused = 0
    for seed in (0, 1):
        model, of, target = planted(seed, True)
        found = run_scanner(model, scanner, of, generator=stream(seed, "contract"))
        check_form(found, model, of)
        demand(int(found.anomaly.argmax()) == target, "another class stands out")
        demand((found.anomaly == found.anomaly[target]).sum() == 1, "no class stands out")
        model, of, _ = planted(seed, False)
        twin = run_scanner(model, scanner, of, generator=stream(seed, "contract"))
        demand(twin.anomaly[target] < found.anomaly[target], "the twin is as suspicious")
        accused += bool(twin.suspects)
    demand(accused < 2, "every clean model is accused")


def check_form(found: Scan, model: nn.Module, of: Images) -> None:
    """One anomaly per class, suspects in its order above the threshold, and triggers that do what is said of them."""
    classes = len(of.classes)
    demand(found.anomaly.shape == (classes,), f"not one anomaly per class: {tuple(found.anomaly.shape)}")
    demand(found.anomaly.is_floating_point(), f"the anomalies are {found.anomaly.dtype}")
    demand(found.anomaly.isfinite().all(), "an anomaly is not finite")
    for name, value in found.details.items():
        demand(value.shape == (classes,), f"not one {name} per class: {tuple(value.shape)}")
    if found.passes is None:
        raise AssertionError("nobody counted its passes")
    demand(found.passes.forward > 0, "never asked the model")
    order = found.anomaly.argsort(descending=True)
    wanted = [int(label) for label in order if found.anomaly[label] > found.threshold]
    demand(list(found.suspects) == wanted, f"the suspects are {found.suspects} instead of {wanted}")
    demand((found.pattern is None) == (found.mask is None), "a pattern without a mask, or a mask without a pattern")
    if found.pattern is not None and found.mask is not None:
        _check_triggers(found, found.pattern, found.mask, model, of)


def _check_triggers(found: Scan, pattern: Tensor, mask: Tensor, model: nn.Module, of: Images) -> None:
    classes = len(of.classes)
    demand(pattern.shape == (classes, *of.size), f"not one pattern per class: {tuple(pattern.shape)}")
    shapes = [(classes, *of.size), (classes, 1, *of.size[1:])]
    demand(mask.shape in shapes, f"not one mask per class: {tuple(mask.shape)}")
    for name, value in (("pattern", pattern), ("mask", mask)):
        demand(0 <= value.min() <= value.max() <= 1, f"the {name} leaves [0, 1]")
    for label in range(classes):
        others = (of.labels != label).nonzero().squeeze(1)
        with torch.no_grad():
            moved = model(found.stamp(of.batch(others), label)).argmax(1) == label
        said, is_so = float(found.details["success"][label]), moved.double().mean().item()
        close = math.isclose(said, is_so, rel_tol=1e-6, abs_tol=1e-12)
        demand(close, f"the trigger of class {label} moves {is_so:.3f} of the images, not {said:.3f}")


def check_shapes(scanner: Scanner) -> None:
    """Grey and colour images that are not square, of three and of five classes."""
    for channels, classes in ((1, 3), (3, 5)):
        model, of = net(channels, classes).eval(), images(channels, classes)
        check_form(run_scanner(model, scanner, of, generator=stream(0, "contract")), model, of)


def _parts(found: Scan) -> list[Tensor]:
    parts = [found.anomaly, *found.details.values(), found.pattern, found.mask]
    return [part.nan_to_num(-1) for part in parts if part is not None]


def check_repeats(scanner: Scanner) -> None:
    """The same stream gives the same scan, another one another, and nothing else is drawn from."""
    model, of, before = net(), images(), torch.get_rng_state()
    first, again, other = (
        _parts(run_scanner(model, scanner, of, generator=stream(seed, "contract"))) for seed in (0, 0, 1)
    )
    demand(same(first, again), "the same stream gives another scan")
    demand(not same(first, other), "every stream gives the same scan")
    demand(torch.equal(torch.get_rng_state(), before), "the global generator was used")


class Mixed(nn.Module):
    """Modes and gradients that differ from part to part."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.net = net()
        self.norm.eval()
        first: Any = self.net[0]  # type: ignore[index]
        first.weight.requires_grad_(False)
        first.bias.grad = torch.ones(2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(self.norm(x))
        return logits


def check_left(scanner: Scanner) -> None:
    """Model and images are left as they are found, with and without gradients around."""
    for grad in (True, False):
        model, of = Mixed(), images()
        before, pixels = state(model), of.pixels[torch.arange(24)].clone()
        with torch.set_grad_enabled(grad):
            run_scanner(model, scanner, of, generator=stream(0, "contract"))
        demand(same(state(model), before), "the model is not left as it was found")
        demand(torch.equal(of.pixels[torch.arange(24)], pixels), "the images were modified")


def check_failure(scanner: Scanner) -> None:
    """The model is left as it is found where it fails in the middle of a scan."""
    model = Mixed()
    before = state(model)
    calls, real = iter(range(100)), nn.Linear.forward

    def failing(self: nn.Linear, x: Tensor) -> Tensor:
        if next(calls) >= 7:
            raise RuntimeError("out of memory")
        return real(self, x)

    with patch.object(nn.Linear, "forward", failing):
        try:
            run_scanner(model, scanner, images(), generator=stream(0, "contract"))
        except RuntimeError as error:
            demand("out of memory" in str(error), f"the model's own error is lost: {error}")
        else:
            raise AssertionError("an error of the model is swallowed, or the model is asked fewer than eight times")
    demand(same(state(model), before), "after a failure the model is not left as it was found")


def check_classes(scanner: Scanner) -> None:
    """What stands out of two classes cannot be told."""
    refusal(
        lambda: run_scanner(net(classes=2), scanner, images(classes=2), generator=stream(0, "contract")),
        what="a model of two classes",
        text=r"at least 3; these images have 2",
    )
