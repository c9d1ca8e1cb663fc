"""Making a cell's model: plant the poison, filter, train, repair."""

from __future__ import annotations

import hashlib
import json
import math
import pickle
import time
import warnings
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from bascule.core import rng
from bascule.core.images import Images, as_bytes
from bascule.core.restore import repeatable
from bascule.evaluation.truth import beside_truth
from bascule.filters.contract import Judged
from bascule.filters.run import run_filter
from bascule.plan.plan import Cell
from bascule.record.cell import COVERS, FILTERED, ISOLATED, CellRecord
from bascule.record.sums import DamagedError, check_sum, set_aside, write_summed
from bascule.repairs.run import run_repair
from bascule.running.context import CellContext, NotMadeError
from bascule.running.held_out import HeldOut
from bascule.running.probe import Looks
from bascule.running.provenance import provenance
from bascule.training.contract import Isolated
from bascule.training.loop import train
from bascule.triggers.aims import NOWHERE, aim_of
from bascule.triggers.contract import Trigger
from bascule.triggers.found import FoundTrigger
from bascule.triggers.placement import Truth
from bascule.triggers.stamping import stamp_at


def make_model(context: CellContext) -> nn.Module:
    """Make the cell's model and keep it with everything that tells how it was made.

    Raises:
        DivergedError: The training did not stay finite.
        NotMadeError: The model that it repairs, filters with or prepares poison on is not there.
        RequestError: The data cannot be read, or a defence does not fit them.
    """
    started, began = datetime.now(UTC), time.monotonic()
    with repeatable(context.device):
        if context.setup.repair is not None:
            model, notes = _repaired(context)
        else:
            model = context.empty_model()
            notes = _train(context, model)
    context.run.team.first(lambda: _keep_model(context, model, notes, started, time.monotonic() - began))
    return model


def _keep_model(
    context: CellContext, model: nn.Module, notes: dict[str, Any], started: datetime, seconds: float
) -> None:
    notes |= {
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
        **provenance(
            context.device,
            command=context.run.command,
            compiled=_compiled(context),
            processes=context.run.team.size,
            hooks=context.run.telling.names,
        ),
        "failure": None,
        "finished": None,
    }
    context.record.write_info({**_about(context, model), **notes})
    content = safetensors.torch.save({name: value.contiguous() for name, value in model.state_dict().items()})
    context.record.forget_other_models(hashlib.sha256(content).hexdigest())
    write_summed(context.record.model_file, lambda temporary: temporary.write_bytes(content))
    context.record.remove_checkpoint()


