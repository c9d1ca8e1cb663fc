"""The benchmarks run: every part once, at sizes that say nothing about time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """What `all.py --quick` writes, by part; MNIST is not there, whoever runs the tests."""
    folder = tmp_path_factory.mktemp("benchmarks")
    command = [sys.executable, str(BENCHMARKS / "all.py"), "--quick", "--json", str(folder / "all.json")]
    environment = {**os.environ, "BASCULE_DATA": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads((folder / "all.json").read_text())
    assert content["about"]["commit"]
    assert content["about"]["packages"]["torch"]
    return {part["part"]: part for part in content["parts"]}


def test_every_part_is_measured_or_says_why_not(parts: dict[str, dict]) -> None:
    for name, part in parts.items():
        assert part["failed"] is None, name
        assert part["results"] or part["said"], name
    assert set(parts) == {
        "pgd", "pgd-restarts", "autoattack", "training", "neural-cleanse", "filters", "study", "reading", "disk",
        "decoding",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["pgd", "pgd-restarts", "autoattack", "training", "neural-cleanse", "study", "disk"])
def test_bascule_is_timed_in_every_part_that_needs_no_download(parts: dict[str, dict], name: str) -> None:
    ours = [result for result in parts[name]["results"] if result["who"].startswith("bascule")]
    assert ours
    assert all(result["seconds"] > 0 and result["rounds"] for result in ours)


def test_what_is_not_here_is_said(parts: dict[str, dict]) -> None:
    assert parts["filters"]["said"][0].startswith("left out: ")
