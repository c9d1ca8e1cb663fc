"""What was run: enough to run it again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from bascule.report.panels import provenance
from pages import page_of
from records import Spec

CUDA = {"version": "13.0", "cudnn": 91002, "tf32_matmul": False, "tf32_cudnn": True, "deterministic": True}


def test_what_was_run_can_be_run_again(tmp_path: Path) -> None:
    other = {
        "commit": "def456",
        "host": {
            "system": "Linux aarch64",
            "device": "NVIDIA H100",
            "cpus": 1,
            "compiled": True,
            "cuda": CUDA,
            "processes": 8,
        },
    }
    page = page_of(
        tmp_path, Spec(), Spec("Other", info=other), overrides=["train.epochs=3"], text="title: <b>\nrows: {}\n"
    )
    section = page.section("provenance")
    for text in (
        "Study tiny", "Command bascule run tiny", "Settings changed train.epochs=3",
        "Versions bascule 0.1.0, torch 2.6.0", "Commit abc123 (6 models) def456 (2 models)",
        "Linux x86_64, device cpu, 4 CPUs, 2 threads (6 models)",
        "Linux aarch64, device NVIDIA H100, 8 processes together, 1 CPU, compiled training, CUDA 13.0, "
        "cuDNN 91002 (deterministic), TF32 in training: cuDNN (2 models)",
        "Started 2024-05-06 07:00 UTC; the last model at 2024-05-06 07:01 UTC",
        "Time taken training 16 s, evaluation 10 s, over 8 models", "title: <b> rows: {}", "All models (8)",
    ):  # fmt: skip
        assert text in section
    lines = page.text("tr")[-8:]
    assert lines[:2] == ["None0rowrow0seed02.0 s1.5 sdone", "None0twinrow0twin02.0 s1.0 sdone"]


def test_it_says_where_parts_come_from_that_are_not_built_in(tmp_path: Path) -> None:
    settings = {
        "model": {"name": "own/nets.py:small", "factory": "own/nets.py:small", "settings": {}, "code": "ast1:0a"},
        "attack": [{"name": "shift", "eps": 0.1, "code": "dist1:demo==1.2+cu1+ast1:0b"}, {"name": "pgd", "eps": 0.1}],
        "filter": {"name": "own.filters:Mine", "code": "0c"},
    }
    section = page_of(tmp_path, Spec(settings=settings)).section("provenance")
    for text in ("own/nets.py:small: file own/nets.py", "shift: demo 1.2+cu1", "own.filters:Mine: module own.filters"):
        assert text in section
    run = SimpleNamespace(rows=[], plan=SimpleNamespace(metrics=("accuracy", "gone", "own/more.py:Metric")))
    assert provenance._elsewhere(run) == [
        "gone: no longer there",
        "own/more.py:Metric: file own/more.py (not found)",
    ]


def test_it_says_where_attacks_searched_in_two_precisions(tmp_path: Path) -> None:
    mixed = Spec("Mixed", settings={"attack_precision": "mixed"})
    section = page_of(tmp_path, Spec(), mixed).section("provenance")
    assert "Precision of attacks" in section
    assert "mixed: gradients in bfloat16 where the attack can, success in float32 (1 row)" in section
    assert "Precision of attacks" not in page_of(tmp_path / "plain", Spec()).section("provenance")


def test_it_says_which_hooks_were_told(tmp_path: Path) -> None:
    told = Spec("Told", info={"hooks": ["mlflow (follow 1.2)", "own:Notes"]})
    section = page_of(tmp_path, Spec(), told).section("provenance")
    assert "Followed by hooks mlflow (follow 1.2), own:Notes" in section
    assert "Followed by hooks" not in page_of(tmp_path / "plain", Spec()).section("provenance")


def test_a_loaded_checkpoint_is_not_called_a_training(tmp_path: Path) -> None:
    given = Spec("Given", info={"settings": {"train": None, "repair": None}}, twins=False)
    section = page_of(tmp_path / "both", Spec(), given).section("provenance")
    assert "Time taken training 8.0 s, loading 4.0 s, evaluation" in section
    assert "over 6 models, 2 of them given" in section
    page = page_of(tmp_path / "given", given)
    assert "Time taken loading 4.0 s, evaluation" in page.section("provenance")
    assert "over 2 models, 2 of them given" in page.section("provenance")
    assert page.text("tr")[-1].startswith("Given1rowrow0seed1given")
