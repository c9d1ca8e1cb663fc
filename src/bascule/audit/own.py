"""A model and data of one's own, outside a study: judged, scanned, repaired."""

from __future__ import annotations

import csv
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor, nn

from bascule.attack import Attack
from bascule.certify import Certifier
from bascule.core import rng
from bascule.core.catalog import build, construct, names
from bascule.core.errors import RequestError, placed
from bascule.core.files import write_atomically
from bascule.core.fingerprint import fingerprint
from bascule.core.images import Images, as_bytes
from bascule.core.inference import predict
from bascule.core.progress import Progress
from bascule.data import Source
from bascule.data.identity import test_identity
from bascule.evaluation.model import evaluate_model
from bascule.evaluation.question import EvaluationSettings, needs_of
from bascule.filter import Filter, Judged
from bascule.filter.run import run_filter
from bascule.measure import Metric, Outcomes
from bascule.models.checks import check_network
from bascule.models.weights import load_weights
from bascule.plan.document import parse_value
from bascule.poison.placement import Poison
from bascule.record.cell import CellRecord, read_json
from bascule.record.evaluation import metrics_named
from bascule.repair import Repair, Repaired
from bascule.repair.run import run_repair
from bascule.scan import Scan, Scanner
from bascule.scan.run import run_scanner

SHEET = 48
"""Pictures on a contact sheet."""


@dataclass(frozen=True, kw_only=True)
class Own:
    """A model with the data it is looked at with."""

    model: nn.Module
    """On the device."""
    source: Source
    train: Images
    test: Images
    device: torch.device
    roots: tuple[Path, ...]
    seed: int
    identity: str
    """Of the test images: the same as in a run on the same data."""
    attacks: tuple[Attack, ...] = ()
    """Those that the cell was evaluated with, in order."""
    certifiers: tuple[Certifier, ...] = ()
    """Those that the cell was evaluated with."""
    poison: Poison | None = None
    """What was planted in the cell's training set."""

    def generator(self, purpose: str) -> torch.Generator:
        """A stream of random numbers for one purpose."""
        return rng.stream(self.seed, purpose, device=self.device)

    def defenders(self, count: int) -> Images:
        """`count` of the test images, or as many as there are, for a defender."""
        return self._of_the_test_images(slice(None, count))

    def others(self, count: int) -> Images:
        """The test images that `defenders` leaves; there must be some."""
        return self._of_the_test_images(slice(count, None))

    def _of_the_test_images(self, places: slice) -> Images:
        order = torch.randperm(len(self.test), generator=rng.stream(self.seed, "defenders"))
        return self.test.at(order[places].sort().values).to(self.device)


def holds_model(weights: str) -> bool:
    """Whether this is a file, or the folder of a cell, as `open_own` takes."""
    path = Path(weights)
    return path.is_file() or any((path / name).is_file() for name in ("cell.json", "model.safetensors"))


