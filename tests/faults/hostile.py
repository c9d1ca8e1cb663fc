"""Records made up by somebody, with sums that fit: shown or refused in one message, and nothing of them is run."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
import unicodedata
from itertools import product
from pathlib import Path

from faults.studies import NONSENSE, twist
from faults.trials import Trial, attempt

MARK = "<script>alert(1)</script>"
FORMS = ("text", "csv", "json", "markdown", "latex")


def hostile_trial(seed: int, whole: Path) -> Trial:
    """Twist what a copy of the record says, and show it in every way."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as place:
        folder, code = Path(shutil.copytree(whole, Path(place) / "run")), Path(place) / "evil.py"
        code.write_text(f"open({str(Path(place) / 'RAN')!r}, 'w')\nclass M: pass\n")
        cells = sorted(folder.rglob("cell.json"))
        path = folder / "study.json" if chance.random() < 0.5 else chance.choice(cells)
        content = json.loads(path.read_text())
        done = twist(content, chance, [*NONSENSE, MARK, f"{code}:M", {"name": f"{code}:M"}])
        path.write_text(json.dumps(content))
        write_sum(path)

        more = chance.choice(["", "", "", "", "", "", "", "page", "page", "figures"])
        outcome, note = attempt(lambda: shown(folder, Path(place), more))
        if (Path(place) / "RAN").exists():
            outcome, note = "wrong", "code was run"
        return Trial(outcome, f"{path.relative_to(folder)}: {done}", note)


def write_sum(path: Path) -> None:
    from bascule.core.fingerprint import file_digest

    path.with_name(f"{path.name}.sha256").write_text(f"{file_digest(path)}  {path.name}\n")


def shown(folder: Path, place: Path, more: str) -> str:
    """The tables, and the `page` or the `figures` where asked for."""
    from bascule.api.load import load
    from bascule.report.export import export
    from bascule.report.page.page import write_page
    from bascule.report.runs import open_runs, rows_of
    from bascule.report.tables.tables import More, render

    records = open_runs([str(folder)], place)
    rows = rows_of(records)
    for form, parts in product(FORMS, (More(pareto=True), More(by_class=True))):
        text = render(rows, form, parts)
        if any(unicodedata.category(letter) in ("Cc", "Cf") and letter not in "\n\r" for letter in text):
            return "wrong"
    load(folder, runs=place).frames()
    if more == "page" and MARK in write_page(records, place / "page.html").read_text(encoding="utf-8"):
        return "wrong"
    if more == "figures":
        export(records, place / "export", forms=("svg",))
    return "served"
