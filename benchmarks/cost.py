"""What a study costs: the floating-point operations of its trainings and attacks, counted, and the hours they take.

    python benchmarks/cost.py STUDY... [--scale NAME] [--images 2] [--teraflops 24 65]

Nothing is trained and no data are read: a step of each model is taken, and each attack and bound is put to a few images
of noise, while torch counts the operations of products and convolutions (`torch.utils.flop_counter`; a multiplication
and an addition are two). They are multiplied by images, epochs and test images of the real sets. No image counts as
fooled before the last attack, so that what attacks cost is an upper bound. Searches for triggers, filters, scanners,
detectors, repairs and explanations are not counted; a table whose rows have any says so.

Hours are operations divided by what a device does in a second, which is no property of the device alone:
docs/scale.md says what was measured.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from bascule.attacks.run import to_its_end
from bascule.core.catalog import component
from bascule.core.images import Images, Splits
from bascule.core.lending import lending
from bascule.data.contract import Facts, Source, named_classes
from bascule.evaluation.kinds import kinds
from bascule.evaluation.question import Question
from bascule.evaluation.subject import Subject
from bascule.plan.document import read_study
from bascule.plan.overrides import parse_override
from bascule.plan.plan import Cell, Plan
from bascule.plan.resolve import make_plan
from bascule.training.settings import Training
from bascule.training.steps import Steps

SIZES = {
    "mnist": (1, 28, 10, 60_000, 10_000),
    "cifar10": (3, 32, 10, 50_000, 10_000),
    "imagenet": (3, 224, 1000, 1_281_167, 50_000),
}
"""Channels, height and width, classes, training images, test images, by data source; a folder stands for ImageNet."""
ATTACKS = ("attack", "attack-triggered", "curve")
COUNTED = ("clean", "triggered", "certify", *ATTACKS)


class Operations(TorchDispatchMode):
    """Counts those of products and convolutions inside the block.

    Not torch's own `FlopCounterMode`, which follows modules with hooks that `torch.autograd.grad` does not take.
    """

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if (count := flop_registry.get(func._overloadpacket)) is not None:
            self.total += count(*args, **kwargs, out_val=out)
        return out


@component
class Noise(Source):
    """As many images of noise as a real set has, of which none is held in memory."""

    like: str = "mnist"
    """One of `SIZES`."""

    remote: ClassVar[None] = None

    def read(self, roots: Sequence[Path]) -> Splits:
        raise NotImplementedError("no images are read here")

    def peek(self, roots: Sequence[Path]) -> Facts:
        channels, side, classes, train, test = SIZES[self.like]
        return Facts(
            size=(channels, side, side),
            classes=named_classes(classes),
            train_labels=torch.arange(train) % classes,
            test_labels=torch.arange(test) % classes,
            digest="noise",
        )

    def check(self, roots: Sequence[Path], *, deep: bool = False) -> None:
        pass


@dataclass(frozen=True)
class Counted:
    """Operations of one model, by what they are spent on."""

    training: float
    evaluation: float
    steps: int
    """Of the training."""
    left_out: frozenset[str]
    """What it is asked, or goes through, besides."""


class Counting:
    """Counts for the cells of one study; what two of them share is counted once."""

    def __init__(self, like: str, images: int) -> None:
        channels, side, classes, self.train, self.test = SIZES[like]
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(256, (images, channels, side, side), generator=generator, dtype=torch.uint8)
        places = torch.arange(images)
        self.images = Images(pixels=pixels, labels=places % classes, ids=places, classes=named_classes(classes))
        self._known: dict[str, float] = {}

    def of(self, cell: Cell) -> Counted:
        model = cell.setup.model.initialised(self.images.size, len(self.images.classes), seed=0)
        model = model.to(memory_format=torch.channels_last)
        training, steps = self._training(cell, model)
        left_out = {question.kind for question in cell.questions} - set(COUNTED)
        left_out |= {name for name in ("filter", "repair") if getattr(cell.setup, name) is not None}
        subject = self._subject(cell, model.eval())
        evaluation = sum(self._asked(subject, question) for question in cell.questions if question.kind in COUNTED)
        return Counted(training, evaluation, steps, frozenset(left_out))

    def _training(self, cell: Cell, model: nn.Module) -> tuple[float, int]:
        training = cell.setup.train
        if training is None or cell.setup.repair is not None:
            return 0.0, 0
        steps = training.epochs * training.steps_per_epoch(self.train)
        small = replace(training, batch_size=len(self.images), precision="float32")
        key = f"{cell.setup.model} {replace(small, lr=1.0, epochs=1, schedule='constant', milestones=())}"
        if key not in self._known:
            self._known[key] = self._step(model, small) / len(self.images)
        return self._known[key] * steps * min(training.batch_size, self.train), steps

    def _step(self, model: nn.Module, training: Training) -> float:
        """Operations of a step: in the middle of the training, where ramps are half way."""
        steps = Steps(model, self.images, training, seed=0)
        model.train()
        with lending(model, classes=len(self.images.classes)):
            steps.prepare(0)
            with Operations() as counter:
                steps.descend(
                    model, self.images.batch(torch.arange(len(self.images))), self.images.labels, progress=0.5
                )
        return float(counter.total)

    def _subject(self, cell: Cell, model: nn.Module) -> Subject:
        with torch.no_grad():
            labels = model(self.images.batch(torch.arange(len(self.images)))).argmax(1)
        right = {question.key: labels.numpy() for question in cell.questions}
        test = replace(self.images, labels=labels)
        return Subject(model=model, test=test, seed=0, questions=cell.questions, predictions=right)

    def _asked(self, subject: Subject, question: Question) -> float:
        key = f"{type(subject.model)} {sum(p.numel() for p in subject.model.parameters())} {question.key}"
        if key not in self._known:
            wanted = subject.labels == subject.labels
            with Operations() as counter:
                if question.kind in ATTACKS:
                    attack = to_its_end(question.component)
                    subject.under_attack(question, attack, subject.model, wanted, subject.test.labels)
                else:
                    kinds()[question.kind].answer(question, subject)
            self._known[key] = float(counter.total) / len(self.images)
        return self._known[key] * self.test


def plan_of(study: str, scale: str | None) -> tuple[Plan, str]:
    """The study on noise instead of its data, with one seed."""
    document = read_study(study)
    data = document.content["base"]["data"]
    name = data["name"] if isinstance(data, dict) else data
    like = "imagenet" if name == "folder" else name
    if like not in SIZES:
        raise SystemExit(f"{study}: the size of {name} is not known here; known are {', '.join(SIZES)}")
    noise = f"data={{name: '{Path(__file__).resolve()}:Noise', like: {like}, held_out: 5000}}"
    overrides = [parse_override(text) for text in (noise, "seeds=1")]
    return make_plan(document, overrides=overrides, scale=scale, roots=[Path()]), like


def table(study: str, options: argparse.Namespace) -> Iterator[str]:
    """Markdown: a line for each row with its twins, and their sum."""
    plan, like = plan_of(study, options.scale)
    counting = Counting(like, options.images)
    counted = {cell.fingerprint: counting.of(cell) for cell in plan.cells()}
    rates = [f"hours at {rate:g} TFLOP/s" for rate in options.teraflops]
    sizes = f"{counting.train:,} training and {counting.test:,} test images"
    yield f"**{plan.name}, scale {plan.scale}**, one seed, {sizes}"
    yield ""
    yield f"| row | models | steps | training PFLOP | evaluation PFLOP | {' | '.join(rates)} |"
    yield "| --- | " + " | ".join(["---:"] * (4 + len(rates))) + " |"
    for row in plan.rows:
        models = [counted[cell.fingerprint] for cell in (*row.cells, *row.twins)]
        yield _line(row.label, models, options.teraflops)
    yield _line("all, each model once", list(counted.values()), options.teraflops)
    if left_out := sorted(frozenset().union(*(one.left_out for one in counted.values()))):
        yield f"\nNot counted: {', '.join(left_out)}."


def _line(name: str, models: Sequence[Counted], teraflops: Sequence[float]) -> str:
    training = sum(model.training for model in models)
    evaluation = sum(model.evaluation for model in models)
    hours = [f"{(training + evaluation) / (rate * 1e12 * 3600):.3g}" for rate in teraflops]
    steps = max(model.steps for model in models)
    values = [str(len(models)), f"{steps:,}", *(f"{part / 1e15:,.3g}" for part in (training, evaluation)), *hours]
    return f"| {name} | {' | '.join(values)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="+", metavar="STUDY")
    parser.add_argument("--scale", help="by default each study's first")
    parser.add_argument("--teraflops", type=float, nargs="+", default=[24, 65], help="done in a second, in 10^12")
    parser.add_argument("--images", type=int, default=2, help="images of noise that operations are counted on")
    options = parser.parse_args()
    for study in options.studies:
        print(*table(study, options), sep="\n", end="\n\n", flush=True)


if __name__ == "__main__":
    main()
