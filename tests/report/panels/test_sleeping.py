"""Sleeping backdoors: ASR before and after further training, beside the twin's."""

from __future__ import annotations

from pathlib import Path

import pytest

from findings import HOSTILE
from pages import check_whole, page_of, plain
from records import PAIR, Spec

RETUNE = {"images": 100, "poisoned": 5, "label": None, "epochs": 5, "batch_size": 64, "lr": 0.01}


def retuned(name: str, asr: float, after: float, twin: float, *, clean: float | None = None, **more: object) -> Spec:
    by_clean = asr if clean is None else clean
    return Spec(
        name, asr=asr, twin=0.0, retuned={5.0: (after, twin), 0.0: (by_clean, 0.0)},
        **{"settings": {"retune": RETUNE}, **more},  # type: ignore[arg-type]
    )  # fmt: skip


def test_what_wakes_and_what_is_learnt_anew(tmp_path: Path) -> None:
    page = page_of(
        tmp_path,
        retuned("Slept", 0.1, 0.9, 0.1),
        retuned("Gone", 0.1, 0.9, 0.9),
        retuned("Awake", 0.9, 0.9, 0.1),
        retuned("Wakes by itself", 0.1, 0.9, 0.1, clean=0.8),
    )
    check_whole(page)
    section = plain(page.section("sleeping"))
    assert "5 passes over 100 images, 5 of them poisoned, at a learning rate of 0.01." in section
    assert "A few poisoned images clearly wake a backdoor in Slept; Wakes by itself." in section
    assert "Clean images alone clearly wake a backdoor in Wakes by itself." in section
    assert "The same poisoned images teach the twins an ASR of at most 90 %." in section
    drawn = plain(next(has["aria-label"] for has in page.all("svg", role="group") if "further" in has["aria-label"]))
    assert drawn.startswith(
        "ASR before and after further training. Slept: before 10 %, after 90 %, twin after 10 %; Gone"
    )
    assert "Slept: ASR of the twin after 10.0 %" in section
    (slept,) = [text for text in page.text("tr") if text.startswith("Slept") and "+80.0" in text]
    assert "85.0" in slept  # accuracy afterwards


def test_flagged_where_the_table_may_be_believed_too_much(tmp_path: Path) -> None:
    page = page_of(tmp_path, retuned("Slept", 0.1, 0.9, 0.1), retuned("Gone", 0.1, 0.9, 0.9))
    joint = page.section("joint")
    flag = "backdoor sleeps: ASR is 10 %; after some training on a few poisoned images 90 %, that of the twin 10 %"
    assert joint.count(flag) == 1
    assert joint.count("backdoor sleeps") == 1


def test_at_one_seed_it_is_perhaps(tmp_path: Path) -> None:
    section = page_of(tmp_path, retuned("Slept", 0.1, 0.9, 0.1, seeds=1)).section("sleeping")
    assert "A few poisoned images clearly wake a backdoor in none of these rows, perhaps in Slept." in section
    assert "Clean images alone clearly wake a backdoor in none of these rows." in section
    assert "At one seed no difference is clear" in section


def test_without_twins_nobody_knows(tmp_path: Path) -> None:
    page = page_of(tmp_path, retuned("Alone", 0.1, 0.9, 0.1, twins=False))
    check_whole(page)
    section = page.section("sleeping")
    assert "Without a twin nobody knows what was woken and what was learnt anew." in section
    assert "wake a backdoor" not in section


def test_a_chart_for_each_way_of_retuning(tmp_path: Path) -> None:
    rows = [
        retuned("Slept", 0.1, 0.4, 0.1, vary={"retune.poisoned": 5}),
        retuned("Slept", 0.1, 0.9, 0.1, vary={"retune.poisoned": 25}, settings={"retune": {**RETUNE, "poisoned": 25}}),
    ]
    page = page_of(tmp_path, *rows)
    check_whole(page)
    assert {"digits · retune.poisoned 5", "digits · retune.poisoned 25"} <= set(page.text("h3"))
    names = [
        has["aria-label"] for has in page.all("svg", role="group") if "further training" in has.get("aria-label", "")
    ]
    assert len(names) == 2
    assert all("Slept: before" in plain(name) for name in names)


@pytest.mark.parametrize("accuracy", [0.9, None])
def test_unfinished_and_hostile_rows(tmp_path: Path, accuracy: float | None) -> None:
    page = page_of(tmp_path, retuned(HOSTILE, 0.1, 0.9, 0.1), retuned("Later", 0.1, 0.9, 0.1, accuracy=accuracy))
    check_whole(page)
    assert ("Not measured yet: Later" in page.section("sleeping")) == (accuracy is None)


def test_nothing_retuned_nothing_said(tmp_path: Path) -> None:
    assert page_of(tmp_path, *PAIR).all("section", id="sleeping") == []
