from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from bascule.core import catalog
from bascule.core.errors import RequestError
from bascule.core.restore import untouched
from bascule.core.rng import stream
from bascule.scanners.contract import Scan
from bascule.scanners.neural_cleanse import NeuralCleanse
from bascule.scanners.run import run_scanner
from bascule.scanners.verdict import mad_index

PAPER: dict[str, Any] = {
    "mask": "channel",
    "best": "loss",
    "cost_from_start": True,
    "cost_factor": 2.0,
    "patience": 5,
    "batch_size": 100,
    "look_every": None,
    "stop_after": None,
    "max_looks": 20,
}


def plain_invert() -> Any:
    """The independent implementation, which the benchmark uses too."""
    path = Path(__file__).parents[2] / "benchmarks" / "_plain_neural_cleanse.py"
    spec = importlib.util.spec_from_file_location("plain_neural_cleanse", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.invert


@pytest.fixture(scope="module")
def full(planted: Any) -> Scan:
    model, images, _ = planted(0, True)
    return run_scanner(model, NeuralCleanse(), images, generator=stream(0, "scan"))


def test_beside_an_independent_implementation(full: Scan, planted: Any) -> None:
    model, images, target = planted(0, True)
    x, invert = images.batch(torch.arange(len(images))), plain_invert()
    with untouched(model):
        theirs = [
            # Rounds of 10 batches instead of 31, for the time.
            invert(model, x, label, generator=torch.Generator().manual_seed(label), per_round=10, stop_after=15)
            for label in range(10)
        ]
    assert all(one.reached for one in theirs)
    norms = torch.tensor([one.norm for one in theirs])
    assert full.details["reached"].all()
    torch.testing.assert_close(full.details["size"], norms, rtol=0.2, atol=0)
    assert int(mad_index(norms).argmax()) == int(full.anomaly.argmax()) == target
    assert mad_index(norms)[target] > 2
    assert full.suspects[0] == target
    # The same place: the masks of the target overlap.
    mine, other = full.mask[target].flatten(), theirs[target].mask.flatten()  # type: ignore[index]
    assert torch.minimum(mine, other).sum() / torch.maximum(mine, other).sum() > 0.5
    # With fewer steps.
    assert full.details["steps"].sum() < 0.7 * sum(one.steps for one in theirs)


def test_the_trigger_lies_where_it_was_planted(full: Scan, planted: Any) -> None:
    _, _, target = planted(0, True)
    assert full.mask is not None
    mask = full.mask[target, 0]
    assert full.mask.shape == (10, 1, 8, 8)
    assert mask[-3:, -3:].sum() > 0.7 * mask.sum()
    assert full.details["size"][target] == pytest.approx(float(mask.sum()), rel=1e-5)
    assert full.details["success"].min() > 0.95


def test_a_higher_wanted_success_needs_a_larger_mask(planted: Any, full: Scan) -> None:
    model, images, _ = planted(0, True)
    low = run_scanner(model, NeuralCleanse(wanted_success=0.6), images, generator=stream(0, "scan"))
    assert (low.details["size"] < full.details["size"]).all()
    assert (low.details["success"] < full.details["success"]).all()


def test_as_in_the_study(planted: Any) -> None:
    model, images, target = planted(0, True)
    found = run_scanner(model, NeuralCleanse(target=target, **PAPER), images, generator=stream(0, "scan"))
    assert found.suspects == (target,)
    assert found.suspects
    assert found.anomaly.isnan().all()
    # 200 images are 2 batches of 100, 20 times.
    assert found.details["steps"].tolist() == [40 if label == target else 0 for label in range(10)]
    assert found.passes is not None
    assert found.passes.backward == 40 * 100
    assert found.mask is not None
    assert found.mask.shape == (10, 1, 8, 8)
    assert found.details["success"][target] > 0.95
    others = torch.arange(10) != target
    for values in (found.mask[others], found.pattern[others], found.details["success"][others]):  # type: ignore[index]
        assert values.isnan().all()
    with pytest.raises(RequestError, match="not examined"):
        found.stamp(images.batch(torch.arange(2)), (target + 1) % 10)


def test_the_settings_of_the_study_are_the_documented_ones() -> None:
    text = catalog.documentation("scan", "neural-cleanse").text.replace("\n", " ")
    for key, value in {"target": 7, **PAPER}.items():
        written = {True: "true", None: "null", 2.0: "2"}.get(value, value)
        assert f"{key}: {written}" in text, key


def test_an_unknown_target_is_refused(planted: Any) -> None:
    model, images, _ = planted(0, True)
    with pytest.raises(RequestError, match=r"^target: there is no class 10; the classes are 0..9"):
        run_scanner(model, NeuralCleanse(target=10), images, generator=stream(0, "scan"))


@pytest.mark.parametrize(
    "settings", [{"wanted_success": 1.1}, {"wanted_success": 0.0}, {"cost_factor": 1.0}, {"mask": "image"}, {"lr": 0.0}]
)
def test_impossible_settings_are_refused(settings: dict[str, Any]) -> None:
    (key,) = settings
    with pytest.raises(RequestError, match=rf"^{key}: "):
        catalog.build("scan", {"name": "neural-cleanse", **settings})
