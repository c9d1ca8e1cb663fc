"""Every comparison in one command: a table for people, and JSON with machine, versions and commit.

Each part is one of the benchmarks beside this file, called with the options below; within a part everybody takes turns,
so that a noisy machine is noisy for all. A package that is not installed is left out, and the part says so.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import autoattack
import decoding
import disk
import pgd
import pgd_restarts
import reading
import study
from _interleaved import CLOCKS, Result, Said, Timed, facts, machine, print_results

import filters
import scanners
import training
from bascule.core.errors import RequestError
from bascule.core.files import write_atomically
from bascule.core.host import settle


@dataclass(frozen=True)
class Part:
    """A benchmark, and the options that it is called with, once for each line."""

    module: ModuleType
    full: Sequence[str]
    quick: Sequence[str]
    """So little that it only shows that the benchmark runs."""


LARGE = "--layout channels-last --rounds 3"
PARTS = {
    "pgd": Part(
        pgd,
        [
            "--network digits-cnn",
            "--network mnist-fast",
            f"--network mnist-paper --batch 128 {LARGE}",
            f"--network resnet18 --batch 8 {LARGE}",
            f"--network resnet50 --batch 4 {LARGE}",
        ],
        ["--network digits-cnn --batch 64 --rounds 1"],
    ),
    "pgd-restarts": Part(pgd_restarts, ["--images 360 --batch 90"], ["--images 4 --epochs 1"]),
    "autoattack": Part(autoattack, ["--images 360 --batch 90"], ["--images 2 --epochs 1"]),
    "training": Part(
        training,
        [
            "--network digits-cnn --network mnist-fast",
            "--network digits-cnn --network mnist-fast --objective standard",
            "--network mnist-paper --batch 32 --rounds 3",
            "--network resnet18 --batch 8 --rounds 3",
        ],
        ["--network digits-cnn --batch 8 --attack-steps 1 --rounds 1"],
    ),
    "neural-cleanse": Part(
        scanners,
        ["--network digits-cnn --images 300 --rounds 1", "--network mnist-fast --rounds 1"],
        ["--network digits-cnn --images 10 --epochs 1 --rounds 1 --no-plain"],
    ),
    "filters": Part(filters, [""], ["--images 300 --width 16"]),
    "study": Part(study, [""], ["--epochs 1 --rounds 1"]),
    "reading": Part(reading, [""], ["--models 8 --values 1 --images 40 --epochs 1 --rounds 1"]),
    "disk": Part(disk, [""], ["--pictures 40"]),
    "decoding": Part(decoding, [""], ["--pictures 70 --steps 2 --rounds 1 --cores 1"]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that everything runs, measures nothing")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default 1)")
    parser.add_argument("--clock", choices=CLOCKS, default="cpu", help="default cpu: other programs may run beside")
    parser.add_argument("--json", type=Path, default=Path("benchmarks.json"), help="file (default benchmarks.json)")
    options = parser.parse_args()
    settle()  # as the command line does: freed memory is kept
    parts: list[dict[str, Any]] = []
    failed = False
    for name in options.only:
        part = PARTS[name]
        for line in part.quick if options.quick else part.full:
            command = (
                f"{Path(part.module.__file__ or '').name} {line} --threads {options.threads} --clock {options.clock}"
            )
            began = datetime.now(UTC)
            print(f"## {name}\n\n`{command}`\n", flush=True)
            results, problem = measured(part.module, command.split()[1:])
            failed |= problem is not None
            print_results([*results, *([Said(f"FAILED: {problem}")] if problem else [])])
            parts.append(_as_dict(name, command, began, results, problem))
            whole = {"about": facts(), "quick": options.quick, "clock": options.clock, "parts": parts}
            text = json.dumps(whole, indent=1, ensure_ascii=False) + "\n"  # after each, so that nothing is lost
            write_atomically(options.json, lambda place, text=text: place.write_text(text, encoding="utf-8"))
    print(f"{options.clock} time; {machine()}")
    if failed:
        raise SystemExit(1)


def measured(module: ModuleType, arguments: Sequence[str]) -> tuple[list[Result], str | None]:
    """What a benchmark gives, and why it ended early if it did; without its data it is left out."""
    results: list[Result] = []
    try:
        for result in module.measure(module.parser().parse_args(arguments)):
            results.append(result)
    except RequestError as error:  # the data set is not here
        results.append(Said(f"left out: {error}"))
    except SystemExit as error:
        return results, str(error.code)
    return results, None


def _as_dict(
    name: str, command: str, began: datetime, results: Sequence[Result], problem: str | None
) -> dict[str, Any]:
    return {
        "part": name,
        "command": f"python benchmarks/{command}",
        "began": began.isoformat(timespec="seconds"),
        "results": [result.as_dict() for result in results if isinstance(result, Timed)],
        "said": [result.text for result in results if isinstance(result, Said)],
        "failed": problem,
    }


if __name__ == "__main__":
    main()
