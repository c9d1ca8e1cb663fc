"""An audit of one model: its study is proposed, run like any other, and asked on where the scanners found something."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from bascule.auditing.open import AuditedModel, open_model, source_of, without_weights
from bascule.auditing.planted import stamped_by_its_record
from bascule.auditing.propose import Proposal, Wish, propose
from bascule.auditing.ranking import rank_images
from bascule.auditing.set_aside import with_test
from bascule.auditing.study import study_text, with_rows, write_study
from bascule.core.errors import RequestError
from bascule.core.files import write_atomically
from bascule.core.fingerprint import file_digest, fingerprint
from bascule.data.contract import find
from bascule.evaluation.question import Spec
from bascule.plan.document import read_study
from bascule.plan.plan import Plan
from bascule.plan.resolve import make_plan
from bascule.record.agreement import INVERTING, Scanned, named_most, scans_of
from bascule.record.cell import CellRecord
from bascule.record.evaluation import METRICS
from bascule.record.run import RunRecord
from bascule.running.run import Ran, run_plan

_TESTED = 0.2
"""Share of each class that becomes test images, where the data have none of their own: as in a folder."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """An audit that is prepared: its study stands in its run folder."""

    record: RunRecord
    study: Path
    wish: Wish
    roots: tuple[Path, ...]
    device: torch.device
    new: bool
    """Whether the study was proposed now, and not by the same audit before."""
    flags: tuple[str, ...] = field(default=())


def prepare(
    model: Path,
    *,
    data: Spec | None,
    architecture: Spec | None,
    wish: Wish,
    runs: Path,
    roots: Sequence[Path],
    device: torch.device,
    seed: int | None = None,
    trust_code: bool = False,
) -> Prepared:
    """Open the model with its data, and propose a study in a run folder of its own; one that is there stays.

    Args:
        model: As for `open_model`.
        data: A source; by default the cell's own.
        architecture: Needed for a file of weights.
        wish: How much is to be looked at.
        runs: The folder that holds runs.
        roots: Folders searched for data.
        device: Where to measure what passes take.
        seed: Of everything that is drawn; by default the cell's own, whose poison is then planted as it was, else 0.
        trust_code: Whether code that only the cell's record names may be imported.

    Raises:
        RequestError: As `open_model`; or a repair that there is not.
    """
    if data is None:
        source, drawn = None, 0
    else:
        source, drawn = with_test(source_of(data), mapping_of(data), roots, _TESTED)
    opened = open_model(
        model, data=source, model=architecture, device=device, roots=roots, seed=seed, trust_code=trust_code
    )
    settings = CellRecord(model).info().get("settings") or {} if model.is_dir() else {}
    weights = model / "model.safetensors" if model.is_dir() else model
    needs_proxy = opened.poison is not None and opened.poison.needs_proxy
    parts = {
        "data": {
            **located(mapping_of(data if data is not None else settings["data"]), roots),
            **({"test_share": _TESTED} if drawn else {}),
        },
        "model": own_file(mapping_of(architecture if architecture is not None else settings["model"])),
        "poison": None if data is not None or needs_proxy else _without_nothing(settings.get("poison")),
    }
    asked = fingerprint("audit", file_digest(weights), *parts.values(), vars(wish), opened.seed)
    called = weights.stem if model.is_file() else model.name
    audit = audit_in(runs, called, asked, wish=wish, roots=roots, device=device, flags=opened.flags)
    if audit.new:
        proposal = propose(opened, wish)
        if drawn:
            proposal.left_out.append(_drawn(drawn, wish))
        write_study(audit.study, _first_text(opened, proposal, parts, weights, audit))
    return audit


def _drawn(count: int, wish: Wish) -> str:
    """What is to be known of test images that were drawn from the images that were given."""
    doubt = (
        "if the model was trained on all of these, it has seen them, and is right on more of them than of new ones"
        if wish.trained_on_it
        else "the others serve scanners and repairs"
    )
    return f"Test images of their own: the data have no split, so {count} of the images were drawn for it; {doubt}."


def audit_in(
    runs: Path,
    called: str,
    asked: str,
    *,
    wish: Wish,
    roots: Sequence[Path],
    device: torch.device,
    flags: tuple[str, ...] = (),
) -> Prepared:
    """The audit in its own run folder.

    Args:
        runs: The folder that holds runs.
        called: What it is about.
        asked: The fingerprint of everything that is asked, by which the same audit is found again.
        wish: How much is to be looked at.
        roots: Folders searched for data.
        device: Where to work.
        flags: Of the model.
    """
    name = f"audit-{re.sub(r'[^A-Za-z0-9_-]+', '-', called)}-{asked[:8]}"
    study = runs / name / f"{name}.yaml"
    return Prepared(
        record=RunRecord(study.parent), study=study, wish=wish, roots=tuple(roots), device=device,
        new=not study.is_file(), flags=flags,
    )  # fmt: skip


def judge(
    audit: Prepared,
    *,
    changed: Callable[[], object],
    warn: Callable[[str], object] | None = None,
    console: Console | None = None,
) -> tuple[Ran, list[Path]]:
    """`conduct`, and the ranking of the training images where filters judged them: what was done, and its files.

    Raises:
        RequestError: As `conduct`, or the data cannot be read.
    """
    done = conduct(audit, changed=changed, warn=warn, console=console)
    return done, rank_images(audit.record, _plan(audit).rows[0].setup.data, audit.roots)


def conduct(
    audit: Prepared,
    *,
    changed: Callable[[], object],
    warn: Callable[[str], object] | None = None,
    console: Console | None = None,
) -> Ran:
    """Run the study, add what only the scanners' answers lead to, and run that; what is done is not done again.

    Raises:
        RequestError: As `make_plan` and `run_plan`: the study was edited, or the weights or the data changed since.
    """

    def run() -> Ran:
        return run_plan(
            _plan(audit), audit.record, device=audit.device, roots=audit.roots, changed=changed, warn=warn,
            console=console,
        )  # fmt: skip

    text = audit.study.read_text(encoding="utf-8")
    done = run()
    if done.failures:
        return done
    more = with_rows(text, _afterwards(audit))
    if more == text:
        return done
    write_study(audit.study, more)
    return run()


def _plan(audit: Prepared) -> Plan:
    return make_plan(read_study(str(audit.study)), roots=audit.roots)


# --- the first study -------------------------------------------------------------------------------------------------


def _first_text(
    opened: AuditedModel,
    proposal: Proposal,
    parts: Mapping[str, Any],
    weights: Path,
    audit: Prepared,
) -> str:
    base: dict[str, Any] = {
        "data": {**parts["data"], **proposal.data},
        "model": {**parts["model"], "weights": str(weights.resolve())},
        "train": "none",
        **proposal.base,
    }
    poison = parts["poison"]
    left_out = list(proposal.left_out)
    if opened.poison is not None and poison is not None:
        base["poison"] = poison
        if {"held_out", "max_train"} & proposal.data.keys() and proposal.data.get("held_out", 0) != 0:
            left_out.append(
                "The very training images that were poisoned: they are drawn anew, since some are set aside here."
            )
    elif opened.poison is not None and opened.on_data_of_its_run:
        left_out.append(
            "The training set as it was poisoned: that was done with another model, which is not trained here. Filters "
            "judge it without poison."
        )
        try:
            max_test = proposal.data.get("max_test")
            base["poison"] = stamped_by_its_record(opened, max_test, audit.study.parent)
        except RequestError as error:
            left_out.append(f"The trigger that its own record tells of: {error.problem}.")
    elif opened.poison is not None:
        left_out.append(
            "The trigger that its own record tells of: it is tried on the data of its run, and others were given."
        )
    name = weights.name if weights.name != "model.safetensors" else weights.parent.name
    study = {
        "title": f"Audit of {name}",
        "about": "One model as it came: at both ends, scanned for backdoors, its training images judged. The "
        "verdict is about what was looked at, and about nothing else.",
        "base": base,
        "seeds": [opened.seed],
        "measure": list(METRICS),
        "rows": proposal.rows,
    }
    how = f"bascule run {audit.study}"
    return study_text(study, about="model", how=how, reasons=proposal.reasons, left_out=left_out)


def mapping_of(spec: Spec) -> dict[str, Any]:
    """A component as a mapping, without what is not set."""
    if isinstance(spec, str):
        return {"name": spec}
    return {str(key): value for key, value in spec.items() if value is not None}


def located(data: dict[str, Any], roots: Sequence[Path]) -> dict[str, Any]:
    """Data by the place where they lie, so that the study may be run from anywhere."""
    path = data.get("path")
    if isinstance(path, str):
        return {**data, "path": str(find(roots, path).resolve())}
    return data


def own_file(model: dict[str, Any]) -> dict[str, Any]:
    """A network by the place of its file, where it is somebody's own, and without the weights it came with."""
    file, colon, function = str(model["name"]).rpartition(":")
    model = without_weights(model)
    return {**model, "name": f"{Path(file).resolve()}:{function}"} if colon and file.endswith(".py") else model


