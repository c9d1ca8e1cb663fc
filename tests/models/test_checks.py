"""Trials of a network before any work."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import networks
from bascule.core.errors import RequestError
from bascule.core.restore import answer_in_training
from bascule.core.rng import borrowed_global_stream
from bascule.models.checks import _has_gradients, check_network
from bascule.models.contract import UserModel

SIZE = (1, 4, 4)


def architecture(name: str) -> UserModel:
    return UserModel(factory=f"networks:{name}", settings={}, code="")


class Counting(nn.Module):
    """Batch norm, dropout, and a buffer that every pass in train mode writes into."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("passes", torch.zeros(()))
        self.body = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Dropout(), nn.Linear(16, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.passes += 1
        logits: torch.Tensor = self.body(x)
        return logits


def test_the_trial_in_train_mode_leaves_no_trace() -> None:
    model = Counting().eval()
    model.body[2].train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert answer_in_training(model, torch.rand(2, *SIZE)).shape == (2, 3)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [module.training for module in model.body] == [False, False, True, False]
    assert not model._forward_pre_hooks


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("auxiliary", "Around in train mode answers with tuple"),
        ("wider_in_training", r"networks:wider_in_training in train mode answers with shape \(2, 6\) for 2 images"),
    ],
)
def test_only_who_is_to_be_trained_is_tried_in_train_mode(name: str, said: str) -> None:
    check_network(architecture(name), SIZE, 3)
    state = torch.get_rng_state()
    with pytest.raises(RequestError, match=said):
        check_network(architecture(name), SIZE, 3, trained=True)
    assert torch.equal(torch.get_rng_state(), state)


class Leaving(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise SystemExit(3)


def leaving(*_: object) -> nn.Module:
    raise SystemExit(3)


@pytest.mark.parametrize("make", [lambda *_: Leaving(), leaving])
def test_code_that_ends_the_program_is_an_error_like_any_other(make: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "leaving", make, raising=False)
    with pytest.raises(RequestError, match="SystemExit: 3"):
        check_network(architecture("leaving"), SIZE, 3)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain", True),
        ("in_place", True),
        ("Encoder", True),
        ("detached", False),
        ("rounded", False),
        ("outside", False),
    ],
)
def test_whether_a_fresh_network_has_gradients(name: str, expected: bool) -> None:
    assert check_network(architecture(name), SIZE, 3, trained=True) != expected
    assert check_network(architecture(name), SIZE, 3) is False, "nobody asked"


def test_a_last_layer_of_zeros_is_no_lack_of_gradients() -> None:
    with borrowed_global_stream(0, "net"):
        model = networks.plain(SIZE, 3).eval()
    nn.init.zeros_(model.body[3].weight)
    assert _has_gradients(model, SIZE)
