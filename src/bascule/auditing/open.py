"""Opening a trained model with its data, and what is to be measured of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bascule.attacks.contract import Evasion
from bascule.attacks.two_precisions import Precision
from bascule.certifiers.contract import Certifier
from bascule.core import rng
from bascule.core.catalog import build, changes_noted, construct_one_of, name_of, names, recorded_code
from bascule.core.errors import RequestError, placed
from bascule.core.images import Images
from bascule.core.inference import accuracy_on
from bascule.data.contract import Source
from bascule.data.identity import test_identity
from bascule.evaluation.question import EvaluationSettings, Spec
from bascule.evaluation.subject import content_identity
from bascule.models.checks import check_network
from bascule.models.contract import Architecture
from bascule.models.weights import DOES_NOT_FIT, load_weights
from bascule.record.cell import CellRecord
from bascule.record.evaluation import metrics_named
from bascule.record.sums import check_sum
from bascule.triggers.contract import Trigger
from bascule.triggers.found import FoundTrigger
from bascule.triggers.given import GivenPoison
from bascule.triggers.placement import Poison
from bascule.triggers.several import SeveralPoisons

CHANGED_CODE = "changed code"
"""Heading of a flag: see docs/flags.md."""
_MISSING = {
    "data": "say which data the model is for, for example mnist or '{name: folder, path: ...}'",
    "model": "a file of weights needs its architecture: a name, or module:factory",
}
_WEIGHTS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".tar", ".pkl")
"""How files of weights are called."""


@dataclass(frozen=True, kw_only=True)
class OpenedModel:
    """A trained model with training images to look at."""

    model: nn.Module
    """In eval mode, on the device."""
    source: Source
    train: Images
    device: torch.device
    roots: tuple[Path, ...]
    """Folders searched for data."""
    seed: int
    """Of everything that is drawn."""
    on_data_of_its_run: bool = False
    """Whether it is a cell, with the data of its run."""
    attacks: tuple[Evasion, ...] = ()
    """Those that the cell was evaluated with, in order."""
    attack_precision: Precision = "float32"
    """Of their searches."""
    certifiers: tuple[Certifier, ...] = ()
    """Those that the cell was evaluated with."""
    poison: Poison | GivenPoison | SeveralPoisons | None = None
    """What was planted in the cell's training set."""
    cell: CellRecord | None = None
    """Its folder, if it is a cell."""
    flags: tuple[str, ...] = ()
    """Reasons not to trust what is measured of it: see docs/flags.md."""

    def generator(self, purpose: str) -> torch.Generator:
        """A stream of random numbers for one purpose."""
        return rng.stream(self.seed, purpose, device=self.device)

    def found(self, trigger: Trigger) -> Trigger:
        """The trigger itself, where it was searched for: on the proxy of this cell, which lies beside it in its run.

        Raises:
            RequestError: That model is not there any more, or was not searched.
        """
        if not isinstance(trigger, FoundTrigger):
            return trigger
        proxy = None if self.cell is None else self.cell.proxy()
        finding = None if proxy is None else proxy.finding(trigger.key)
        if finding is not None:
            return trigger.loaded({name: torch.from_numpy(values) for name, values in finding.arrays.items()})
        raise RequestError("what its search found lies in no cell of its run with this seed; name another trigger")

    def accuracy(self, images: Images) -> float:
        """Share of these images, on the device, that the model gets right."""
        return accuracy_on(self.model, images)


@dataclass(frozen=True, kw_only=True)
class AuditedModel(OpenedModel):
    """A trained model with the data it is looked at with."""

    test: Images

    @cached_property
    def identity(self) -> str:
        """Of the test images: a cell draws as its run did, any other model as from Python, by the images alone."""
        if self.on_data_of_its_run:
            return test_identity(self.source, self.source.facts(self.roots))
        return content_identity(self.test)

    def defender_images(self, count: int) -> Images:
        """`count` of the test images, or as many as there are, for a defender."""
        return self._drawn(slice(None, count))

    def remaining_images(self, count: int) -> Images:
        """The test images that `defender_images` leaves; there must be some."""
        return self._drawn(slice(count, None))

    def _drawn(self, places: slice) -> Images:
        order = torch.randperm(len(self.test), generator=rng.stream(self.seed, "defenders"))
        return self.test.at(order[places].sort().values).to(self.device)


def holds_model(path: str | Path) -> bool:
    """Whether this is a file, or the folder of a cell, as `open_model` takes."""
    path = Path(path)
    return path.is_file() or any((path / name).is_file() for name in ("cell.json", "model.safetensors"))


