"""Contiguous or channels-last? Forward, input-gradient and training passes of several networks in both layouts.

And what the short ways back (`bascule.core.lean`) save of the input-gradient pass in each of them.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from _interleaved import add_options, machine, print_table, ratio, rounds_of
from torch import Tensor, nn

from bascule.core.lean import lean_input_gradients
from bascule.core.rng import stream
from bascule.models.cifar_paper import CifarPaper
from bascule.models.digits_cnn import DigitsCnn
from bascule.models.mnist_fast import MnistFast
from bascule.models.mnist_paper import MnistPaper
from bascule.models.resnet9 import Resnet9


class Block(nn.Module):
    """The residual block of a small CIFAR network."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, 1, 1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.skip = nn.Identity() if stride == 1 else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.skip(x))


def residual() -> nn.Module:
    """A seven-convolution residual network for 3 x 32 x 32 images."""
    stem = [nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()]
    blocks = [Block(32, 32, 1), Block(32, 64, 2), Block(64, 128, 2)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int]]] = {
    "digits-cnn": (partial(DigitsCnn().build, (1, 8, 8), 10), (1, 8, 8)),
    "mnist-fast": (partial(MnistFast().build, (1, 28, 28), 10), (1, 28, 28)),
    "mnist-paper": (partial(MnistPaper().build, (1, 28, 28), 10), (1, 28, 28)),
    "mnist-paper, 3 x 32 x 32": (partial(MnistPaper().build, (3, 32, 32), 10), (3, 32, 32)),
    "residual, 3 x 32 x 32": (residual, (3, 32, 32)),
}


def forward(model: nn.Module, x: Tensor, y: Tensor) -> None:
    with torch.no_grad():
        model.eval()(x)


def input_gradient(model: nn.Module, x: Tensor, y: Tensor) -> None:
    model.eval().requires_grad_(False)
    x = x.detach().requires_grad_(True)
    torch.autograd.grad(F.cross_entropy(model(x), y, reduction="sum"), x)


def lean_input_gradient(model: nn.Module, x: Tensor, y: Tensor) -> None:
    with lean_input_gradients(list(model.modules())):
        input_gradient(model, x, y)


def training_pass(model: nn.Module, x: Tensor, y: Tensor) -> None:
    model.train().requires_grad_(True).zero_grad()
    F.cross_entropy(model(x), y).backward()


LEAN_TOO: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int]]] = {
    "cifar-paper": (partial(CifarPaper().build, (3, 32, 32), 10), (3, 32, 32)),
    "resnet9": (partial(Resnet9().build, (3, 32, 32), 10), (3, 32, 32)),
}
"""Networks with batch norm that are timed for the short ways alone."""

PASSES = {"forward": forward, "input gradient": input_gradient, "training": training_pass}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_options(parser, rounds=9, batch=256)
    networks = {**NETWORKS, **LEAN_TOO}
    parser.add_argument("--network", choices=networks, action="append", help="only this one; repeatable")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    rows, lean_rows = [], []
    for name in options.network or networks:
        build, size = networks[name]
        x = torch.rand(options.batch, *size, generator=stream(0, "images"))
        y = torch.arange(options.batch) % 10
        contiguous = build()
        layouts = {
            "contiguous": contiguous,
            "channels-last": copy.deepcopy(contiguous).to(memory_format=torch.channels_last),
        }
        for kind, one in PASSES.items() if name in NETWORKS else ():
            # The images stay as data sets give them, contiguous: the first convolution brings them into its layout.
            jobs = {layout: partial(one, model, x, y) for layout, model in layouts.items()}
            seconds = rounds_of(jobs, rounds=options.rounds, clock=options.clock)
            medians = [f"{1000 * statistics.median(times):.1f}" for times in seconds.values()]
            rows.append([name, kind, *medians, ratio(seconds["channels-last"], seconds["contiguous"])])
        for layout, model in layouts.items():
            jobs = {"with": partial(lean_input_gradient, model, x, y), "without": partial(input_gradient, model, x, y)}
            seconds = rounds_of(jobs, rounds=options.rounds, clock=options.clock)
            medians = [f"{1000 * statistics.median(times):.1f}" for times in seconds.values()]
            lean_rows.append([name, layout, *medians, ratio(seconds["without"], seconds["with"])])
    print(f"batch {options.batch}, {options.rounds} rounds, {options.clock} time")
    print(machine())
    print()
    print_table(["network", "pass", "contiguous, ms", "channels-last, ms", "ratio (least - greatest)"], rows)
    print("\nInput gradient with the short ways back and without\n")
    print_table(["network", "layout", "with, ms", "without, ms", "without / with (least - greatest)"], lean_rows)


if __name__ == "__main__":
    main()
