"""The best epoch on held-out images: what is measured, by what attack, and what the record tells of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bascule.attacks.fgsm import Fgsm
from bascule.attacks.spatial import Spatial
from bascule.core import catalog, rng
from bascule.core.errors import RequestError
from bascule.core.images import Images, Splits
from bascule.core.inference import predict
from bascule.record.run import RunRecord
from bascule.running.held_out import HeldOut
from bascule.training.against import Against
from bascule.training.contract import Course, Objective
from bascule.training.lipschitz import Lipschitz
from bascule.training.loop import train
from bascule.training.pgd import Pgd
from bascule.training.settings import Training
from bascule.training.standard import Standard
from interruptible import run_killed
from objectives import objective

TIMES = ("seconds", "probe_seconds")


class Sums(nn.Module):
    """Class 1 where the pixels sum to more than 8, else class 0."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(-8.0))

    def forward(self, x: Tensor) -> Tensor:
        excess = x.flatten(1).sum(1, keepdim=True) + self.bias
        return torch.cat([-excess, excess], 1)


def grey(*levels: int, labels: tuple[int, ...]) -> Images:
    """Images of 4 x 4, each of one grey level."""
    pixels = torch.tensor(levels, dtype=torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous()
    return Images(pixels=pixels, labels=torch.tensor(labels), ids=torch.arange(len(labels)), classes=("a", "b"))


# --- what is measured ------------------------------------------------------------------------------------------------

LEVELS = grey(0, 110, 120, 140, 255, 250, labels=(0, 0, 0, 1, 1, 0))
"""A level of 127.5 is on the border: 0.47 and 0.43 are within 0.1 of it on one side, 0.55 on the other."""


@pytest.mark.parametrize(
    ("made", "name", "share"),
    [
        (Standard(), "held_out_accuracy", 5 / 6),
        (Pgd(eps=0.0), "held_out_accuracy", 5 / 6),
        (Pgd(eps=0.04), "held_out_robust_accuracy", 4 / 6),
        (Pgd(eps=0.1), "held_out_robust_accuracy", 2 / 6),
        (Lipschitz(inner=Pgd(eps=0.1)), "held_out_robust_accuracy", 2 / 6),
        (catalog.build("train", {"name": "ibp", "eps": 0.1}), "held_out_robust_accuracy", 2 / 6),
        (catalog.build("train", {"name": "crown-ibp", "eps": 0.1}), "held_out_robust_accuracy", 2 / 6),
        (Against(attacks=(Spatial(), Fgsm(eps=0.1))), "held_out_robust_accuracy", 2 / 6),
        (Against(attacks=(Spatial(),)), "held_out_accuracy", 5 / 6),
        # Sixteen pixels that each move by d are 4 d away in L2, 16 d in L1.
        (Pgd(norm="l2", eps=0.4), "held_out_robust_accuracy", 2 / 6),
    ],
    ids=["standard", "no-ball", "small", "pgd", "lipschitz", "ibp", "crown-ibp", "against", "spatial", "l2"],
)
def test_the_share_is_the_one_worked_out_by_hand(made: Objective, name: str, share: float) -> None:
    judge = HeldOut(made, Sums(), LEVELS, seed=0)
    assert judge.name == name
    assert judge(1) == pytest.approx(share)


@pytest.mark.parametrize("name", catalog.names("train"))
def test_any_objective_says_which_ball_it_is_about(name: str) -> None:
    made = objective(name)
    adversarial = made.inner if isinstance(made, Lipschitz) else made
    assert (made.ball is None) == (isinstance(made, Course) or isinstance(adversarial, Standard))


def test_it_leaves_model_and_streams_as_they_are_and_says_the_same_again(digits: Splits) -> None:
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(0.5), nn.Linear(64, 10)).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    stream = torch.random.get_rng_state()
    judge = HeldOut(Pgd(eps=0.1), model, digits.test.at(torch.arange(50)), seed=0)
    assert judge(1) == judge(2)
    assert torch.equal(torch.random.get_rng_state(), stream)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(part.training for part in model.modules())


def test_answers_that_are_no_numbers_are_told_and_count_as_wrong() -> None:
    model = Sums()
    model.bias.data.fill_(torch.nan)
    with pytest.warns(
        UserWarning, match="no held-out image counts as right after epoch 3: the model answers 6 of the 6 images"
    ):
        assert HeldOut(Standard(), model, LEVELS, seed=0)(3) == 0.0