def open_model(
    path: str | Path,
    *,
    data: Spec | Source | None = None,
    model: Spec | Architecture | None = None,
    device: torch.device,
    roots: Sequence[Path],
    seed: int | None = None,
    max_test: int | None = None,
    trust_code: bool = False,
) -> AuditedModel:
    """A trained model and its data.

    Args:
        path: The folder of a cell of a run, which tells architecture and data; or a file of weights (safetensors, or
            by `torch.save` with a state dict in it; no code in it is run).
        data: A source; by default the cell's own.
        model: An architecture, also as `module:factory`; needed for a file of weights.
        device: Where to work.
        roots: Folders searched for data.
        seed: Of everything that is drawn; by default the cell's own, so that it draws as its run did, else 0.
        max_test: At most this many test images, drawn as for the data's own `max_test`.
        trust_code: Whether code that only the cell's record names may be imported.

    Raises:
        RequestError: Something is missing, damaged, cannot be read, or does not fit, or code is not trusted; its place
            is the argument.
    """
    return AuditedModel(**_opened(path, data, model, device, roots, seed, max_test, trust_code, with_test=True))


def open_with_training_images(
    path: str | Path,
    *,
    data: Spec | Source | None = None,
    model: Spec | Architecture | None = None,
    device: torch.device,
    roots: Sequence[Path],
    seed: int | None = None,
    trust_code: bool = False,
) -> OpenedModel:
    """As `open_model`, for who needs no test images: data that are given need not have any.

    Of data without a split all images are training images, and not only what a study would leave for training.
    """
    return OpenedModel(**_opened(path, data, model, device, roots, seed, None, trust_code, with_test=False))


def _opened(
    path: str | Path,
    data: Spec | Source | None,
    model: Spec | Architecture | None,
    device: torch.device,
    roots: Sequence[Path],
    seed: int | None,
    max_test: int | None,
    trust_code: bool,
    *,
    with_test: bool,
) -> dict[str, Any]:
    """What an `OpenedModel` is made of or, `with_test`, an `AuditedModel`."""
    weights, cell = _weights_and_cell(Path(path))
    info = {} if cell is None else cell.info()
    settings = info.get("settings") or {}
    for damage in () if cell is None else cell.damaged():
        raise damage
    for argument, given in (("data", data), ("model", model)):
        if given is None and argument not in settings:
            raise RequestError(_MISSING[argument], place=(argument,))
    changed: list[str] = []
    source = _recorded("data", settings["data"], changed, trust_code) if data is None else source_of(data)
    if max_test is not None:
        source = replace(source, max_test=min(max_test, source.max_test or max_test))
    source, train, besides = _images(source, roots, given=data is not None, with_test=with_test)
    architecture = _architecture(model, without_weights(settings.get("model")), changed, trust_code)
    if seed is None:
        seed = int(info.get("seed") or 0)
    network = _network(architecture, train, weights, seed, device, changed)
    parts = {kind: _evaluated_with(cell, kind, changed, trust_code) for kind in ("attack", "certify")}
    with changes_noted(changed), recorded_code(trust=trust_code, changed=True):
        spec = settings.get("poison")
        poison = None if spec is None else construct_one_of((Poison, GivenPoison, SeveralPoisons), spec)
    return dict(
        model=network,
        source=source, train=train, device=device, roots=tuple(roots), seed=seed,
        on_data_of_its_run=cell is not None and data is None,
        attacks=parts["attack"], attack_precision=_precision(cell), certifiers=parts["certify"],
        poison=poison, cell=cell, flags=tuple(map(_changed_code, changed)), **besides,
    )  # fmt: skip


def _images(
    source: Source, roots: Sequence[Path], *, given: bool, with_test: bool
) -> tuple[Source, Images, dict[str, Images]]:
    """The source that is read, its training images, and its test images where they are wanted."""
    if with_test:
        train, test = source.load(roots)
        return source, train, {"test": test}
    if given:
        source = source.without_test()
    return source, source.load_train(roots), {}


def without_weights(recorded: Any) -> Any:
    """A cell's network without the file of weights it came with or started from: the cell has its own."""
    if not isinstance(recorded, dict):
        return recorded
    return {key: value for key, value in recorded.items() if key not in Architecture.later}


def _architecture(given: Spec | Architecture | None, recorded: Any, changed: list[str], trust_code: bool) -> Any:
    if given is None:
        return _recorded("models", recorded, changed, trust_code)
    with placed("model"):
        return build("models", given)


def _recorded(room: str, spec: Any, changed: list[str], trust_code: bool) -> Any:
    """A part of a cell; to look at a model, its code need not be what it was, but that is noted."""
    with changes_noted(changed), recorded_code(trust=trust_code, changed=True):
        return build(room, spec)


def _changed_code(name: str) -> str:
    return f"{CHANGED_CODE}: {name} is not the code that this model was recorded with"


def _weights_and_cell(path: Path) -> tuple[Path, CellRecord | None]:
    """The file of weights that `path` is or holds, and the record of the cell, if it is one's folder."""
    if path.is_dir():
        cell = CellRecord(path)
        if not cell.trained:
            what = "give the folder of a cell (runs/.../cells/...) or a file of weights"
            raise RequestError(f"{path} holds no trained model: {what}{_instead(path)}")
        check_sum(cell.model_file)
        return cell.model_file, cell
    if not path.is_file():
        raise RequestError(
            f"{path} does not exist: give the folder of a cell (runs/.../cells/...) or a file of weights"
        )
    return path, None


