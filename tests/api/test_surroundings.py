"""What is set in torch around a verb, and what is no plain argument, changes no number without a word."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

import bascule
from bascule.core import apart


@pytest.fixture(scope="module")
def some() -> tuple[nn.Module, Tensor, Tensor]:
    train = bascule.data.Digits(max_train=60).load().train
    assert isinstance(train.pixels, Tensor)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))
    x, y = train.pixels, train.labels
    return bascule.train(model, x, y, epochs=20, training={"batch_size": 20, "lr": 0.1}).model, x, y


AROUND: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "inference_mode": torch.inference_mode,
    "no_grad": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
}


@pytest.mark.parametrize("name", AROUND)
def test_what_is_around_a_verb_changes_nothing(some, name: str) -> None:
    model, x, y = some
    wanted = bascule.perturb(model, x, y, "pgd", eps=0.1, steps=2)
    with AROUND[name]():
        found = bascule.perturb(model, x, y, "pgd", eps=0.1, steps=2)
        bascule.certify(model, x, y, "interval", eps=0.001)
        bascule.filter(model, x, y, "spectral-signatures")
        bascule.repair(model, x, y, "fine-tune", epochs=1)
    assert torch.equal(found, wanted)
    assert not torch.equal(found, x / 255)
    assert not found.is_inference()


@pytest.fixture(scope="module")
def called(some) -> dict[str, tuple[Callable[[Tensor], Tensor], Tensor]]:
    """What results and components say of images where nothing is around them."""
    model, x, y = some
    guard, poisoned = (
        bascule.detect(model, x, y, "latent-distance"),
        bascule.poison(x, y, "sticker", size=2, target=3, rate=0.05),
    )
    functions = {"guard": lambda x: guard(x).suspicion, "stamp": poisoned.stamp, "trigger": bascule.triggers.Sig()}
    return {name: (function, function(x)) for name, function in functions.items()}


@pytest.mark.parametrize("name", [*AROUND, "device"])
def test_what_is_around_a_guard_or_a_trigger_changes_nothing(some, called, name: str) -> None:
    _, x, _ = some
    with torch.device("meta") if name == "device" else AROUND[name]():
        found = {what: function(x) for what, (function, _) in called.items()}
    for what, (_, wanted) in called.items():
        assert torch.equal(found[what], wanted)
        assert not found[what].is_inference()


def test_another_default_device_is_as_good(some) -> None:
    model, x, y = some
    wanted = bascule.perturb(model, x, y, "pgd", eps=0.1, steps=2)
    with torch.device("meta"):
        assert torch.equal(bascule.perturb(model, x, y, "pgd", eps=0.1, steps=2), wanted)
        trained = bascule.train("digits-cnn", x, y, epochs=1)
        assert bascule.evaluate(trained.model, x, y, trigger="sticker", target=3)["asr"].n
        assert torch.get_default_device().type == "meta"


def test_threads_that_share_a_model_wait_for_each_other(some) -> None:
    """Each put modes, frozen parameters and hooks back as the other had set them, and one saw the other's images."""
    model, x, y = copy.deepcopy(some[0]).train(), *some[1:]
    wanted = {seed: bascule.perturb(model, x, y, "pgd", eps=0.1, steps=5, seed=seed) for seed in range(4)}
    scores = bascule.filter(model, x, y, "spectral-signatures").score
    wrong: list[object] = []

    def work(seed: int) -> None:
        try:
            for _ in range(3):
                if not torch.equal(bascule.perturb(model, x, y, "pgd", eps=0.1, steps=5, seed=seed), wanted[seed]):
                    wrong.append(seed)
                if not torch.equal(bascule.filter(model, x, y, "spectral-signatures").score, scores):
                    wrong.append("filter")
        except Exception as error:  # in a thread nobody would hear of it
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert all(part.training for part in model.modules())
    assert all(p.requires_grad for p in model.parameters())
    assert not model._forward_pre_hooks
    assert not apart._turns


