"""Every result is short where it is printed, and a small table, with pictures where there are some, in a notebook."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import bascule


def fair(x: Any) -> Any:
    return torch.zeros(len(x))


def guard() -> bascule.Guard:
    return bascule.Guard(
        model=nn.Identity(), detector=bascule.detectors.Strip(), calm=torch.arange(100.0), judge=fair, smooth=fair
    )  # fmt: skip


IMAGES = torch.arange(20 * 64).reshape(20, 1, 8, 8).remainder(256).to(torch.uint8)
LABELS = torch.arange(20) % 4


def poisoned() -> bascule.Poisoned:
    return bascule.poison(IMAGES, LABELS, "sticker", target=0, rate=0.1, label="dirty")


def scan() -> bascule.Scan:
    mask = torch.zeros(4, 1, 8, 8)
    mask[:, :, :2, :2] = 1
    mask[3] = float("nan")
    return bascule.Scan(
        anomaly=torch.tensor([0.5, 4.0, 3.0, float("nan")]), threshold=2.0, pattern=torch.ones(4, 1, 8, 8), mask=mask,
        details={"success": torch.tensor([0.1, 0.9, 1.0, float("nan")])},
    )  # fmt: skip


def judged() -> bascule.Judged:
    return bascule.Judged(torch.arange(20.0), torch.arange(20) > 17, ("a <note>",), IMAGES[:3])


def evaluated() -> bascule.Evaluation:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    return bascule.evaluate(model, IMAGES, LABELS, attack={"name": "fgsm", "eps": 0.1})


RESULTS: dict[str, tuple[Callable[[], Any], int, tuple[str, ...]]] = {
    "poisoned": (poisoned, 2, ("sticker", "dirty", "image ")),
    "trained": (
        lambda: bascule.Trained(
            model=nn.Identity(), curve=tuple({"loss": 1 / n, "seconds": 0.1} for n in range(1, 40))
        ),
        0,
        ("loss", "39 epochs", "0.0256"),
    ),
    "judged": (judged, 3, ("2 removed (10.0 %)", "a &lt;note&gt;", "image 19")),
    "scan": (scan, 2, ("1, suspect", "not examined", "90", "trigger recovered for class 1")),
    "guard": (guard, 0, ("strip", "False alarms", "100 clean images")),
    "detected": (lambda: bascule.Detected(suspicion=torch.arange(90.0, 110.0), guard=guard()), 0, ("Refused", "5 %")),
    "repaired": (lambda: bascule.Repaired(nn.Identity(), {"distance": 0.25}), 0, ("distance", "0.25")),
    "certified": (
        lambda: bascule.Certified(
            radius=torch.tensor([0.0, 0.1]), right=torch.tensor([True, True]), certified=torch.tensor([False, True]),
            eps=0.1,
        ),
        0,
        ("2 images", "certified at eps 0.1", "50.0"),
    ),
    "evaluation": (evaluated, 0, ("Robust accuracy", "fgsm (linf, eps 0.1)", "not measured: give trigger and target")),
    "checked": (lambda: bascule.check(evaluated(), "accuracy >= 0", "accuracy > 100 %"), 0, ("pass", "FAIL", "n 20")),
}  # fmt: skip


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_is_read_where_it_is_shown(name: str) -> None:
    make, pictures, words = RESULTS[name]
    result = make()
    page = result._repr_html_()
    assert [word for word in words if word not in page] == []
    assert page.count("<img ") == pictures
    assert len(page) < 200_000
    assert "<script" not in page
    assert repr(result) == str(result)
    assert "tensor(" not in repr(result)
    assert max(map(len, repr(result).splitlines())) < 160


def test_every_result_that_python_offers_is_read_somewhere() -> None:
    """A run and its rows in test_run.py, an audit in tests/auditing; `Images` and `Splits` are what a source gives."""
    offered = {name for name in dir(bascule) if re.match("[A-Z]", name) and not name.endswith("Error")}
    offered -= {"Images", "Splits"}
    here = {type(make()).__name__ for make, _, _ in RESULTS.values()}
    assert offered - here == {"Audit", "Frames", "Row", "Run"}
    assert all("_repr_html_" in dir(getattr(bascule, name)) for name in offered)


def test_frames_say_what_they_hold(made: bascule.Run) -> None:
    shown = repr(made.frames())
    assert "outcomes" in shown
    assert "160" in shown
    assert len(shown) < 700
    assert "accuracy_n" not in made.frames()._repr_html_()


def test_a_scan_that_recovers_nothing_shows_none() -> None:
    found = bascule.Scan(anomaly=torch.tensor([0.5, 4.0]), threshold=2.0)
    assert "<img" not in found._repr_html_()


def test_pictures_of_what_is_large_and_in_colour_stay_small() -> None:
    noise = torch.randint(256, (40, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    page = bascule.Judged(torch.arange(40.0), torch.arange(40) > 30, (), noise[:12])._repr_html_()
    assert len(page) < 200_000
    assert page.count("<img ") > 2
    assert "more: print it to see all" in page


def test_a_hostile_name_is_text_and_a_long_training_is_short() -> None:
    hostile = type("<script>alert(1)</script>", (nn.Sequential,), {})
    x, y = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 10
    trained = bascule.train(hostile(nn.Flatten(), nn.Linear(64, 10)), x, y, epochs=30)
    page = trained._repr_html_()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert page.count('<th scope="row"') == 10