def _without_nothing(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nothing(part) for key, part in value.items() if part is not None}
    return value


# --- what the scanners' answers lead to ------------------------------------------------------------------------------


def _afterwards(audit: Prepared) -> dict[str, dict[str, Any]]:
    """A row for the trigger that was recovered for the class named by most scanners, and rows for repairs.

    The test images on which the trigger is tried are none that a scanner has seen.
    """
    scans = scans_of(audit.record)
    label, _ = named_most(scans)
    first = audit.record.plan().rows[0].settings
    own, curve = first.get("poison") is not None, {"curve": list(first["curve"])} if first.get("curve") else {}
    trigger = None if label is None else _recovered(audit, scans, label)
    poison = None
    rows: dict[str, dict[str, Any]] = {}
    if trigger is not None:
        poison = {"name": "given", "target": label, "trigger": trigger}
        compared = audit.wish.repairs and not own  # with what repairs leave of it
        more = curve if compared else {"attack": []}
        rows[f"trigger recovered for class {label}"] = {"poison": poison, "explain": ["saliency"], **more}
    for repair in audit.wish.repairs:
        settings = {key: value for key, value in repair.items() if key != "name"}
        said = str(repair["name"]) + (f" ({', '.join(f'{k} {v}' for k, v in settings.items())})" if settings else "")
        rows[f"repaired by {said}"] = {
            "repair": dict(repair), **curve, **({} if own or poison is None else {"poison": poison}),
        }  # fmt: skip
    return rows


