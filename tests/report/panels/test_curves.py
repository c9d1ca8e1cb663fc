"""Training curves."""

from __future__ import annotations

from pathlib import Path

from bascule.report.words import SPACE
from pages import page_of, read_page
from records import PAIR, Spec, record_of


def test_curves_have_a_line_per_seed(tmp_path: Path) -> None:
    page = page_of(tmp_path, *PAIR)
    labels = [svg["aria-label"] for svg in page.all("svg", **{"class": "chart"})[1:]]
    assert labels == [
        f"Training loss of {name}, mean of 2 seeds: from 2 after the first epoch to 0.67 after 3 epochs."
        for name in ("None", "Adv. training")
    ]
    lines = [has for has in page.all("path") if "#d55e00" in has.get("style", "") and "1.25" in has["style"]]
    assert len(lines) == 2


def test_a_curve_with_holes_is_drawn(tmp_path: Path) -> None:
    run = record_of(tmp_path / "run", [Spec(seeds=1)])
    run.cell("row0seed0").write_curve([{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": float("nan")}])
    page = read_page([run], tmp_path / "r.html")
    assert "from 2 after the first epoch to 2 after 1 epoch" in page.all("svg", **{"class": "chart"})[1]["aria-label"]


def test_which_epoch_is_kept_and_what_the_last_one_has_lost(tmp_path: Path) -> None:
    run = record_of(tmp_path / "run", [Spec(seeds=2)])
    for seed, (epoch, best, last) in enumerate([(22, 0.54, 0.49), (17, 0.56, 0.47)]):
        cell = run.cell(f"row0seed{seed}")
        kept = {"epoch": epoch, "held_out_robust_accuracy": best, "last": last, "images": 300, "attack": None}
        cell.write_info({**cell.info(), "kept": kept})
    captions = [text.replace(SPACE, " ") for text in read_page([run], tmp_path / "r.html").text("figcaption")]
    told = "2 seeds; epoch 17, 22 kept: held-out robust accuracy 55 %, after the last epoch 48 %"
    assert any(told in caption for caption in captions)
