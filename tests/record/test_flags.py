"""Flags: raised where they are due, on nothing else, and every one explained."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

import bascule
from bascule.auditing.open import CHANGED_CODE
from bascule.core.catalog import build
from bascule.metrics.contract import MISSING, Outcomes
from bascule.metrics.detection import Detection, Inputs
from bascule.metrics.interval import summarise
from bascule.plan.document import parse_study
from bascule.plan.overrides import parse_override
from bascule.plan.resolve import make_plan
from bascule.record import flags, tried
from bascule.record.plan import Reach
from bascule.record.rows import read_rows
from bascule.record.run import RunRecord
from bascule.record.tried import Tried, black_box_gain, refuted_images
from bascule.running.run import run_plan
from records import row_of, seed_of

ROOT = Path(bascule.__file__).parents[2]

NETS = '''
import torch
from torch import nn


class Rounded(torch.autograd.Function):
    """Rounding whose gradient is taken to be nonsense."""

    @staticmethod
    def forward(context, x):
        return torch.round(x * 4) / 4

    @staticmethod
    def backward(context, gradient):
        return -gradient


class Wrapped(nn.Module):
    def __init__(self, size, classes, kind):
        super().__init__()
        self.kind = kind
        self.net = nn.Sequential(
            nn.Conv2d(size[0], 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, classes)
        )

    def forward(self, x):
        if self.kind == "quantised" and not self.training:
            x = torch.round(x * 4) / 4
        if self.kind == "crooked" and not self.training:
            x = Rounded.apply(x)
        if self.kind == "noisy" and not self.training:
            x = x + 0.1 * torch.randn_like(x)
        logits = self.net(x)
        if self.training:
            return logits
        if self.kind == "saturated":
            return 1e4 * logits
        if self.kind == "softmax":
            return logits.softmax(1)
        if self.kind == "batch":
            return logits - logits.mean(0)
        return logits


def wrapped(size, classes, kind):
    return Wrapped(size, classes, kind)
'''

TEXT = """\
base:
  data: {name: digits, max_test: 200}
  model: {name: "nets.py:wrapped", kind: plain}
  train: {objective: standard, epochs: 8, batch_size: 50, lr: 5e-3}
  attack: {name: pgd, eps: 0.1, steps: 20}
rows:
  Plain: {}
