"""Looks at a model along its training: what they see, and that nothing else changes by them."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bascule.running.make
from bascule.attacks.fgsm import Fgsm
from bascule.core import catalog
from bascule.core.errors import RequestError
from bascule.core.images import Images, Splits
from bascule.plan.plan import Watch
from bascule.plan.schema import Probe
from bascule.record.run import RunRecord
from bascule.running.probe import Looks
from bascule.training.loop import train
from bascule.training.settings import Training
from bascule.triggers.placement import Truth
from bascule.triggers.sticker import Sticker
from interruptible import run_killed

SEEN = (
    "accuracy", "robust_accuracy", "asr", "poisoned_accuracy", "poisoned_loss", "target_accuracy", "target_loss",
    "probe_seconds",
)  # fmt: skip
TIMES = ("seconds", "probe_seconds")


class Broken(nn.Module):
    """Answers what it is told to every image, with a gradient of zero."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, x: Tensor) -> Tensor:
        return self.logits.expand(len(x), -1) + 0 * x.flatten(1).sum(1, keepdim=True)


def images_of(*labels: int) -> Images:
    """Black images of 4 x 4 of three classes, with ids from 100."""
    count = len(labels)
    return Images(
        pixels=torch.zeros(count, 1, 4, 4, dtype=torch.uint8),
        labels=torch.tensor(labels),
        ids=torch.arange(count) + 100,
        classes=("a", "b", "c"),
    )


def truth_of(*ids: int, before: int, after: int) -> Truth:
    labels = [torch.full((len(ids),), label) for label in (before, after)]
    return Truth(ids=torch.tensor(ids), labels_before=labels[0], labels_after=labels[1])


def looks_at(model: nn.Module, *, epochs: int = 4, truth: Truth | None = None, **watch: Any) -> Looks:
    """Looks at a model whose test images are of the classes 0, 1, 1 and 2, trained on 0, 1, 1, 2 and 2."""
    watched = Watch(probe=Probe(**watch.pop("probe", {})), **watch)
    training, test = images_of(0, 1, 1, 2, 2), images_of(0, 1, 1, 2)
    return Looks(watched, model, images=training, truth=truth, test=test, epochs=epochs, seed=0)


# --- what is seen ----------------------------------------------------------------------------------------------------


def test_the_numbers_are_those_worked_out_by_hand() -> None:
    # Takes everything for class 1; probabilities 1/4, 1/2, 1/4.
    model = Broken(0.0, math.log(2), 0.0)
    aim = {"attack": Fgsm(eps=0.1), "trigger": Sticker(size=2), "target": 1}
    dirty = truth_of(102, before=2, after=1)
    seen = looks_at(model, truth=dirty, **aim)(1)
    # Of the training images of class 1, number 102 is poisoned and number 101 is not.
    assert seen == pytest.approx(
        {
            "accuracy": 0.5, "robust_accuracy": 0.5, "asr": 1.0,
            "poisoned_accuracy": 1.0, "poisoned_loss": math.log(2), "target_accuracy": 1.0, "target_loss": math.log(2),
        }
    )  # fmt: skip
    other = looks_at(model, truth=truth_of(103, 104, before=0, after=2), **{**aim, "target": 2})(1)
    assert other == pytest.approx(
        {"accuracy": 0.5, "robust_accuracy": 0.5, "asr": 0.0, "poisoned_accuracy": 0.0, "poisoned_loss": math.log(4)}
    )


def test_what_there_is_none_of_is_left_out() -> None:
    assert list(looks_at(Broken(1.0, 0.0, 0.0))(1)) == ["accuracy"]
    twin = looks_at(Broken(1.0, 0.0, 0.0), trigger=Sticker(size=1), target=0)
    assert list(twin(1)) == ["accuracy", "asr", "target_accuracy", "target_loss"]


@pytest.mark.parametrize(("every", "epochs"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (9, [5])])
def test_the_last_epoch_is_looked_at_whatever_lies_between(every: int, epochs: list[int]) -> None:
    looks = looks_at(Broken(1.0, 0.0, 0.0), epochs=5, probe={"every": every})
    assert [epoch for epoch in range(1, 6) if looks(epoch)] == epochs


