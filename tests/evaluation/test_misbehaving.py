"""Models that misbehave, from Python and from the command line: right, flagged, or refused before work."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import bascule
import networks
from bascule.cli import app
from bascule.core import catalog
from bascule.core.errors import RequestError
from bascule.core.rng import borrowed_global_stream
from bascule.training.loop import train
from bascule.training.settings import Training

NETWORKS = Path(networks.__file__)
PGD = {"name": "pgd", "eps": 0.1, "steps": 5}
PROBABILITIES, ZERO = "probabilities instead of logits", "zero gradients"


class Fitted(NamedTuple):
    state: dict[str, Tensor]
    x: Tensor
    y: Tensor

    def model(self, name: str) -> nn.Module:
        model = getattr(networks, name)((1, 8, 8), 10)
        model.load_state_dict(self.state)
        return model.eval()


@pytest.fixture(scope="module")
def fitted(digits) -> Fitted:
    """Weights that fit every network that is `networks.Around`, trained on the plain one."""
    with borrowed_global_stream(0, "net"):
        model = networks.plain((1, 8, 8), 10)
    train(model, digits.train, Training(objective=catalog.build("train", "standard"), epochs=4, lr=0.01), seed=0)
    index = torch.arange(120)
    return Fitted(model.state_dict(), digits.test.batch(index), digits.test.labels[index])


def headings(found: Any) -> set[str]:
    return {flag.partition(":")[0] for flag in found.flags}


def same(one: Any, other: Any) -> bool:
    return {name: measure.as_dict() for name, measure in one.items()} == {
        name: measure.as_dict() for name, measure in other.items()
    }


@pytest.mark.parametrize("name", ["in_place", "in_place_operators"])
def test_a_model_that_writes_into_its_images_is_measured_as_one_that_does_not(fitted: Fitted, name: str) -> None:
    asked: dict[str, Any] = {"attack": [PGD, {"name": "square", "eps": 0.1, "queries": 20}]}
    asked |= {"certify": {"name": "smoothing", "eps": 0.1, "n": 50, "n0": 10}, "trigger": "sticker", "target": 3}
    x = fitted.x.clone()
    found = bascule.evaluate(fitted.model(name), x, fitted.y, **asked)
    assert torch.equal(x, fitted.x)
    assert same(found, bascule.evaluate(fitted.model("plain"), fitted.x, fitted.y, **asked))
    assert found.flags == ()
    moved = [bascule.perturb(fitted.model(kind), x, fitted.y, PGD) for kind in (name, "plain")]
    assert torch.equal(*moved)


@pytest.mark.parametrize("name", ["detached", "outside", "inference"])
def test_a_model_without_gradients_is_flagged_and_square_still_works(fitted: Fitted, name: str) -> None:
    square = {"name": "square", "eps": 0.1, "queries": 50}
    found = bascule.evaluate(fitted.model(name), fitted.x, fitted.y, attack=[PGD, square])
    assert ZERO in headings(found)
    assert found.attacks[1].fooled > 0.01


@pytest.mark.parametrize(("name", "flagged"), [("sigmoid", True), ("log_softmax", False), ("plain", False)])
def test_outputs_between_0_and_1_are_flagged(fitted: Fitted, name: str, flagged: bool) -> None:
    found = bascule.evaluate(fitted.model(name), fitted.x, fitted.y, attack=PGD)
    assert (PROBABILITIES in headings(found)) == flagged


def answering(fitted: Fitted, answer: Any) -> nn.Module:
    model = networks.Around((1, 8, 8), 10, lambda x: x, lambda net, logits: answer(logits))
    model.load_state_dict(fitted.state)
    return model.eval()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda z: (z, z), "model: Around answers with tuple; expected a tensor of logits"),
        (lambda z: {"logits": z}, "model: Around answers with dict; expected a tensor of logits"),
        (lambda z: z[:, :1], "model: Around answers with one number per image; expected one logit per class"),
        (lambda z: z[:, 0], "model: Around answers with shape (2,) for 2 images"),
        (lambda z: z.argsort(1), "model: Around answers with int64; expected floats"),
        (lambda z: z * torch.nan, "model: the model answers 2 of the 2 images that were tried with NaN"),
    ],
    ids=["tuple", "dict", "one", "squeezed", "whole", "nan"],
)
def test_what_are_no_logits_is_refused(fitted: Fitted, answer: Any, said: str) -> None:
    with pytest.raises(RequestError) as caught:
        bascule.evaluate(answering(fitted, answer), fitted.x, torch.zeros_like(fitted.y), attack=PGD)
    assert str(caught.value).startswith(said)


def test_infinite_logits_are_flagged_and_classes_ruled_out_are_not(fitted: Fitted) -> None:
    def ruled(value: float) -> nn.Module:
        return answering(fitted, lambda z: z.index_fill(1, torch.tensor([3]), value))

    assert ZERO in headings(bascule.evaluate(ruled(torch.inf), fitted.x, fitted.y, attack=PGD))
    assert ZERO not in headings(bascule.evaluate(ruled(-torch.inf), fitted.x, fitted.y, attack=PGD))


@pytest.mark.parametrize("own", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("attack", ["pgd", "apgd", "fab", "deepfool", "square"])
def test_models_of_other_types_are_attacked_inside_the_ball(fitted: Fitted, own: torch.dtype, attack: str) -> None:
    model = fitted.model("plain").to(own)
    steps = {"queries": 10} if attack == "square" else {"steps": 3}
    found = bascule.perturb(model, fitted.x[:20], fitted.y[:20], attack, eps=0.03, **steps)
    assert found.dtype == (torch.float64 if own == torch.float64 else torch.float32)
    assert float((found - fitted.x[:20]).abs().max()) <= 0.03 + 1e-7


def test_bytes_that_hold_only_0_and_1_get_a_word(fitted: Fitted) -> None:
    marks = (fitted.x > 0.5).to(torch.uint8)
    for call in (
        lambda: bascule.evaluate(fitted.model("plain"), marks, fitted.y),
        lambda: bascule.perturb(fitted.model("plain"), marks, fitted.y, "fgsm", eps=0.1),
    ):
        with pytest.warns(UserWarning, match=r"^x: all pixels are 0 or 1") as caught:
            call()
        assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bascule.evaluate(fitted.model("plain"), 255 * marks, fitted.y)


# --- from the command line -------------------------------------------------------------------------------------------


def run(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def weights(fitted: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    safetensors.torch.save_file(copy.deepcopy(fitted.state), tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


def of(weights: Path, name: str) -> tuple[str, ...]:
    return (str(weights), "--data", "{name: digits, max_test: 120}", "--model", f"{NETWORKS}:{name}")


def test_evaluate_measures_or_flags(weights: Path) -> None:
    attack = ("--attack", "{name: pgd, eps: 0.1, steps: 5}", "--format", "json")
    texts = {
        name: run("evaluate", *of(weights, name), *attack) for name in ("plain", "in_place", "detached", "sigmoid")
    }
    assert all(done.exit_code == 0 for done in texts.values()), [done.exception for done in texts.values()]
    plain = texts["plain"].stdout.replace("plain", "NAME")
    assert texts["in_place"].stdout.replace("in_place", "NAME") == plain
    assert ZERO in texts["detached"].stdout
    assert PROBABILITIES in texts["sigmoid"].stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("scan", "detached"), "neural-cleanse follows the gradient"),
        (("repair", "auxiliary", "--with", "{name: fine-tune, epochs: 1}", "--output", "r.safetensors"),
         "Around in train mode answers with tuple"),
        (("repair", "detached", "--with", "i-bau", "--output", "r.safetensors"),
         "i-bau follows the gradient"),
        (("filter", "auxiliary", "--with", "{name: early-loss, epochs: 1}"), "Around in train mode answers with tuple"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)  # fmt: skip
def test_other_commands_refuse(weights: Path, words: tuple[str, ...], said: str) -> None:
    command, name, *more = words
    more += ["--images", "50"] if command == "repair" else []
    done = run(command, *of(weights, name), *more)
    assert isinstance(done.exception, RequestError), (done.output, done.exception)
    assert said in str(done.exception)


def test_bounds_that_cannot_follow_the_model_are_refused_before_attacks(
    weights: Path, fitted: Fitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    fgsm = {"name": "fgsm", "eps": 0.1}

    def attacked(*_: object, **__: object) -> None:
        raise AssertionError("it was attacked")

    monkeypatch.setattr("bascule.evaluation.run.answer_questions", attacked)
    bound = "{name: interval, eps: 0.1}"
    done = run("evaluate", *of(weights, "in_place"), "--attack", "{name: fgsm, eps: 0.1}", "--certify", bound)
    assert isinstance(done.exception, RequestError), (done.output, done.exception)
    assert "cannot follow the method .sub_() in the model's own forward pass" in str(done.exception)
    with pytest.raises(RequestError, match=r"^certify: certified bounds cannot follow the method \.sub_\(\)"):
        bascule.evaluate(
            fitted.model("in_place"), fitted.x, fitted.y, attack=fgsm, certify={"name": "interval", "eps": 0.1}
        )


STUDY = """\
title: Tiny
base:
  data: {{name: digits, max_train: 100, max_test: 20, held_out: 20}}
  poison: {{trigger: sticker, target: 7, rate: 0.5, rate_of: target}}
  model: "{networks}:{name}"
  train: {{objective: standard, epochs: 1, batch_size: 50}}
  attack: {{name: fgsm, eps: 0.1}}