measure: [accuracy, robust-accuracy]
"""


@pytest.fixture
def raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The flags of a small study in which the model is of some kind."""
    (tmp_path / "nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)

    def find(*overrides: str) -> set[str]:
        given = [parse_override(text) for text in overrides]
        plan = make_plan(parse_study(TEXT, name="kinds", source="kinds.yaml"), overrides=given)
        run = RunRecord(tmp_path / "run")
        assert run_plan(plan, run, device=torch.device("cpu"), roots=()).failures == ()
        (row,) = read_rows(run)
        return {flag.partition(":")[0] for flag in row.flags} - {"one seed"}

    return find


@pytest.mark.parametrize("attack", ["{name: pgd, eps: 0.1, steps: 20}", "{name: pgd, eps: 0.6, norm: l2, steps: 20}"])
def test_nothing_is_said_of_a_plain_model(raised, attack: str) -> None:
    assert raised(f"attack={attack}") == set()


def test_a_search_without_gradients_that_goes_first_proves_nothing(raised) -> None:
    attacks = "[{name: square, eps: 0.1, queries: 100}, {name: pgd, eps: 0.1, steps: 20}]"
    assert raised(f"attack={attacks}") == set()


@pytest.mark.parametrize(
    ("kind", "flag"),
    [
        ("noisy", "randomised outputs"),
        ("batch", "batch-dependent outputs"),
        ("softmax", "probabilities instead of logits"),
        ("saturated", "zero gradients"),
        ("quantised", "zero gradients"),
        ("crooked", "masked gradients"),
        ("crooked", "black box beats white box"),
    ],
)
def test_a_model_that_misleads_gradients_is_flagged(raised, kind: str, flag: str) -> None:
    assert flag in raised(f"model.kind={kind}")


def test_an_attack_that_stops_early_is_flagged(raised) -> None:
    # Steps so short that twice as many reach twice as far.
    assert "attack not converged" in raised(
        "attack={name: pgd, eps: 0.3, steps: 8, step_size: 0.01, random_start: false}"
    )


@pytest.mark.parametrize(
    ("standing", "share", "expected"),
    [(100, 0.2, True), (100, 0.1, False), (5, 1.0, True), (4, 1.0, False), (9, 0.5, False), (0, 0.0, False)],
)
def test_of_a_handful_that_withstood_nothing_hangs_on_a_few(
    tmp_path: Path, standing: int, share: float, expected: bool
) -> None:
    """Of 1,000 test images 900 are right when clean and `standing` withstand the last attack."""
    run, label = RunRecord(tmp_path), np.zeros(1000, dtype=np.int64)
    images = np.arange(1000)
    columns = {
        "clean:1": images >= 900,
        "attack:1": np.where(images < 900, images >= 300, MISSING),
        "attack:2": np.where(images < 300, images >= standing, MISSING),
    }
    signs = {"attack:1": {"unconverged": 1.0}, "attack:2": {"unconverged": share, "black_box": share}}
    for key, values in columns.items():
        info = {"kind": key.partition(":")[0], "signs": signs.get(key, {})}
        run.cell("one").add_outcomes(images, label, values.astype(np.int64), key=key, info=info)
    clean, *adversarial = (values.astype(np.int64) for values in columns.values())
    by_seed = {0: Outcomes(label=label, clean=clean, adversarial=adversarial, attacks=2)}
    row = row_of(seed_of("one", *columns))
    raised = {flag.partition(":")[0] for flag in flags.flags_of_row(run, row, by_seed, {})} - {"one seed"}
    assert raised == ({"attack not converged", "black box beats white box"} if expected else set())


@pytest.mark.parametrize(
    ("seeing", "blind", "gain"),
    [
        (Reach(norm="linf", eps=0.1), Reach(norm="linf", eps=0.1, uses_gradient=False), 0.5),
        (Reach(norm="linf", eps=0.1), Reach(norm="linf", eps=0.05, uses_gradient=False), 0.5),
        (None, Reach(norm="linf", eps=0.1, uses_gradient=False), 0.5),
        (Reach(norm="linf", eps=0.1), Reach(norm="linf", eps=0.2, uses_gradient=False), 0.0),
        (Reach(norm="linf", eps=0.1), Reach(norm="l2", eps=0.1, uses_gradient=False), 0.0),
        (Reach(norm="linf", eps=0.1), Reach(within="turned", uses_gradient=False), 0.0),
        (Reach(within="turned"), Reach(within="turned", uses_gradient=False), 0.5),
        (Reach(norm="linf", eps=0.1, uses_gradient=False), Reach(within="turned", uses_gradient=False), 0.0),
    ],
)
def test_a_black_box_beats_a_white_one_only_where_both_searched(
    seeing: Reach | None, blind: Reach, gain: float
) -> None:
    label = np.array([0, 0, 1, 1])
    seen = Tried(label=label, attacks=[(seeing, label), (blind, np.array([0, 1, 0, 1]))])
    assert black_box_gain(seen) == gain


def test_what_no_ball_holds_refutes_no_bound() -> None:
    label = np.array([0, 0])
    proof = Reach(norm="linf", eps=0.1, of_model=True), np.array([0.1, 0.1])
    for reach, refuted in (
        (Reach(within="turned"), 0),
        (Reach(norm="linf", eps=0.1), 1),
        (Reach(norm="l1", eps=0.1), 0),
    ):
        seen = Tried(label=label, attacks=[(reach, np.array([1, 0]))], proofs=[proof])
        assert refuted_images(seen) == refuted


def test_few_images_are_flagged(raised) -> None:
    assert raised("data.max_test=40") == {"few images"}


def outcomes(right: int, **more: Any) -> Outcomes:
    """Of 200 test images this many are right when clean."""
    return Outcomes(label=np.zeros(200, dtype=np.int64), clean=np.where(np.arange(200) < right, 0, 1), **more)


@pytest.mark.parametrize(
    ("taken", "target", "said"),
    [
        (100, 0, ["one answer: 100 % of the clean images of other classes are taken for class 0, the target, so ASR "]),
        (100, 3, ["one answer: 100 % of the clean images of other classes are taken for class 0"]),
        (91, None, ["one answer: 91 % of the clean images of other classes are taken for class 0"]),
        (90, 0, []),
    ],
)
def test_a_model_that_gives_one_answer_is_flagged(taken: int, target: int | None, said: list[str]) -> None:
    label = np.repeat(np.array([0, 1, 2]), 50)
    clean = np.where(np.arange(150) < 50 + taken, 0, label)
    found = list(flags._of_the_numbers([Outcomes(label=label, clean=clean, target=target)], {}))
    assert len(found) == len(said)
    assert all(flag.startswith(start) for flag, start in zip(found, said, strict=True))
    assert all(("ASR" in flag) == (target == 0) for flag in found)


@pytest.mark.parametrize(("refused", "raised_"), [(20, False), (21, True)])
def test_a_detector_that_refuses_far_more_than_asked_is_flagged(refused: int, raised_: bool) -> None:
    suspicion = (np.arange(200) < refused).astype(np.float32)
    benign = Inputs(suspicion=suspicion, prediction=np.zeros(200, dtype=np.int64))
    half = np.full(2, 0.5, dtype=np.float32)
    detection = Detection(calm=half, thresholds=half, sorts={"benign": benign})
    found = list(flags._of_the_numbers([outcomes(200, detection=detection)], {}))
    said = "detector refuses more than asked: 10.5 % of the clean test images, set to 5 %"
    assert [flag for flag in found if "detector" in flag] == ([said] if raised_ else [])


@pytest.mark.parametrize(("own", "raised_"), [(180, False), (160, True)])
def test_poison_that_costs_accuracy_is_flagged(own: int, raised_: bool) -> None:
    found = list(flags._of_the_numbers([outcomes(own, twin=outcomes(185))], {}))
    assert [flag.startswith("poison costs accuracy: 12.5 points") for flag in found] == ([True] if raised_ else [])


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ((0.0, 0.001, 0.09), "seeds disagree: ASR is 0.0 % in one seed and 9.0 % in another, so the mean describes "),
        ((0.4, 0.6, 0.9), ""),
        ((0.0, 0.015), ""),  # so little can be chance
        ((0.0, 0.001, 0.009), "unseen seeds: ASR is under 1 % in all 3 seeds; that up to 63 % of trainings turn out "),
        (
            (1.0,) * 5,
            "unseen seeds: ASR is over 99 % in all 5 seeds; that up to 45 % of trainings turn out otherwise is ",
        ),
        ((0.0,), ""),
        ((0.0,) * 11, ""),
    ],
)
def test_seeds_too_few_for_their_interval_are_flagged(shares: tuple[float, ...], expected: str) -> None:
    label = np.zeros(1000, dtype=np.int64)
    per_seed = [
        Outcomes(label=label, triggered=np.where(np.arange(1000) < round(1000 * share), 7, 0), target=7)
        for share in shares
    ]
    found = list(flags._of_the_seeds(per_seed))
    assert len(found) == bool(expected)
    assert "".join(found).startswith(expected)


