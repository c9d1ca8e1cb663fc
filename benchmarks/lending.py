"""What it costs to lend images as copies: forward and input-gradient passes of a model with and without."""

from __future__ import annotations

import argparse
import statistics
from functools import partial

import torch
import torch.nn.functional as F
from _interleaved import add_options, machine, print_table, ratio, rounds_of
from torch import Tensor, nn

from bascule.core.catalog import build
from bascule.core.host import settle
from bascule.core.lending import lending
from bascule.core.restore import frozen
from bascule.core.rng import stream

NETWORKS = {"digits-cnn": (1, 8, 8), "mnist-fast": (1, 28, 28), "resnet18": (3, 32, 32)}


def forward(model: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        model(x)


def input_gradient(model: nn.Module, x: Tensor) -> None:
    x = x.detach().requires_grad_(True)
    logits = model(x)
    torch.autograd.grad(F.cross_entropy(logits, logits.argmax(1), reduction="sum"), x)


def repeated(job: partial[None], calls: int) -> None:
    for _ in range(calls):
        job()


def lent(job: partial[None], calls: int) -> None:
    """As an attack does: one block, many calls."""
    with lending(job.args[0]):
        repeated(job, calls)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser, rounds=30, batch=256)
    parser.add_argument("--calls", type=int, default=10, help="calls timed together (default 10)")
    parser.add_argument("--network", action="append", choices=NETWORKS, help="one of them; repeatable")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    settle()  # as the command line does: freed memory is kept
    for name in options.network or NETWORKS:
        size = NETWORKS[name]
        model = build("models", name).initialised(size, 10, seed=0).eval().to(memory_format=torch.channels_last)
        x = torch.rand(options.batch, *size, generator=stream(0, "images"))
        for one in (forward, input_gradient):
            job = partial(one, model, x)
            with frozen(model):
                jobs = {"bare": partial(repeated, job, options.calls), "lent": partial(lent, job, options.calls)}
                seconds = rounds_of(jobs, rounds=options.rounds, clock=options.clock)
            medians = [f"{1000 * statistics.median(times) / options.calls:.3f}" for times in seconds.values()]
            rows.append([name, one.__name__.replace("_", " "), *medians, ratio(seconds["lent"], seconds["bare"])])
    print(f"batch {options.batch}, {options.rounds} rounds of {options.calls} calls, {options.clock} time")
    print(machine())
    print()
    print_table(["network", "pass", "bare, ms", "lent, ms", "ratio (least - greatest)"], rows)


if __name__ == "__main__":
    main()
