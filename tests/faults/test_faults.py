"""The fault lab's quick part; `make faults` is the long one. In a process of its own: it forks, limits and kills."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

LAB = Path(__file__).with_name("lab.py")
CHECKS_NOTHING = f"""
import sys
sys.path.insert(0, {str(LAB.parents[1])!r})
import bascule.record.sums
bascule.record.sums._right = lambda path, digest: True
from faults.lab import main
sys.exit(main(sys.argv[1:]))
"""
"""The lab with a library that takes every file for what was written."""


def run(*command: str, **counts: int) -> subprocess.CompletedProcess[str]:
    given = {"kills": 0, "parts": 0, "records": 0, "hostile": 0, "studies": 0, "data": 0, **counts, "workers": 1}
    options = [part for name, count in given.items() for part in (f"--{name}", str(count))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *command, *options], capture_output=True, text=True, env=environment, timeout=600, check=False
    )


def test_nothing_goes_wrong_under_a_few_faults_of_every_kind() -> None:
    ran = run(str(LAB), kills=3, parts=3, records=12, hostile=12, studies=60, data=30)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "\n0 of 120 went wrong" in ran.stdout


def test_the_lab_finds_a_library_that_checks_no_sums() -> None:
    ran = run("-c", CHECKS_NOTHING, records=24)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "records: wrong: flip" in ran.stdout
