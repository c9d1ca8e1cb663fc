"""What looking at a run costs: start-up, `bascule table` and `bascule report` of 20, 200 and 1,000 models.

Each command is a process of its own, so its time is that of a user. The runs are made up (`_runs.py`): a thousand
models in ten rows of the table, and in a hundred. For start-up the yardstick is the interpreter itself.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from _interleaved import Result, Timed, add_clock, run
from _runs import Size, write_run

NOTHING = "python -c pass"
START = {"bascule --help": ["--help"], "bascule ls": ["ls"], "bascule ls attack": ["ls", "attack"]}
_COMMAND = [sys.executable, "-c", "from bascule.cli import main; main()"]


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    made.add_argument("--models", type=int, nargs="*", default=[20, 200, 1000], help="sizes (default 20 200 1000)")
    made.add_argument("--values", type=int, nargs="*", default=[5, 50], help="values of what varies (default 5 50)")
    made.add_argument("--images", type=int, default=360, help="test images (default 360)")
    made.add_argument("--epochs", type=int, default=12, help="points of the training curves (default 12)")
    made.add_argument("--rounds", type=int, default=3, help="timed rounds, after one untimed (default 3)")
    add_clock(made)
    return made


def measure(options: argparse.Namespace) -> Iterator[Result]:
    start = {NOTHING: [sys.executable, "-c", "pass"]} | {name: [*_COMMAND, *more] for name, more in START.items()}
    seconds = rounds_apart(start, options)
    for name, times in seconds.items():
        yield Timed(job="start-up", who=name, seconds=times, base=seconds[NOTHING])
    sizes = [
        Size(models, values, options.images, options.epochs) for values in options.values for models in options.models
    ]
    with tempfile.TemporaryDirectory() as name:
        folders = {}
        for size in sizes:
            if size.seeds:
                folder = Path(name) / f"{size.models} models, {2 * size.values} rows"
                folders[folder] = write_run(folder, size)
        for command in ("table", "report"):
            more = ["--output", str(Path(name) / "report.html")] if command == "report" else []
            calls = {folder.name: [*_COMMAND, command, str(folder), *more] for folder in folders}
            for who, times in rounds_apart(calls, options).items():
                yield Timed(job=f"bascule {command}", who=who, seconds=times)


def rounds_apart(commands: Mapping[str, Sequence[str]], options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of every command in every round, after one that is not counted: files are read from memory then."""
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    now = _CLOCKS[options.clock]
    limits = dict.fromkeys(["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"], str(options.threads))
    for number in range(-1, options.rounds):
        for name, command in commands.items():
            began = now()
            done = subprocess.run(command, env={**os.environ, **limits}, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{name} failed:\n{done.stderr}")
            if number >= 0:
                seconds[name].append(now() - began)
    return seconds


def _of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


_CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": _of_children}

if __name__ == "__main__":
    run(parser(), measure)
