"""Repairs of networks with attention, without gradients, and with other answers while they train."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import networks
from bascule.core.catalog import build
from bascule.core.errors import RequestError
from bascule.core.images import Images
from bascule.core.rng import borrowed_global_stream, stream
from bascule.repairs.contract import Repaired
from bascule.repairs.run import run_repair

SIZE = (1, 4, 4)
I_BAU = {"name": "i-bau", "rounds": 1, "steps": 2, "search_steps": 2}
FINE_TUNE = {"name": "fine-tune", "epochs": 1, "batch_size": 10}
SAU = {**FINE_TUNE, "name": "sau", "steps": 1}


def repaired(name: str, spec: dict[str, object]) -> tuple[nn.Module, Repaired]:
    with borrowed_global_stream(0, "net"):
        model = getattr(networks, name)(SIZE, 3).eval()
    pixels = torch.randint(256, (20, *SIZE), dtype=torch.uint8, generator=stream(0, "pixels"))
    images = Images(pixels=pixels, labels=torch.arange(20) % 3, ids=torch.arange(20), classes=("a", "b", "c"))
    return model, run_repair(model, build("repair", spec), images, generator=stream(0, "repair"))


@pytest.mark.parametrize("name", ["Attention", "Encoder", "Windows"])
def test_i_bau_differentiates_attention_twice(name: str) -> None:
    assert repaired(name, I_BAU)[1].notes["distance"] > 0


@pytest.mark.parametrize("spec", [I_BAU, SAU, {**FINE_TUNE, "objective": {"name": "pgd", "eps": 0.1}}], ids=str)
@pytest.mark.parametrize("name", ["detached", "outside"])
def test_what_follows_gradients_is_refused_where_there_are_none(name: str, spec: dict[str, object]) -> None:
    with pytest.raises(RequestError, match="follows the gradient"):
        repaired(name, spec)


@pytest.mark.parametrize("spec", [FINE_TUNE, SAU], ids=str)
@pytest.mark.parametrize(
    ("name", "said"),
    [("auxiliary", "in train mode answers with tuple"), ("wider_in_training", r"shape \(10, 6\) for 10 images")],
)
def test_other_answers_while_training_are_refused(name: str, said: str, spec: dict[str, object]) -> None:
    if spec is SAU:  # which trains in eval mode
        repaired(name, spec)
        return
    with pytest.raises(RequestError, match=said):
        repaired(name, spec)


@pytest.mark.parametrize("spec", [FINE_TUNE, SAU, I_BAU], ids=str)
def test_a_model_that_writes_into_its_images_is_repaired_as_one_that_does_not(spec: dict[str, object]) -> None:
    (before, one), (_, other) = (repaired(name, spec) for name in ("in_place", "plain"))
    for model in (before, one.model):
        assert not model._forward_pre_hooks
        assert not model._forward_hooks
    for key, value in one.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[key])
