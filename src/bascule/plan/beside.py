"""Files that a study names lie beside it, or where the command runs.

A relative name that stands in the study file is looked for in the folder of that file, and then, as every name that
was given otherwise, in the current one; data in the data folders before both. A model is named by what was written,
wherever the command runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bascule.plan.origins import Layer, Place

SEED = "{seed}"
"""Stands for the seed in the name of a file of weights."""
_FILES = ("weights", "path", "picture", "indices")
"""Settings that name a file or a folder, whatever part of a row has them."""


def found_beside(
    settings: Layer, folder: Path | None, *, seeds: Sequence[int], roots: Sequence[Path]
) -> tuple[Any, dict[str, str]]:
    """The settings of a row, with names that lead to files beside the study, and what was written for each of these.

    Args:
        settings: Of a row, with the origin of each value.
        folder: That of the study file; None where there is none, or where it is the current one.
        seeds: Of the row, for `{seed}` in names.
        roots: Folders searched for data, before the study's.
    """
    if folder is None:
        return settings.values, {}
    written: dict[str, str] = {}

    def lead(value: Any, place: Place) -> Any:
        if isinstance(value, Mapping):
            return {key: lead(inner, (*place, str(key))) for key, inner in value.items()}
        if isinstance(value, (list, tuple)) and place:
            return [lead(inner, (*place[:-1], f"{place[-1]}[{number}]")) for number, inner in enumerate(value)]
        if not place or place[-1] not in _FILES or not isinstance(value, str) or not settings.find(place).in_file:
            return value
        names = [value.replace(SEED, str(seed)) for seed in seeds] if SEED in value else [value]
        if place[0] == "data":
            # Where data lie is in no name of a model; elsewhere a path may be, and stays as short as it was written.
            known = any((root / name).exists() for root in roots if root != Path() for name in names)
            return value if known or not _is_there(folder, names) else str((folder / value).absolute())
        if not _is_there(folder, names):
            return value
        written.update({str(folder / name): name for name in names})
        return str(folder / value)

    return lead(settings.values, ()), written


def as_written(described: Any, written: Mapping[str, str]) -> Any:
    """Plain settings with the names of files as they were written."""
    if isinstance(described, Mapping):
        return {key: as_written(value, written) for key, value in described.items()}
    if isinstance(described, list):
        return [as_written(value, written) for value in described]
    return written.get(described, described) if isinstance(described, str) else described


def _is_there(folder: Path, names: Sequence[str]) -> bool:
    """Whether one of the names is relative and lies in the folder."""
    paths = [Path(name).expanduser() for name in names]
    try:
        return any(not path.is_absolute() and (folder / path).exists() for path in paths)
    except (OSError, ValueError):  # a name that is too long, or none
        return False
