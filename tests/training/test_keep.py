"""Keeping the best epoch: which one it is, what is kept of it, and that the training itself does not notice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bascule.core.errors import RequestError
from bascule.core.images import Images
from bascule.training.loop import best_epoch, train
from bascule.training.settings import Training
from bascule.training.standard import Standard


def settings(**changes: Any) -> Training:
    return Training(**{"objective": Standard(), "epochs": 3, "batch_size": 16, "lr": 0.01, "keep": "best", **changes})


class Told:
    """Judges as told, and notes the weights that it judged."""

    name = "held_out_accuracy"

    def __init__(self, model: nn.Module, values: Sequence[float]) -> None:
        self.model, self.values = model, values
        self.seen: list[dict[str, Tensor]] = []

    def __call__(self, epoch: int) -> float:
        self.seen.append({name: value.clone() for name, value in self.model.state_dict().items()})
        return self.values[epoch - 1]


@pytest.mark.parametrize("ema", [None, 0.9], ids=["plain", "averaged"])
@pytest.mark.parametrize(
    ("values", "best"),
    [((0.1, 0.5, 0.3), 2), ((0.1, 0.2, 0.3), 3), ((0.4, 0.4, 0.4), 1), ((0.0, 0.0, 0.0), 1), ((0.2, 0.3, 0.3), 2)],
)
def test_the_model_ends_with_the_first_of_the_best_epochs(
    values: Sequence[float], best: int, ema: float | None, few: Images, make_net: Callable
) -> None:
    model, plain = make_net(), make_net()
    judge = Told(model, values)
    curve = train(model, few, settings(ema=ema), seed=3, judge=judge)
    assert [entry["held_out_accuracy"] for entry in curve] == list(values)
    assert best_epoch(curve, "held_out_accuracy") == best
    assert all(torch.equal(value, judge.seen[best - 1][name]) for name, value in model.state_dict().items())
    assert not torch.equal(judge.seen[0]["0.weight"], judge.seen[2]["0.weight"])
    assert not model.training
    losses = [entry["loss"] for entry in train(plain, few, settings(keep="last"), seed=3)]
    assert [entry["loss"] for entry in curve] == losses


def test_the_last_epoch_is_kept_without_asking_anybody(few: Images, make_net: Callable) -> None:
    model = make_net()
    judge = Told(model, (0.9, 0.1, 0.1))
    curve = train(model, few, settings(keep="last"), seed=3, judge=judge)
    assert judge.seen == []
    assert "held_out_accuracy" not in curve[0]


def test_without_a_judge_it_is_refused_before_anything_is_trained(few: Images, make_net: Callable) -> None:
    model = make_net()
    before = model[0].weight.detach().clone()
    with pytest.raises(RequestError, match="keep: nobody judges the epochs here"):
        train(model, few, settings(), seed=3)
    assert torch.equal(model[0].weight, before)


def test_checkpoints_of_before_these_settings_are_gone_on_with(few: Images, make_net: Callable, kept: Callable) -> None:
    whole, begun, again = make_net(), kept(), make_net(seed=9)
    plain = settings(keep="last")
    train(whole, few, plain, seed=3, checkpoints=begun, checkpoint_seconds=0)
    state = begun.load()
    assert state.keys() == {"model", "optimizer", "losses", "curve", "step", "seconds"}, "nothing new where all is off"
    train(again, few, plain, seed=3, checkpoints=kept(begun.states[4]))
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in whole.state_dict().items())
