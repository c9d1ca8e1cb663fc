"""The trigger of a cell whose poison was made with another model: its own record knows it, and it is tried as given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bascule.auditing.open import AuditedModel
from bascule.core.files import write_atomically
from bascule.core.images import Images
from bascule.triggers.stamping import stamp_bytes

STAMPED = "stamped.npz"
"""In the audit's run folder: the test images with that trigger, by their number."""


def stamped_by_its_record(audited: AuditedModel, max_test: int | None, folder: Path) -> dict[str, Any]:
    """Poison that a study may name: no training image is touched, and test images become those written here.

    Args:
        audited: A cell with the data of its run and poison that has a target.
        max_test: As many test images as the study asks; None: all there are.
        folder: Where the stamped images go.

    Raises:
        RequestError: What a search found lies nowhere in the run of the cell.
    """
    poison = audited.poison
    assert poison is not None
    trigger = audited.found(poison.trigger_at_test)
    images: Images = audited.test
    if max_test is not None:
        images = replace(audited.source, max_test=max_test).load(audited.roots)[1]
    pixels = stamp_bytes(images, torch.arange(len(images)), trigger, generator=audited.generator("stamped"))
    path = folder / STAMPED

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, test_index=images.ids.numpy(), test_images=pixels.permute(0, 2, 3, 1).numpy())

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, write)
    return {"name": "given", "target": poison.target, "trigger": {"name": "stamped", "path": str(path.resolve())}}