def open_own(
    weights: str,
    *,
    data: str | None,
    model: str | None,
    device: torch.device,
    roots: Sequence[Path],
    seed: int,
    max_test: int | None = None,
) -> Own:
    """A trained model and its data.

    Args:
        weights: The folder of a cell of a run, which tells architecture and data; or a file of weights (safetensors, or
            a state dict saved by torch; no code in it is run).
        data: A source by name, or a YAML mapping; by default the cell's own.
        model: An architecture by name, `module:factory`, or a YAML mapping; needed for a file of weights.
        device: Where to work.
        roots: Folders searched for data.
        seed: Of everything that is drawn.
        max_test: At most this many test images, drawn as for the data's own `max_test`.

    Raises:
        RequestError: Something is missing, cannot be read, or does not fit.
    """
    path, known = Path(weights), {}
    attacks: tuple[Attack, ...] = ()
    certifiers: tuple[Certifier, ...] = ()
    if path.is_dir():
        if not (path / "model.safetensors").is_file():
            what = "give the folder of a cell (runs/.../cells/...) or a file"
            raise RequestError(f"{path} holds no trained model: {what}{_cells_in(path)}")
        known = dict(read_json(path / "cell.json"))["settings"]
        attacks, certifiers = (_asked_before(CellRecord(path), kind) for kind in ("attack", "certify"))
        path /= "model.safetensors"
    elif not path.is_file():
        raise RequestError(
            f"{path} does not exist: give the folder of a cell (runs/.../cells/...) or a file of weights"
        )
    if data is None and "data" not in known:
        raise RequestError("say which data the model is for: --data mnist, or --data '{name: folder, path: ...}'")
    if model is None and "model" not in known:
        raise RequestError("a file of weights needs its architecture: --model NAME, or --model module:factory")
    if data is not None and Path(data).exists() and data not in names("data"):
        raise RequestError(
            f"--data {data}: say how it is to be read, for example --data '{{name: folder, path: {data}}}'"
        )
    source: Source = part_of("data", data, "--data") if data is not None else build("data", known["data"])
    if max_test is not None:
        source = replace(source, max_test=min(max_test, source.max_test or max_test))
    train, test = source.load(roots)
    architecture = part_of("models", model, "--model") if model is not None else build("models", known["model"])
    with placed("--model"):
        check_network(architecture, train.size, len(train.classes))
    net = architecture.initialised(train.size, len(train.classes), seed=seed)
    try:
        load_weights(net, str(path), other_classes=False)
    except RequestError as error:
        what = "{} x {} x {} (channels, height, width)".format(*train.size)
        raise RequestError(
            f"{error}. The network was built for the data: images of {what} in {len(train.classes)} classes"
        ) from error
    net = net.to(device, memory_format=torch.channels_last)
    poison = None if known.get("poison") is None else construct(Poison, known["poison"])
    return Own(
        model=net.eval(), source=source, train=train, test=test, device=device, roots=tuple(roots), seed=seed,
        identity=test_identity(source, source.facts(roots)),
        attacks=attacks, certifiers=certifiers, poison=poison,
    )  # fmt: skip


def _cells_in(path: Path) -> str:
    """The trained cells of a run folder, to be named in a message."""
    cells = sorted(file.parent for file in path.glob("cells/*/model.safetensors"))
    more = f" and {len(cells) - 3} more" if len(cells) > 3 else ""
    return f". It is a run with the cells {', '.join(map(str, cells[:3]))}{more}" if cells else ""