def test_another_default_type_is_as_good(some) -> None:
    model, x, y = some
    wanted = bascule.filter(model, x, y, "spectral-signatures").score
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(bascule.filter(model, x, y, "spectral-signatures").score, wanted)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


class Drawing(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Any:
        return self.inner(x + 0.1 * torch.rand_like(x))


def test_a_model_that_draws_repeats_and_leaves_the_global_stream(some) -> None:
    model, x, y = some
    state = torch.get_rng_state()
    first, second = (bascule.perturb(Drawing(model), x, y, "fgsm", eps=0.1) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)


def test_images_of_a_source_and_arrays_of_any_layout_are_taken(some) -> None:
    model, x, y = some
    wanted = bascule.perturb(model, x, y, "fgsm", eps=0.1)
    images = bascule.data.Digits(max_train=60).load()
    assert torch.equal(bascule.perturb(model, images.train, None, "fgsm", eps=0.1), wanted)
    assert bascule.poison(images.train, None, "sticker", size=2, target=3, rate=0.05).x.dtype == torch.uint8
    flipped = np.ascontiguousarray(x.numpy()[:, :, ::-1])[:, :, ::-1]
    assert torch.equal(bascule.perturb(model, flipped, y, "fgsm", eps=0.1), wanted)
    foreign = (x / 255).numpy().astype(">f4")
    assert torch.equal(bascule.perturb(model, foreign, y.numpy().astype(">i8"), "fgsm", eps=0.1), wanted)
    with pytest.raises(bascule.RequestError, match=r"x: .*\.train"):
        bascule.perturb(model, images, None, "fgsm", eps=0.1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"seed": "0"}, "seed: expected a whole number"),
        ({"seed": True}, "seed"),
        ({"target": "three"}, "target: the classes of these images have no names"),
        ({"target": 2.5}, "target: expected a whole number"),
        ({"sources": 3}, "sources: expected classes"),
        ({"classes": 10.5}, "classes: expected a whole number"),
        ({"classes": 2**60}, "classes: .*more than"),
    ],
)
def test_plain_arguments_are_checked(some, change: dict[str, Any], text: str) -> None:
    _, x, y = some
    with pytest.raises(bascule.RequestError, match=text):
        bascule.poison(x, y, "sticker", **{"size": 2, "target": 3, "rate": 0.1} | change)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"device": "nowhere"}, "device: "),
        ({"training": 3}, "training: "),
        ({"progress": 3}, "progress: "),
        ({"epochs": 1.5}, "epochs: expected a whole number"),
        ({"epochs": True}, "epochs: expected a whole number"),
    ],
)
def test_arguments_of_a_training_are_checked(some, change: dict[str, Any], text: str) -> None:
    model, x, y = some
    with pytest.raises(bascule.RequestError, match=text):
        bascule.train(model, x, y, **{"epochs": 1} | change)


def test_odd_images_labels_and_models_are_refused(some) -> None:
    model, x, y = some
    for odd in ((x / 255).to_sparse(), x.to("meta")):
        with pytest.raises(bascule.RequestError, match="x: an ordinary tensor"):
            bascule.perturb(model, odd, y, "fgsm", eps=0.1)
    with pytest.raises(bascule.RequestError, match=r"x: .*NaN"):
        bascule.perturb(model, (x / 255) * float("nan"), y, "fgsm", eps=0.1)
    with pytest.raises(bascule.RequestError, match="y: labels go up to"):
        bascule.poison(x, y + 2**60, "sticker", size=2, target=3, rate=0.1)
    with torch.inference_mode():
        made = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(bascule.RequestError, match=r"model: .*inference_mode"):
        bascule.perturb(made, x, y, "fgsm", eps=0.1)
    still = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).requires_grad_(False)
    with pytest.raises(bascule.RequestError, match="model: cannot be trained"):
        bascule.train(still, x, y, epochs=1)


def test_weights_of_a_network_by_name_can_be_saved(some, tmp_path) -> None:
    _, x, y = some
    made = bascule.train("digits-cnn", x, y, epochs=1).model
    safetensors.torch.save_file(made.state_dict(), tmp_path / "weights.safetensors")
