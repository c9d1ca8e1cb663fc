"""What the cells of a run share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from bascule.core import rng
from bascule.core.images import Images, Splits
from bascule.core.progress import Progress
from bascule.plan.plan import Cell
from bascule.run.provenance import own_command


@dataclass
class RunContext:
    """Device, data folders, loaded data, progress."""

    device: torch.device
    roots: tuple[Path, ...]
    progress: Progress = field(default_factory=Progress)
    compile_passes: bool = False
    """Compile the passes of training; for speed, and so no setting of a study."""
    command: str = field(default_factory=own_command)
    """What somebody asked for, also where another process does it."""
    _data_key: str = ""
    _data: Splits | None = None
    _held_out: Images | None = None

    def data(self, cell: Cell) -> Splits:
        """The cell's data on the CPU; the last source used is kept."""
        key = repr(cell.setup.data)
        if self._data is None or key != self._data_key:
            self._data = self._held_out = None  # free the old ones before reading the new ones
            self._data, self._data_key = cell.setup.data.load(self.roots), key
        return self._data

    def held_out(self, cell: Cell) -> Images:
        """The clean images that the cell's defender has, on the device: all that are held out, or as many as asked."""
        self.data(cell)
        if self._held_out is None:
            self._held_out = cell.setup.data.load_held_out(self.roots)
        images = self._held_out
        if cell.setup.defender is not None:
            order = torch.randperm(len(images), generator=rng.stream(0, "defender", len(images)))
            images = images.at(order[: cell.setup.defender].sort().values)
        return images.to(self.device)