def _asked_before(cell: CellRecord, kind: str) -> tuple[Any, ...]:
    """The attacks or certifiers that a cell was evaluated with, in order."""
    asked = (info["settings"] for info in cell.evaluations().values() if info.get("kind") == kind)
    return tuple(dict.fromkeys(build(kind, settings) for settings in asked))


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is to be known about a model."""

    settings: EvaluationSettings
    metrics: dict[str, Metric]
    """By their names in tables."""


def asked_of(
    own: Own,
    *,
    attack: Sequence[str] = (),
    certify: Sequence[str] = (),
    trigger: str | None = None,
    target: int | None = None,
    measure: Sequence[str] = (),
) -> Asked:
    """What the options of a command ask of a model; by default the attacks, certifiers and trigger of its cell.

    Raises:
        RequestError: A wrong name or value, a trigger that has no target or does not fit the images; the text begins
            with the option.
    """
    planted = own.poison
    with placed("--measure"):
        metrics = metrics_named(measure)
    settings = EvaluationSettings(
        test=own.identity,
        attack=_parts_of("attack", attack, own.attacks),
        certify=_parts_of("certify", certify, own.certifiers),
        trigger=part_of("poison", trigger, "--trigger") if trigger else (planted.shown if planted else None),
        target=planted.target if target is None and planted else target,
        needs=needs_of(metrics),
    )
    settings.check(own.test, len(own.train.classes))
    return Asked(settings=settings, metrics=metrics)


def _parts_of(room: str, texts: Sequence[str], before: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(part_of(room, text, f"--{room}") for text in texts) or before


def part_of(room: str, text: str, option: str) -> Any:
    """A component from the command line: a name, or a YAML mapping; errors name the option."""
    with placed(option):
        return build(room, parse_value(text))


def accuracy(own: Own, images: Images) -> str:
    """How often the model is right on these images, for people: weights read wrongly, or a model that expects other
    pixels, are seen here first."""
    right = float((predict(own.model, images) == images.labels.cpu()).double().mean())
    return f"right on {100 * right:.1f} % of {len(images):,} images"


# --- filter ----------------------------------------------------------------------------------------------------------


def ranked(own: Own, judge: Filter, output: Path) -> tuple[Judged, list[Path]]:
    """Judge the training images, and write the ranking (CSV) and a contact sheet of the most suspicious (PNG)."""
    found = run_filter(own.model, judge, own.train.to(own.device), generator=own.generator("filter"))
    order = found.score.argsort(descending=True, stable=True)
    files = own.source.names(own.roots)
    table, sheet = output / "suspicion.csv", output / "suspicion.png"
    write_atomically(table, functools.partial(_write_ranking, own.train, found, order, files))
    picture = contact_sheet(own.train.batch(order[:SHEET]))
    write_atomically(sheet, lambda temporary: picture.save(temporary, format="PNG"))
    return found, [table, sheet]


def _write_ranking(images: Images, found: Judged, order: Tensor, names: Sequence[str] | None, path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(["rank", "id", "file", "label", "class", "suspicion", "removed"])
        for rank, place in enumerate(order.tolist(), start=1):
            number, label = int(images.ids[place]), int(images.labels[place])
            where = names[number] if names is not None else ""
            score, removed = f"{float(found.score[place]):.6g}", int(found.removed[place])
            writer.writerow([rank, number, where, label, images.classes[label], score, removed])


def contact_sheet(x: Tensor, columns: int = 12) -> Image.Image:
    """Images in [0, 1], N x C x H x W, row by row, small ones enlarged."""
    scale = max(1, 64 // x.shape[3])
    pixels = as_bytes(x).permute(0, 2, 3, 1).cpu().numpy().repeat(scale, 1).repeat(scale, 2)
    pixels = np.broadcast_to(pixels, (*pixels.shape[:3], 3))
    count, height, width, _ = pixels.shape
    columns = min(columns, count)
    sheet = np.full((math.ceil(count / columns) * (height + 2), columns * (width + 2), 3), 255, dtype=np.uint8)
    for place, picture in enumerate(pixels):
        top, left = place // columns * (height + 2), place % columns * (width + 2)
        sheet[top : top + height, left : left + width] = picture
    return Image.fromarray(sheet)


# --- scan ------------------------------------------------------------------------------------------------------------


def scan(own: Own, scanner: Scanner, count: int, output: Path) -> tuple[Scan, list[Path]]:
    """Scan the model with `count` of the test images; write a picture of every recovered trigger (PNG)."""
    images = own.defenders(count)
    found = run_scanner(own.model, scanner, images, generator=own.generator("scan"))
    if found.pattern is None or found.mask is None:
        return found, []
    shown = found.pattern * found.mask.nan_to_num(0)
    shown = shown + (1 - found.mask.nan_to_num(0)) * 0.5
    picture, path = contact_sheet(shown.clamp(0, 1)), output / "triggers.png"
    write_atomically(path, lambda temporary: picture.save(temporary, format="PNG"))
    return found, [path]


# --- repair ----------------------------------------------------------------------------------------------------------


def repair(
    own: Own,
    method: Repair,
    count: int,
    output: Path,
    asked: Asked,
) -> tuple[Repaired, Outcomes, Outcomes]:
    """Repair the model with `count` of the test images and write its weights (safetensors).

    Returns:
        The repaired model, and the outcomes of the model before and after on the other test images: clean, under the
        attacks, one after the other, and with the trigger, where there are such.

    Raises:
        RequestError: No test image is left to measure on, or `output` is not named as what will be written there.
    """
    if count >= len(own.test):
        raise RequestError(
            f"--images {count}: the data have {len(own.test)} test images, and some must be left to measure on; "
            "give a smaller number"
        )
    if output.suffix != ".safetensors":
        raise RequestError(f"--output {output}: the weights are written as safetensors; give NAME.safetensors")
    images, others = own.defenders(count), own.others(count)
    found = run_repair(own.model, method, images, generator=own.generator("repair"))
    state = {name: value.contiguous() for name, value in found.model.state_dict().items()}
    write_atomically(output, lambda temporary: safetensors.torch.save_file(state, temporary))
    settings = replace(asked.settings, test=fingerprint("others", own.identity, count))
    before, after = (
        evaluate_model(model, others, settings, asked.metrics, seed=own.seed, progress=Progress()).outcomes
        for model in (own.model, found.model)
    )
    return found, before, after
