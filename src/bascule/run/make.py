"""Making a cell's model: plant the poison, filter, train, repair."""

from __future__ import annotations

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
from torch import nn

from bascule.core import rng
from bascule.core.files import write_atomically
from bascule.core.images import Images, as_bytes
from bascule.evaluation.truth import beside_truth
from bascule.filter.run import run_filter
from bascule.poison.placement import Poison, Truth, stamp
from bascule.record.cell import FILTERED
from bascule.repair.run import run_repair
from bascule.run.context import CellContext
from bascule.run.provenance import provenance
from bascule.train.loop import train


def make_model(context: CellContext) -> nn.Module:
    """Make the cell's model and keep it with everything that tells how it was made.

    Raises:
        DivergedError: The training did not stay finite.
        NotMadeError: The model that it repairs, filters with or prepares poison on is not there.
        RequestError: The data cannot be read, or a defence does not fit them.
    """
    started, began = datetime.now(UTC), time.monotonic()
    if context.setup.repair is not None:
        model, notes = _repaired(context)
    else:
        model = context.empty_model()
        notes = _train(context, model)
    cell, run, (train_set, test_set) = context.cell, context.run, context.splits
    context.record.write_info(
        {
            "fingerprint": cell.fingerprint,
            "seed": cell.seed,
            "settings": cell.settings(),
            "given": cell.given,
            "data": {
                "train": len(train_set),
                "test": len(test_set),
                "size": list(train_set.size),
                "classes": list(train_set.classes),
            },
            "base": cell.base.fingerprint if cell.base else None,
            **notes,
            "parameters": sum(p.numel() for p in model.parameters()),
            "started": started.isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - began, 3),
            **provenance(context.device, command=run.command, compiled=_compiled(context)),
            "failure": None,
        }
    )
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    write_atomically(context.record.model_file, lambda temporary: safetensors.torch.save_file(state, temporary))
    context.record.checkpoint_file.unlink(missing_ok=True)
    return model


def _compiled(context: CellContext) -> bool:
    """Whether the passes of the cell's training were compiled."""
    return context.run.compile_passes and context.setup.repair is None and context.setup.train.objective.compiles


# --- repair ----------------------------------------------------------------------------------------------------------


def _repaired(context: CellContext) -> tuple[nn.Module, dict[str, Any]]:
    """The model of the cell's base, repaired, and what to note about it."""
    repair = context.setup.repair
    assert context.cell.base is not None
    assert repair is not None
    base = context.of(context.cell.base)
    broken = base.load_model()
    # A repair that needs no images is told the size of these only.
    one = context.splits.train.at(torch.tensor([0])).to(context.device)
    images = context.held_out if repair.needs_images else one
    with context.run.progress.stage("repair", 1):
        model, changes = run_repair(broken, repair, images, generator=context.generator("repair"))
    return model, {"poisoned": base.record.info().get("poisoned"), "repair": changes}


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


def _train(context: CellContext, model: nn.Module) -> dict[str, Any]:
    """Train `model` in place on what the cell's recipe leaves of the planted set; what to note about it."""
    images, truth = context.training_set
    if truth is not None:
        _keep_poison(context, truth)
    notes: dict[str, Any] = {"poisoned": 0 if truth is None else len(truth.ids)}
    if context.setup.filter is not None:
        images = _filtered(context, images, truth)
        notes["trained_on"] = len(images)
    training, progress = context.setup.train, context.run.progress

    def report(step: int, total: int, loss: float, lr: float) -> None:
        epoch = min(training.epochs, 1 + step * training.epochs // total)
        progress.update(step, f"epoch {epoch}/{training.epochs}  loss {loss:.3f}  lr {lr:.2g}")

    with progress.stage("train", training.epochs * training.steps_per_epoch(len(images))):
        curve = train(
            model,
            images,
            training,
            seed=context.cell.seed,
            checkpoints=_CheckpointFile(context.record.checkpoint_file),
            compile_passes=context.run.compile_passes,
            report=report,
        )
    context.record.write_curve(curve)
    return notes


def _filtered(context: CellContext, images: Images, truth: Truth | None) -> Images:
    """What the recipe's filter leaves, judged once and kept: a continued training goes on with the same images."""
    assert context.cell.base is not None
    assert context.setup.filter is not None
    judged = context.record.finding(FILTERED)
    if judged is None:
        began = time.monotonic()
        judge = context.of(context.cell.base).load_model()
        with context.run.progress.stage("filter", 1):
            answer = beside_truth(
                run_filter(judge, context.setup.filter, images, generator=context.generator("filter")), images, truth
            )
        info = {"kind": "filter", "seconds": round(time.monotonic() - began, 3), **answer.notes}
        arrays = {name: values.cpu().numpy() for name, values in answer.arrays.items()}
        context.record.add_finding(FILTERED, arrays, info)
    else:
        arrays = judged.arrays
    return images.at(torch.from_numpy(np.flatnonzero(~arrays["removed"])).to(images.device))


# --- what is kept of the poison --------------------------------------------------------------------------------------


_EXAMPLES = 8


def _keep_poison(context: CellContext, truth: Truth) -> None:
    """Which images were poisoned, and a picture of one test image a class without (above) and with (below) it."""
    poison, test, artefacts = context.setup.poison, context.splits.test, context.record.artefacts
    assert poison is not None
    table = pa.table({key: getattr(truth, key).cpu().numpy() for key in ("ids", "labels_before", "labels_after")})
    write_atomically(artefacts / "poison.parquet", lambda temporary: pq.write_table(table, temporary))
    picture = _examples(poison, test)
    write_atomically(artefacts / "trigger.png", lambda temporary: picture.save(temporary, format="PNG"))


def _examples(poison: Poison, test: Images) -> Image.Image:
    others = [label for label in range(len(test.classes)) if label != poison.target]
    of_each = ((test.labels == label).nonzero().squeeze(1)[:1] for label in others)
    places = torch.cat([place for place in of_each if len(place)][:_EXAMPLES])
    x = test.batch(places)
    stamped = stamp(poison.trigger_at_test, x, generator=rng.stream(0, "examples"))
    sheet = torch.cat([torch.cat(list(part), dim=2) for part in (x, stamped)], dim=1)
    pixels = as_bytes(sheet).permute(1, 2, 0).numpy()
    return Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