rows:
  A: {more}
"""


@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        ("auxiliary", "{}", "model: Around in train mode answers with tuple; expected a tensor of logits"),
        ("wider_in_training", "{}", ":wider_in_training in train mode answers with shape (2, 20) for 2 images"),
        ("detached", "{train: {objective: {name: pgd, eps: 0.1}}}", "pgd follows the gradient"),
        ("detached", "{train: {objective: lipschitz}}", "lipschitz follows the gradient"),
        ("detached", "{scan: mm-bd}", "mm-bd follows the gradient"),
        ("rounded", "{scan: mm-bd}", "mm-bd follows the gradient"),
        ("outside", "{explain: [saliency]}", "saliency follows the gradient"),
        ("detached", "{repair: {name: unlearn, epochs: 1}}", "unlearn follows the gradient"),
        ("detached", "{repair: i-bau}", "i-bau follows the gradient"),
        ("Encoder", "{certify: {name: interval, eps: 0.1}}", "rows.A.certify: certified bounds cannot follow the layer "
         "TransformerEncoderLayer at 'block'"),
        ("Attention", "{certify: {name: crown-ibp, eps: 0.1}}",
         "cannot follow the forward pass of Attention (networks.py, line "),
        ("Encoder", "{train: {objective: {name: ibp, eps: 0.1}}}", "rows.A.train: certified bounds cannot follow the"),
        ("in_place", "{train: {objective: {name: crown-ibp, eps: 0.1}}}", "cannot follow the method .sub_()"),
    ],
)  # fmt: skip
def test_validate_refuses_before_work(tmp_path: Path, name: str, more: str, said: str) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(STUDY.format(networks=NETWORKS, name=name, more=more))
    done = run("validate", study)
    assert isinstance(done.exception, RequestError), (done.output, done.exception)
    assert said in str(done.exception)


@pytest.mark.parametrize(
    ("name", "more"),
    [
        *((name, "{}") for name in ("plain", "in_place", "detached", "sigmoid", "Windows")),
        ("plain", "{certify: {name: crown-ibp, eps: 0.1}, train: {objective: {name: ibp, eps: 0.1}}}"),
        ("Encoder", "{certify: {name: smoothing, eps: 0.1}, train: {objective: {name: ibp, eps: 0}}}"),
    ],
)
def test_validate_takes_what_can_be_measured(tmp_path: Path, name: str, more: str) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(STUDY.format(networks=NETWORKS, name=name, more=more))
    done = run("validate", study)
    assert done.exit_code == 0, (done.output, done.exception)
