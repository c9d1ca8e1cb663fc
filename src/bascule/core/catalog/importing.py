"""Importing users' code, and importing it again when it has changed: what runs is what the identity speaks of."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import Distribution
from pathlib import Path

from bascule.core.catalog.plugins import files_of_distribution, is_from_index
from bascule.core.catalog.sources import Code, code_at, files_of, is_installed
from bascule.core.errors import RequestError

_MODULES: dict[str, tuple[types.ModuleType, str]] = {}
"""What was imported here, by module name or path of the file, and the digest of its code then."""
_FILES: dict[Path, str] = {}
"""Local files as they were when something that needs them was imported."""


def code_of_place(where: str, dist: Distribution | None = None) -> Code | None:
    """The code of `module` or `path/to/file.py`, found without importing anything; None where there is no file.

    What is installed has the imports from its own package, and from its distribution `dist` if that is one of the
    user's own.
    """
    files = _files_of(where)
    if where.endswith(".py"):
        return code_at(files, beside=files[0].parent) if files else None
    if not files:
        return None
    if not is_installed(files[-1]):
        return code_at(files)
    if dist is not None and not is_from_index(dist):
        return code_at(files, own=files_of_distribution(dist))
    return code_at(files, own=_top_package(files))


def place_of(where: str) -> Path | None:
    """The file of `module` or `path/to/file.py`, found without importing anything; None where there is none."""
    return next(reversed(_files_of(where)), None)


def _files_of(where: str) -> list[Path]:
    """The file, after those of the packages that it lies in."""
    try:
        if where.endswith(".py"):
            file = Path(where).expanduser().resolve()
            return [file] if file.is_file() else []
        return files_of(where) if where != "__main__" and all(map(str.isidentifier, where.split("."))) else []
    except (OSError, ValueError, RuntimeError):  # not a path, on this system or for this user
        return []


def _top_package(files: list[Path]) -> list[Path]:
    """The folder of the outermost package among files that are imported one after the other, if they are in one."""
    outermost = files[0].resolve()
    return [outermost.parent] if outermost.stem == "__init__" else []


def import_place(where: str, dist: Distribution | None = None) -> types.ModuleType:
    """The module called `where`, or made from that file; anew when its code or that of a local import has changed.

    Args:
        where: `module` or `path/to/file.py`.
        dist: The distribution of an installed one, if it is known.

    Raises:
        RequestError: There is no such file.
        Exception: Whatever the code raises.
    """
    file = Path(where).expanduser().resolve() if where.endswith(".py") else None
    if file is not None and not file.is_file():
        raise RequestError(f"no file {str(file)!r}; give module:attribute or path/to/file.py:attribute")
    key, code = str(file or where), code_of_place(where, dist)
    known, digest = _MODULES.get(key), code.digest if code else ""
    if known is not None and known[1] == digest and (file is not None or sys.modules.get(where) is known[0]):
        return known[0]
    if code is not None:
        _forget_changed(code)
    if file is None:
        module = _by_name(where)
    else:
        assert code is not None
        module = _from_file(file, _beside(code, file.parent))
    _MODULES[key] = (module, digest)
    _FILES.update(code.files if code else {})
    return module


def _forget_changed(code: Code) -> None:
    """Make Python import these files again, all of them, when one is no longer what it was."""
    if all(_FILES.get(file, own) == own for file, own in code.files.items()):
        return
    for name, module in list(sys.modules.items()):
        if name != "__main__" and _file_of(module) in code.files:
            del sys.modules[name]
    importlib.invalidate_caches()


def _beside(code: Code, folder: Path) -> dict[str, Path]:
    """The files in `folder` or below that another file there imports, by their dotted names."""
    names = {}
    for file in list(code.files)[1:]:
        if file.is_relative_to(folder):
            parts = file.relative_to(folder).with_suffix("").parts
            names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return names


def _file_of(module: types.ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file).resolve() if isinstance(file, str) else None


def _by_name(where: str) -> types.ModuleType:
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    return importlib.import_module(where)


def _from_file(path: Path, beside: Mapping[str, Path]) -> types.ModuleType:
    # Named after its place: two users' `nets.py` must not answer for each other.
    name = f"bascule_user_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with _first_on_path(path.parent, beside):
        # Compiled here: Python's own cache takes a file for the old one when its second and its size are the same.
        exec(compile(path.read_bytes(), str(path), "exec", dont_inherit=True), vars(module))
    return module


@contextmanager
def _first_on_path(folder: Path, beside: Mapping[str, Path]) -> Iterator[None]:
    """What a file imports from beside it is found as for a script, also where another folder has the same names."""
    for name, file in beside.items():
        if name in sys.modules and _file_of(sys.modules[name]) not in (None, file):
            del sys.modules[name]
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))
    # What is imported later, when a function runs, must be found then.
    if not beside.keys() <= sys.modules.keys() and str(folder) not in sys.path:
        sys.path.append(str(folder))
