"""Fixtures for all tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from bascule.core.images import Splits
from bascule.plan.document import parse_study
from bascule.plan.overrides import Override, parse_override
from bascule.plan.plan import Plan
from bascule.plan.resolve import make_plan
from bascule.record.run import RunRecord
from bascule.running.run import Ran, run_plan
from bascule.testing import cases
from browsers import skip_without_browser

OF_THE_CALLER = (
    "PYTHONUNBUFFERED", "COLUMNS", "LINES", "TERM", "NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE",
    "PY_COLORS", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "GITHUB_ACTIONS", "OMP_WAIT_POLICY", "BASCULE_HOOKS",
    "RAY_ADDRESS", "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
)  # fmt: skip
"""Variables that say how wide or colourful a terminal is, or that this is one process of several. No test depends on
what they are where the tests are run: a test sets those that it is about."""
for name in [*OF_THE_CALLER, *(name for name in os.environ if name.startswith("SLURM_"))]:
    os.environ.pop(name, None)

torch.set_num_threads(1)  # two threads on two busy cores wait for each other; tests are small


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """After others have deselected: only tests that will run want a browser."""
    skip_without_browser(items)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of the real data sets; a test that asks for it carries the mark `data`."""
    place = os.environ.get("BASCULE_DATA")
    if not place:
        pytest.skip("BASCULE_DATA is not set")
    return Path(place)


@pytest.fixture(scope="session", autouse=True)
def own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is remembered of users' code stays out of the home of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session")
def digits() -> Splits:
    """The embedded data."""
    return cases.digits()


@pytest.fixture(scope="session")
def trained() -> cases.Trained:
    """A small network for digits; tests must leave it as they find it."""
    assert len(cases.trained().x) > 300
    return cases.trained()


@pytest.fixture(scope="session")
def planted() -> Callable[[int, bool], cases.Planted]:
    """(seed, whether poisoned) -> a net; both have the same seed, so the second is the first one's twin."""
    return cases.planted


def small_net(channels: int, classes: int, width: int = 4) -> nn.Module:
    """What the stand-ins for other packages build."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, classes),
    )


class TwoHeads(nn.Module):
    """Answers with a pair while it trains, like GoogLeNet."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.net = small_net(3, classes)

    def forward(self, x: Any) -> Any:
        return (self.net(x), self.net(x)) if self.training else self.net(x)


class FakeTorchvision(ModuleType):
    """The part of `torchvision.models` that is used."""

    def list_models(self, module: ModuleType | None = None) -> list[str]:
        own = ["googlenet", "resnet18", "resnet50", "vgg11"]
        return own if module is self else [*own, "fasterrcnn_resnet50_fpn"]

    def get_model(self, name: str, *, weights: object, num_classes: int, **settings: Any) -> nn.Module:
        assert weights is None
        return TwoHeads(num_classes) if name == "googlenet" else small_net(3, num_classes, **settings)


class FakeTimm(ModuleType):
    """The part of `timm` that is used."""

    def list_models(self) -> list[str]:
        return ["resnet18", "vit_tiny_patch16_224"]

    def create_model(
        self, name: str, *, pretrained: bool, num_classes: int, in_chans: int, **settings: Any
    ) -> nn.Module:
        assert not pretrained
        net = small_net(in_chans, num_classes, **settings)
        return net if name == "resnet18" else nn.Sequential(Side224(), net)


class Side224(nn.Module):
    """Takes images of 224 x 224 only."""

    def forward(self, x: Any) -> Any:
        assert x.shape[-1] == 224, f"Input height ({x.shape[-1]}) doesn't match model (224)."
        return x


@pytest.fixture
def fake_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for torchvision and timm, whether or not they are installed."""
    parent, models = ModuleType("torchvision"), FakeTorchvision("torchvision.models")
    monkeypatch.setattr(parent, "models", models, raising=False)
    monkeypatch.setitem(sys.modules, "torchvision", parent)
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    monkeypatch.setitem(sys.modules, "timm", FakeTimm("timm"))


# --- a study small enough to run inside a test: digits, few images, two epochs ---------------------------------------

TINY_STUDY = """\
title: Tiny
base:
  data: {name: digits, max_train: 300, max_test: 60}
  poison: {trigger: {name: sticker, size: 2}, target: 7, rate: 0.5, rate_of: target}
  model: {name: digits-cnn, width: 4, hidden: 16}
  train: {objective: standard, epochs: 2, batch_size: 50, lr: 1e-2}
  attack:
    - {name: fgsm, eps: 0.1}
    - {name: pgd, eps: 0.1, steps: 3}
rows:
  None: {}
  Adv. training:
    train: {objective: {name: pgd, eps: 0.1, steps: 2}}
seeds: 2
"""

PlanMaker = Callable[..., Plan]


@pytest.fixture(scope="session")
def plan_of() -> PlanMaker:
    """A plan from a study's text (the tiny one by default) with overrides."""

    def make(
        *overrides: str,
        text: str = TINY_STUDY,
        scale: str | None = None,
        seeds: int | None = None,
        roots: Sequence[Path] = (),
    ) -> Plan:
        document = parse_study(text, name="tiny", source="tiny.yaml")
        given = [parse_override(text, "--set") for text in overrides]
        given += [] if seeds is None else [Override(path="seeds", value=seeds, origin="--seeds")]
        return make_plan(document, overrides=given, scale=scale, roots=roots)

    return make


@pytest.fixture(scope="session")
def run_here() -> Callable[[Plan, RunRecord], Ran]:
    """Run a plan on the CPU in this process."""
    return lambda plan, run: run_plan(plan, run, device=torch.device("cpu"), roots=())


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, plan_of: PlanMaker, run_here: Callable) -> RunRecord:
    """The tiny study, run once; tests must not write into it."""
    run = RunRecord(tmp_path_factory.mktemp("runs") / "tiny")
    ran = run_here(plan_of(), run)
    assert ran.failures == ()
    return run
