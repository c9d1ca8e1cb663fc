"""What a study costs is counted: by hand for one layer, and for a table of the paper in a page of Markdown."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BY_HAND = """\
import torch
from cost import Operations
from torch import nn

net, x = nn.Conv2d(3, 8, 3, padding=1, bias=False), torch.rand(2, 3, 10, 10)
with Operations() as once:
    net(x).sum().backward()
forward = 2 * (2 * 10 * 10) * 8 * (3 * 3 * 3)  # a product and a sum for each weight at each place of each image
assert once.total == 2 * forward, once.total  # backward: of the weights alone, since the images want no gradient
x.requires_grad_()
with Operations() as both:
    torch.autograd.grad(net(x).sum(), x)
assert both.total == 2 * forward, both.total
"""


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, cwd=ROOT / "benchmarks", timeout=300
    )


def test_operations_of_a_convolution() -> None:
    done = run("-c", BY_HAND)
    assert done.returncode == 0, done.stderr


def test_a_table_of_the_paper() -> None:
    done = run("cost.py", "paper/mnist-1b", "--teraflops", "1")
    assert done.returncode == 0, done.stderr
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")][2:]
    costs = {name: [float(value) for value in values] for name, _, _, *values in rows}
    training, evaluation, hours = costs["all, each model once"]
    assert training == pytest.approx(costs["None"][0] + costs["IBP"][0], rel=0.01)
    assert costs["IBP"][0] / costs["None"][0] == pytest.approx(3, rel=0.05)  # bounds are two passes more
    assert hours == pytest.approx((training + evaluation) * 1000 / 3600, rel=0.02)
