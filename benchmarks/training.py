"""What a step of adversarial training costs beyond the network's own passes: plain, compiled, in mixed precision.

Everyone does the training loop's own step: batch, attack (PGD), descent. The yardstick is the floor: as many bare
input-gradient passes with frozen parameters as the attack has steps, and one bare forward and backward pass for the
parameters, in float32, without an optimiser. On CUDA where there is one.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from _interleaved import add_options, machine, print_table, ratio, rounds_of
from torch import nn

from bascule.core import catalog
from bascule.core.images import Images
from bascule.core.restore import untouched
from bascule.core.rng import stream
from bascule.train.compile import compile_model
from bascule.train.loop import Steps
from bascule.train.pgd import Pgd
from bascule.train.precision import Mixed
from bascule.train.settings import Training

FLOOR = "floor (bare passes)"
NETWORKS = {
    "mnist-paper": ((1, 28, 28), Pgd(eps=0.3, steps=10, step_size=0.05)),
    "resnet18": ((3, 32, 32), Pgd(eps=8 / 255, steps=5, step_size=2 / 255)),
}


@dataclass(frozen=True)
class Bench:
    """One network, its attack and a set of random images, on the device."""

    name: str
    size: tuple[int, int, int]
    attack: Pgd
    batch: int
    calls: int
    device: torch.device

    def model(self) -> nn.Module:
        made = catalog.build("models", self.name).initialised(self.size, 10, seed=0)
        return made.to(self.device, memory_format=torch.channels_last).train()

    def images(self) -> Images:
        shape = (4 * self.batch, *self.size)
        pixels = torch.randint(256, shape, generator=stream(0, "images"), dtype=torch.uint8)
        labels = torch.arange(len(pixels)) % 10
        made = Images(pixels=pixels, labels=labels, ids=torch.arange(len(pixels)), classes=tuple("0123456789"))
        return made.to(self.device)

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


Job = Callable[[], None]


def floor(bench: Bench) -> Job:
    model, images = bench.model(), bench.images()
    x, y = images.batch(torch.arange(bench.batch, device=bench.device)), images.labels[: bench.batch]

    def call() -> None:
        for _ in range(bench.calls):
            with untouched(model):
                for _ in range(bench.attack.steps):
                    probe = x.detach().requires_grad_(True)
                    torch.autograd.grad(F.cross_entropy(model(probe), y, reduction="sum"), probe)
            model.zero_grad(set_to_none=True)
            F.cross_entropy(model(x), y).backward()
        bench.wait()

    return call


def steps(bench: Bench, stack: ExitStack, *, mode: str | None, mixed: bool) -> Job:
    """Steps of the training loop; `mode` of torch.compile, None for none."""
    model, images = bench.model(), bench.images()
    asked = model if mode is None else stack.enter_context(compile_model(model, mode=mode))
    asked = Mixed(asked) if mixed else asked
    asked.train()
    training = Training(objective=bench.attack, epochs=1000, batch_size=bench.batch, lr=1e-4)
    all_steps = Steps(model, images, training, seed=0)
    done = 0

    def call() -> None:
        nonlocal done
        for _ in range(bench.calls):
            all_steps.take(asked, done)
            done += 1
        bench.wait()

    return call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser, rounds=7, batch=128)
    parser.add_argument("--network", choices=NETWORKS, action="append", help="only this one; repeatable")
    parser.add_argument("--attack-steps", type=int, help="instead of the study's 10 (MNIST) and 5")
    parser.add_argument("--calls", type=int, help="steps per timed call (default 10 on CUDA, 1 elsewhere)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cuda = device.type == "cuda"
    contestants = {
        "plain": {"mode": None, "mixed": False},
        "bfloat16": {"mode": None, "mixed": True},
        "compiled": {"mode": "default", "mixed": False},
        "compiled, bfloat16": {"mode": "default", "mixed": True},
    }
    if cuda:
        contestants["captured"] = {"mode": "reduce-overhead", "mixed": False}
        contestants["captured, bfloat16"] = {"mode": "reduce-overhead", "mixed": True}
    rows = []
    for name in options.network or NETWORKS:
        size, attack = NETWORKS[name]
        attack = replace(attack, steps=options.attack_steps or attack.steps)
        calls = options.calls or (10 if cuda else 1)
        bench = Bench(name=name, size=size, attack=attack, batch=options.batch, calls=calls, device=device)
        with ExitStack() as stack:
            jobs = {FLOOR: floor(bench)}
            for title, how in contestants.items():
                job = steps(bench, stack, **how)  # type: ignore[arg-type]
                try:
                    job()  # compiles; a second call, in the untimed round, is what graphs are captured in
                except Exception as error:
                    rows.append([name, title, f"failed: {type(error).__name__}", "", ""])
                else:
                    jobs[title] = job
            seconds = rounds_of(jobs, rounds=options.rounds, clock=options.clock)
        for title, times in seconds.items():
            per_step = statistics.median(times) / calls
            images = f"{options.batch / per_step:.0f}"
            rows.append([name, title, f"{1000 * per_step:.1f}", ratio(times, seconds[FLOOR]), images])
    where = torch.cuda.get_device_name(device) if cuda else "cpu"
    print(f"{where}; batch {options.batch}, {options.rounds} rounds, {options.clock} time")
    print(machine())
    print()
    print_table(["network", "step", "ms", "times the floor (least - greatest)", "images/s"], rows)


if __name__ == "__main__":
    main()
