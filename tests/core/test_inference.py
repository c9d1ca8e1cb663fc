from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bascule.attacks.run import run_attack
from bascule.core import catalog
from bascule.core.errors import RequestError
from bascule.core.images import Images
from bascule.core.inference import Filled, labels_of, predict
from bascule.core.rng import stream

COUNTS = range(1, 14)


@pytest.fixture
def model() -> nn.Module:
    return catalog.build("models", "mnist-fast").initialised((1, 28, 28), 10, seed=0).eval()


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def answer(model: nn.Module, count: int) -> tuple[Tensor, Tensor]:
    """Logits and the gradient of the mean loss with respect to the images."""
    x = torch.rand(count, 1, 28, 28, generator=torch.Generator().manual_seed(count)).requires_grad_(True)
    logits = model(x)
    (gradient,) = torch.autograd.grad(F.cross_entropy(logits, torch.arange(count) % 10), x)
    return logits.detach(), gradient


@pytest.mark.parametrize("count", COUNTS)
def test_a_filled_batch_has_the_same_answers(model: nn.Module, count: int) -> None:
    for bare, filled in zip(answer(model, count), answer(Filled(model), count), strict=True):
        assert filled.shape == bare.shape
        torch.testing.assert_close(filled, bare, rtol=1e-4, atol=1e-6)


def test_batches_are_filled_up_to_fours(model: nn.Module) -> None:
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    for count in (0, *COUNTS):
        Filled(model)(torch.rand(count, 1, 28, 28))
    assert sizes == [0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12, 16]


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="a property of MKL's products")
@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("count", COUNTS)
def test_a_filled_batch_does_not_depend_on_the_number_of_threads(model: nn.Module, count: int) -> None:
    found = []
    for number in (1, 2):
        torch.set_num_threads(number)
        found.append(answer(Filled(model), count))
    for one, two in zip(*found, strict=True):
        assert torch.equal(one, two)


class Broken(nn.Module):
    """Answers images that are brighter than half with NaN."""

    def forward(self, x: Tensor) -> Tensor:
        light = x.flatten(1).mean(1, keepdim=True)
        return torch.cat([light, 1 - light], 1).where(light < 0.5, torch.nan)


def test_nan_is_no_label() -> None:
    assert labels_of(torch.tensor([[0.0, torch.inf], [-torch.inf, -1.0]])).tolist() == [1, 1]
    with pytest.raises(RequestError, match="1 of the 2 images that were tried with NaN"):
        labels_of(torch.tensor([[0.0, 1.0], [torch.nan, 1.0]]))


def test_a_model_that_answers_nan_has_no_accuracy_and_no_robustness() -> None:
    pixels = torch.tensor([40, 120, 250], dtype=torch.uint8).reshape(3, 1, 1, 1).expand(3, 1, 4, 4)
    images = Images(pixels=pixels, labels=torch.ones(3, dtype=torch.int64), ids=torch.arange(3), classes=("a", "b"))
    dark = images.at(torch.arange(2))
    assert predict(Broken(), dark).tolist() == [1, 1]
    with pytest.raises(RequestError, match="1 of the 3 images that were tried with NaN"):
        predict(Broken(), images)
    x = dark.batch(torch.arange(2))
    with pytest.raises(RequestError, match="with NaN"):
        run_attack(
            Broken(), catalog.build("attack", {"name": "fgsm", "eps": 0.3}), x, dark.labels, generator=stream(0, "a")
        )
