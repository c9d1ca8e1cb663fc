"""What a training step costs: as the loop takes it, and captured whole in a CUDA graph; and whether both end in the
same bytes.

    python benchmarks/gpu/steps.py [--device cuda|cpu] [--only TEXT] [--as-is] [--compile] [--layout planes|pixels]
        [--algorithms fixed|any|searched] [--profile] [--steps 20] [--batch N]

On the CPU, where nothing can be captured, the same steps are taken one by one: a rehearsal. `--as-is` leaves the
captured column out: several such processes at once show what sharing a device costs. `--compile` compiles the passes,
`--layout` is that of the images in memory, `--algorithms` what cuDNN may choose: deterministic, any, or the fastest
found by trying them. `--profile` lists the kernels that take longest instead.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bascule.core import catalog, rng
from bascule.core.images import Images
from bascule.core.lending import lending
from bascule.train import Objective
from bascule.train.compile import compile_model
from bascule.train.lipschitz import Lipschitz
from bascule.train.loop import Steps
from bascule.train.pgd import Pgd
from bascule.train.precision import Mixed
from bascule.train.settings import Augment, Training
from bascule.train.standard import Standard

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


class Captured:
    """The steps of a training as one CUDA graph. What changes from step to step lies in tensors that it reads.

    `Steps.take` sets learning rate and batch and seeds the generator; the rest, all that the device does, is captured.
    """

    def __init__(self, steps: Steps, net: nn.Module) -> None:
        self.steps, self.net = steps, net
        device = steps.images.device
        training, groups = steps.training, steps.optimizer.param_groups
        self.lr = torch.tensor(training.lr, device=device)
        groups = [{"params": g["params"], "weight_decay": g["weight_decay"]} for g in groups if g["params"]]
        if training.optimizer == "sgd":
            self.optimizer: torch.optim.Optimizer = torch.optim.SGD(groups, lr=self.lr, momentum=0.9, fused=True)
        else:
            self.optimizer = torch.optim.Adam(groups, lr=self.lr, fused=True)
        self.index = torch.zeros(training.batch_size, dtype=torch.int64, device=device)
        self.loss = torch.zeros((), device=device)
        self.generator = torch.Generator(device=device)
        self.graph: torch.cuda.CUDAGraph | None = None

    def prepare(self, number: int) -> None:
        """What of the step is not the device's work."""
        self.lr.fill_(self.steps.lr(number))
        self.index.copy_(batch_of(self.steps, number))
        seed = rng.derive(self.steps.seed, "step", number)
        self.generator.manual_seed(seed)
        torch.manual_seed(seed)

    def body(self) -> None:
        """What is the device's work."""
        training, images = self.steps.training, self.steps.images
        x = training.augment.apply(images.batch(self.index), generator=self.generator)
        labels = images.labels[self.index]
        loss = training.objective.loss(self.net, x, labels, progress=0.5, generator=self.generator)
        loss.backward()
        self.optimizer.step()
        self.loss.copy_(loss.detach())

    def take(self, number: int) -> None:
        """The step `number`."""
        self.prepare(number)
        if self.graph is not None:
            self.graph.replay()
        else:
            self.optimizer.zero_grad(set_to_none=True)
            self.body()

    def capture(self) -> None:
        """Warm up on a side stream, capture, and put the weights and the optimiser's state back."""
        kept = {name: value.clone() for name, value in self.steps.model.state_dict().items()}
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for number in range(3):
                self.take(number)
        torch.cuda.current_stream().wait_stream(side)
        self.optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.generator)
        with torch.cuda.graph(graph):
            self.body()
        self.graph = graph
        with torch.no_grad():
            for name, value in self.steps.model.state_dict().items():
                value.copy_(kept[name])
            for state in self.optimizer.state.values():
                for value in state.values():
                    if isinstance(value, Tensor):
                        value.zero_()


def batch_of(steps: Steps, number: int) -> Tensor:
    """Which images: the next ones in order, as if every epoch had the same order."""
    size, count = steps.training.batch_size, len(steps.images)
    return (torch.arange(size) + number * size % count).to(steps.images.device)


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


def measure(case: Case, given: argparse.Namespace) -> str:
    """A line of the table: as it is, captured, whether the bytes agree after six steps; or the kernels."""
    training, device, count = case.training, torch.device(given.device), given.steps
    images = case.images(device)
    fresh = catalog.build("models", case.model).initialised(case.size, 10, seed=0)
    layout = torch.channels_last if given.layout == "pixels" else torch.contiguous_format

    @contextmanager
    def made() -> Iterator[tuple[Steps, nn.Module]]:
        model = copy.deepcopy(fresh).to(device, memory_format=layout).train()
        with compile_model(model) if given.compile else nullcontext(model) as passes:
            net = (Mixed(passes) if training.precision == "bfloat16" else passes).train()
            with lending(net, classes=10):
                yield Steps(model, images, training, seed=0), net

    with made() as (steps, net):
        if given.profile:
            return kernels(lambda number: steps.take(net, number % 8))
        columns = [f"{milliseconds(lambda number: steps.take(net, number % 8), count, device):9.2f}"]
    if given.as_is:
        return columns[0]
    with made() as (plain, plain_net), made() as (other, other_net):
        one_by_one, captured = Captured(plain, plain_net), Captured(other, other_net)
        if device.type == "cuda":
            captured.capture()
        for number in range(6):
            one_by_one.take(number)
            captured.take(number)
        synchronise(device)
        pairs = list(zip(plain.model.state_dict().values(), other.model.state_dict().values(), strict=True))
        apart = max(float((a.double() - b.double()).abs().max()) for a, b in pairs)
        same = all(torch.equal(a, b) for a, b in pairs)
        columns.append(f"{milliseconds(captured.take, count, device):9.2f}")
    columns.append("same bytes" if same else f"apart by {apart:.1e}")
    return " ".join(columns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", default="", help="cases whose title holds this")
    parser.add_argument("--as-is", action="store_true")
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
    print(f"torch {torch.__version__}, {name}\n{'ms per step':46s} {'as it is':>9s} {'captured':>9s}")
    for title, case in cases().items():
        if given.only not in title:
            continue
        if given.batch:
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
