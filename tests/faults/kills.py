"""A run, or parts of one, are killed (SIGKILL) and continued; in the end it must be one that nobody disturbed."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from faults.trials import BAD, WAITING, Trial

TINY = """\
base:
  data: {name: digits, max_train: 200, max_test: 60, held_out: 40}
  poison: {trigger: {name: sticker, size: 2}, target: 7, rate: 0.5, rate_of: target}
  model: {name: digits-cnn, width: 2, hidden: 8}
  train: {objective: standard, epochs: 3, batch_size: 20}
  attack: [{name: fgsm, eps: 0.1}, {name: pgd, eps: 0.1, steps: 2}]
  certify: {name: interval, eps: 0.001}
rows:
  None: {inspect: spectral-signatures, explain: saliency}
  Filtered: {filter: spectral-signatures}
  Repaired: {repair: {name: fine-tune, epochs: 1}}
seeds: 2
"""


PARTS = 3
"""Of the tiny study, side by side."""


def run_tiny(folder: Path, number: int | None = None) -> None:
    """The tiny study, in this process, or one part of it."""
    import torch

    from bascule.plan.document import parse_study
    from bascule.plan.resolve import make_plan
    from bascule.record.lock import Part
    from bascule.record.run import RunRecord
    from bascule.running.run import run_plan

    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), 2)
    plan = make_plan(parse_study(TINY, name="tiny", source="tiny.yaml"))
    part = None if number is None else Part(number, PARTS)
    ran = run_plan(plan, RunRecord(folder), device=torch.device("cpu"), roots=(), part=part)
    os._exit(1 if ran.failures else 0)


def content(folder: Path) -> dict[str, object]:
    """What a run holds: its table, and the bytes of its models."""
    from bascule.record.rows import read_rows
    from bascule.record.run import RunRecord

    run = RunRecord(folder)
    models = {cell.fingerprint: run.cell(cell.fingerprint).model_file.read_bytes() for cell in run.plan().cells()}
    return {"table": [row.as_dict() for row in read_rows(run)], **models}


def spawn(folder: Path, number: int | None = None) -> multiprocessing.process.BaseProcess:
    """The tiny study, or one part of it, in a child."""
    process = multiprocessing.get_context("fork").Process(target=run_tiny, args=(folder, number))
    process.start()
    return process


def finish(process: multiprocessing.process.BaseProcess) -> int | None:
    """Wait for a child; its exit code, None after a time that is many times what it needs."""
    process.join(2 * WAITING)
    if process.exitcode is None:
        process.kill()
        process.join()
        return None
    return process.exitcode


def undisturbed(folder: Path) -> tuple[dict[str, object], float]:
    """What a run holds that nobody kills, and the seconds that it takes."""
    began = time.monotonic()
    finish(spawn(folder))
    length = time.monotonic() - began
    return content(folder), length


def kills(count: int, *, seed: int = 0) -> Iterator[Trial]:
    """Runs that are killed until they end, `count` times in all, each compared with one that was not."""
    import torch

    torch.set_num_threads(1)
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as place:
        expected, length = undisturbed(Path(place) / "whole")
        killed = number = 0
        while killed < count:
            number += 1
            folder, of_this = Path(place) / f"cut{number}", 0
            while True:
                process = spawn(folder)
                if killed == count:
                    break
                process.join(chance.uniform(0.02, length / 3))
                if process.exitcode is not None:
                    break
                os.kill(process.pid or 0, signal.SIGKILL)
                process.join()
                killed, of_this = killed + 1, of_this + 1
                yield Trial("served", f"run {number}, kill {of_this}")
            outcome, note = ended(finish(process), folder, expected)
            if outcome in BAD:
                yield Trial(outcome, f"run {number}", f"after {of_this} kills: {note}")
            shutil.rmtree(folder)


def parts(count: int, *, seed: int = 0) -> Iterator[Trial]:
    """Runs in parts, each of which is killed and started again until it ends, `count` kills in all.

    In between somebody reads the table, and in the end each run is compared with one that was not disturbed.
    """
    import torch

    from bascule.record.rows import read_rows
    from bascule.record.run import RunRecord

    torch.set_num_threads(1)
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as place:
        expected, length = undisturbed(Path(place) / "whole")
        killed = number = 0
        while killed < count:
            number += 1
            folder = Path(place) / f"parts{number}"
            working = {part: spawn(folder, part) for part in range(1, PARTS + 1) if chance.random() < 0.8}
            while killed < count and any(process.exitcode is None for process in working.values()):
                time.sleep(chance.uniform(0.01, length / 6))
                part = chance.randint(1, PARTS)
                process = working.get(part)
                if process is not None and process.exitcode is None:
                    os.kill(process.pid or 0, signal.SIGKILL)
                    process.join()
                    killed += 1
                    yield Trial("served", f"run {number}, part {part} killed")
                    if chance.random() < 0.3:  # it comes back later
                        del working[part]
                        continue
                if part not in working or working[part].exitcode == -signal.SIGKILL:
                    working[part] = spawn(folder, part)
                if (folder / "study.json").is_file():
                    list(read_rows(RunRecord(folder)))
            for part in range(1, PARTS + 1):
                if part not in working or working[part].exitcode == -signal.SIGKILL:
                    working[part] = spawn(folder, part)
            codes = [finish(process) for process in working.values()]
            outcome, note = ended(next((code for code in codes if code != 0), 0), folder, expected)
            if outcome in BAD:
                yield Trial(outcome, f"run {number} in parts", note)
            shutil.rmtree(folder)


def ended(code: int | None, folder: Path, expected: dict[str, object]) -> tuple[str, str]:
    """What became of a run that was killed and has ended."""
    known = (".lock", ".holder", ".parts")
    leftovers = [path.name for path in folder.rglob(".*") if path.name not in known]
    if code is None:
        return "slow", f"it did not end within {2 * WAITING:.0f} s"
    if code:
        return "crash", f"it ended with {code}"
    if content(folder) != expected:
        return "wrong", "other bytes"
    if leftovers:
        return "wrong", f"it left {', '.join(leftovers[:3])}"
    return "served", ""