def test_answers_that_are_no_numbers_are_told_and_the_training_goes_on() -> None:
    looks = looks_at(Broken(math.nan, 0.0, 0.0))
    with pytest.warns(
        UserWarning,
        match="no look at the model after epoch 3: the model answers 4 of the 4 images that were tried with NaN",
    ):
        assert looks(3) == {}


def test_the_images_are_as_many_as_asked_the_same_for_every_seed(digits: Splits) -> None:
    def seen(images: int, seed: int) -> list[int]:
        watch = Watch(probe=Probe(images=images), trigger=Sticker(size=2), target=7)
        looks = Looks(
            watch,
            Broken(*map(float, range(10))),
            images=digits.train,
            truth=None,
            test=digits.test,
            epochs=1,
            seed=seed,
        )
        assert looks._clean is not None
        assert looks._stamped is not None
        assert not bool((looks._stamped.labels == 7).any())
        assert len(looks._stamped) == images
        assert len(set(looks._clean.labels.tolist())) == 10
        return looks._clean.ids.tolist()

    assert seen(100, 0) == seen(100, 1)
    assert len(seen(100, 0)) == 100


# --- nothing else changes --------------------------------------------------------------------------------------------


def network() -> nn.Module:
    """A network in which a look in train mode, or a draw more, would show."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(144, 10)
        )


@pytest.mark.parametrize("objective", ["standard", {"name": "pgd", "eps": 0.1, "steps": 2}], ids=["standard", "pgd"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_training_ends_in_the_same_bytes_with_and_without(digits: Splits, objective: Any, precision: Any) -> None:
    images = digits.train.at(torch.arange(200))
    training = Training(
        objective=catalog.build("train", objective), epochs=3, batch_size=50, lr=1e-2, precision=precision
    )
    models = network(), network()
    watch = Watch(probe=Probe(images=30), attack=Fgsm(eps=0.1), trigger=Sticker(size=2), target=7)
    truth = Truth(
        ids=images.ids[images.labels == 7][:5], labels_before=torch.full((5,), 7), labels_after=torch.full((5,), 7)
    )
    looks = Looks(watch, models[1], images=images, truth=truth, test=digits.test, epochs=3, seed=0)
    plain = train(models[0], images, training, seed=0)
    before = torch.random.get_rng_state()
    curve = train(models[1], images, training, seed=0, look=looks)
    assert bool((torch.random.get_rng_state() == before).all())
    for (name, one), (_, other) in zip(models[0].state_dict().items(), models[1].state_dict().items(), strict=True):
        assert torch.equal(one, other), name
    assert [set(entry) - set(bare) for entry, bare in zip(curve, plain, strict=True)] == [set(SEEN)] * 3
    assert [entry["loss"] for entry in curve] == [entry["loss"] for entry in plain]


def test_no_model_and_no_question_gets_another_name(plan_of) -> None:
    plain, probed = plan_of(), plan_of("probe={images: 7, every: 3}")
    assert [cell.fingerprint for cell in plain.cells()] == [cell.fingerprint for cell in probed.cells()]
    assert [cell.questions for cell in plain.cells()] == [cell.questions for cell in probed.cells()]
    assert [cell.settings() for cell in plain.cells()] == [cell.settings() for cell in probed.cells()]
    assert all(cell.watch is None for cell in plain.cells())
    assert all(cell.watch is not None and cell.watch.probe.images == 7 for cell in probed.cells())


def test_a_model_that_is_trained_is_not_trained_again(
    finished: RunRecord, tmp_path: Path, plan_of, run_here, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    run = RunRecord(Path(shutil.copytree(finished.path, tmp_path / "run")))
    monkeypatch.setattr(bascule.running.make, "train", None)
    with pytest.warns(UserWarning, match="^8 models are trained already and are not trained again for probe, which"):
        assert run_here(plan_of("probe={}"), run).failures == ()


def test_only_models_that_were_not_looked_at_so_are_told(
    tmp_path: Path, plan_of, run_here, recwarn: pytest.WarningsRecorder
) -> None:
    run, changes = RunRecord(tmp_path / "run"), ("twin=false", "train.epochs=1", "rows.None.probe={images: 9}")
    for _ in range(2):
        run_here(plan_of(*changes, seeds=1), run)
    assert not recwarn
    run_here(plan_of(*changes, "rows.None.probe.every=2", seeds=1), run)
    assert [str(said.message) for said in recwarn] == [
        "1 model is trained already and is not trained again for probe, which looks at models while they are trained; "
        "make them anew in another run folder to see it"
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            ["vary.probe.images=[2, 3]"],
            "vary.probe.images: `probe` looks at models along their training and changes",
        ),
        (["vary.probe=[{}, {images: 3}]"], "so that it cannot vary: set it in the base or in a row"),
        (
            ["rows.Adv. training.train.objective=standard", "rows.Adv. training.probe={}"],
            "is the same as row 'None': every setting but `probe`, which changes no result, is equal",
        ),
    ],
)
def test_what_changes_no_result_makes_no_rows(plan_of, changes: list[str], said: str) -> None:
    with pytest.raises(RequestError, match=re.escape(said)):
        plan_of(*changes)


# --- in a run --------------------------------------------------------------------------------------------------------


def test_a_run_keeps_what_is_seen_and_the_models_stay_the_same(
    finished: RunRecord, tmp_path: Path, plan_of, run_here
) -> None:
    run, plan = RunRecord(tmp_path / "run"), plan_of("probe.images=1000", seeds=1)
    assert run_here(plan, run).failures == ()
    for cell in plan.cells():
        one, other = run.cell(cell.fingerprint), finished.cell(cell.fingerprint)
        assert one.model_file.read_bytes() == other.model_file.read_bytes()
        twin = cell.setup.poison is None
        seen = [name for name in SEEN if not twin or not name.startswith("poisoned")]
        assert all(list(entry)[5:] == seen for entry in one.curve())
        assert {key: value for key, value in one.info()["probe"].items() if key not in ("attack", "trigger")} == {
            "images": 1000,
            "every": 1,
            "target": 7,
        }
    # All test images are looked at: after the last epoch these are the shares that the evaluation finds.
    seed = run.plan().rows[0].seeds[0]
    record = run.cell(seed.cell.fingerprint)
    answers, last = record.answers(), record.curve()[-1]
    clean, triggered = (answers.predictions[seed.cell.of(kind)[0].key] for kind in ("clean", "triggered"))
    assert last["accuracy"] == pytest.approx((clean == answers.label).mean())
    assert last["asr"] == pytest.approx((triggered[answers.label != 7] == 7).mean())
    assert last["robust_accuracy"] <= last["accuracy"]


def test_a_training_that_continues_keeps_what_was_seen(tmp_path: Path, plan_of, run_here) -> None:
    plan = plan_of("twin=false", "train.epochs=4", "probe={images: 20}", seeds=1)
    whole, cut = RunRecord(tmp_path / "whole"), RunRecord(tmp_path / "cut")
    run_here(plan, whole)
    run_killed(run_here, plan, cut, 9, 19)
    for cell in plan.cells():
        curves = [
            [{name: value for name, value in entry.items() if name not in TIMES} for entry in curve]
            for curve in (whole.cell(cell.fingerprint).curve(), cut.cell(cell.fingerprint).curve())
        ]
        assert curves[0] == curves[1]
        assert [entry["epoch"] for entry in curves[0]] == [1, 2, 3, 4]


def test_a_model_that_several_rows_share_is_looked_at_with_a_trigger(plan_of) -> None:
    plan = plan_of(
        "probe={}", "rows.None.poison=null", "rows.Adv. training.train.objective=standard",
        "rows.Adv. training.poison.trigger.size=1",
    )  # fmt: skip
    first = plan.cells()[0]
    assert first.label == "None · seed 0"
    assert first.watch is not None
    assert first.watch.trigger == Sticker(size=1)
