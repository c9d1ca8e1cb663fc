"""What Python code does, as a digest: a file and the local modules it imports, found without running any of them.

Local is what lies neither in the standard library nor among installed packages, and is not ours. Comments, docstrings
and formatting are left out: the digest is of the syntax tree without positions and without strings that stand alone.
What is no source that can be read (a C extension, a file with an error in it) counts by its bytes. Files that are no
code are not followed, nor are modules that are imported by a name made while running.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import site
import sys
import sysconfig
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any, NamedTuple

_OURS = Path(__file__).resolve().parents[2]
_SUFFIXES = (*EXTENSION_SUFFIXES, ".py", ".pyc")


class Import(NamedTuple):
    """One import statement: `from ..module import names`, `import module`."""

    level: int
    """Number of leading dots."""
    module: str
    names: tuple[str, ...]


class Code(NamedTuple):
    """A place in code and everything local that it imports."""

    digest: str
    """SHA-256, the same wherever the files lie."""
    files: Mapping[Path, str]
    """Each with a digest of its own; first those that were asked for."""

    @property
    def place(self) -> Path:
        """The first file."""
        return next(iter(self.files))


def code_at(files: Sequence[Path], *, beside: Path | None = None, own: Collection[Path] = ()) -> Code:
    """The digest of a module, and of the local modules it imports, and they import.

    Args:
        files: The file, after those of the packages that it lies in.
        beside: The folder whose modules come before all others, as for a script.
        own: Installed files and folders that are local all the same: those of the place itself.
    """
    queue = list(dict.fromkeys(file.resolve() for file in files))
    numbers = {file: number for number, file in enumerate(queue)}
    digest, digests = hashlib.sha256(), dict[Path, str]()
    for file in queue:  # grows on the way
        digests[file], imports = _read(file)
        found = [_follow(one, file, beside) for one in imports]
        local = [[path for path in paths if _is_local(path, own)] for paths in found]
        for path in (path for paths in local for path in paths):
            if path not in numbers:
                numbers[path] = len(numbers)
                queue.append(path)
        digest.update(repr((digests[file], [[numbers[path] for path in paths] for paths in local])).encode())
    return Code(digest.hexdigest(), digests)


def files_of(module: str, *, beside: Path | None = None) -> list[Path]:
    """The files that importing a module by its dotted name runs, its own last; empty where it has none."""
    files, folders = _descend_from_top(module.split("."), beside)
    return [] if folders is None else files


def is_installed(file: Path) -> bool:
    """Whether the file belongs to the standard library or to an installed package."""
    file = file.resolve()
    named = {"site-packages", "dist-packages"} & set(file.parts)
    return bool(named) or any(file.is_relative_to(folder) for folder in _installed_folders())


@functools.cache
def _installed_folders() -> tuple[Path, ...]:
    paths = sysconfig.get_paths()
    folders = [paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    user = site.getusersitepackages() if hasattr(site, "getusersitepackages") else ""
    return tuple(Path(folder).resolve() for folder in (*folders, user) if folder)


def _is_local(file: Path, own: Collection[Path]) -> bool:
    if any(file.is_relative_to(place) for place in own):
        return True
    return not (file.is_relative_to(_OURS) or is_installed(file))


# --- finding modules -------------------------------------------------------------------------------------------------


def _follow(one: Import, file: Path, beside: Path | None) -> list[Path]:
    """The files that an import statement in `file` runs, as far as they are there; each once, in order."""
    parts = one.module.split(".") if one.module else []
    if one.level:
        files, folders = _descend(parts, file.parents[one.level - 1 : one.level])
    else:
        files, folders = _descend_from_top(parts, beside)
    for name in one.names:
        part = _in_folders(name, folders or ())
        files += [part[0]] if part is not None and part[0] is not None else []
    return list(dict.fromkeys(path.resolve() for path in files))


_Found = tuple[list[Path], Sequence[Path] | None]
"""Files in the order they are run, and the folders of the last one's submodules; None where something is not there."""