def test_a_training_that_overfits_keeps_an_earlier_epoch(digits: Splits) -> None:
    """Adversarial training on 100 images for longer than is good: the kept epoch withstands more on held-out images,
    and is the model that there was then."""
    with rng.borrowed_global_stream(0, "net"):
        net: Any = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 10),
        )  # fmt: skip
    made = Pgd(eps=0.1, steps=3)
    few, held_out = digits.train.at(torch.arange(100)), digits.train.at(torch.arange(800, 1100))
    judge = HeldOut(made, net, held_out, seed=0)
    training = Training(objective=made, epochs=30, batch_size=20, lr=0.01, keep="best")
    curve = train(net, few, training, seed=0, judge=judge)
    values = [entry["held_out_robust_accuracy"] for entry in curve]
    about = judge.about(curve)
    assert about["epoch"] < 30
    assert about["held_out_robust_accuracy"] == max(values) == judge(0) > values[-1] == about["last"]
    assert about["images"] == 300
    assert {key: about["attack"][key] for key in ("name", "norm", "eps", "steps")} == {
        "name": "pgd", "norm": "linf", "eps": 0.1, "steps": 10,
    }  # fmt: skip
    assert float((predict(net, held_out) == held_out.labels).double().mean()) > max(values)


# --- in a plan and a run ---------------------------------------------------------------------------------------------


def test_without_held_out_images_it_is_refused_where_it_is_written(plan_of: Any) -> None:
    with pytest.raises(RequestError, match=r"'best' is the epoch .* data\.held_out, for example 500") as caught:
        plan_of("train.keep=best")
    assert "train.keep" in str(caught.value)


def test_a_run_keeps_the_best_epoch_and_tells_of_it(tmp_path: Path, plan_of: Any, run_here: Any) -> None:
    run, plan = RunRecord(tmp_path / "run"), plan_of("train.keep=best", "train.epochs=4", "data.held_out=60", seeds=1)
    assert run_here(plan, run).failures == ()
    for cell in plan.cells():
        record = run.cell(cell.fingerprint)
        name = "held_out_accuracy" if isinstance(cell.setup.train.objective, Standard) else "held_out_robust_accuracy"
        values = [entry[name] for entry in record.curve()]
        kept = record.info()["kept"]
        assert len(values) == 4
        assert kept["epoch"] == 1 + values.index(max(values))
        assert (kept[name], kept["last"], kept["images"]) == (max(values), values[-1], 60)
        assert cell.settings()["train"]["keep"] == "best"
    names = {cell.fingerprint for cell in plan_of("train.epochs=4", "data.held_out=60", seeds=1).cells()}
    assert names.isdisjoint(cell.fingerprint for cell in plan.cells()), "another model has another name"


def test_a_training_that_continues_keeps_the_same_epoch(tmp_path: Path, plan_of: Any, run_here: Any) -> None:
    changes = ("twin=false", "train.epochs=4", "train.keep=best", "train.ema=0.9", "data.held_out=40")
    plan = plan_of(*changes, seeds=1)
    whole, cut = RunRecord(tmp_path / "whole"), RunRecord(tmp_path / "cut")
    run_here(plan, whole)
    run_killed(run_here, plan, cut, 9, 19)
    for cell in plan.cells():
        one, other = whole.cell(cell.fingerprint), cut.cell(cell.fingerprint)
        assert one.model_file.read_bytes() == other.model_file.read_bytes()
        assert one.info()["kept"] == other.info()["kept"]
        curves = [
            [{name: value for name, value in entry.items() if name not in TIMES} for entry in record.curve()]
            for record in (one, other)
        ]
        assert curves[0] == curves[1]


def test_settings_of_a_study_reach_the_training(plan_of: Any) -> None:
    plan = plan_of(
        "train.awp={gamma: 0.01, warmup: 0.5}", "train.clip_norm=1", "train.ema=0.99",
        "train.augment={resized_crop: {scale: [0.5, 1]}}",
        "rows.None.train.objective={name: standard, label_smoothing: 0.1}",
        seeds=1,
    )  # fmt: skip
    training = plan.cells()[0].setup.train
    assert (training.awp.gamma, training.awp.warmup, training.clip_norm, training.ema) == (0.01, 0.5, 1.0, 0.99)
    assert training.augment.resized_crop.scale == (0.5, 1.0)
    assert training.objective.label_smoothing == 0.1
