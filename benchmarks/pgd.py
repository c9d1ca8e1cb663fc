"""What PGD costs beyond the model's own passes: Bascule, foolbox, torchattacks, ART and two hand-written loops.

The same job for all: `--steps` sign-gradient steps in a Linf ball of radius 0.3 from a random start, on the MNIST
network of the study. The yardstick is the floor: as many bare forward and input-gradient passes, parameters frozen, in
the faster of the two memory layouts. Everyone is timed in both layouts.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from _interleaved import add_options, machine, print_table, ratio, rounds_of
from torch import Tensor, nn

from bascule.attack.pgd import Pgd
from bascule.attack.run import run_attack
from bascule.core.images import as_floats
from bascule.core.restore import untouched
from bascule.core.rng import stream
from bascule.data.mnist import Mnist
from bascule.models.mnist_paper import MnistPaper

LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
EPS, STEP_SIZE = 0.3, 0.05
FLOOR = "floor (bare passes)"


@dataclass(frozen=True)
class Job:
    """What everyone is given. The model is its own copy, so that nobody's settings reach another one."""

    model: nn.Module
    x: Tensor
    y: Tensor
    steps: int


Contestant = Callable[[Job], Callable[[], Tensor]]
"""Sets up what is not timed and returns what is: a call that gives the perturbed images."""


def input_gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    x = x.detach().requires_grad_(True)
    return torch.autograd.grad(F.cross_entropy(model(x), y, reduction="sum"), x)[0]


def floor(job: Job) -> Callable[[], Tensor]:
    job.model.requires_grad_(False)

    def call() -> Tensor:
        for _ in range(job.steps):
            input_gradient(job.model, job.x, job.y)
        return job.x

    return call


def hand_loop(job: Job) -> Callable[[], Tensor]:
    """PGD as it is written into a paper's training script."""
    job.model.requires_grad_(False)

    def call() -> Tensor:
        x = job.x
        found = (x + torch.empty_like(x).uniform_(-EPS, EPS)).clamp(0, 1)
        for _ in range(job.steps):
            found = found + STEP_SIZE * input_gradient(job.model, found, job.y).sign()
            found = torch.min(torch.max(found, x - EPS), x + EPS).clamp(0, 1)
        return found

    return call


def bascule_attack(job: Job) -> Pgd:
    return Pgd(eps=EPS, steps=job.steps, step_size=STEP_SIZE, stop_when_fooled=False)


def bascule_perturb(job: Job) -> Callable[[], Tensor]:
    attack, generator = bascule_attack(job), stream(0, "benchmark")

    def call() -> Tensor:
        with untouched(job.model):
            return attack.perturb(job.model, job.x, job.y, generator=generator)

    return call


def bascule_attacked(job: Job) -> Callable[[], Tensor]:
    """With the guarantees: projection and a forward pass of its own to count success."""
    attack, generator = bascule_attack(job), stream(0, "benchmark")
    return lambda: run_attack(job.model, attack, job.x, job.y, generator=generator).x


def foolbox(job: Job) -> Callable[[], Tensor]:
    """Its documented call, which counts success with a forward pass of its own."""
    from foolbox import PyTorchModel
    from foolbox.attacks import LinfPGD

    model = PyTorchModel(job.model, bounds=(0, 1), device="cpu")
    attack = LinfPGD(abs_stepsize=STEP_SIZE, steps=job.steps, random_start=True)
    return lambda: attack(model, job.x, job.y, epsilons=EPS)[1]


def torchattacks(job: Job) -> Callable[[], Tensor]:
    from torchattacks import PGD

    attack = PGD(job.model, eps=EPS, alpha=STEP_SIZE, steps=job.steps, random_start=True)
    return lambda: attack(job.x, job.y)


def art(job: Job) -> Callable[[], Tensor]:
    """NumPy in and out, as its users call it; counts success with a forward pass of its own."""
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    x, y = job.x.numpy(), F.one_hot(job.y, 10).numpy()
    classifier = PyTorchClassifier(
        job.model, nn.CrossEntropyLoss(), input_shape=x.shape[1:], nb_classes=10, clip_values=(0, 1), device_type="cpu"
    )
    attack = ProjectedGradientDescentPyTorch(
        classifier,
        eps=EPS,
        eps_step=STEP_SIZE,
        max_iter=job.steps,
        num_random_init=1,
        batch_size=len(x),
        verbose=False,
    )
    return lambda: torch.from_numpy(attack.generate(x, y))