def test_in_the_world_where_a_backdoor_takes_in_some_seeds_only_the_interval_holds_or_a_flag_is_raised() -> None:
    draws, n, share = np.random.default_rng(0), 1_000, 0.02
    label, held, safe = np.zeros(n, dtype=np.int64), 0, 0
    metric = build("measure", "asr")
    for _ in range(150):
        each = stats.norm.cdf(stats.norm.ppf(share) * (1 + 1.5**2) ** 0.5 + 1.5 * draws.standard_normal(3))
        per_seed = [
            Outcomes(label=label, triggered=np.where(np.arange(n) < right, 7, 0), target=7)
            for right in draws.binomial(n, each)
        ]
        found = summarise(metric, per_seed)
        inside = found.low <= share <= found.high  # type: ignore[operator]
        held += inside
        safe += inside or any(True for _ in flags._of_the_seeds(per_seed))
    assert safe >= 0.95 * 150
    assert held < 0.9 * 150  # which is why there is a flag


def test_signs_of_an_exact_linear_model() -> None:
    """Worked by hand: w = (1, -1), so every step along the gradient raises the margin, and no image is special."""
    from bascule.attacks.checks import signs_of_model

    class Linear(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x.flatten(1)[:, 0], x.flatten(1)[:, 1]], dim=1)

    x = torch.tensor([[0.6, 0.4], [0.7, 0.2]]).reshape(2, 1, 1, 2)
    y = torch.tensor([0, 0])
    attack = build("attack", {"name": "pgd", "eps": 0.1})
    signs = signs_of_model(Linear(), attack, x, y)
    # (0.6, 0.4) and (0.7, 0.2) lie in [0, 1], as sigmoids do, whether or not they sum to 1.
    assert signs == {"random": 0.0, "mixing": 0.0, "probabilities": 1.0, "no_gradient": 0.0, "no_rise": 0.0}


def test_every_flag_is_explained() -> None:
    source = "".join(Path(module.__file__).read_text() for module in (flags, tried))
    heads = set(re.findall(r'"([a-z][a-z -]+):', source)) - {"index"} | {CHANGED_CODE}
    explained = set(re.findall(r"^### (.+)$", (ROOT / "docs/flags.md").read_text(), re.M))
    assert heads == explained


def test_a_filter_that_removed_nothing_or_could_not_is_flagged(tmp_path: Path) -> None:
    run, seeds = RunRecord(tmp_path), []
    for number, (removed, notes) in enumerate([(0, ["the threshold lies below zero"]), (5, [])]):
        made = {"kind": "filter", "removed": removed, "notes": notes}
        run.cell(f"cell{number}").add_finding("filter:made", {}, made)
        asked = {"kind": "inspect", "removed": 0, "notes": ["3 classes cannot lose any image"]}
        run.cell(f"cell{number}").add_finding("inspect:a", {}, asked)
        seeds.append(seed_of(f"cell{number}", "inspect:a", seed=number))
    assert list(flags._of_the_filters(run, row_of(*seeds))) == [
        "filter removed nothing: 1 of 2 seeds were trained on the whole set, as without a filter",
        "filter rule could not act: the threshold lies below zero (1 of 2 seeds)",
        "filter rule could not act: 3 classes cannot lose any image (2 of 2 seeds)",
    ]
