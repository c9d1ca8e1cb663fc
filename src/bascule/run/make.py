"""Making a cell's model: plant the poison, filter, train, repair."""

from __future__ import annotations

import functools
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor, nn

from bascule.attack import Attack
from bascule.attack.run import run_attack
from bascule.core import rng
from bascule.core.files import write_atomically
from bascule.core.images import Images, Splits, as_bytes
from bascule.filter import Judged
from bascule.filter.run import run_filter
from bascule.plan.plan import Cell
from bascule.poison.placement import Poison, Truth, stamp
from bascule.record.cell import FILTERED, CellRecord
from bascule.record.run import RunRecord
from bascule.repair.run import run_repair
from bascule.run.context import RunContext
from bascule.run.provenance import provenance
from bascule.train.loop import train


def empty_model(cell: Cell, workshop: RunContext) -> nn.Module:
    """The cell's network with its initial weights, on the device."""
    splits = workshop.data(cell)
    model = cell.setup.model.initialised(splits.train.size, len(splits.train.classes), seed=cell.seed)
    # The first convolution brings the images into the layout of its weights, grey ones too (benchmarks/layout.py).
    return model.to(workshop.device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def load_model(cell: Cell, run: RunRecord, workshop: RunContext) -> nn.Module:
    """The cell's model from its record.

    Raises:
        NotMadeError: It is not there.
    """
    record = run.cell(cell.fingerprint)
    if not record.trained:
        raise NotMadeError(f"it needs the model of {cell.label!r}, which was not made: {record.failure() or 'unknown'}")
    model = empty_model(cell, workshop)
    safetensors.torch.load_model(model, record.model_file, device=str(workshop.device))
    return model


class NotMadeError(Exception):
    """A model that another one is made from is not there."""


def planted(cell: Cell, run: RunRecord, workshop: RunContext) -> tuple[Images, Truth | None]:
    """The cell's training set with its poison, on the device, and which images are poisoned; None without poison."""
    splits, poison = workshop.data(cell), cell.setup.poison
    if poison is None:
        return splits.train.to(workshop.device), None
    perturb = None
    if cell.proxy is not None:
        assert isinstance(poison.prepare, Attack)
        perturb = functools.partial(
            _perturbed,
            load_model(cell.proxy, run, workshop),
            poison.prepare,
            device=workshop.device,
            generator=rng.stream(cell.seed, "poison", "prepare", device=workshop.device),
        )
    images, truth = poison.plant(splits.train, generator=rng.stream(cell.seed, "poison"), perturb=perturb)
    return images.to(workshop.device), truth


def _perturbed(
    model: nn.Module, attack: Attack, x: Tensor, y: Tensor, *, device: torch.device, generator: torch.Generator
) -> Tensor:
    return run_attack(model, attack, x.to(device), y.to(device), generator=generator).x.to(x.device)


def make(cell: Cell, run: RunRecord, workshop: RunContext) -> nn.Module:
    """Make the cell's model and keep it with everything that tells how it was made.

    Raises:
        DivergedError: The training did not stay finite.
        NotMadeError: The model that it repairs, filters with or prepares poison on is not there.
        RequestError: The data cannot be read, or a defence does not fit them.
    """
    record = run.cell(cell.fingerprint)
    started, began = datetime.now(UTC), time.monotonic()
    notes: dict[str, Any] = {}
    if (repair := cell.setup.repair) is not None:
        assert cell.base is not None
        broken = load_model(cell.base, run, workshop)
        # A repair that needs no images is told the size of these only.
        images = workshop.data(cell).train.at(torch.tensor([0])).to(workshop.device)
        if repair.needs_images:
            images = workshop.held_out(cell)
        generator = rng.stream(cell.seed, "repair", device=workshop.device)
        with workshop.progress.stage("repair", 1):
            model, found = run_repair(broken, repair, images, generator=generator)
        notes |= {"poisoned": run.cell(cell.base.fingerprint).info().get("poisoned"), "repair": found}
    else:
        model = empty_model(cell, workshop)
        notes |= _train(cell, run, workshop, model)
    splits = workshop.data(cell)
    record.write_info(
        {
            "fingerprint": cell.fingerprint,
            "seed": cell.seed,
            "settings": cell.settings(),
            "given": cell.given,
            "data": {
                "train": len(splits.train),
                "test": len(splits.test),
                "size": list(splits.train.size),
                "classes": list(splits.train.classes),
            },
            "base": cell.base.fingerprint if cell.base else None,
            **notes,
            "parameters": sum(p.numel() for p in model.parameters()),
            "started": started.isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - began, 3),
            **provenance(workshop.device, command=workshop.command, compiled=_compiled(cell, workshop)),
            "failure": None,
        }
    )
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    write_atomically(record.model_file, lambda temporary: safetensors.torch.save_file(state, temporary))
    record.checkpoint_file.unlink(missing_ok=True)
    return model


# --- training --------------------------------------------------------------------------------------------------------


