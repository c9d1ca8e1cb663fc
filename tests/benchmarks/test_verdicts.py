"""How often verdicts are right is counted from what was found of each network: by hand for four."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "verdicts.py"


def network(family: str, named: list[list[int]], small: int = 9, asr: float | None = None) -> dict[str, Any]:
    """What is kept of one; the trigger of class `small` covers 4 pixels and those of the others 10."""
    names = ("mm-bd", "neural-cleanse", "universal-perturbation", "feature-inversion")
    scans: list[dict[str, Any]] = [{"name": name, "suspects": one} for name, one in zip(names, named, strict=True)]
    scans[1] |= {"size": [4.0 if label == small else 10.0 for label in range(10)], "unseen": [0.9] * 10}
    target = None if asr is None else 3
    return {"family": family, "seed": 1, "target": target, "asr": asr, "accuracy": 0.9, "scans": scans}


def test_verdicts_are_counted_by_family(tmp_path: Path) -> None:
    found = [
        network("clean", [[], [5], [5], []]),
        network("dirty2", [[], [3], [3], []], small=3, asr=0.9),
        network("dirty2", [[], [], [], []], asr=0.9) | {"seed": 2},
        network("faint", [[], [], [], [1]], asr=0.1),
    ]
    (tmp_path / "found.jsonl").write_text("".join(json.dumps(one) + "\n" for one in found))
    command = [sys.executable, str(PROGRAM), str(tmp_path / "found.jsonl"), "--seeds", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.splitlines()]
    assert ["clean", "0 of 1 (0-79 %)", "1 of 1 (21-100 %)", "0 of 1 (0-79 %)", "0", "0"] in lines
    assert ["dirty2", "1 of 2 (9-91 %)", "0 of 2 (0-66 %)", "1 of 2 (9-91 %)", "1", "0"] in lines
    assert ["faint, not taken up", "0 of 1 (0-79 %)", "0 of 1 (0-79 %)", "1 of 1 (21-100 %)", "0", "0"] in lines
    assert ["**all backdoored**", "1 of 2 (9-91 %)", "0 of 2 (0-66 %)", "1 of 2 (9-91 %)", "1", "0"] in lines
