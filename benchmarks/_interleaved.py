"""Timing several ways to do the same job side by side, A B C A B C ..., so that a noisy machine is noisy for all."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True, kw_only=True)
class Timed:
    """One way to do one job, timed beside the others."""

    job: str
    who: str
    seconds: Sequence[float]
    """Of every round."""
    base: Sequence[float] = ()
    """Of the yardstick, in the same rounds; nothing where there is none."""
    whole: bool = False
    """Whether the rounds are parts of one job (batches, say) and not repeats of it."""
    found: Mapping[str, str] = field(default_factory=dict)
    """What shows that it was the same job, and what else was measured, by heading."""

    @property
    def took(self) -> float:
        """Seconds: the median of the rounds, or their sum where they are parts."""
        return sum(self.seconds) if self.whole else statistics.median(self.seconds)

    def as_dict(self) -> dict[str, Any]:
        ratios = [a / b for a, b in zip(self.seconds, self.base, strict=True)] if self.base else []
        spread = (
            {"median": statistics.median(ratios), "least": min(ratios), "greatest": max(ratios)} if ratios else None
        )
        return {
            "job": self.job,
            "who": self.who,
            "seconds": self.took,
            "rounds": list(self.seconds),
            "times the yardstick": spread,
            "found": dict(self.found),
        }


@dataclass(frozen=True)
class Said:
    """What must be known beside the numbers: who is left out and why, a table of another kind."""

    text: str


Result = Timed | Said


def run(parser: argparse.ArgumentParser, measure: Callable[[argparse.Namespace], Iterable[Result]]) -> None:
    """One benchmark as a program of its own."""
    options = parser.parse_args()
    results = list(measure(options))
    print(f"{options.clock} time; {machine()}\n")
    print_results(results)


def print_results(results: Sequence[Result]) -> None:
    """The numbers, one table for each job, and what is said of them."""
    timed = [result for result in results if isinstance(result, Timed)]
    for job in dict.fromkeys(one.job for one in timed):
        members = [one for one in timed if one.job == job]
        headings = list(dict.fromkeys(heading for one in members for heading in one.found))
        rows = [
            [
                one.who,
                f"{one.took:.3g}" if one.took < 100 else f"{one.took:.0f}",
                ratio(one.seconds, one.base) if one.base else "",
                *(one.found.get(heading, "") for heading in headings),
            ]
            for one in members
        ]
        print(f"{job}\n")
        print_table(["who", "seconds", "times the yardstick (least - greatest)", *headings], rows)
        print()
    for result in results:
        if isinstance(result, Said):
            print(f"{result.text}\n")


def add_clock(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default 2)")
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="wall: elapsed time; cpu: processor time, to be read with --threads 1 when other programs share the cores",
    )


def add_options(parser: argparse.ArgumentParser, *, rounds: int, batch: int) -> None:
    parser.add_argument(
        "--rounds", type=int, default=rounds, help=f"timed rounds, after one untimed (default {rounds})"
    )
    parser.add_argument("--batch", type=int, default=batch, help=f"images per call (default {batch})")
    add_clock(parser)


def rounds_of(
    jobs: Mapping[str, Callable[[], object]], *, rounds: int, clock: str, untimed: int = 1
) -> dict[str, list[float]]:
    """Seconds of every job in every round. `untimed` rounds before them are not counted: first calls set things up."""
    now = CLOCKS[clock]
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for number in range(-untimed, rounds):
        for name, job in jobs.items():
            began = now()
            job()
            if number >= 0:
                seconds[name].append(now() - began)
    return seconds


def ratio(seconds: Sequence[float], base: Sequence[float]) -> str:
    """Median, least and greatest of the ratios round by round."""
    ratios = [a / b for a, b in zip(seconds, base, strict=True)]
    return f"{statistics.median(ratios):.3f} ({min(ratios):.3f} - {max(ratios):.3f})"


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A Markdown table, to be pasted into the README as it is."""
    print(table(head, rows))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same as text."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in [head, *rows]]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


PEERS = ("foolbox", "torchattacks", "adversarial-robustness-toolbox", "secml-torch", "pyautoattack", "torchvision")


def facts() -> dict[str, Any]:
    """Processor, threads, versions of what is installed, and commit."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "packages": dict(_versions(("torch", "numpy", "scipy", "scikit-learn", *PEERS))),
        "commit": _commit(),
    }


def machine(packages: Sequence[str] = PEERS) -> str:
    """The same in a line, with those of the packages that are installed."""
    known = facts()
    versions = ", ".join(
        f"{name} {known['packages'][name]}" for name in ("torch", *packages) if name in known["packages"]
    )
    return (
        f"{known['processor']}, {known['cores']} cores, {known['threads']} threads; "
        f"Python {known['python']}, {versions}; commit {known['commit']}"
    )


def _versions(names: Sequence[str]) -> Iterable[tuple[str, str]]:
    for name in names:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
