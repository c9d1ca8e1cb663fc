"""An audit of a data set alone: its images are ranked with a network that is trained for nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bascule.auditing.conduct import Prepared, audit_in, located, mapping_of, own_file
from bascule.auditing.cost import Cost, measure_cost
from bascule.auditing.open import AuditedModel, source_of
from bascule.auditing.propose import Proposal, Wish, propose_filters
from bascule.auditing.set_aside import with_test
from bascule.auditing.study import study_text, write_study
from bascule.core.catalog import build
from bascule.core.errors import placed
from bascule.core.fingerprint import fingerprint
from bascule.core.text import count
from bascule.evaluation.question import Spec
from bascule.models.checks import check_network

_TRAINED = 4.5
"""What a training step takes, in forward passes of its images."""
_MOST_EPOCHS, _LEAST_EPOCHS = 15, 3
_FEWEST = 1000
"""Training images below which a network learns too little to judge by."""
_TESTED = 0.1
"""Share of each class that shows how right the network is, where the data have no test images of their own."""


def prepare_images(
    data: Spec,
    *,
    architecture: Spec | None,
    wish: Wish,
    runs: Path,
    roots: Sequence[Path],
    device: torch.device,
    seed: int = 0,
) -> Prepared:
    """Read the data, and propose a study that trains a network on them and lets filters judge; one that is there stays.

    Args:
        data: A source.
        architecture: The network; by default a small one that suits the size of the images.
        wish: How much is to be looked at.
        runs: The folder that holds runs.
        roots: Folders searched for data.
        device: Where to measure what passes take.
        seed: Of the training, and of what filters draw.

    Raises:
        RequestError: The data cannot be read, or the network does not take them; its place is the argument.
    """
    source, drawn = with_test(source_of(data), mapping_of(data), roots, _TESTED)
    train, test = source.load(roots)
    model = own_file(mapping_of(architecture or _network(train.size)))
    share = {"test_share": _TESTED} if drawn else {}
    parts = {"data": {**located(mapping_of(data), roots), **share}, "model": model}
    asked = fingerprint("audit", *parts.values(), vars(wish), seed)
    audit = audit_in(runs, _called(parts["data"]), asked, wish=wish, roots=roots, device=device)
    if not audit.new:
        return audit
    with placed("model"):
        built = build("models", model)
        check_network(built, train.size, len(train.classes))
    network = built.initialised(train.size, len(train.classes), seed=seed).eval().to(device)
    opened = AuditedModel(
        model=network, source=source, train=train, test=test, device=device, roots=tuple(roots), seed=seed
    )
    proposal = _propose(opened, wish)
    if drawn:
        proposal.left_out.append(
            f"{count(drawn, 'image')} that had to be set aside to see how right the network is: no split was given."
        )
    write_study(audit.study, _text(proposal, parts, audit, seed))
    return audit


def _network(size: tuple[int, int, int]) -> dict[str, Any]:
    """A small network that suits images of this size."""
    channels, height, width = size
    if channels == 1 and max(height, width) <= 32:
        return {"name": "digits-cnn"} if max(height, width) < 16 else {"name": "mnist-fast"}
    stem = 1 if max(height, width) < 48 else 4 if max(height, width) < 128 else 8
    return {"name": "resnet9", "widths": [16, 32, 64, 128], "stem": stem}


def _called(data: dict[str, Any]) -> str:
    path = data.get("path")
    return Path(path).stem if isinstance(path, str) else str(data["name"]).rpartition(":")[2]


def _propose(opened: AuditedModel, wish: Wish) -> Proposal:
    proposal, cost = Proposal(), measure_cost(opened.model, opened.test)
    seconds, there = 60 * wish.minutes, len(opened.train)
    epochs, most = _MOST_EPOCHS, there
    if not wish.full:
        epochs, most = _fitting(cost, 0.5 * seconds, there)
    proposal.base["train"] = {
        "objective": "standard", "epochs": epochs, "batch_size": 64, "lr": 3e-3, "schedule": "one-cycle",
    }  # fmt: skip
    proposal.reasons.append(
        f"A network of its own for {epochs} passes over {most} of {there} training images: filters judge images by a "
        f"model that was trained on them; a pass takes {1000 * cost.forward:.3g} ms an image here."
    )
    propose_filters(proposal, opened, wish, cost, 0.4 * seconds, most=most)
    proposal.left_out += [
        "Any model: none was given.",
        "Poison that this network does not take up in its short training, or that makes for no trigger at all.",
    ]
    return proposal


def _fitting(cost: Cost, seconds: float, there: int) -> tuple[int, int]:
    """Passes over the training set and its images, that fit into the time: fewer passes first, then fewer images."""
    passes = seconds / (_TRAINED * cost.forward)
    epochs = min(_MOST_EPOCHS, max(_LEAST_EPOCHS, int(passes / there)))
    most = min(there, max(_FEWEST, int(passes / epochs) // 100 * 100))
    return epochs, most


def _text(proposal: Proposal, parts: dict[str, Any], audit: Prepared, seed: int) -> str:
    study = {
        "title": f"Audit of the images of {_called(parts['data'])}",
        "about": "The training images of a data set, ranked by filters that judge with a network trained for this "
        "alone. Nothing is said of any other model.",
        "base": {"data": {**parts["data"], **proposal.data}, "model": parts["model"], **proposal.base},
        "seeds": [seed],
        "measure": ["accuracy"],
        "rows": proposal.rows,
    }
    how = f"bascule run {audit.study}"
    return study_text(study, about="images", how=how, reasons=proposal.reasons, left_out=proposal.left_out)
