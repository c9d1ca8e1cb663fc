"""A model and images in memory, or one's own file: attacked and measured at both ends, the same from both sides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import foolbox
import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import bascule
from bascule.attacks.pgd import Pgd
from bascule.cli import app
from bascule.core.errors import RequestError
from bascule.core.images import as_bytes

NET = "{name: digits-cnn, width: 8, hidden: 32}"


@pytest.fixture
def some(trained, digits) -> tuple[nn.Module, Tensor, Tensor]:
    """A trained network and test images, not all of which it gets right."""
    index = torch.arange(150)
    return trained.model, digits.test.batch(index), digits.test.labels[index]


def answers(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x).argmax(1)


def said(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def refused(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert isinstance(done.exception, RequestError), done.output
    return str(done.exception)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 0.8)])
def test_perturbed_images_lie_in_the_ball_and_wrong_ones_are_left_alone(some, norm: str, eps: float) -> None:
    model, x, y = some
    y = y.clone()
    y[:5] = (y[:5] + 1) % 10  # wrong for the model
    found = bascule.perturb(model, x, y, "pgd", norm=norm, eps=eps, steps=5)
    size = (found - x).flatten(1).norm(dim=1, p=float("inf") if norm == "linf" else 2)
    assert float(size.max()) <= eps + 1e-5
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1
    wrong = answers(model, x) != y
    assert bool(wrong[:5].all())
    assert torch.equal(found[wrong], x[wrong])
    assert bool((size[~wrong] > 0).all())
    assert float((answers(model, found) == y).double().mean()) < 0.7


def test_fgsm_is_foolboxs(some) -> None:
    model, x, y = some
    right = answers(model, x) == y
    theirs = foolbox.attacks.FGSM()
    _, expected, _ = theirs(foolbox.PyTorchModel(model, bounds=(0, 1)), x[right], y[right], epsilons=0.1)
    ours = bascule.perturb(model, x, y, "fgsm", eps=0.1)[right]
    assert float((ours - expected).abs().max()) < 1e-6


def test_pgd_is_as_strong_as_foolboxs(some) -> None:
    model, x, y = some
    theirs = foolbox.attacks.LinfPGD(steps=20, abs_stepsize=0.0125)
    _, other, _ = theirs(foolbox.PyTorchModel(model, bounds=(0, 1)), x, y, epsilons=0.1)
    ours = bascule.perturb(model, x, y, "pgd", eps=0.1, steps=20)
    right = answers(model, x) == y
    shares = [float(((answers(model, images) == y) & right).double().mean()) for images in (ours, other)]
    assert shares[0] == pytest.approx(shares[1], abs=0.03)


def test_the_numbers_are_those_of_the_perturbed_images(trained, digits) -> None:
    model, index = trained.model, torch.arange(700)  # two batches
    x, y = digits.train.batch(index), digits.train.labels[index]
    attack = {"name": "pgd", "eps": 0.08, "steps": 5}
    found = bascule.evaluate(model, x, y, attack=attack, seed=3)
    expected = float((answers(model, bascule.perturb(model, x, y, attack, seed=3)) == y).double().mean())
    assert found["accuracy"].value == pytest.approx(float((answers(model, x) == y).double().mean()))
    assert found["robust_accuracy"].value == pytest.approx(expected)
    assert 0.02 < expected < 0.9
    assert found.attacks[-1].left == pytest.approx(expected)
    assert found.attacks[-1].fooled == pytest.approx((found["accuracy"].value or 0) - expected)
    assert found["asr"].value is None
    assert found["accuracy"].n == 700


def test_bytes_and_floats_give_the_same(some) -> None:
    model, x, y = some
    for given in (as_bytes(x), as_bytes(x).numpy()):
        assert torch.equal(bascule.perturb(model, given, y, Pgd(eps=0.1, steps=2)),
                           bascule.perturb(model, x, y, "pgd", eps=0.1, steps=2))  # fmt: skip


def test_both_ends_by_hand() -> None:
    """The class is whether the first of two pixels is bright; the trigger, a lit first pixel, always wins."""

    class First(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            bright = x[:, 0, 0, 0]
            return torch.stack([0.5 - bright, bright - 0.5], dim=1)

    x = torch.tensor([0.1, 0.42, 0.3, 0.58, 0.9, 0.2]).reshape(6, 1, 1, 1).repeat(1, 1, 4, 4)
    y = torch.tensor([0, 0, 0, 1, 1, 1])
    sticker = {"name": "sticker", "size": 4}
    found = bascule.evaluate(
        First(), x, y, attack=[{"name": "fgsm", "eps": 0.05}, {"name": "fgsm", "eps": 0.1}], trigger=sticker, target=1,
        certify={"name": "smoothing", "eps": 0.0, "norm": "l2"}, measure="triggered-robust-accuracy",
    )  # fmt: skip
    assert found["accuracy"].value == pytest.approx(5 / 6)
    assert [part.left for part in found.attacks] == pytest.approx([5 / 6, 3 / 6])
    assert found["robust_accuracy"].value == pytest.approx(3 / 6)
    stamped = answers(First(), torch.ones_like(x))
    assert found["asr"].n == 3
    assert found["asr"].value is not None
    assert found["triggered_accuracy"].value == pytest.approx(1 - found["asr"].value)
    assert found["triggered_robust_accuracy"].value == found["triggered_accuracy"].value == 0
    assert stamped.tolist() == [1] * 6
    assert "few images" in {flag.partition(":")[0] for flag in found.flags}


def test_nothing_is_left_on_the_model_or_on_the_global_stream(some) -> None:
    model, x, y = some
    model.train()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    stream, images = torch.get_rng_state(), x.clone()
    try:
        bascule.perturb(model, x, y, "pgd", eps=0.1, steps=2)
        bascule.evaluate(model, x, y, attack={"name": "fgsm", "eps": 0.1}, trigger="sticker", target=1)
        assert model.training
        assert all(p.requires_grad and bool((p.grad == 1).all()) for p in model.parameters() if p.grad is not None)
        assert all(p.grad is not None for p in model.parameters())
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert torch.equal(stream, torch.get_rng_state())
        assert torch.equal(x, images)
    finally:
        model.eval()
        for parameter in model.parameters():
            parameter.grad = None


def test_what_may_not_be_trusted_is_flagged(some) -> None:
    model, x, y = some
    attack = {"name": "pgd", "eps": 0.1, "steps": 5}
    flags = bascule.evaluate(nn.Sequential(model, nn.Softmax(1)), x, y, attack=attack).flags
    assert [flag for flag in flags if flag.startswith("probabilities instead of logits")]
    assert not bascule.evaluate(model, x, y, attack=attack).flags


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"eps": 8}, "attack.eps: pixels are in [0, 1], so that 1 reaches every image; got 8. Is it 8/255?"),
        ({"eps": -1}, "attack.eps: must be greater than or equal to 0; got -1"),
        ({}, "attack: the key 'eps' is missing"),
        ({"eps": 0.1, "attack": "pdg"}, "attack: unknown attack name 'pdg'. Did you mean 'pgd'?"),
        ({"eps": 0.1, "step": 3}, "attack: unknown key 'step'. Did you mean 'steps'?"),
        ({"eps": 0.1, "attack": Pgd(eps=0.1)}, "attack: settings (eps) go with a name"),
        ({"eps": 0.1, "x": torch.full((4, 1, 8, 8), 2.0)}, "x: images must lie in [0, 1], found 2..2. Normalisation"),
        ({"eps": 0.1, "x": torch.full((4, 1, 8, 8), torch.nan)}, "x: images must lie in [0, 1], found nan..nan"),
        ({"eps": 0.1, "x": torch.zeros(4, 8, 8)}, "x: images must be N x C x H x W"),
        ({"eps": 0.1, "x": torch.zeros(4, 1, 8, 8, dtype=torch.int64)}, "got int64 of shape (4, 1, 8, 8)"),
        ({"eps": 0.1, "x": torch.zeros(4, 3, 8, 8)}, "model: cannot take images of 3 x 8 x 8: RuntimeError"),
        ({"eps": 0.1, "x": torch.zeros(0, 1, 8, 8)}, "x: there are no images"),
        ({"eps": 0.1, "y": torch.zeros(3, dtype=torch.int64)}, "y: 4 images need as many labels"),
        ({"eps": 0.1, "y": torch.zeros(4)}, "y: labels are whole numbers, int64; got float32"),
        ({"eps": 0.1, "y": torch.tensor([0, 0, 0, 10])}, "y: labels go up to 10, but the model has the classes 0..9"),
        ({"eps": 0.1, "y": torch.tensor([0, 0, 0, -1])}, "y: labels count from 0, found -1"),
        ({"eps": 0.1, "model": nn.Flatten(0)}, "model: Flatten answers with shape (128,) for 2 images"),
        ({"eps": 0.1, "model": "net"}, "model: expected a torch.nn.Module, got str"),
    ],
)
def test_wrong_requests_are_one_message(trained, change: dict[str, Any], expected: str) -> None:
    usual = {"model": trained.model, "x": trained.x[:4], "y": trained.y[:4], "attack": "pgd"}
    with pytest.raises(RequestError) as caught:
        bascule.perturb(**{**usual, **change})
    assert str(caught.value).startswith(expected) or expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_wrong_requests_about_both_ends(some) -> None:
    for asked, expected in [
        ({"trigger": "sticker"}, "a trigger aims at a class: name it with `target`"),
        ({"trigger": "sticker", "target": 10}, "target: there is no class 10; the classes are 0..9"),
        ({"trigger": {"name": "sticker", "size": 9}, "target": 1}, "trigger: "),
        ({"measure": "drift-twin"}, "measure: drift-twin needs more than one model"),
        ({"measure": "asr-retuned"}, "measure: asr-retuned needs the model's twin beside it"),
        ({"certify": "intervall"}, "certify: unknown certify name 'intervall'. Did you mean 'interval'?"),
        ({"attack": [{"name": "pgd", "eps": 8}]}, "attack.eps: pixels are in [0, 1]"),
    ]:
        with pytest.raises(RequestError) as caught:
            bascule.evaluate(*some, **asked)  # type: ignore[arg-type]
        assert str(caught.value).startswith(expected)


# --- the same from the command line ----------------------------------------------------------------------------------


def test_command_and_call_give_the_same_numbers(some, digits, tmp_path: Path) -> None:
    model = some[0]
    file = tmp_path / "net.safetensors"
    safetensors.torch.save_file(model.state_dict(), file)
    attacks = [{"name": "fgsm", "eps": 0.05}, {"name": "pgd", "eps": 0.08, "steps": 4}]
    words = [word for attack in attacks for word in ("--attack", json.dumps(attack))]
    words += ["--trigger", "{name: sticker, size: 2}", "--target", "7", "--measure", "triggered-robust-accuracy"]
    words += ["--certify", "{name: interval, eps: 0.005}", "--seed", "5", "--model", NET]
    printed = json.loads(said("evaluate", file, *words, "--data", "digits", "--format", "json"))
    test = digits.test
    found = bascule.evaluate(
        model, test.batch(torch.arange(len(test))), test.labels, attack=attacks, seed=5, target=7,
        trigger={"name": "sticker", "size": 2}, certify={"name": "interval", "eps": 0.005},
        measure=["triggered-robust-accuracy"],
    )  # fmt: skip
    assert {key: printed[key] for key in ("metrics", "flags", "attacks")} == json.loads(json.dumps(found.as_dict()))
    assert list(printed) == ["study", "row", "data", "vary", "seeds", "metrics", "flags", "attacks"]
    assert printed["data"] == "digits"
    assert (found["certified_accuracy"].value or 0) > 0.1
    assert (found["certified_accuracy"].value or 0) <= (found["accuracy"].value or 0)
    assert np.array_equal(found.outcomes.label, test.labels.numpy())
    of = (file, "--data", "digits", "--model", NET, "--max-images", 30)
    assert "--target: nothing is done with it without --trigger:" in refused("evaluate", *of, "--target", 7)
    few = said("evaluate", *of)
    assert "On 30 test images of digits." in few
    assert "not measured: --attack '{name: pgd, eps: 8/255}'" in few
    assert "not measured: --trigger, --target" in few
    assert "! few images: 30 test images" in few


def test_a_cell_is_measured_with_what_it_was_evaluated_with(finished) -> None:
    planned = finished.plan().rows[0].seeds[0].cell
    cell = finished.cell(planned.fingerprint)
    found = json.loads(said("evaluate", cell.path, "--format", "json"))
    assert [part["name"] for part in found["attacks"]] == ["fgsm", "pgd"]
    answers = cell.answers_to(planned)
    assert answers is not None
    right = {key: (prediction == answers.label).mean() for key, prediction in answers.predictions.items()}
    clean, fgsm = planned.of("clean")[0].key, planned.of("attack")[0].key
    assert found["metrics"]["accuracy"]["value"] == pytest.approx(right[clean])
    assert found["attacks"][0]["left"] == pytest.approx(right[fgsm])  # FGSM draws nothing
    asr = [row["metrics"]["asr"]["value"] for row in [found]]
    assert asr[0] is not None
    assert [part["precision"] for part in found["attacks"]] == ["float32", "float32"]
    words = ("evaluate", cell.path, "--max-images", 30, "--attack-precision", "mixed")
    assert [part["precision"] for part in json.loads(said(*words, "--format", "json"))["attacks"]] == ["mixed"] * 2
    assert ", mixed precision): fooled" in said(*words)


def test_what_belongs_to_the_other_form_is_refused(finished, tmp_path: Path) -> None:
    cell = finished.cell(finished.plan().rows[0].seeds[0].cell.fingerprint).path
    assert "--data: " in refused("evaluate", finished.path, "--attack", "pgd", "--data", "digits")
    assert "--attack-precision: " in refused("evaluate", finished.path, "--attack-precision", "mixed")
    assert "--seed: " in refused("evaluate", finished.path, "--attack", "pgd", "--seed", 1)
    assert "--curve: " in refused("evaluate", cell, "--curve", "0.1")
    assert "--format csv: one model is shown as text or as json" in refused("evaluate", cell, "--format", "csv")
    neither = refused("evaluate", tmp_path / "nothing", "--attack", "pgd")
    assert "give a run folder, or the name of a study that was run" in neither
    assert "or as a file of weights with --model and --data" in neither
    assert "nothing to evaluate" in refused("evaluate", finished.path)
    (tmp_path / "weights").touch()
    assert "say which data" in refused("evaluate", tmp_path / "weights")


def test_a_metric_without_what_it_is_made_from_is_refused(digits, trained) -> None:
    x, y = digits.test.batch(torch.arange(4)), digits.test.labels[:4]
    for asked, said in (
        ("triggered-robust-accuracy", "cannot be measured without `trigger`, `target` and `attack`: give them"),
        ("drift", "drift cannot be measured without `attack` and `target`"),
        ("asr-undetected", "asr_undetected is made from what a study asks with `detect:` and `poison:`"),
        ("asr-twin", "asr-twin needs more than one model and its answers"),
    ):
        with pytest.raises(RequestError, match=r"^measure: ") as refused:
            bascule.evaluate(trained.model, x, y, measure=asked)
        assert said in str(refused.value)
