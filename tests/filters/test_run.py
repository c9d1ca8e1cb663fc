"""What `run_filter` guarantees whatever a filter returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.core.images import Images
from bascule.core.rng import stream
from bascule.filters.contract import Filter, Judged
from bascule.filters.run import run_filter


@component
class Given(Filter):
    """Answers with what it was made with, or with the first pixel."""

    score: Any = None
    removed: Any = None

    def judge(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Judged:
        assert not model.training
        assert not any(p.requires_grad for p in model.parameters())
        assert images.ids.tolist() == sorted(images.ids.tolist())
        first = images.batch(torch.arange(len(images))).flatten(1)[:, 0]
        return Judged(
            first if self.score is None else torch.tensor(self.score),
            first > 0.5 if self.removed is None else torch.tensor(self.removed),
        )


def run(filter: Filter, images: Images) -> Judged:  # noqa: A002
    return run_filter(nn.Linear(2, 2).train(), filter, images, generator=stream(0, "a"))


@pytest.fixture
def three(vectors: Callable[..., Images]) -> Images:
    return vectors(torch.tensor([[0, 0], [255, 0], [51, 0]]), torch.tensor([0, 1, 1]))


def test_answers_come_in_the_order_of_the_set(three: Images) -> None:
    assert run(Given(), three).score.tolist() == pytest.approx([0, 1, 0.2])
    turned = run(Given(), three.at(torch.tensor([1, 2, 0])))
    assert turned.score.tolist() == pytest.approx([1, 0.2, 0])
    assert turned.removed.tolist() == [True, False, False]


def test_the_model_is_as_found_after_an_error(three: Images) -> None:
    model = nn.Linear(2, 2).train()
    with pytest.raises(ValueError, match="not finite"):
        run_filter(model, Given(score=[0.0, float("nan"), 1.0]), three, generator=stream(0, "a"))
    assert model.training
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ({"score": [0.0, 1.0]}, r"score of shape \(2,\), torch.float32 for 3 images"),
        ({"score": [0, 1, 2]}, "score of shape .* torch.int64"),
        ({"score": [0.0, 1.0, float("inf")]}, "1 scores that are not finite"),
        ({"removed": [0, 1, 0]}, "removed of shape .* torch.int64"),
        ({"removed": [[True, False, False]]}, r"removed of shape \(1, 3\)"),
    ],
)
def test_an_answer_out_of_shape_is_an_error(answer: dict[str, Any], complaint: str, three: Images) -> None:
    with pytest.raises(ValueError, match=complaint):
        run(Given(**answer), three)


def test_nobodys_set_is_emptied(three: Images) -> None:
    with pytest.raises(RequestError, match="removes all 3 images; choose a stricter rule"):
        run(Given(removed=[True, True, True]), three)
    assert run(Given(removed=[True, True, False]), three).removed.sum() == 2


def test_gradients_do_not_come_back(three: Images) -> None:
    @component
    class Attached(Filter):
        def judge(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Judged:
            score: Tensor = torch.zeros(3, requires_grad=True) * 1
            return Judged(score, torch.zeros(3, dtype=torch.bool))

    assert not run(Attached(), three).score.requires_grad
