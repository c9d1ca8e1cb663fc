"""An audit of one model, or of a data set alone: what `bascule audit` does."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from functools import partial
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from rich.console import Console
from torch import nn

from bascule.api.verb import verb
from bascule.auditing.conduct import Prepared, judge, prepare
from bascule.auditing.images import prepare_images
from bascule.auditing.propose import Wish
from bascule.core.catalog import build, describe, remember_named
from bascule.core.errors import Interrupted, RequestError, placed
from bascule.core.files import check_writable, write_atomically
from bascule.core.given import outside
from bascule.core.progress import nothing
from bascule.core.text import quote
from bascule.data.contract import Source, default_roots
from bascule.models.contract import Architecture
from bascule.report.audited.audit import Audit
from bascule.running.console import silent
from bascule.running.run import pick_device


@verb
def audit(
    model: str | PathLike[str] | nn.Module | None = None,
    data: str | Mapping[str, Any] | Source | None = None,
    *,
    architecture: str | Mapping[str, Any] | Architecture | None = None,
    full: bool = False,
    minutes: float | None = None,
    images: int | None = None,
    repair: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]] = (),
    other_training_data: bool = False,
    runs: str | PathLike[str] = "runs",
    seed: int | None = None,
    device: str | torch.device = "auto",
    data_dir: str | PathLike[str] | None = None,
    trust_code: bool = False,
    progress: bool = True,
) -> Audit:
    """Look at one model from both sides and say what was found, and what was not looked at: what `bascule audit` does.

    An audit is a run: a study is proposed, each part with its reason, and carried out in a run folder. The same call
    continues what was stopped. What is attacked and certified is proposed too; who wants it otherwise edits the study
    (`.study`) and calls again.

    Args:
        model: The folder of a cell, a file of weights, or a model in memory, whose weights are kept beside the run.
            Without one, the images of `data` are ranked.
        data: A source, for example "mnist" or {"name": "folder", "path": ...}; by default the cell's own.
        architecture: How a network is built for the weights: a name, or module:factory. Needed but for a cell.
        full: AutoAttack, every scanner and filter with its own settings, however long that takes.
        minutes: About what the light set may take on an idle machine; by default 6. Not with `full`.
        images: Test images; by default as many as there is time for.
        repair: Also measure the model after these repairs, at both ends.
        other_training_data: The model was trained on other data than these: no filter judges them.
        runs: Folder that holds the runs.
        seed: Of everything that is drawn; by default the cell's own, or 0.
        device: auto, cpu, cuda or cuda:N.
        data_dir: Folder searched first for data; then $BASCULE_DATA, ./data, ~/.cache/bascule and here.
        trust_code: Import code of somebody's own that only the cell's record names.
        progress: Whether to say on standard error how far the work is.

    Returns:
        The verdict (printed, it is in plain words), `.suspicious` (True, False, or None where nobody can say),
        `.exit_code`, `.facts`, `.run` with every number, `.report()`, `.as_dict()`.

    Raises:
        RequestError: There is no such model, data or repair, or weights and network do not go together.
        KeyboardInterrupt: It was stopped; what is finished is kept.
    """
    wish = wish_of(
        full=full, minutes=_positive(minutes, "minutes"), images=_positive(images, "images"), repairs=_repairs(repair),
        trained_on_it=not other_training_data,
    )  # fmt: skip
    return _audit(
        model, data=_spec(data), architecture=_spec(architecture), wish=wish, runs=Path(runs), seed=seed,
        data_dir=None if data_dir is None else Path(data_dir), device=str(device), trust_code=trust_code,
        progress=progress,
    )  # fmt: skip


def _audit(model: Any, *, architecture: Any, runs: Path, progress: bool, **asked: Any) -> Audit:
    """Both halves as Python expects them: interrupted by KeyboardInterrupt, and warned of flags."""
    file = _weights(model, architecture, runs) if isinstance(model, nn.Module) else _path(model)
    prepared = prepare_audit(file, architecture=architecture, runs=runs, **asked)
    for flag in prepared.flags:
        warnings.warn(flag, stacklevel=outside())
    try:
        return conduct_audit(prepared, console=None if progress else silent())
    except Interrupted as stopped:
        raise KeyboardInterrupt(str(stopped)) from None


def wish_of(*, full: bool, minutes: float | None, **asked: Any) -> Wish:
    """How much is to be looked at, where the time is asked for or not.

    Raises:
        RequestError: The full set, in a time.
    """
    if full and minutes is not None:
        problem = "the full set takes as long as it takes: leave this out, or leave out `full`"
        raise RequestError(problem, place=("minutes",))
    return Wish(full=full, minutes=Wish.minutes if minutes is None else minutes, **asked)


def prepare_audit(
    model: Path | None,
    *,
    data: Any,
    architecture: Any,
    wish: Wish,
    runs: Path,
    data_dir: Path | None,
    device: str,
    seed: int | None,
    trust_code: bool,
) -> Prepared:
    """What the command and the function share: the study that is proposed, in its run folder.

    Raises:
        RequestError: As `prepare` and `prepare_images`, or what was given does not go together.
    """
    if model is None and data is None:
        raise RequestError("give a model, or `data` alone, whose images are then ranked")
    if model is None and wish.repairs:
        raise RequestError("there is no model to repair; give one, or leave this out", place=("repair",))
    if model is None and not wish.trained_on_it:
        problem = "there is no model that was trained; give one, or leave this out"
        raise RequestError(problem, place=("other_training_data",))
    if model is None and wish.images is not None:
        problem = "there is no model to try on test images; give one, or leave this out"
        raise RequestError(problem, place=("images",))
    for repair in wish.repairs:
        with placed("repair"):
            build("repair", repair)
    check_writable(runs)
    asked: dict[str, Any] = {
        "data": data, "architecture": architecture, "wish": wish, "runs": runs, "roots": default_roots(data_dir),
        "device": pick_device(device),
    }  # fmt: skip
    if model is None:
        return prepare_images(**asked, seed=seed or 0)
    prepared = prepare(model, **asked, seed=seed, trust_code=trust_code)
    remember_named()
    return prepared


def conduct_audit(
    prepared: Prepared, *, console: Console | None = None, warn: Callable[[str], object] | None = None
) -> Audit:
    """Run it, write its page, and read what it found.

    Raises:
        RequestError: As `judge`.
        Interrupted: It was stopped.
    """
    done, files = judge(prepared, changed=nothing, warn=warn, console=console)
    failed = {failure.label: failure.message for failure in done.failures}
    found = Audit(prepared.record, failed=failed, files=files)
    found.report()
    return found


# --- what was given --------------------------------------------------------------------------------------------------


def _spec(given: Any) -> Any:
    """A component as it would stand in a study."""
    if is_dataclass(given) and not isinstance(given, type):
        return {key: value for key, value in describe(given).items() if value is not None and key != "code"}
    return given


def _path(model: Any) -> Path | None:
    if model is not None and not isinstance(model, (str, PathLike)):
        problem = f"the folder of a cell, a file of weights, or a torch.nn.Module; got {quote(model)}"
        raise RequestError(problem, place=("model",))
    return None if model is None else Path(fspath(model))


def _weights(model: nn.Module, architecture: Any, runs: Path) -> Path:
    """A file with the weights of a model in memory, called by what is in it."""
    if architecture is None:
        raise RequestError(
            "an audit is kept and continued, so a model in memory needs the network that it is built as: a name, or "
            "module:factory",
            place=("architecture",),
        )
    state = {name: part.detach().cpu().contiguous().clone() for name, part in model.state_dict().items()}
    content = safetensors.torch.save(state)
    path = runs / "in-memory" / f"{hashlib.sha256(content).hexdigest()[:12]}.safetensors"
    if not path.is_file():
        check_writable(path.parent)
        write_atomically(path, partial(Path.write_bytes, data=content))
    return path


def _repairs(given: Any) -> tuple[dict[str, Any], ...]:
    listed = given if isinstance(given, (list, tuple)) else [given]
    specs = [{"name": one} if isinstance(one, str) else _spec(one) for one in listed]
    for spec in specs:
        if not isinstance(spec, Mapping):
            raise RequestError(f"a name or a mapping; got {quote(spec)}", place=("repair",))
    return tuple(map(dict, specs))


def _positive(number: Any, place: str) -> Any:
    if number is not None and not number > 0:
        raise RequestError(f"more than 0; got {quote(number)}", place=(place,))
    return number
