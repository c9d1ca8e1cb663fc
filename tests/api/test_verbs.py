"""The verbs on models and images in memory: what they take, what they refuse, and that they leave no trace."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import bascule
from bascule import RequestError

VERBS: dict[str, tuple[Callable[..., Any], str, dict[str, Any]]] = {
    "perturb": (bascule.perturb, "pgd", {"eps": 0.1, "steps": 2}),
    "certify": (bascule.certify, "smoothing", {"norm": "l2", "eps": 0.1, "n": 20, "n0": 10}),
    "train": (bascule.train, "pgd", {"eps": 0.1, "steps": 1, "epochs": 1}),
    "filter": (bascule.filter, "strip", {}),
    "scan": (bascule.scan, "mm-bd", {"steps": 5}),
    "detect": (bascule.detect, "strip", {"overlays": 4}),
    "repair": (bascule.repair, "fine-tune", {"epochs": 1}),
}
ARGUMENT = {
    "perturb": "attack",
    "certify": "certifier",
    "train": "objective",
    "filter": "filter",
    "scan": "scanner",
    "detect": "detector",
    "repair": "repair",
}


@pytest.fixture
def some(trained, digits) -> tuple[nn.Module, Tensor, Tensor]:
    """A trained network and whole bytes."""
    return copy.deepcopy(trained.model), digits.test.pixels[:60], digits.test.labels[:60]


def numbers(found: Any, x: Any) -> Tensor:
    """What a verb answered, as one row of numbers."""
    if isinstance(found, bascule.Guard):
        found = found(x)
    for name in ("radius", "score", "anomaly", "suspicion"):
        if hasattr(found, name):
            return getattr(found, name)
    if hasattr(found, "model"):
        return torch.cat([p.detach().flatten() for p in found.model.parameters()])
    return found.flatten()


@pytest.mark.parametrize("verb", VERBS)
def test_every_form_of_the_images_gives_the_same(some, verb: str) -> None:
    function, name, settings = VERBS[verb]
    model, x, y = some
    floats = x.float().div(255)
    expected = numbers(function(model, x, y, name, seed=3, **settings), x)
    loader = DataLoader(TensorDataset(floats, y), batch_size=25)
    for images, labels in (
        (x.numpy(), y.numpy()),
        (floats, y.tolist()),
        (TensorDataset(floats, y), None),
        (loader, None),
    ):
        assert torch.equal(numbers(function(model, images, labels, name, seed=3, **settings), x), expected)
    mapping = {"name": name, **{key: value for key, value in settings.items() if key != "epochs" or verb == "repair"}}
    more = {"epochs": 1} if verb == "train" else {}
    assert torch.equal(numbers(function(model, x, y, mapping, seed=3, **more), x), expected)
    assert not torch.equal(numbers(function(model, x, y, name, seed=4, **settings), x), expected)


@pytest.mark.parametrize("verb", VERBS)
def test_nothing_is_left_on_the_model_the_images_or_the_global_stream(some, verb: str) -> None:
    function, name, settings = VERBS[verb]
    model, x, y = some
    model.train()
    first, *_ = model.parameters()
    first.requires_grad_(False)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before, pixels, labels = copy.deepcopy(model.state_dict()), x.clone(), y.clone()
    hooks = [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules()]
    stream, numpys = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index, union-attr]  # noqa: NPY002
    found = function(model, x, y, name, **settings)
    if isinstance(found, bascule.Guard):
        found(x)
    assert all(part.training for part in model.modules())
    assert [p.requires_grad for p in model.parameters()] == [p is not first for p in model.parameters()]
    assert all(p.grad is not None and bool((p.grad == 1).all()) for p in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules()] == hooks
    assert torch.equal(stream, torch.get_rng_state())
    assert np.array_equal(numpys, np.random.get_state()[1])  # type: ignore[arg-type, index]  # noqa: NPY002
    assert torch.equal(x, pixels)
    assert torch.equal(y, labels)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no module": ({"model": lambda x: x}, "model: expected a torch.nn.Module, got function"),
    "names": ({"y": ["cat"] * 60}, "y: labels are whole numbers, and these are names: give the number of each"),
    "one-hot": ({"y": torch.eye(10).repeat(6, 1)}, "y: labels are whole numbers, int64; got float32 of shape"),
    "too bright": ({"x": torch.full((60, 1, 8, 8), 2.0)}, "x: images must lie in [0, 1], found 2..2"),
    "not a number": ({"x": torch.full((60, 1, 8, 8), torch.nan)}, "x: images must lie in [0, 1], found nan..nan"),
    "whole numbers": ({"x": torch.zeros(60, 1, 8, 8, dtype=torch.int64)}, "x: images must be N x C x H x W"),
    "no images": ({"x": torch.zeros(0, 1, 8, 8), "y": []}, "x: there are no images"),
    "a text": ({"x": "images"}, "x: images are a tensor or an array, or a data set or loader; got str"),
    "ragged": ({"y": [[0], [1, 2]]}, "y: labels are whole numbers; got list"),
    "another size": ({"x": torch.zeros(60, 3, 8, 8)}, "model: cannot take images of 3 x 8 x 8: RuntimeError"),
    "labels missing": ({"y": None}, "y: labels are needed: `x` is a tensor"),
    "labels too few": ({"y": torch.zeros(3, dtype=torch.int64)}, "y: 60 images need as many labels"),
    "labels of floats": ({"y": torch.zeros(60)}, "y: labels are whole numbers, int64; got float32"),
    "label too high": ({"y": torch.full((60,), 10)}, "y: labels go up to 10, but the model has the classes 0..9"),
    "label too low": ({"y": torch.full((60,), -1)}, "y: labels count from 0, found -1"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("verb", VERBS)
def test_wrong_inputs_are_one_message_that_names_the_argument(some, verb: str, wrong: str) -> None:
    function, name, settings = VERBS[verb]
    change, expected = WRONG[wrong]
    if verb == "train" and wrong == "no module":
        expected = "model: expected a name or a mapping with the key 'name', got "
    given = {**dict(zip(("model", "x", "y"), some, strict=True)), **change}
    with pytest.raises(RequestError) as caught:
        function(given["model"], given["x"], given["y"], name, **settings)
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)


def test_a_model_that_is_no_network_is_told_how_to_be_one(some) -> None:
    _, x, y = some
    with pytest.raises(RequestError, match=r"model: expected a torch.nn.Module, got Trained: give its `\.model`"):
        bascule.perturb(bascule.train("digits-cnn", x, y, epochs=1), x, y, "fgsm", eps=0.1)
    with pytest.raises(RequestError, match=r"model: expected a torch.nn.Module, got str: load a file's weights"):
        bascule.perturb("net.pth", x, y, "fgsm", eps=0.1)


@pytest.mark.parametrize("verb", VERBS)
def test_wrong_components_are_one_message_that_names_the_argument(some, verb: str) -> None:
    function, name, settings = VERBS[verb]
    argument, more = ARGUMENT[verb], {"epochs": 1} if verb == "train" else {}
    own = {key: value for key, value in settings.items() if key not in more}
    for given, extra, expected in [
        ("no-such", {}, f"{argument}: unknown "),
        (name, {**own, "stpes": 3}, f"{argument}: unknown key 'stpes'"),
        (3, {}, f"{argument}: expected a name or a mapping with the key 'name', got 3"),
        ({"name": name, **own}, {"eps": 1}, f"{argument}: settings (eps) go with a name; put them into the {argument}"),
        (bascule.metrics.Accuracy(), {}, f"{argument}: expected one of the kind "),
    ]:
        with pytest.raises(RequestError) as caught:
            function(*some, given, **extra, **more)
        assert str(caught.value).startswith(expected), (given, str(caught.value))


def test_a_data_set_brings_its_labels(some) -> None:
    model, x, y = some
    with pytest.raises(RequestError, match="y: TensorDataset brings its labels along: leave `y` out"):
        bascule.filter(model, TensorDataset(x, y), y, "strip")


def test_images_that_are_no_whole_bytes_are_taken_as_they_are(some) -> None:
    model, x, y = some
    floats = (x.float() / 255).mul(0.999)
    for verb in ("filter", "detect", "train"):
        function, name, settings = VERBS[verb]
        exact, rounded = (numbers(function(model, images, y, name, **settings), floats) for images in (floats, x))
        assert not torch.equal(exact, rounded)
        assert float((exact - rounded).abs().max()) < 0.2


def test_masks_for_black_and_white_are_told_where_the_user_is(some) -> None:
    model, x, y = some
    with pytest.warns(UserWarning, match="all pixels are 0 or 1") as caught:
        bascule.filter(model, (x > 100).to(torch.uint8), y, "strip")
    assert caught[0].filename == __file__


# --- what each verb is about -----------------------------------------------------------------------------------------


def test_scans_and_detectors_refuse_what_cannot_work(some) -> None:
    model, x, y = some
    with pytest.raises(RequestError, match="a scan needs images of several classes"):
        bascule.scan(model, x[:3], [1, 1, 1], "mm-bd")
    with pytest.raises(RequestError, match="needs at least 2 clean images of the defender"):
        bascule.detect(model, x[:1], y[:1], "strip")
    guard = bascule.detect(model, x, y, "strip", overlays=4)
    for wrong, expected in [
        (torch.full((2, 1, 8, 8), 3.0), "x: images must lie in"),
        (torch.zeros(2, 3, 8, 8), "x: the model cannot take images of 3 x 8 x 8"),
        ("x", "x: images are a tensor"),
    ]:
        with pytest.raises(RequestError) as caught:
            guard(wrong)
        assert str(caught.value).startswith(expected)
    assert len(guard(torch.zeros(0, 1, 8, 8)).suspicion) == 0


def test_a_guard_refuses_above_its_thresholds(some) -> None:
    model, x, y = some
    guard = bascule.detect(model, x, y, "latent-distance")
    found = guard(x)
    assert found.suspicion.dtype == torch.float32
    for share in (0.01, 0.05, 0.5):
        assert torch.equal(found.refused(share), found.suspicion > guard.threshold(share))
    assert int(found.refused(0.01).sum()) == 0  # 30 images tell nothing of one in a hundred
    assert 0 < int(found.refused(0.5).sum()) < 60


def test_certified_accuracy_by_hand() -> None:
    found = bascule.Certified(
        radius=torch.tensor([0.0, 0.1, 0.2, 0.0]), right=torch.tensor([True, True, True, False]),
        certified=torch.tensor([False, True, True, False]), eps=0.1,
    )  # fmt: skip
    assert [found.accuracy_at(eps) for eps in (0, 0.05, 0.15, 0.3)] == [0.75, 0.5, 0.25, 0.0]


def test_results_say_in_a_few_lines_what_they_hold(some) -> None:
    model, x, y = some
    poisoned = bascule.poison(x, y, "sticker", target=0, rate=0.05, label="dirty")
    assert repr(poisoned) == "Poisoned: 3 of 60 images (5 %)\n  sticker, label dirty, target 0"
    others = {verb: entry for verb, entry in VERBS.items() if verb != "perturb"}
    shown = {verb: repr(run(model, x, y, name, **settings)) for verb, (run, name, settings) in others.items()}
    shown["guarded"] = repr(bascule.detect(model, x, y, "strip", overlays=4)(x))
    starts = {
        "certify": "Certified: 60 images, ", "train": "Trained: Sequential, 1 epoch, ", "filter": "Judged: 60 images, ",
        "scan": "Scan: suspects ", "detect": "Guard: strip, thresholds from 30 clean images\n",
        "repair": "Repaired: Sequential\n  distance ", "guarded": "Detected: 60 images, 0 refused at 1 % false alarms",
    }  # fmt: skip
    assert {verb for verb in shown if shown[verb].startswith(starts[verb])} == set(shown)
    assert all(len(text) < 700 and text.count("\n") < 10 for text in shown.values())


def test_an_attack_that_has_no_gradient_to_follow_is_told() -> None:
    class Closed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                return self.inner(x)

    model, x = Closed(), torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y = model(x).argmax(1)
    with pytest.warns(UserWarning, match=r"^hardly attacked: pgd follows the gradient .* and this model has none"):
        bascule.perturb(model, x, y, "pgd", eps=0.1)
    bascule.perturb(model, x, y, "square", eps=0.1, queries=5)  # asks for logits alone


@pytest.mark.parametrize("verb", ["load", "check", "run"])
def test_folders_are_paths(verb: str) -> None:
    given = ("digits", "asr < 1") if verb == "check" else ("digits",)
    with pytest.raises(RequestError, match=r"^runs: expected the path of a folder, got 3$"):
        getattr(bascule, verb)(*given, runs=3)


@pytest.mark.parametrize("hooks", [bascule.hooks.Hook(), 3])
def test_hooks_are_a_list(hooks: Any, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"hooks: expected a list of hooks"):
        bascule.run("digits", runs=tmp_path, hooks=hooks, progress=False)
