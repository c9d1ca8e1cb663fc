"""PGD-40 with 5 restarts on trained models, batch by batch: Bascule, foolbox, torchattacks and ART.

All take sign-gradient steps of eps / 6 in a Linf ball from uniform starts on the same images in the same memory layout,
through each package's own way to restart. They take turns batch by batch. The yardstick is the floor: as many bare
forward and input-gradient passes of the same network as 40 steps and 5 restarts of all images are.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from _cells import Trained, cells, standing
from _cells import add_options as add_cells
from _interleaved import CLOCKS, Result, Said, Timed, add_clock, run
from torch import Tensor, nn

from bascule.attacks.pgd import Pgd
from bascule.attacks.run import run_attack
from bascule.attacks.two_precisions import Precision
from bascule.core.rng import stream

STEPS, RESTARTS = 40, 5
FLOOR = "floor (bare passes)"
Call = Callable[[Tensor, Tensor], Tensor]


def floor(model: nn.Module, eps: float) -> Call:
    model.requires_grad_(False)

    def call(x: Tensor, y: Tensor) -> Tensor:
        z = x.clone().requires_grad_(True)
        for _ in range(STEPS * RESTARTS):
            torch.autograd.grad(F.cross_entropy(model(z), y, reduction="sum"), z)
        return x

    return call


def bascule(model: nn.Module, eps: float, precision: Precision = "float32") -> Call:
    attack = Pgd(eps=eps, steps=STEPS, step_size=eps / 6, restarts=RESTARTS)
    return lambda x, y: run_attack(model, attack, x, y, generator=stream(0, "benchmark"), precision=precision).x


def foolbox(model: nn.Module, eps: float) -> Call:
    from foolbox import PyTorchModel
    from foolbox.attacks import LinfPGD

    wrapped = PyTorchModel(model, bounds=(0, 1), device="cpu")
    attack = LinfPGD(abs_stepsize=eps / 6, steps=STEPS, random_start=True).repeat(RESTARTS)
    return lambda x, y: attack(wrapped, x, y, epsilons=eps)[1]


def torchattacks(model: nn.Module, eps: float) -> Call:
    """It has no restarts; its wrapper for several attacks gives each the images that the ones before it left."""
    from torchattacks import PGD, MultiAttack

    return MultiAttack([PGD(model, eps=eps, alpha=eps / 6, steps=STEPS, random_start=True) for _ in range(RESTARTS)])


def art(model: nn.Module, eps: float) -> Call:
    """NumPy in and out, as its users call it."""
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    def call(x: Tensor, y: Tensor) -> Tensor:
        classes = int(model(x[:1]).shape[1])
        classifier = PyTorchClassifier(
            model, nn.CrossEntropyLoss(), tuple(x.shape[1:]), classes, clip_values=(0, 1), device_type="cpu"
        )
        attack = ProjectedGradientDescentPyTorch(
            classifier,
            eps=eps,
            eps_step=eps / 6,
            max_iter=STEPS,
            num_random_init=RESTARTS,
            batch_size=len(x),
            verbose=False,
        )
        return torch.from_numpy(attack.generate(x.numpy(), F.one_hot(y, classes).numpy()))

    return call


CONTESTANTS: dict[str, Callable[[nn.Module, float], Call]] = {
    FLOOR: floor,
    "bascule": bascule,
    "bascule, mixed": partial(bascule, precision="mixed"),
    "foolbox": foolbox,
    "torchattacks": torchattacks,
    "ART": art,
}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_cells(made, images=1000)
    made.add_argument("--eps", type=float, default=0.3, help="radius of the Linf ball (default 0.3)")
    made.add_argument("--batch", type=int, default=250, help="images per call (default 250)")
    add_clock(made)
    return made


def measure(options: argparse.Namespace) -> Iterator[Result]:
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    for trained in cells(options):
        yield from compare(trained, options)


def compare(trained: Trained, options: argparse.Namespace) -> Iterator[Result]:
    now, calls = CLOCKS[options.clock], {}
    for name, make in CONTESTANTS.items():
        try:
            calls[name] = make(copy.deepcopy(trained.model), options.eps)
        except ImportError as error:
            yield Said(f"{name} is skipped: {error}")
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    left: dict[str, int] = dict.fromkeys(calls, 0)
    for first in range(0, len(trained.y), options.batch):
        part = trained.at(slice(first, first + options.batch))
        for name, call in calls.items():
            began = now()
            found = call(part.x, part.y)
            seconds[name].append(now() - began)
            left[name] += int(standing(part, found, options.eps, name).sum())
    right = f"{len(trained.y)} of {trained.images} images right"
    job = f"PGD-{STEPS} x {RESTARTS}, {trained.name}, {right}, eps {options.eps}"
    for name, times in seconds.items():
        robust = {} if name == FLOOR else {"robust accuracy": f"{100 * left[name] / trained.images:.2f} %"}
        yield Timed(job=job, who=name, seconds=times, base=seconds[FLOOR], whole=True, found=robust)


if __name__ == "__main__":
    run(parser(), measure)