CONTESTANTS: dict[str, Contestant] = {
    FLOOR: floor,
    "hand-written loop": hand_loop,
    "bascule perturb": bascule_perturb,
    "bascule attacked": bascule_attacked,
    "foolbox": foolbox,
    "torchattacks": torchattacks,
    "ART": art,
}
PACKAGES = {"foolbox": "foolbox", "torchattacks": "torchattacks", "ART": "adversarial-robustness-toolbox"}


def load(count: int) -> tuple[str, Tensor]:
    """Real MNIST test images where $BASCULE_DATA is set, else random bytes; the time does not depend on it."""
    if folder := os.environ.get("BASCULE_DATA"):
        test = Mnist().load([Path(folder)]).test
        return "MNIST test images", test.batch(torch.arange(count) % len(test))
    pixels = torch.randint(256, (count, 1, 28, 28), dtype=torch.uint8, generator=stream(0, "pixels"))
    return "random images", as_floats(pixels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_options(parser, rounds=9, batch=256)
    parser.add_argument("--steps", type=int, default=10, help="gradient steps (default 10)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)

    kind, x = load(options.batch)
    reference = MnistPaper().initialised((1, 28, 28), 10, seed=0).eval()
    with torch.no_grad():
        y = reference(x).argmax(1)  # labels that the random weights get right, so that there is something to attack

    calls: dict[str, Callable[[], Tensor]] = {}
    present = []
    for name, contestant in CONTESTANTS.items():
        try:
            for layout, form in LAYOUTS.items():
                model = copy.deepcopy(reference).to(memory_format=form)
                job = Job(model, x.contiguous(memory_format=form), y, options.steps)
                calls[f"{name}, {layout}"] = contestant(job)
        except ImportError as error:
            print(f"{name} is skipped: {error}")
        else:
            present.append(name)

    seconds = rounds_of(calls, rounds=options.rounds, clock=options.clock)
    base = seconds[min((f"{FLOOR}, {layout}" for layout in LAYOUTS), key=lambda name: statistics.median(seconds[name]))]
    losses = {name: loss_of(reference, call(), x, y, name) for name, call in calls.items()}
    rows = []
    for name in calls:
        median = statistics.median(seconds[name])
        loss = "" if name.startswith(FLOOR) else f"{losses[name]:.2f}"
        rows.append([name, f"{median:.3f}", ratio(seconds[name], base), f"{options.batch / median:.0f}", loss])
    print(
        f"PGD-{options.steps}, Linf, eps {EPS}, mnist-paper with random weights, {options.batch} {kind}, "
        f"{options.rounds} rounds, {options.clock} time"
    )
    print(machine([PACKAGES[name] for name in present if name in PACKAGES]))
    print()
    print_table(["what", "seconds", "times the floor (least - greatest)", "images/s", "mean loss"], rows)
    # Nobody may win by doing less: the gain in loss must be that of the hand-written loop, up to the random starts.
    clean = loss_of(reference, x, x, y, "no attack")
    print(f"\nMean loss without an attack: {clean:.2f}")
    least = clean + 0.95 * (losses["hand-written loop, contiguous"] - clean)
    weak = [name for name, loss in losses.items() if loss < least and not name.startswith(FLOOR)]
    if weak:
        raise SystemExit(f"not the same job: a clearly lower loss from {', '.join(weak)}")


def loss_of(model: nn.Module, found: Tensor, x: Tensor, y: Tensor, name: str) -> float:
    """Mean cross-entropy of the final images, which must lie in the ball."""
    if (found - x).abs().max() > EPS + 1e-5 or found.min() < 0 or found.max() > 1:
        raise SystemExit(f"{name} left the ball")
    with torch.no_grad():
        return F.cross_entropy(model(found), y).item()


if __name__ == "__main__":
    main()
