"""The training loop: the same bytes however often it is interrupted, and nothing that is not finite goes unnoticed."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bascule.core import rng
from bascule.core.ahead import Reading, reading_as
from bascule.core.catalog import component
from bascule.core.errors import DivergedError, RequestError
from bascule.core.images import Images, Splits
from bascule.core.inference import predict
from bascule.core.restore import evaluating
from bascule.training.abl import Abl
from bascule.training.awp import WeightPerturbation
from bascule.training.contract import Objective
from bascule.training.crop import ResizedCrop
from bascule.training.loop import train
from bascule.training.pgd import Pgd
from bascule.training.settings import Augment, Training
from bascule.training.standard import Standard

EPOCHS, PER_EPOCH = 3, 4
STEPS = EPOCHS * PER_EPOCH
"""Steps of the settings below on the 70 images of the fixture `few`."""

ADVERSARIAL = Pgd(eps=0.1, steps=1, batch_norm="batch")


def settings(**changes: Any) -> Training:
    return Training(**{"objective": Standard(), "epochs": EPOCHS, "batch_size": 16, "lr": 0.01, **changes})


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    assert first.keys() == second.keys()
    return all(torch.equal(value, second[name]) for name, value in first.items())


def untimed(curve: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{key: value for key, value in entry.items() if key != "seconds"} for entry in curve]


@contextmanager
def global_streams_untouched() -> Iterator[None]:
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    yield
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]  # noqa: NPY002


class Interrupted(Exception):  # noqa: N818
    """Stands for the power cut."""


# --- continuing ------------------------------------------------------------------------------------------------------

CASES = {
    "adam": settings(weight_decay=0.01, augment=Augment(pad=1, flip=True)),
    "sgd": settings(optimizer="sgd", lr=0.05, schedule="one-cycle", objective=ADVERSARIAL),
    "bfloat16": settings(objective=ADVERSARIAL, precision="bfloat16"),
    "adamw": settings(
        optimizer="adamw", weight_decay=0.1, schedule="cosine", objective=Pgd(eps=0.1, steps=1, warmup=1)
    ),
    "clipped": settings(optimizer="sgd", lr=0.5, clip_norm=0.1),
    "smoothed": settings(objective=Standard(label_smoothing=0.2)),
    "resized": settings(augment=Augment(resized_crop=ResizedCrop(), flip=True)),
    "averaged": settings(ema=0.9),
    "perturbed": settings(objective=ADVERSARIAL, awp=WeightPerturbation(gamma=0.05, warmup=0.4)),
    "best": settings(keep="best"),
    "everything": settings(
        objective=Pgd(eps=0.1, steps=1, label_smoothing=0.1),
        augment=Augment(resized_crop=ResizedCrop(), pad=1),
        precision="bfloat16",
        clip_norm=0.5,
        ema=0.8,
        awp=WeightPerturbation(),
        keep="best",
    ),
}


class Worse:
    """Judges each epoch worse than the one before it, so that what is kept is not what is trained on."""

    name = "held_out_accuracy"

    def __call__(self, epoch: int) -> float:
        return 1 / epoch


@pytest.mark.parametrize("training", CASES.values(), ids=CASES.keys())
def test_continuing_from_any_checkpoint_gives_the_same_bytes(
    training: Training, few: Images, make_net: Callable, kept: Callable
) -> None:
    whole, checkpoints = make_net(), kept()
    curve = train(whole, few, training, seed=5, checkpoints=checkpoints, checkpoint_seconds=0, judge=Worse())
    assert len(checkpoints.states) == STEPS - 1
    undisturbed = make_net()
    assert untimed(train(undisturbed, few, training, seed=5, judge=Worse())) == untimed(curve)
    assert same(weights(undisturbed), weights(whole))
    for step, state in enumerate(checkpoints.states, start=1):
        model, rest = make_net(seed=99), kept(state)
        again = train(model, few, training, seed=5, checkpoints=rest, checkpoint_seconds=0, judge=Worse())
        assert same(weights(model), weights(whole)), f"other weights after continuing from step {step}"
        assert untimed(again) == untimed(curve), f"another curve after continuing from step {step}"
        assert len(rest.states) == STEPS - step
        assert same_optimizer(rest.load(), checkpoints.load())


def same_optimizer(first: dict[str, Any], second: dict[str, Any]) -> bool:
    memories = [state["optimizer"]["state"] for state in (first, second)]
    assert memories[0].keys() == memories[1].keys()
    assert memories[0], "an optimiser without memory tests nothing"
    return all(same(memories[0][key], memories[1][key]) for key in memories[0])


@pytest.mark.parametrize("where", ["save", "after-save", "report"])
def test_interrupted_at_every_step_it_still_ends_the_same(
    where: str, few: Images, make_net: Callable, kept: Callable
) -> None:
    """Each attempt gets through a few steps before it is cut off; checkpoints are all that is left of it."""
    whole = make_net()
    curve = train(whole, few, CASES["adam"], seed=5)

    class CutOff(kept):  # type: ignore[misc, valid-type]
        calls = 0

        def tick(self) -> None:
            self.calls += 1
            if self.calls == 3:
                raise Interrupted

        def save(self, state: dict[str, Any]) -> None:
            if where == "save":
                self.tick()
            super().save(state)
            if where == "after-save":
                self.tick()

    attempts, states = 0, []
    while True:
        attempts += 1
        model, checkpoints = make_net(seed=attempts - 1), CutOff(*states)
        report = (lambda *_, tick=checkpoints.tick: tick()) if where == "report" else (lambda *_: None)
        try:
            again = train(
                model, few, CASES["adam"], seed=5, checkpoints=checkpoints, checkpoint_seconds=0, report=report
            )
            break
        except Interrupted:
            assert len(checkpoints.states) > len(states), "no progress"
            states = checkpoints.states
    assert attempts > 3
    assert same(weights(model), weights(whole))
    assert untimed(again) == untimed(curve)


def test_checkpoints_are_taken_by_the_clock_only(few: Images, make_net: Callable, kept: Callable) -> None:
    checkpoints = kept()
    train(make_net(), few, settings(), seed=0, checkpoints=checkpoints, checkpoint_seconds=3600)
    assert checkpoints.states == []


def test_seconds_go_on_counting(few: Images, make_net: Callable, kept: Callable) -> None:
    checkpoints = kept()
    train(make_net(), few, settings(), seed=0, checkpoints=checkpoints, checkpoint_seconds=0)
    state = checkpoints.load()
    late = kept()
    late.save({**state, "seconds": 1000.0})
    curve = train(make_net(), few, settings(), seed=0, checkpoints=late)
    assert [entry["seconds"] < 900 for entry in curve] == [True, True, False]
    assert 1000 < curve[-1]["seconds"] < 1100


# --- randomness ------------------------------------------------------------------------------------------------------


def test_the_seed_decides_everything(few: Images, make_net: Callable) -> None:
    results = []
    for seed, foreign in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(foreign)
        model = make_net()
        curve = train(model, few, CASES["adam"], seed=seed)
        results.append((weights(model), untimed(curve)))
    assert same(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]
    assert not same(results[0][0], results[2][0])
    assert results[0][1] != results[2][1]


def test_global_streams_stay_as_they_were(few: Images, make_net: Callable, kept: Callable) -> None:
    with global_streams_untouched():
        train(make_net(), few, CASES["sgd"], seed=0, checkpoints=kept(), checkpoint_seconds=0)


def test_dropout_changes_from_step_to_step(few: Images, recorder: Callable) -> None:
    class Masks(nn.Module):
        """Keeps which of ten ones dropout let through."""

        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(64, 10)
            self.masks: list[Tensor] = []

        def forward(self, x: Tensor) -> Tensor:
            mask = F.dropout(torch.ones(10), training=self.training)
            self.masks.append(mask)
            return self.linear(x.flatten(1)) * mask

    model = Masks()
    train(model, few, settings(), seed=0)
    assert len({tuple(mask.tolist()) for mask in model.masks}) > STEPS // 2


# --- what a step sees ------------------------------------------------------------------------------------------------


@pytest.fixture
def numbered() -> Images:
    """70 images, each of one grey level that is its id."""
    ids = torch.arange(70)
    pixels = ids.to(torch.uint8).reshape(70, 1, 1, 1).expand(70, 1, 8, 8).contiguous()
    return Images(pixels=pixels, labels=ids % 10, ids=ids, classes=tuple("0123456789"))


def epochs_of(model: Any) -> list[list[int]]:
    """Ids of the images seen in each epoch."""
    ids = [(batch[:, 0, 4, 4] * 255).round().int().tolist() for batch in model.seen]
    return [list(chain(*ids[start : start + PER_EPOCH])) for start in range(0, len(ids), PER_EPOCH)]


def test_an_epoch_is_a_fresh_order_without_the_rest(numbered: Images, recorder: Callable, make_net: Callable) -> None:
    model = recorder(make_net())
    train(model, numbered, settings(), seed=0)
    assert [len(batch) for batch in model.seen] == [16] * STEPS
    epochs = epochs_of(model)
    assert [len(set(epoch)) for epoch in epochs] == [64] * EPOCHS
    assert len({tuple(epoch) for epoch in epochs}) == EPOCHS
    assert len({frozenset(epoch) for epoch in epochs}) == EPOCHS, "always the same images are left out"


def test_labels_go_with_their_images(numbered: Images, recorder: Callable, make_net: Callable) -> None:
    pairs: list[tuple[int, int]] = []

    @component
    class Pairs(Objective):
        """Notes which label came with which image."""

        def loss(self, model: nn.Module, x: Tensor, y: Tensor, *, progress: float, generator: Any) -> Tensor:
            pairs.extend(zip((x[:, 0, 0, 0] * 255).round().int().tolist(), y.tolist(), strict=True))
            return F.cross_entropy(model(x), y)

    train(make_net(), numbered, settings(objective=Pairs()), seed=0)
    assert len(pairs) == STEPS * 16
    assert all(number % 10 == label for number, label in pairs)


def test_a_set_smaller_than_the_batch_is_one_step(numbered: Images, recorder: Callable, make_net: Callable) -> None:
    model = recorder(make_net())
    curve = train(model, numbered.at(torch.arange(10)), settings(batch_size=128), seed=0)
    assert [sorted((batch[:, 0, 0, 0] * 255).round().int().tolist()) for batch in model.seen] == [list(range(10))] * 3
    assert [entry["step"] for entry in curve] == [1, 2, 3]


def test_images_are_augmented_before_the_objective_meets_them(
    numbered: Images, recorder: Callable, make_net: Callable
) -> None:
    model = recorder(make_net())
    train(model, numbered.at(torch.arange(54, 70)), settings(epochs=1, augment=Augment(pad=2)), seed=0)
    assert (model.seen[0] == 0).any(), "no shifted border"
    plain = recorder(make_net())
    train(plain, numbered.at(torch.arange(54, 70)), settings(epochs=1), seed=0)
    assert (plain.seen[0] > 0).all()


def test_the_model_trains_in_train_mode_and_ends_in_eval_mode(
    few: Images, recorder: Callable, make_net: Callable
) -> None:
    model = recorder(make_net()).eval()
    train(model, few, settings(), seed=0)
    assert model.modes == [True] * STEPS
    assert not any(module.training for module in model.modules())


def test_report_and_curve(few: Images, make_net: Callable, kept: Callable) -> None:
    told: list[tuple[int, int, float, float]] = []
    training = settings(lr=0.02, schedule="piecewise", milestones=((0, 1.0), (5, 0.5)))
    curve = train(
        make_net(),
        few,
        training,
        seed=0,
        checkpoints=kept(),
        checkpoint_seconds=0,
        report=lambda *values: told.append(values),
    )
    assert [(step, total) for step, total, _, _ in told] == [(step, STEPS) for step in range(1, STEPS + 1)]
    assert [lr for *_, lr in told] == [0.02] * 5 + [0.01] * 7
    assert [(entry["epoch"], entry["step"], entry["lr"]) for entry in curve] == [
        (1, 4, 0.02),
        (2, 8, 0.01),
        (3, 12, 0.01),
    ]
    losses = [loss for _, _, loss, _ in told]
    means = [sum(losses[start : start + 4]) / 4 for start in (0, 4, 8)]
    assert [entry["loss"] for entry in curve] == pytest.approx(means)
    seconds = [entry["seconds"] for entry in curve]
    assert 0 < seconds[0] < seconds[1] < seconds[2]


def test_the_learning_rate_is_the_length_of_a_step(few: Images) -> None:
    @component
    class Slope(Objective):
        """A loss whose gradient is one for every parameter."""

        def loss(self, model: nn.Module, x: Tensor, y: Tensor, *, progress: float, generator: Any) -> Tensor:
            return sum((parameter.sum() for parameter in model.parameters()), start=torch.tensor(0.0))

    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    before = weights(model)
    milestones = ((0, 1.0), (5, 0.5), (10, 0.0))
    schedule = {"schedule": "piecewise", "milestones": milestones, "optimizer": "sgd", "momentum": 0.0, "lr": 0.02}
    train(model, few, settings(objective=Slope(), **schedule), seed=0)
    for name, value in weights(model).items():
        assert torch.allclose(value, before[name] - (5 * 0.02 + 5 * 0.01), atol=1e-5), name


def test_progress_is_the_share_of_steps_done(few: Images, make_net: Callable) -> None:
    found: list[float] = []

    @component
    class Notes(Objective):
        """Notes how far the training is."""

        def loss(self, model: nn.Module, x: Tensor, y: Tensor, *, progress: float, generator: Any) -> Tensor:
            found.append(progress)
            return F.cross_entropy(model(x), y)

    train(make_net(), few, settings(objective=Notes()), seed=0)
    assert found == pytest.approx([step / STEPS for step in range(STEPS)])


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_it_learns_digits(optimizer: Any, digits: Splits, make_net: Callable) -> None:
    model = make_net(dropout=0.0)
    lr = 0.2 if optimizer == "sgd" else 0.01
    train(
        model, digits.train, settings(epochs=8, batch_size=32, optimizer=optimizer, lr=lr, schedule="one-cycle"), seed=0
    )
    accuracy = (predict(model, digits.test) == digits.test.labels).float().mean()
    assert accuracy > 0.9


# --- divergence ------------------------------------------------------------------------------------------------------


@component
class BreaksAt(Objective):
    """Cross-entropy until a step at which the loss, or only its gradient, is not finite."""

    step: int
    how: str = "nan"

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, *, progress: float, generator: Any) -> Tensor:
        loss = F.cross_entropy(model(x), y)
        if round(progress * STEPS) != self.step:
            return loss
        if self.how == "gradient":
            return loss + (loss - loss).sqrt()  # zero, with an infinite slope
        return loss * float(self.how)


@pytest.mark.parametrize("how", ["nan", "inf"])
@pytest.mark.parametrize("step", [0, 1, 3, 4, 6, 11])
def test_a_loss_that_is_not_finite_stops_it_at_that_step(step: int, how: str, few: Images, make_net: Callable) -> None:
    with global_streams_untouched(), pytest.raises(DivergedError) as caught:
        train(make_net(), few, settings(objective=BreaksAt(step=step, how=how)), seed=0)
    assert caught.value.step == step
    assert str(caught.value) == f"training diverged at step {step + 1} of {STEPS}: the loss is not finite"


def test_parameters_that_are_not_finite_stop_it(few: Images, make_net: Callable) -> None:
    # In the last step no later loss would tell.
    with pytest.raises(DivergedError, match=r"at step 12 of 12: parameter 0\.weight is not finite"):
        train(make_net(), few, settings(objective=BreaksAt(step=STEPS - 1, how="gradient")), seed=0)


@pytest.mark.parametrize("how", ["nan", "gradient"])
def test_nothing_that_is_not_finite_is_kept(how: str, few: Images, make_net: Callable, kept: Callable) -> None:
    checkpoints = kept()
    with pytest.raises(DivergedError):
        train(
            make_net(),
            few,
            settings(objective=BreaksAt(step=6, how=how)),
            seed=0,
            checkpoints=checkpoints,
            checkpoint_seconds=0,
        )
    assert len(checkpoints.states) == 6
    assert all(bool(value.isfinite().all()) for value in checkpoints.load()["model"].values())


def test_parameters_that_are_no_floats_or_empty_are_finite(few: Images, make_net: Callable) -> None:
    net = make_net()
    net.counts = nn.Parameter(torch.ones(3, dtype=torch.int64), requires_grad=False)
    net.nothing = nn.Parameter(torch.empty(0, 3))
    train(net, few, settings(epochs=1), seed=0)


def test_parameters_near_the_largest_float_are_finite(few: Images, make_net: Callable) -> None:
    net = make_net()
    net.large = nn.Parameter(torch.full((8,), 3e38), requires_grad=False)
    train(net, few, settings(epochs=1), seed=0)


def test_a_training_that_an_unfused_optimiser_began_goes_on_with_it(
    few: Images, make_net: Callable, kept: Callable
) -> None:
    """Checkpoints of earlier versions: such a training ends in the bytes it would have ended in."""
    begun = kept()
    train(make_net(), few, CASES["adam"], seed=5, checkpoints=begun, checkpoint_seconds=0)
    early = kept(begun.states[2])
    state = early.load()
    for group in state["optimizer"]["param_groups"]:
        group["fused"] = None
    early.save(state)
    train(make_net(), few, CASES["adam"], seed=5, checkpoints=early, checkpoint_seconds=0)
    assert len(early.states) == STEPS - 2
    assert [group["fused"] for group in early.load()["optimizer"]["param_groups"]] == [None, None]


@pytest.mark.parametrize("norm", [False, True], ids=["plain", "batch-norm"])
def test_a_learning_rate_far_too_large_is_noticed(norm: bool, few: Images, make_net: Callable) -> None:
    # Batch norm hides huge weights from the loss; its running variance still tells.
    model = make_net() if norm else nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Linear(32, 10))
    with pytest.raises(DivergedError) as caught:
        train(model, few, settings(optimizer="sgd", lr=1e30, epochs=50), seed=0)
    assert caught.value.step < PER_EPOCH


def test_a_good_training_is_not_stopped(few: Images, make_net: Callable) -> None:
    model = make_net()
    train(model, few, settings(objective=BreaksAt(step=-1)), seed=0)
    with evaluating(model), torch.no_grad():
        assert model(few.batch(torch.arange(70))).isfinite().all()


# --- pictures that are decoded ahead ---------------------------------------------------------------------------------


class Decoded:
    """The pictures of a set, as if they were decoded when they are asked for."""

    def __init__(self, pixels: Tensor) -> None:
        self.pixels, self.shape = pixels, pixels.shape

    def __getitem__(self, index: Tensor, /) -> Tensor:
        return self.pixels[index]


@pytest.mark.parametrize("how", [Reading(1, 0), Reading(2), Reading(3, 1)], ids=str)
@pytest.mark.parametrize("capture", [False, True], ids=["", "captured"])
def test_a_training_ends_in_the_same_bytes_however_pictures_are_read(
    few: Images, how: Reading, capture: bool, make_net: Callable
) -> None:
    expected, model = make_net(), make_net()
    train(expected, few, settings(), seed=3, capture_steps=capture)
    with reading_as(how):
        train(model, replace(few, pixels=Decoded(few.pixels)), settings(), seed=3, capture_steps=capture)
    assert same(weights(model), weights(expected))


def test_what_a_course_chooses_is_not_decoded_before_it_has_chosen(few: Images, make_net: Callable) -> None:
    course = settings(objective=Abl(unlearn="alone", unlearn_for=0.3))
    expected, model = make_net(), make_net()
    train(expected, few, course, seed=3)
    train(model, replace(few, pixels=Decoded(few.pixels)), course, seed=3)
    assert same(weights(model), weights(expected))


def test_a_damaged_picture_stops_the_training_at_its_step_and_leaves_no_thread(
    few: Images, make_net: Callable, kept: Callable
) -> None:
    class Damaged(Decoded):
        def __getitem__(self, index: Tensor, /) -> Tensor:
            if 40 in index.tolist():
                raise RequestError("picture 40: damaged")
            return super().__getitem__(index)

    steps: list[int] = []
    order = torch.randperm(len(few), generator=rng.stream(3, "order", 0)).tolist()
    with pytest.raises(RequestError, match="picture 40: damaged"):
        train(
            make_net(),
            replace(few, pixels=Damaged(few.pixels)),
            settings(),
            seed=3,
            checkpoints=kept(),
            checkpoint_seconds=0,
            report=lambda step, *_: steps.append(step),
        )
    assert steps == list(range(1, order.index(40) // 16 + 1))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]
