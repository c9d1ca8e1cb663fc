"""What a training step costs beyond the network's own passes, beside a hand-written loop and other packages.

Everyone does a whole step: batch, attack (PGD, unless `--objective standard`), descent with Adam. The yardstick is the
floor: as many bare input-gradient passes with frozen parameters as the attack has steps, and one bare forward and
backward pass for the parameters, in float32, without an optimiser. On CUDA where there is one.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from _interleaved import Result, Said, Timed, add_options, ratio, rounds_of, run
from _trainers import PEERS, Given
from torch import nn

from bascule.core import catalog
from bascule.core.images import Images
from bascule.core.lending import lending
from bascule.core.restore import untouched
from bascule.core.rng import stream
from bascule.training.compile import compile_model
from bascule.training.contract import Objective
from bascule.training.pgd import Pgd
from bascule.training.precision import Mixed
from bascule.training.settings import Training
from bascule.training.standard import Standard
from bascule.training.steps import Steps

FLOOR, BY_HAND = "floor (bare passes)", "hand-written loop"
DIGITS = (1, 8, 8), Pgd(eps=0.2, steps=5)
MNIST = (1, 28, 28), Pgd(eps=0.3, steps=10, step_size=0.05)
CIFAR = (3, 32, 32), Pgd(eps=8 / 255, steps=5, step_size=2 / 255)
NETWORKS = {"digits-cnn": DIGITS, "mnist-fast": MNIST, "mnist-paper": MNIST, "resnet18": CIFAR}


@dataclass(frozen=True)
class Bench:
    """One network, its attack if there is one, and a set of random images, on the device."""

    name: str
    size: tuple[int, int, int]
    attack: Pgd | None
    batch: int
    calls: int
    device: torch.device

    @property
    def objective(self) -> Objective:
        return self.attack or Standard()

    def model(self) -> nn.Module:
        made = catalog.build("models", self.name).initialised(self.size, 10, seed=0)
        return made.to(self.device, memory_format=torch.channels_last).train()

    def images(self) -> Images:
        shape = (max(4, self.calls) * self.batch, *self.size)
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
            if bench.attack is not None:
                with untouched(model):
                    for _ in range(bench.attack.steps):
                        probe = x.detach().requires_grad_(True)
                        torch.autograd.grad(F.cross_entropy(model(probe), y, reduction="sum"), probe)
            model.zero_grad(set_to_none=True)
            F.cross_entropy(model(x), y).backward()
        bench.wait()

    return call


def by_hand(bench: Bench, *, fused: bool) -> Job:
    """A training script's own loop, on images that are floats already; with torch's fused Adam if asked."""
    model, images, attack = bench.model(), bench.images(), bench.attack
    x, y = images.batch(torch.arange(len(images), device=bench.device)), images.labels
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=fused or None)
    order, place = torch.empty(0), 0

    def call() -> None:
        nonlocal order, place
        for _ in range(bench.calls):
            if place + bench.batch > len(order):
                order, place = torch.randperm(len(x), device=bench.device), 0
            index = order[place : place + bench.batch]
            place += bench.batch
            seen, wanted = x[index], y[index]
            if attack is not None:
                seen = attacked(model, seen, wanted, attack)
            optimizer.zero_grad()
            F.cross_entropy(model(seen), wanted).backward()
            optimizer.step()
        bench.wait()

    return call


def attacked(model: nn.Module, x: torch.Tensor, y: torch.Tensor, attack: Pgd) -> torch.Tensor:
    """PGD as it stands in training scripts, in eval mode."""
    step_size = attack.step_size or 2.5 * attack.eps / attack.steps
    model.eval()
    found = (x + torch.empty_like(x).uniform_(-attack.eps, attack.eps)).clamp(0, 1)
    for _ in range(attack.steps):
        found.requires_grad_(True)
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(found), y), found)
        found = found.detach() + step_size * gradient.sign()
        found = torch.min(torch.max(found, x - attack.eps), x + attack.eps).clamp(0, 1)
    model.train()
    return found


def by_peer(bench: Bench, name: str) -> Job:
    """An epoch of another package over as many images as the others take in their steps."""
    assert bench.attack is not None
    images, count = bench.images(), bench.calls * bench.batch
    x, y = images.batch(torch.arange(count)), images.labels[:count]
    epoch = PEERS[name](Given(bench.model(), x, y, bench.batch, bench.attack))

    def call() -> None:
        epoch()

    return call


def steps(bench: Bench, stack: ExitStack, *, mode: str | None, mixed: bool) -> Job:
    """Steps of the training loop; `mode` of torch.compile, None for none."""
    model, images = bench.model(), bench.images()
    asked = model if mode is None else stack.enter_context(compile_model(model, mode=mode))
    asked = Mixed(asked) if mixed else asked
    asked.train()
    stack.enter_context(lending(asked, classes=10))
    training = Training(objective=bench.objective, epochs=1000, batch_size=bench.batch, lr=1e-4)
    all_steps = Steps(model, images, training, seed=0)
    done = 0

    def call() -> None:
        nonlocal done
        for _ in range(bench.calls):
            all_steps.take(asked, done)
            done += 1
        bench.wait()

    return call


def contestants(bench: Bench, stack: ExitStack, *, compiled: bool) -> dict[str, Callable[[], Job]]:
    """What is timed, by its title; each is made when it is called."""

    def ours(mode: str | None, *, mixed: bool) -> Callable[[], Job]:
        return lambda: steps(bench, stack, mode=mode, mixed=mixed)

    found = {
        FLOOR: lambda: floor(bench),
        BY_HAND: lambda: by_hand(bench, fused=False),
        f"{BY_HAND}, fused Adam": lambda: by_hand(bench, fused=True),
        "bascule": ours(None, mixed=False),
        "bascule, bfloat16": ours(None, mixed=True),
    }
    if bench.attack is not None and bench.device.type == "cpu":
        found |= {name: partial(by_peer, bench, name) for name in PEERS}
    if compiled:
        found |= {"compiled": ours("default", mixed=False), "compiled, bfloat16": ours("default", mixed=True)}
    if compiled and bench.device.type == "cuda":
        found["compiled and captured"] = ours("reduce-overhead", mixed=False)
        found["compiled and captured, bfloat16"] = ours("reduce-overhead", mixed=True)
    return found


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_options(made, rounds=7, batch=128)
    made.add_argument("--network", choices=NETWORKS, action="append", help="only this one; repeatable")
    made.add_argument("--objective", choices=["standard", "pgd"], default="pgd")
    made.add_argument("--attack-steps", type=int, help="instead of the study's 10 (MNIST) and 5")
    made.add_argument("--calls", type=int, help="steps per timed call (default 10 on CUDA, 2 elsewhere)")
    made.add_argument("--compile", action="store_true", help="with the compiled steps")
    return made


def measure(options: argparse.Namespace) -> Iterator[Result]:
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cuda = device.type == "cuda"
    for name in options.network or NETWORKS:
        size, attack = NETWORKS[name]
        attack = replace(attack, steps=options.attack_steps or attack.steps) if options.objective == "pgd" else None
        calls = options.calls or (10 if cuda else 2)
        bench = Bench(name=name, size=size, attack=attack, batch=options.batch, calls=calls, device=device)
        with ExitStack() as stack:
            jobs = {}
            for title, make in contestants(bench, stack, compiled=options.compile).items():
                try:
                    jobs[title] = make()
                    jobs[title]()  # compiles; a second call, in the untimed round, is what graphs are captured in
                except Exception as error:
                    jobs.pop(title, None)
                    yield Said(f"{title} is skipped for {name}: {type(error).__name__}: {error}")
            seconds = rounds_of(jobs, rounds=options.rounds, clock=options.clock)
        where = torch.cuda.get_device_name(device) if cuda else "cpu"
        what = f"PGD-{attack.steps}" if attack else options.objective
        job = f"a step of training, {what}, {name}, batch {options.batch}, {where}"
        for title, times in seconds.items():
            found = {"times the hand-written loop": ratio(times, seconds[BY_HAND])}
            found["images/s"] = f"{options.batch * calls / statistics.median(times):.0f}"
            per_step, base = ([time / calls for time in part] for part in (times, seconds[FLOOR]))
            yield Timed(job=job, who=title, seconds=per_step, base=base, found=found)


if __name__ == "__main__":
    run(parser(), measure)