def _recovered(audit: Prepared, scans: Sequence[Scanned], label: int) -> dict[str, Any] | None:
    """The trigger recovered for a class, written as a picture with transparency; None where none was."""
    scan = next((scan for scan in scans if scan.method == INVERTING and scan.pattern is not None), None)
    if scan is None or scan.pattern is None or scan.mask is None or not np.isfinite(scan.anomaly[label]):
        return None
    path = audit.record.path / f"recovered-{label}.png"
    picture = _transparent(scan.pattern[label], scan.mask[label])
    write_atomically(path, lambda temporary: picture.save(temporary, format="PNG"))
    return {"name": "watermark", "mode": "blend", "strength": 1, "picture": str(path.resolve())}


def _transparent(pattern: NDArray[np.uint8], mask: NDArray[np.uint8]) -> Image.Image:
    """C x H x W and 1 x H x W as a picture that is opaque where the mask is full.

    Raises:
        RequestError: Neither grey nor of three colours.
    """
    if len(pattern) not in (1, 3):
        raise RequestError(f"a picture has 1 or 3 channels, not {len(pattern)}")
    colours = np.broadcast_to(pattern.transpose(1, 2, 0), (*pattern.shape[1:], 3))
    return Image.fromarray(np.concatenate([colours, mask.max(0)[..., None]], axis=2))
