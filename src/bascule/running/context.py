"""What the cells of a run share, and what is known of one of them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from bascule.attacks.contract import Evasion
from bascule.attacks.run import run_attack
from bascule.core import rng
from bascule.core.ahead import Reading
from bascule.core.images import Images, Splits
from bascule.core.progress import Progress
from bascule.core.team import ALONE, Team
from bascule.data.contract import Source
from bascule.plan.plan import Cell
from bascule.record.cell import CellRecord
from bascule.record.run import RunRecord
from bascule.record.sums import check_sum
from bascule.running.provenance import own_command
from bascule.running.telling import Telling
from bascule.training.capture import check_captures
from bascule.training.compile import check_compiles
from bascule.triggers.contract import Found, Searched, Trigger
from bascule.triggers.found import FoundTrigger
from bascule.triggers.placement import Poison, Truth


class Reader:
    """Reads data from the folders that hold them."""

    def splits(self, source: Source, roots: Sequence[Path]) -> Splits:
        """Training and test images, on the CPU."""
        return source.load(roots)

    def held_out(self, source: Source, roots: Sequence[Path]) -> Images:
        """The images that a source holds out, on the CPU."""
        return source.load_held_out(roots)


@dataclass(frozen=True)
class Speed:
    """What is for speed and memory alone, and so no setting of a study: it changes no more than rounding."""

    compile_passes: bool = False
    """Compile the passes of training, where the objective allows it."""
    capture_steps: bool = False
    """Capture the steps of training as CUDA graphs, where the objective allows it."""
    reading: Reading = Reading()  # noqa: RUF009  (frozen)
    """How pictures on disk are decoded."""

    def check(self, device: torch.device) -> None:
        """See that it can be had on this device.

        Raises:
            RequestError: Nothing can be compiled or captured here.
        """
        if self.compile_passes:
            check_compiles(device)
        if self.capture_steps:
            check_captures(device)

    def with_reading(self, reading: Reading) -> Speed:
        """The same, with pictures decoded in this way."""
        return replace(self, reading=reading)


@dataclass
class RunContext:
    """Where the record is, device, data folders, the data read last, progress."""

    record: RunRecord
    device: torch.device
    roots: tuple[Path, ...]
    progress: Progress = field(default_factory=Progress)
    speed: Speed = field(default_factory=Speed)
    command: str = field(default_factory=own_command)
    """What somebody asked for, also where another process does it."""
    telling: Telling = field(default_factory=Telling)
    """What listens to the work on cells."""
    reader: Reader = field(default_factory=Reader)
    """Where data come from."""
    team: Team = ALONE
    """The processes that do each cell together, where there are several. All take the same way; the first alone reads
    and writes the record."""
    _key: str = ""
    _splits: Splits | None = None
    _held_out: Images | None = None

    def splits(self, source: Source) -> Splits:
        """Training and test images on the CPU; those of the last source used are kept."""
        key = repr(source)
        if self._splits is None or key != self._key:
            self._splits = self._held_out = None  # free the old ones before reading the new ones
            self._splits, self._key = self.team.alike(lambda: self.reader.splits(source, self.roots)), key
        return self._splits

    def held_out(self, source: Source) -> Images:
        """The images that a source holds out, on the CPU; those of the last source used are kept."""
        self.splits(source)
        if self._held_out is None:
            self._held_out = self.team.alike(lambda: self.reader.held_out(source, self.roots))
        return self._held_out


class NotMadeError(Exception):
    """A model that another one is made from is not there."""


class CellContext:
    """One cell in its run: its record, data and model, each read or made once."""

    def __init__(self, cell: Cell, run: RunContext) -> None:
        self.cell = cell
        self.run = run
        self.setup = cell.setup
        self.device = run.device
        self._found: dict[str, Trigger] = {}
        self.record: CellRecord = run.record.cell(cell.fingerprint)

    def of(self, other: Cell) -> CellContext:
        """Another cell in the same run."""
        return CellContext(other, self.run)

    def alone(self) -> CellContext:
        """The same cell, for work that this process does by itself."""
        return CellContext(self.cell, replace(self.run, team=ALONE))

    def generator(self, *purpose: str, device: torch.device | str | None = None) -> torch.Generator:
        """A fresh stream for one purpose, on the device of the run unless told otherwise."""
        return rng.stream(self.cell.seed, *purpose, device=self.device if device is None else device)

    @property
    def splits(self) -> Splits:
        """Training and test images, on the CPU."""
        return self.run.splits(self.setup.data)

    @cached_property
    def test(self) -> Images:
        """The test images, on the device."""
        return self.splits.test.to(self.device)

    @cached_property
    def training_set(self) -> tuple[Images, Truth | None]:
        """The training set with its poison, on the device, and which images are poisoned; None without poison."""
        poison = self.setup.poison
        if poison is None:
            return self.splits.train.to(self.device), None
        perturb = found = None
        if isinstance(poison, Poison) and self.cell.proxy is not None:
            perturb = None if poison.prepare is None else self._perturb(self.cell.proxy, poison.prepare)
            found = self._search(poison.search_key) if isinstance(poison.trigger, Searched) else None
        generator = self.generator("poison", device="cpu")
        train = self.splits.train
        images, truth = self.run.team.alike(
            lambda: poison.plant(train, generator=generator, perturb=perturb, found=found)
        )
        return images.to(self.device), truth

    def found(self, trigger: Trigger) -> Trigger:
        """The trigger itself, as test images show it, where it was searched for.

        Raises:
            NotMadeError: Its proxy has not been searched for it.
        """
        if not isinstance(trigger, FoundTrigger):
            return trigger
        if trigger.key not in self._found:
            self._found[trigger.key] = trigger.loaded(self._search(trigger.key))
        return self._found[trigger.key]

    def _search(self, key: str) -> Found:
        return self.run.team.first(lambda: self._recorded(key))

    def _recorded(self, key: str) -> Found:
        for proxy in self.cell.proxies:
            if any(question.key == key for question in proxy.questions):
                finding = self.of(proxy).record.finding(key)
                if finding is not None:
                    return {name: torch.from_numpy(values) for name, values in finding.arrays.items()}
        raise NotMadeError("the trigger is searched for on a model that was not made, or not searched yet")

    def _perturb(self, proxy: Cell, attack: object) -> functools.partial[Tensor]:
        assert isinstance(attack, Evasion)
        generator = self.generator("poison", "prepare")
        return functools.partial(
            _perturbed, self.of(proxy).load_model(), attack, device=self.device, generator=generator
        )

    @cached_property
    def held_out(self) -> Images:
        """The clean images that the cell's defender has, on the device: all that are held out, or as many as asked."""
        images, count = self.run.held_out(self.setup.data), self.setup.defender
        if count is not None:
            order = torch.randperm(len(images), generator=rng.stream(0, "defender", len(images)))
            images = images.at(order[:count].sort().values)
        return images.to(self.device)

    @cached_property
    def clean(self) -> Images:
        """Clean images on the device, whoever has them: all that are held out or, where none is, the training set
        before it was poisoned."""
        source = self.setup.data
        return (self.run.held_out(source) if source.held_out else self.splits.train).to(self.device)

    def empty_model(self, *, bare: bool = False) -> nn.Module:
        """The cell's network with its initial weights, on the device; without those of its file where `bare`."""
        train = self.splits.train
        complete = self.setup.train is None
        network = replace(self.setup.model, weights=None) if bare else self.setup.model
        model = self.run.team.alike(
            lambda: network.initialised(train.size, len(train.classes), seed=self.cell.seed, complete=complete)
        )
        # The first convolution brings the images into the layout of its weights, grey ones too (benchmarks/layout.py).
        return model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def load_model(self) -> nn.Module:
        """The cell's model from its record.

        Raises:
            NotMadeError: It is not there.
            RequestError: It is damaged.
        """
        team = self.run.team
        team.first(self._check_made)
        model = self.empty_model(bare=True)
        weights = team.first(lambda: self._read_into(model))
        if not team.leads:
            model.load_state_dict(weights)
        return model

    def _check_made(self) -> None:
        if not self.record.trained:
            why = self.record.failure() or "unknown"
            raise NotMadeError(f"it needs the model of {self.cell.label!r}, which was not made: {why}")
        check_sum(self.record.model_file)

    def _read_into(self, model: nn.Module) -> dict[str, Tensor]:
        safetensors.torch.load_model(model, self.record.model_file, device=str(self.device))
        return model.state_dict()


def _perturbed(
    model: nn.Module, attack: Evasion, x: Tensor, y: Tensor, *, device: torch.device, generator: torch.Generator
) -> Tensor:
    return run_attack(model, attack, x.to(device), y.to(device), generator=generator).x.to(x.device)
