"""What is set in torch around a verb, and what is no plain argument, changes no number without a word."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

import bascule


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
        ({"target": "3"}, "target: expected a whole number"),
        ({"sources": 3}, "sources: expected whole numbers"),
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
    [({"device": "nowhere"}, "device: "), ({"training": 3}, "training: "), ({"progress": 3}, "progress: ")],
)
def test_arguments_of_a_training_are_checked(some, change: dict[str, Any], text: str) -> None:
    model, x, y = some
    with pytest.raises(bascule.RequestError, match=text):
        bascule.train(model, x, y, epochs=1, **change)


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
