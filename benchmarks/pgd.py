"""What PGD costs beyond the model's own passes: Bascule, foolbox, torchattacks, ART and a hand-written loop.

The same job for all: `--steps` sign-gradient steps in a Linf ball from a random start, on networks with random weights.
The yardstick is the floor: as many bare forward and input-gradient passes, parameters frozen, in the faster of the two
memory layouts. Everyone is timed in both layouts.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from _interleaved import Result, Said, Timed, add_options, rounds_of, run
from torch import Tensor, nn

from bascule.attacks.pgd import Pgd
from bascule.attacks.run import run_attack
from bascule.core import catalog
from bascule.core.images import as_floats
from bascule.core.restore import untouched
from bascule.core.rng import stream
from bascule.data.mnist import Mnist

LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
DIGITS, MNIST, CIFAR = ((1, 8, 8), 0.2), ((1, 28, 28), 0.3), ((3, 32, 32), 8 / 255)
NETWORKS = {"digits-cnn": DIGITS, "mnist-fast": MNIST, "mnist-paper": MNIST, "resnet18": CIFAR, "resnet50": CIFAR}
"""Size of the images and radius of the ball."""
FLOOR = "floor (bare passes)"


@dataclass(frozen=True)
class Job:
    """What everyone is given. The model is its own copy, so that nobody's settings reach another one."""

    model: nn.Module
    x: Tensor
    y: Tensor
    eps: float
    steps: int

    @property
    def step_size(self) -> float:
        return self.eps / 6


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
        found = (x + torch.empty_like(x).uniform_(-job.eps, job.eps)).clamp(0, 1)
        for _ in range(job.steps):
            found = found + job.step_size * input_gradient(job.model, found, job.y).sign()
            found = torch.min(torch.max(found, x - job.eps), x + job.eps).clamp(0, 1)
        return found

    return call


def bascule_attack(job: Job) -> Pgd:
    return Pgd(eps=job.eps, steps=job.steps, step_size=job.step_size, stop_when_fooled=False)


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


def bascule_mixed(job: Job) -> Callable[[], Tensor]:
    """The same with gradients in bfloat16; float32 decides."""
    attack, generator = bascule_attack(job), stream(0, "benchmark")
    return lambda: run_attack(job.model, attack, job.x, job.y, generator=generator, precision="mixed").x


def foolbox(job: Job) -> Callable[[], Tensor]:
    """Its documented call, which counts success with a forward pass of its own."""
    from foolbox import PyTorchModel
    from foolbox.attacks import LinfPGD

    model = PyTorchModel(job.model, bounds=(0, 1), device="cpu")
    attack = LinfPGD(abs_stepsize=job.step_size, steps=job.steps, random_start=True)
    return lambda: attack(model, job.x, job.y, epsilons=job.eps)[1]


def torchattacks(job: Job) -> Callable[[], Tensor]:
    from torchattacks import PGD

    attack = PGD(job.model, eps=job.eps, alpha=job.step_size, steps=job.steps, random_start=True)
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
        eps=job.eps,
        eps_step=job.step_size,
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
    "bascule attacked, mixed": bascule_mixed,
    "foolbox": foolbox,
    "torchattacks": torchattacks,
    "ART": art,
}


def load(size: tuple[int, int, int], count: int) -> tuple[str, Tensor]:
    """Real MNIST test images where $BASCULE_DATA is set and they fit, else random bytes; the time is the same."""
    folder = os.environ.get("BASCULE_DATA")
    if folder and size == MNIST[0]:
        test = Mnist().load([Path(folder)]).test
        return "MNIST test images", test.batch(torch.arange(count) % len(test))
    pixels = torch.randint(256, (count, *size), dtype=torch.uint8, generator=stream(0, "pixels"))
    return "random images", as_floats(pixels)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_options(made, rounds=9, batch=256)
    made.add_argument("--steps", type=int, default=10, help="gradient steps (default 10)")
    made.add_argument("--layout", choices=LAYOUTS, nargs="+", default=list(LAYOUTS), help="default both")
    made.add_argument("--network", choices=NETWORKS, default="mnist-paper", help="default mnist-paper")
    return made


def measure(options: argparse.Namespace) -> Iterator[Result]:
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    size, eps = NETWORKS[options.network]
    kind, x = load(size, options.batch)
    reference = catalog.build("models", options.network).initialised(size, 10, seed=0).eval()
    with torch.no_grad():
        y = reference(x).argmax(1)  # labels that the random weights get right, so that there is something to attack
    calls: dict[str, Callable[[], Tensor]] = {}
    for name, contestant in CONTESTANTS.items():
        try:
            for layout in options.layout:
                form = LAYOUTS[layout]
                model = copy.deepcopy(reference).to(memory_format=form)
                job = Job(model, x.contiguous(memory_format=form), y, eps, options.steps)
                calls[f"{name}, {layout}"] = contestant(job)
        except ImportError as error:
            yield Said(f"{name} is skipped: {error}")
    seconds = rounds_of(calls, rounds=options.rounds, clock=options.clock)
    base = seconds[
        min((f"{FLOOR}, {layout}" for layout in options.layout), key=lambda name: statistics.median(seconds[name]))
    ]
    losses = {name: loss_of(reference, call(), x, y, eps, name) for name, call in calls.items()}
    title = f"PGD-{options.steps}, {options.network}, {options.batch} {kind}, eps {eps:.3g}"
    for name, times in seconds.items():
        found = {"images/s": f"{options.batch / statistics.median(times):.0f}"}
        found |= {} if name.startswith(FLOOR) else {"mean loss": f"{losses[name]:.2f}"}
        yield Timed(job=title, who=name, seconds=times, base=base, found=found)
    yield _same_job(losses, loss_of(reference, x, x, y, eps, "no attack"))


def _same_job(losses: Mapping[str, float], clean: float) -> Said:
    """Nobody may win by doing less: the gain in loss must be that of the hand-written loop, up to the random starts."""
    least = clean + 0.95 * (max(losses[name] for name in losses if name.startswith("hand-written loop")) - clean)
    weak = [name for name, loss in losses.items() if loss < least and not name.startswith(FLOOR)]
    if weak:
        raise SystemExit(f"not the same job: a clearly lower loss from {', '.join(weak)}")
    return Said(f"Mean loss without an attack: {clean:.2f}")


def loss_of(model: nn.Module, found: Tensor, x: Tensor, y: Tensor, eps: float, name: str) -> float:
    """Mean cross-entropy of the final images, which must lie in the ball."""
    if (found - x).abs().max() > eps + 1e-5 or found.min() < 0 or found.max() > 1:
        raise SystemExit(f"{name} left the ball")
    with torch.no_grad():
        return F.cross_entropy(model(found), y).item()


if __name__ == "__main__":
    run(parser(), measure)
