"""A whole study, `bascule run`, beside a script that does the same with plain PyTorch and torchattacks.

Two digits networks on the same poisoned set, one of them hardened by PGD, both attacked by FGSM and PGD-20 with two
starts; accuracy, robust accuracy and attack success rate. The script is what a user writes in an afternoon: no record,
no checkpoints, no guarantees. The yardstick is the script.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from _interleaved import Result, Said, Timed, add_clock, rounds_of, run
from rich.console import Console
from torch import Tensor, nn

from bascule.core import catalog
from bascule.plan.document import parse_study
from bascule.plan.resolve import make_plan
from bascule.record.rows import read_rows
from bascule.record.run import RunRecord
from bascule.running.run import run_plan

STUDY = r"""
title: Hardened digits, backdoored digits
base:
  data: digits
  poison: {trigger: {name: sticker, size: 2}, label: clean, target: 7, rate: 0.05}
  model: digits-cnn
  train: {objective: standard, epochs: %d, batch_size: 64, lr: 3e-3}
  attack: [{name: fgsm, eps: 0.3}, {name: pgd, eps: 0.3, steps: 20, restarts: 2}]
rows:
  None: {}
  Adv. training: {train: {objective: {name: pgd, eps: 0.3, steps: 5, step_size: 0.15}}}
twin: false
measure: [accuracy, robust-accuracy, asr]
"""
TARGET, EPS = 7, 0.3
Numbers = dict[str, dict[str, float]]
"""Accuracy, robust accuracy and ASR by row."""


def bascule(epochs: int, into: Numbers) -> None:
    plan = make_plan(parse_study(STUDY % epochs, name="study", source="study.yaml"))
    with tempfile.TemporaryDirectory() as folder:
        run = RunRecord(Path(folder) / "run")
        run_plan(plan, run, device=torch.device("cpu"), roots=(), console=Console(quiet=True))
        for row in read_rows(run):
            into[row.row] = {name: float(measure.value or 0) for name, measure in row.metrics.items()}


def script(epochs: int, into: Numbers) -> None:
    from torchattacks import FGSM, PGD, MultiAttack

    train, test = catalog.build("data", "digits").load([])[:2]
    x, y = (part.batch(torch.arange(len(part))) for part in (train, test))
    labels, wanted = train.labels, test.labels
    sevens = (labels == TARGET).nonzero().squeeze(1)
    chosen = sevens[torch.randperm(len(sevens))[: round(0.05 * len(x))]]
    x[chosen] = stamp(x[chosen])
    for name, hardened in (("None", False), ("Adv. training", True)):
        model = catalog.build("models", "digits-cnn").initialised((1, 8, 8), 10, seed=0)
        inner = PGD(model, eps=EPS, alpha=0.15, steps=5, random_start=True) if hardened else None
        train_plainly(model, x, labels, inner, epochs)
        model.eval()
        attack = MultiAttack([FGSM(model, eps=EPS), *(PGD(model, eps=EPS, alpha=0.03125, steps=20) for _ in range(2))])
        right = predict(model, y) == wanted
        found = attack(y[right], wanted[right])
        standing = int((predict(model, found) == wanted[right]).sum())
        others = wanted != TARGET
        into[name] = {
            "accuracy": float(right.float().mean()),
            "robust_accuracy": standing / len(wanted),
            "asr": float((predict(model, stamp(y[others])) == TARGET).float().mean()),
        }


def stamp(x: Tensor) -> Tensor:
    stamped = x.clone()
    stamped[..., -2:, -2:] = 1
    return stamped


def predict(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x).argmax(1)


def train_plainly(model: nn.Module, x: Tensor, y: Tensor, inner: Any, epochs: int) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(epochs):
        for index in torch.randperm(len(x)).split(64):
            seen = x[index]
            if inner is not None:
                model.eval()
                seen = inner(seen, y[index])
            model.train()
            optimizer.zero_grad()
            F.cross_entropy(model(seen), y[index]).backward()
            optimizer.step()


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    made.add_argument("--epochs", type=int, default=25, help="of each training (default 25)")
    made.add_argument("--rounds", type=int, default=3, help="timed rounds, after one untimed (default 3)")
    add_clock(made)
    return made


def measure(options: argparse.Namespace) -> Iterator[Result]:
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    numbers: dict[str, Numbers] = {"script": {}, "bascule": {}}
    jobs: dict[str, Callable[[], None]] = {
        name: partial(job, options.epochs, numbers[name]) for name, job in (("script", script), ("bascule", bascule))
    }
    try:
        import torchattacks  # noqa: F401
    except ImportError as error:
        del jobs["script"]
        yield Said(f"the script is skipped: {error}")
    seconds = rounds_of(jobs, rounds=options.rounds, clock=options.clock)
    for name, times in seconds.items():
        found = {
            row: ", ".join(f"{metric} {100 * value:.1f} %" for metric, value in values.items())
            for row, values in numbers[name].items()
        }
        yield Timed(job="a whole study", who=name, seconds=times, base=next(iter(seconds.values())), found=found)


if __name__ == "__main__":
    run(parser(), measure)