def _descend_from_top(parts: Sequence[str], beside: Path | None) -> _Found:
    top = parts[0]
    if top in sys.builtin_module_names or top == _OURS.name:
        return [], None
    first = [beside] if beside is not None and top not in sys.stdlib_module_names else []
    # Modules of the current folder are found after all others (see importing.py).
    path = [*first, *(Path(entry) if entry else Path.cwd() for entry in sys.path), Path.cwd()]
    if _in_folders(top, path) is not None:
        return _descend(parts, path)
    try:  # a package that is installed to be edited may have a finder of its own
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError, AttributeError):
        spec = None
    if spec is None:
        return [], None
    origin = [Path(spec.origin)] if spec.has_location and spec.origin and Path(spec.origin).is_file() else []
    files, folders = _descend(parts[1:], [Path(folder) for folder in spec.submodule_search_locations or ()])
    return origin + files, folders


def _descend(parts: Sequence[str], folders: Sequence[Path]) -> _Found:
    files: list[Path] = []
    for part in parts:
        found = _in_folders(part, folders)
        if found is None:
            return files, None
        file, folders = found
        files += [file] if file is not None else []
    return files, folders


def _in_folders(name: str, folders: Sequence[Path]) -> tuple[Path | None, list[Path]] | None:
    """The file of a module and the folders of its submodules, as Python's own search finds them; None if not there.

    A folder without `__init__` is a part of a namespace package, which has no file, if nothing else has the name.
    """
    parts: list[Path] = []
    for folder in folders:
        inner = folder / name
        for suffix in _SUFFIXES:
            if _is_there((inner / f"__init__{suffix}").is_file):
                return inner / f"__init__{suffix}", [inner]
        for suffix in _SUFFIXES:
            if _is_there((folder / f"{name}{suffix}").is_file):
                return folder / f"{name}{suffix}", []
        parts += [inner] if _is_there(inner.is_dir) else []
    return (None, parts) if parts else None


def _is_there(test: Callable[[], bool]) -> bool:
    """False also in a folder that must not be read."""
    try:
        return test()
    except OSError:
        return False


# --- reading one file ------------------------------------------------------------------------------------------------


def _read(file: Path) -> tuple[str, tuple[Import, ...]]:
    """The digest of one file, and its import statements in order."""
    try:
        state = file.stat()
        return _read_once(file, state.st_mtime_ns, state.st_size, state.st_ino)
    except OSError:
        return "", ()


@functools.lru_cache(maxsize=4096)
def _read_once(file: Path, *_: int) -> tuple[str, tuple[Import, ...]]:
    data = file.read_bytes()
    tree = parsed(data) if file.suffix == ".py" else None
    if tree is None:
        return f"bytes {hashlib.sha256(data).hexdigest()}", ()
    digest = hashlib.sha256()
    for word in _words(tree):
        digest.update(word.encode("utf-8", errors="surrogatepass") + b"\n")
    return digest.hexdigest(), tuple(_imports(tree))


def parsed(data: bytes) -> ast.Module | None:
    """The syntax tree of a source file; None where it is no Python."""
    try:
        return ast.parse(data)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _imports(tree: ast.Module) -> Iterator[Import]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (Import(0, alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield Import(node.level, node.module or "", tuple(alias.name for alias in node.names))


_WITHOUT_EFFECT = frozenset({"kind", "type_comment", "type_ignores", "ctx"})
"""Fields of the syntax tree that say how something is written."""


def _words(tree: ast.Module) -> Iterator[str]:
    """The syntax tree, word by word: the same for every version of Python that has the same syntax.

    Not `ast.dump`: what that writes of empty fields depends on the version, and it is limited in depth.
    """
    stack: list[tuple[str, Any]] = [("node", tree)]
    while stack:
        kind, value = stack.pop()
        if kind == "word":
            yield value
        elif isinstance(value, ast.AST):
            yield f"({type(value).__name__}"
            stack.append(("word", ")"))
            for name in reversed(value._fields):
                part = getattr(value, name, None)
                needed = name == "value" and isinstance(value, ast.Constant)
                if needed or not (name in _WITHOUT_EFFECT or part is None or part == []):
                    stack += [("node", part), ("word", name)]
        elif isinstance(value, list):
            yield "["
            stack.append(("word", "]"))
            stack += [("node", part) for part in reversed(value) if not _is_text_alone(part)]
        else:
            yield _literal(value)


def _is_text_alone(node: Any) -> bool:
    """Whether this is a docstring, also one under a setting: a statement that is nothing but a string."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _literal(value: Any) -> str:
    try:
        return repr(value)
    except ValueError:  # a whole number of more digits than Python prints
        return hex(value)