def _instead(path: Path) -> str:
    """What a folder holds that may be meant, to be named in a message."""
    if cells := sorted(file.parent for file in path.glob("cells/*/model.safetensors")):
        return f". It is a run with the cells {_few(cells)}"
    if any(path.glob("*.distcp")):
        return (
            ". It is a checkpoint by torch.distributed; write it as one file: "
            f"python -m torch.distributed.checkpoint.format_utils dcp_to_torch {path} weights.pt"
        )
    if any(path.glob("data.pkl")) or any(path.glob("*/data.pkl")):
        return ". It is a file by torch.save that was unpacked: give the file itself"
    files = sorted(file for file in path.glob("*") if file.suffix.lower() in _WEIGHTS)
    return f". It holds {_few(files)}" if files else ""


def _few(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths[:3])) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")


def source_of(spec: Spec | Source) -> Source:
    """The source that is meant.

    Raises:
        RequestError: There is none like that; its place is `data`.
    """
    with placed("data"):
        if isinstance(spec, str) and spec not in names("data") and Path(spec).exists():
            name = {".npz": "npz", ".parquet": "parquet"}.get(Path(spec).suffix.lower(), "folder")
            raise RequestError(
                f"{spec} is a file or folder; say how it is to be read, for example '{{name: {name}, path: {spec}}}'"
            )
        source: Source = build("data", spec)
        return source


def _network(
    architecture: Architecture,
    train: Images,
    weights: Path,
    seed: int,
    device: torch.device,
    changed: Sequence[str],
) -> nn.Module:
    """The network for these images with its weights, in eval mode, on the device.

    Raises:
        RequestError: It cannot be built, or the weights do not fit; says so where the network's own code has `changed`.
    """
    with placed("model"):
        check_network(architecture, train.size, len(train.classes))
    network = architecture.initialised(train.size, len(train.classes), seed=seed)
    try:
        load_weights(network, str(weights), other_classes=False)
    except RequestError as error:
        size = "{} x {} x {} (channels, height, width)".format(*train.size)
        own = "".join(f". {_changed_code(name)}" for name in changed if name == name_of(architecture))
        built = f". The network was built for the data: images of {size} in {len(train.classes)} classes"
        raise RequestError(f"{error}{built if DOES_NOT_FIT in error.problem else ''}{own}") from error
    return network.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def _evaluated_with(cell: CellRecord | None, kind: str, changed: list[str], trust_code: bool) -> tuple[Any, ...]:
    """The attacks or certifiers that a cell was evaluated with, in order."""
    if cell is None:
        return ()
    specs = [info["settings"] for info in cell.evaluations().values() if info.get("kind") == kind]
    for damage in cell.damaged():
        raise damage
    return tuple(dict.fromkeys(_recorded(kind, spec, changed, trust_code) for spec in specs))


def _precision(cell: CellRecord | None) -> Precision:
    """Of the searches of the attacks that a cell was evaluated with."""
    infos = [] if cell is None else cell.evaluations().values()
    return "mixed" if any(info.get("precision") == "mixed" for info in infos) else "float32"


def settings_for(
    audited: AuditedModel,
    *,
    attack: Sequence[Spec | Evasion] = (),
    certify: Sequence[Spec | Certifier] = (),
    trigger: Spec | Trigger | None = None,
    target: int | None = None,
    measure: Sequence[str] = (),
    attack_precision: Precision | None = None,
) -> EvaluationSettings:
    """What is to be measured of a model; by default with the attacks, their precision, certifiers and trigger of its
    cell.

    Raises:
        RequestError: A wrong name or value, a trigger that has no target or does not fit the images; its place is the
            argument.
    """
    poison = audited.poison
    with placed("measure"):
        metrics = metrics_named(measure)
    if trigger is None and poison is not None:
        trigger = poison.trigger_at_test
    with placed("trigger"):
        mark = trigger if isinstance(trigger, FoundTrigger) or trigger is None else build("poison", trigger)
    settings = EvaluationSettings(
        test=audited.identity,
        attack=_all_of("attack", attack) or audited.attacks,
        attack_precision=attack_precision or audited.attack_precision,
        certify=_all_of("certify", certify) or audited.certifiers,
        trigger=mark,
        target=poison.target if target is None and poison is not None else target,
        aims=poison.aims(len(audited.train.classes)) if target is None and poison is not None else None,
        metrics=metrics,
    )
    settings.check(audited.test, len(audited.train.classes), audited.model, audited.found)
    return settings


def _all_of(room: str, specs: Sequence[Any]) -> tuple[Any, ...]:
    with placed(room):
        return tuple(build(room, spec) for spec in specs)
