"""Files of a record are damaged; readers get the same numbers or are told, and the same command makes it whole."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from pathlib import Path

from faults.kills import content, ended, finish, spawn
from faults.trials import BAD, Trial, attempt


def numbers(folder: Path) -> list[dict[str, object]]:
    """The rows of a table, with everything that a reader sees."""
    from bascule.record.rows import read_rows
    from bascule.record.run import RunRecord

    return json.loads(json.dumps([row.as_dict() for row in read_rows(RunRecord(folder))]))


def damage(path: Path, others: list[Path], chance: random.Random) -> str:
    """Damage a file; says how."""
    data = bytearray(path.read_bytes())
    how = chance.choice(["flip", "flip", "flip", "truncate", "empty", "delete", "swap", "zeros"])
    if how == "flip" and data:
        place = chance.randrange(len(data))
        data[place] ^= 1 << chance.randrange(8)
    elif how == "truncate":
        del data[chance.randrange(len(data) or 1) :]
    elif how == "empty":
        data.clear()
    elif how == "zeros" and data:
        start = chance.randrange(len(data))
        data[start : start + 512] = bytes(len(data[start : start + 512]))
    elif how == "swap":
        twins = [other for other in others if other.name == path.name and other != path]
        data = bytearray(chance.choice(twins).read_bytes()) if twins else data[::-1]
    elif how == "delete":
        path.unlink()
        return how
    path.write_bytes(bytes(data))
    return how


def record_trial(seed: int, whole: Path) -> Trial:
    """Damage one file of a copy of the record, read its table and the cell's model, and run the study again."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(shutil.copytree(whole, Path(place) / "run"))
        files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
        path = chance.choice(files)
        before = path.read_bytes()
        how = damage(path, files, chance)
        fault = f"{how} {path.relative_to(folder)}"
        if path.is_file() and path.read_bytes() == before:
            return Trial("served", fault, "unchanged")
        expected = numbers(whole)

        def read() -> str:
            rows = numbers(folder)
            return "served" if rows == expected else told(rows, expected)

        outcome, note = attempt(read)
        if outcome == "refused" and note and path.name not in note:
            return Trial("wrong", fault, f"the file is not named: {note}")
        if outcome not in BAD and path.name == "model.safetensors":
            outcome, note = attempt(lambda: weights(path.parent, whole / path.parent.relative_to(folder)))
        if outcome not in BAD and chance.random() < 0.25:
            again, what = ended(finish(spawn(folder)), folder, content(whole))
            if again in BAD:
                return Trial(again, fault, f"the same command again: {what}")
        return Trial(outcome, fault, note)


def weights(cell: Path, whole: Path) -> str:
    """Open the model of a cell; whether it is that of the whole record."""
    import torch

    from bascule.auditing.open import open_model

    ours, theirs = (open_model(path, device=torch.device("cpu"), roots=()).model.state_dict() for path in (cell, whole))
    return "served" if all(torch.equal(value, theirs[name]) for name, value in ours.items()) else "wrong"


def told(rows: list[dict[str, object]], expected: list[dict[str, object]]) -> str:
    """Whether a table that differs says so: fewer seeds, or a flag that is not there otherwise."""
    if len(rows) != len(expected):
        return "wrong"
    for row, whole in zip(rows, expected, strict=True):
        flags = set(map(str, row["flags"])) - set(map(str, whole["flags"]))  # type: ignore[call-overload]
        if row != whole and not flags and row["seeds"] == whole["seeds"]:
            return "wrong"
    return "refused"
