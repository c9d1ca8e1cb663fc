"""Scanning a model for backdoors."""

from __future__ import annotations

from pathlib import Path

from bascule.auditing.open import AuditedModel
from bascule.auditing.sheet import write_contact_sheet
from bascule.scanners.contract import Scan, Scanner
from bascule.scanners.run import run_scanner


def scan_model(audited: AuditedModel, scanner: Scanner, images: int, output: Path) -> tuple[Scan, list[Path]]:
    """Scan the model with a number of the test images; write a picture of every recovered trigger (PNG).

    Returns:
        The scan, and the files in the folder `output`: none where the scanner recovers no triggers.
    """
    scan = run_scanner(audited.model, scanner, audited.defender_images(images), generator=audited.generator("scan"))
    if scan.pattern is None or scan.mask is None:
        return scan, []
    mask, path = scan.mask.nan_to_num(0), output / "triggers.png"
    write_contact_sheet(path, (scan.pattern * mask + (1 - mask) * 0.5).clamp(0, 1))
    return scan, [path]
