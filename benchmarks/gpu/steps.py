"""What a training step costs as the loop takes it: one by one, and captured (`bascule run --capture`); and whether both
end in the same bytes.

    python benchmarks/gpu/steps.py [--device cuda|cpu] [--only TEXT] [--way both|as-is|captured] [--compile]
        [--layout planes|pixels] [--algorithms fixed|any|searched] [--profile] [--steps 20] [--batch N]

On the CPU the capture is rehearsed (`training/rehearsal.py`), which says that it runs and nothing of its speed. Several
processes with one `--way` at once show what sharing a device costs. `--compile` compiles the passes, `--layout` is that
of the images in memory, `--algorithms` what cuDNN may choose: deterministic, any, or the fastest found by trying them.
`--profile` lists the kernels that take longest instead.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch

from bascule.core import catalog, rng
from bascule.core.images import Images
from bascule.core.lending import lending
from bascule.training.capture import capturing
from bascule.training.compile import compile_model
from bascule.training.contract import Objective
from bascule.training.lipschitz import Lipschitz
from bascule.training.pgd import Pgd
from bascule.training.precision import Mixed
from bascule.training.settings import Augment, Training
from bascule.training.standard import Standard
from bascule.training.steps import Steps

CIFAR = Pgd(eps=8 / 255, steps=5, step_size=2 / 255, batch_norm="batch")
MNIST = Pgd(eps=0.3, steps=10, step_size=0.05)
LIPSCHITZ = Lipschitz(inner=CIFAR, estimate="random")


@dataclass(frozen=True)
class Case:
    """A training whose step is timed."""

    model: dict[str, object]
    objective: Objective
    batch: int
    size: tuple[int, int, int] = (3, 32, 32)

    @property
    def training(self) -> Training:
        grey = self.size[0] == 1
        return Training(
            objective=self.objective,
            epochs=1,
            batch_size=self.batch,
            optimizer="adam" if grey else "sgd",
            lr=1e-4 if grey else 0.01,
            precision="float32" if grey else "bfloat16",
            augment=Augment() if grey else Augment(pad=2, flip=True),
        )

    def images(self, device: torch.device) -> Images:
        """Noise, for eight batches."""
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(256, (8 * self.batch, *self.size), generator=generator, dtype=torch.uint8)
        places = torch.arange(len(pixels))
        return Images(pixels=pixels, labels=places % 10, ids=places, classes=tuple("0123456789")).to(device)


def cases() -> dict[str, Case]:
    paper: dict[str, object] = {"name": "cifar-paper"}
    return {
        "cifar-paper, PGD-5, batch 128": Case(paper, CIFAR, 128),
        "cifar-paper, PGD-5, batch 256": Case(paper, CIFAR, 256),
        "cifar-paper, PGD-5, batch 512": Case(paper, CIFAR, 512),
        "cifar-paper, standard, batch 512": Case(paper, Standard(), 512),
        "cifar-paper, Lipschitz + PGD-5, batch 512": Case(paper, LIPSCHITZ, 512),
        "cifar-paper with denoising, PGD-5, batch 512": Case({**paper, "denoise": True}, CIFAR, 512),
        "mnist-paper, PGD-10, batch 100": Case({"name": "mnist-paper"}, MNIST, 100, (1, 28, 28)),
        "resnet18 of 128 pixels, PGD-5, batch 128": Case({"name": "resnet18"}, CIFAR, 128, (3, 128, 128)),
    }


def milliseconds(take: Callable[[int], object], count: int, device: torch.device) -> float:
    """Per step: the median of three rounds of `count`, after one that does not count."""
    took = []
    for turn in range(4):
        synchronise(device)
        began = time.perf_counter()
        for number in range(count):
            take(turn * count + number)
        synchronise(device)
        took.append(1000 * (time.perf_counter() - began) / count)
    return statistics.median(took[1:])


def kernels(take: Callable[[int], object]) -> str:
    """What takes the device longest in three steps."""
    for number in range(3):
        take(number)
    with torch.profiler.profile() as profile:
        for number in range(3):
            take(number)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    order = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    return "\n" + profile.key_averages().table(sort_by=order, row_limit=40, max_name_column_width=90)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


Take = Callable[[int], object]


def measure(case: Case, given: argparse.Namespace) -> str:
    """A line of the table: as it is, captured, whether the bytes agree after six steps; or the kernels."""
    training, device, count = case.training, torch.device(given.device), given.steps
    images = case.images(device)
    fresh = catalog.build("models", case.model).initialised(case.size, 10, seed=0)
    layout = torch.channels_last if given.layout == "pixels" else torch.contiguous_format

    @contextmanager
    def made(captured: bool) -> Iterator[tuple[Steps, Take]]:
        model = copy.deepcopy(fresh).to(device, memory_format=layout).train()
        with compile_model(model) if given.compile else nullcontext(model) as passes:
            net = (Mixed(passes) if training.precision == "bfloat16" else passes).train()
            steps = Steps(model, images, training, seed=0)
            taking = capturing(steps, net) if captured else nullcontext(partial(steps.take, net))
            with lending(net, classes=10), rng.borrowed_global_stream(0, "train"), taking as take:
                yield steps, take

    if given.profile:
        with made(given.way == "captured") as (_, take):
            return kernels(take)
    ways = [way for way in ("as-is", "captured") if given.way in (way, "both")]
    columns, states = [], []
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for way in ways:
            with made(way == "captured") as (steps, take):
                for number in range(6):
                    take(number)
                states.append([value.clone() for value in steps.model.state_dict().values()])
                columns.append(f"{milliseconds(take, count, device):9.2f}")
    if len(states) == 2:
        pairs = list(zip(*states, strict=True))
        apart = max(float((a.double() - b.double()).abs().max()) for a, b in pairs)
        same = all(torch.equal(a, b) for a, b in pairs)
        columns.append("same bytes" if same else f"apart by {apart:.1e}")
    refused = [str(one.message) for one in told if str(one.message).startswith("steps are not captured")]
    return " ".join([*columns, *refused[:1]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", default="", help="cases whose title holds this")
    parser.add_argument("--way", choices=["both", "as-is", "captured"], default="both")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--layout", choices=["planes", "pixels"], default="pixels")
    parser.add_argument("--algorithms", choices=["fixed", "any", "searched"], default="fixed")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, help="instead of the case's own: for a rehearsal")
    given = parser.parse_args()
    device = torch.device(given.device)
    torch.backends.cudnn.deterministic = given.algorithms == "fixed"
    torch.backends.cudnn.benchmark = given.algorithms == "searched"
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    heads = {"as-is": f"{'as it is':>9s}", "captured": f"{'captured':>9s}"}
    heads["both"] = f"{heads['as-is']} {heads['captured']}"
    print(f"torch {torch.__version__}, {name}\n{'ms per step':46s} {heads[given.way]}")
    for title, case in cases().items():
        if given.only not in title:
            continue
        if given.batch:
            title = title.replace(f"batch {case.batch}", f"batch {given.batch}")
            case = Case(case.model, case.objective, given.batch, case.size)
        try:
            line = measure(case, given)
        except Exception as error:  # a case that cannot be captured leaves the others be
            line = f"failed: {type(error).__name__}: {str(error).splitlines()[0][:100]}"
        print(f"{title:46s} {line}", flush=True)
        if device.type == "cuda":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