class _CheckpointFile:
    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> dict[str, Any] | None:
        if not self._path.is_file():
            return None
        # The optimiser moves what belongs on the device; its count of steps stays here, where it is read.
        return dict(torch.load(self._path, map_location="cpu", weights_only=True))

    def save(self, state: dict[str, Any]) -> None:
        write_atomically(self._path, lambda temporary: torch.save(state, temporary))


def _train(cell: Cell, run: RunRecord, workshop: RunContext, model: nn.Module) -> dict[str, Any]:
    """Train `model` in place on what the cell's recipe leaves of the planted set; what to note about it."""
    record = run.cell(cell.fingerprint)
    images, truth = planted(cell, run, workshop)
    if truth is not None:
        assert cell.setup.poison is not None
        _keep_poison(record, cell.setup.poison, truth, workshop.data(cell))
    notes: dict[str, Any] = {"poisoned": 0 if truth is None else len(truth.ids)}
    if cell.setup.filter is not None:
        images = _filtered(cell, run, workshop, images, truth)
        notes["trained_on"] = len(images)
    epochs = cell.setup.train.epochs

    def report(step: int, total: int, loss: float, lr: float) -> None:
        epoch = min(epochs, 1 + step * epochs // total)
        workshop.progress.update(step, f"epoch {epoch}/{epochs}  loss {loss:.3f}  lr {lr:.2g}")

    with workshop.progress.stage("train", epochs * cell.setup.train.steps_per_epoch(len(images))):
        curve = train(
            model,
            images,
            cell.setup.train,
            seed=cell.seed,
            checkpoints=_CheckpointFile(record.checkpoint_file),
            compile_passes=workshop.compile_passes,
            report=report,
        )
    record.write_curve(curve)
    return notes


def _compiled(cell: Cell, workshop: RunContext) -> bool:
    """Whether the passes of the cell's training were compiled."""
    return workshop.compile_passes and cell.setup.repair is None and cell.setup.train.objective.compiles


def _filtered(cell: Cell, run: RunRecord, workshop: RunContext, images: Images, truth: Truth | None) -> Images:
    """What the recipe's filter leaves, judged once and kept: a continued training goes on with the same images."""
    assert cell.base is not None
    assert cell.setup.filter is not None
    record = run.cell(cell.fingerprint)
    known = record.finding(FILTERED)
    if known is None:
        began = time.monotonic()
        generator = rng.stream(cell.seed, "filter", device=workshop.device)
        with workshop.progress.stage("filter", 1):
            found = run_filter(load_model(cell.base, run, workshop), cell.setup.filter, images, generator=generator)
        info = {"kind": "filter", "seconds": round(time.monotonic() - began, 3), **said(found)}
        arrays = judgement(images, truth, found.score, found.removed)
        record.add_finding(FILTERED, arrays, info)
        removed = arrays["removed"]
    else:
        removed = known.arrays["removed"]
    return images.at(torch.from_numpy(np.flatnonzero(~removed)).to(images.device))


def judgement(images: Images, truth: Truth | None, score: Tensor, removed: Tensor) -> dict[str, np.ndarray]:
    """What a filter said of a training set beside the truth, as it is kept."""
    poisoned = torch.zeros(len(images), dtype=torch.bool)
    if truth is not None:
        poisoned = torch.isin(images.ids.cpu(), truth.ids.cpu())
    arrays = {"id": images.ids, "label": images.labels, "score": score, "removed": removed, "poisoned": poisoned}
    return {name: values.cpu().numpy() for name, values in arrays.items()}


def said(found: Judged) -> dict[str, Any]:
    """What is kept beside a judgement: how many images it removes, and what its rule could not do."""
    return {"removed": int(found.removed.sum()), "notes": list(found.notes)}


# --- what is kept of the poison --------------------------------------------------------------------------------------


_EXAMPLES = 8


def _keep_poison(record: CellRecord, poison: Poison, truth: Truth, splits: Splits) -> None:
    """Which images were poisoned, and a picture of one test image a class without (above) and with (below) it."""
    table = pa.table({key: getattr(truth, key).cpu().numpy() for key in ("ids", "labels_before", "labels_after")})
    write_atomically(record.artefacts / "poison.parquet", lambda temporary: pq.write_table(table, temporary))
    others = [label for label in range(len(splits.test.classes)) if label != poison.target]
    found = ((splits.test.labels == label).nonzero().squeeze(1)[:1] for label in others)
    places = torch.cat([place for place in found if len(place)][:_EXAMPLES])
    x = splits.test.batch(places)
    marked = stamp(poison.trigger_at_test, x, generator=rng.stream(0, "examples"))
    sheet = torch.cat([torch.cat(list(part), dim=2) for part in (x, marked)], dim=1)
    pixels = as_bytes(sheet).permute(1, 2, 0).numpy()
    picture = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
    write_atomically(record.artefacts / "trigger.png", lambda temporary: picture.save(temporary, format="PNG"))