def _about(context: CellContext, model: nn.Module) -> dict[str, Any]:
    """What `cell.json` says that does not depend on where and when the model was made."""
    cell, (train_set, test_set) = context.cell, context.splits
    return {
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
        **({} if cell.proxy is None else {"proxy": cell.proxy.fingerprint}),
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def _has_poison_files(cell: Cell) -> bool:
    return cell.setup.poison is not None and cell.setup.repair is None


def lost_parts(cell: Cell, record: CellRecord) -> bool:
    """Whether something that is kept beside the cell's trained model is not there any more."""
    info = record.info()
    poison = (record.poison_file, record.picture_file) if _has_poison_files(cell) else ()
    return (
        "data" not in info
        or ("curve" in info and not record.curve_file.is_file())
        or not all(path.is_file() for path in poison)
        or (cell.setup.filter is not None and cell.setup.repair is None and FILTERED not in record.done())
    )


def make_lost_parts(context: CellContext, model: nn.Module) -> None:
    """Make again what was kept beside the cell's trained model, as far as that needs no training.

    What only the training knew, its times, commit and machine, is lost with `cell.json`.

    Raises:
        NotMadeError: The model that it filters with or prepares poison on is not there.
        RequestError: The data cannot be read.
    """
    record, cell = context.record, context.cell
    info = record.info()
    poison_files = (record.poison_file, record.picture_file)
    filtered = cell.setup.filter is not None and cell.setup.repair is None
    truth = None
    if (_has_poison_files(cell) and not all(path.is_file() for path in poison_files)) or (
        filtered and FILTERED not in record.done()
    ):
        images, truth = context.training_set
        if truth is not None:
            _keep_poison(context, truth)
        if filtered:
            _filtered(context, images, truth)
    if "curve" in info and not record.curve_file.is_file():
        record.write_curve(info["curve"])
    if "data" not in info:
        poisoned = len(record.poisoned().get("ids", ())) if cell.setup.repair is None else None
        if cell.setup.poison is not None and not cell.setup.poison.known:
            poisoned = None
        stamped = record.poisoned().get(COVERS, ()) if cell.setup.repair is None else ()
        covers = {"covers": len(stamped)} if stamped else {}
        judged = record.finding(FILTERED)
        trained_on = {} if judged is None else {"trained_on": int((~judged.arrays["removed"]).sum())}
        record.write_info(
            {**_about(context, model), "poisoned": poisoned, **covers, **trained_on, "failure": None, "finished": None}
        )


def _compiled(context: CellContext) -> bool:
    """Whether the passes of the cell's training were compiled."""
    training = None if context.setup.repair is not None else context.setup.train
    return context.run.speed.compile_passes and training is not None and training.objective.compiles


# --- repair ----------------------------------------------------------------------------------------------------------


def _repaired(context: CellContext) -> tuple[nn.Module, dict[str, Any]]:
    """The model of the cell's base, repaired, and what to note about it."""
    repair = context.setup.repair
    assert context.cell.base is not None
    assert repair is not None
    base, team = context.of(context.cell.base), context.run.team
    broken = base.load_model()
    # A repair that needs no images is told the size of these only.
    one = context.splits.train.at(torch.tensor([0])).to(context.device)
    images = context.held_out if repair.needs_images else one
    model = broken

    def mend() -> tuple[dict[str, Tensor], dict[str, Any]]:
        nonlocal model
        with context.run.progress.stage("repair", 1):
            model, changes = run_repair(broken, repair, images, generator=context.generator("repair"))
        return model.state_dict(), {"poisoned": base.record.info().get("poisoned"), "repair": changes}

    weights, notes = team.first(mend)
    if not team.leads:
        model.load_state_dict(weights)
        model.eval()
    return model, notes


# --- training --------------------------------------------------------------------------------------------------------


class _CheckpointFile:
    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> dict[str, Any] | None:
        if not self._path.is_file():
            return None
        try:
            check_sum(self._path)
            # The optimiser moves what belongs on the device; its count of steps stays here, where it is read.
            return dict(torch.load(self._path, map_location="cpu", weights_only=True))
        except (DamagedError, RuntimeError, ValueError, TypeError, EOFError, pickle.UnpicklingError) as error:
            place = set_aside(self._path)
            warnings.warn(f"{place}: {error}. The training begins anew".replace("\n", " "), stacklevel=2)
            return None

    def save(self, state: dict[str, Any]) -> None:
        write_summed(self._path, lambda temporary: torch.save(state, temporary))


def _train(context: CellContext, model: nn.Module) -> dict[str, Any]:
    """Train `model` in place on what the cell's recipe leaves of the planted set; what to note about it.

    One that came with its weights stays as it is.
    """
    images, truth = context.training_set
    team = context.run.team
    if truth is not None:
        planted = truth
        team.first(lambda: _keep_poison(context.alone(), planted))
    notes: dict[str, Any] = {"poisoned": 0 if truth is None else truth.count}
    if truth is not None and len(truth.covers):
        notes["covers"] = len(truth.covers)
    if context.setup.filter is not None:
        images = _filtered(context, images, truth)
        notes["trained_on"] = len(images)
    training, progress = context.setup.train, context.run.progress
    if training is None:
        return notes
    looks = _looks(context, model, images, truth, training.epochs)
    if looks is not None:
        notes["probe"] = looks.about()
    judge = None
    if training.keep == "best":
        held_out = context.run.held_out(context.setup.data).to(context.device)  # all: the trainer is no defender
        judge = HeldOut(training.objective, model, held_out, seed=context.cell.seed)

    def report(step: int, total: int, loss: float, lr: float) -> None:
        epoch = min(training.epochs, 1 + step * training.epochs // total)
        seen = f"  {looks.told}" if looks is not None else ""
        progress.update(step, f"epoch {epoch}/{training.epochs}  loss {loss:.3f}  lr {lr:.2g}{seen}")

    with progress.stage("train", training.epochs * training.steps_per_epoch(len(images))):
        curve = train(
            model,
            images,
            training,
            seed=context.cell.seed,
            checkpoints=_CheckpointFile(context.record.checkpoint_file),
            compile_passes=context.run.speed.compile_passes,
            capture_steps=context.run.speed.capture_steps,
            team=team,
            report=report,
            look=looks or (lambda _: {}),
            judge=judge,
            tell=lambda isolated: notes.update(_keep_isolated(context, isolated, images, truth)),
            at_epoch=lambda entry: context.run.telling.epoch(context.cell, entry),
        )
    if judge is not None:
        notes["kept"] = judge.about(curve)
    team.first(lambda: context.record.write_curve(curve))
    if all(math.isfinite(value) for entry in curve for value in entry.values()):
        notes["curve"] = curve  # a second time, since only another training would bring it back
    return notes


def _looks(context: CellContext, model: nn.Module, images: Images, truth: Truth | None, epochs: int) -> Looks | None:
    """The looks at a model along its training on `images`, where its row asks for them."""
    watch, seed = context.cell.watch, context.cell.seed
    if watch is None:
        return None
    test = context.splits.test
    trigger = None
    if isinstance(watch.trigger, FoundTrigger):
        try:
            trigger = context.found(watch.trigger)
        except NotMadeError:  # a twin may be the very network on which it is searched for, once that is trained
            watch = replace(watch, trigger=None)
    return Looks(
        watch,
        model,
        trigger=trigger,
        images=images,
        truth=truth,
        test=test,
        epochs=epochs,
        seed=seed,
        keep=context.record.write_losses,
    )


def _keep_isolated(context: CellContext, isolated: Isolated, images: Images, truth: Truth | None) -> dict[str, Any]:
    """Keep what the training isolated, beside the truth that it was never told; what to note about it."""
    answer = beside_truth(Judged(isolated.score.cpu(), isolated.isolated.cpu()), images, truth)
    about = {"kind": "isolated", **answer.notes}
    context.run.team.first(lambda: context.record.add_finding(ISOLATED, answer.numpy_arrays(), about))
    return {"isolated": answer.notes["removed"]}


def _filtered(context: CellContext, images: Images, truth: Truth | None) -> Images:
    """What the recipe's filter leaves, judged once and kept: a continued training goes on with the same images."""
    removed = context.run.team.first(lambda: _removed(context.alone(), images, truth))
    return images.at(torch.from_numpy(np.flatnonzero(~removed)).to(images.device))


def _removed(context: CellContext, images: Images, truth: Truth | None) -> NDArray[np.bool_]:
    """Which images the recipe's filter removes."""
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
        arrays = answer.numpy_arrays()
        context.record.add_finding(FILTERED, arrays, info)
    else:
        arrays = judged.arrays
    return arrays["removed"]


# --- what is kept of the poison --------------------------------------------------------------------------------------


_EXAMPLES = 8


def _keep_poison(context: CellContext, truth: Truth) -> None:
    """Which images were poisoned, and a picture of test images, one of each class that is to move, without (above) and
    with (below) the trigger."""
    poison, test, record = context.setup.poison, context.splits.test, context.record
    assert poison is not None
    columns = {key: getattr(truth, key).cpu().numpy() for key in ("ids", "labels_before", "labels_after")}
    table = pa.table(columns)
    if len(truth.covers):
        table = table.replace_schema_metadata({COVERS: json.dumps(truth.covers.tolist())})
    write_summed(record.poison_file, lambda temporary: pq.write_table(table, temporary))
    aims = aim_of(torch.arange(len(test.classes)), poison.target, poison.aims(len(test.classes)))
    picture = _examples(context.found(poison.trigger_at_test), (aims != NOWHERE).nonzero().squeeze(1), test)
    write_summed(record.picture_file, lambda temporary: picture.save(temporary, format="PNG"))


def _examples(trigger: Trigger, classes: Tensor, test: Images) -> Image.Image:
    of_each = ((test.labels == label).nonzero().squeeze(1)[:1] for label in classes)
    places = torch.cat([place for place in of_each if len(place)][:_EXAMPLES])
    x = test.batch(places)
    stamped = stamp_at(trigger, test, places, generator=rng.stream(0, "examples"))
    sheet = torch.cat([torch.cat(list(part), dim=2) for part in (x, stamped)], dim=1)
    pixels = as_bytes(sheet).permute(1, 2, 0).numpy()
    return Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
