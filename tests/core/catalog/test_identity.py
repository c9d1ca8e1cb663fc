"""What a user's part depends on is its identity: its file and the local modules that this imports, as code."""

from __future__ import annotations

import hashlib
import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bascule.core import catalog
from bascule.core.catalog import build, code_named, code_of, describe, load
from bascule.core.errors import RequestError

NET = '''\
"""Nets."""
{imports}


def net(size, classes):
    """One layer."""
    {inside}
    return None
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder; modules that are imported from it are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    before = set(sys.modules)
    importlib.invalidate_caches()
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def write(files: dict[str, str]) -> None:
    """Files of the current folder, by name."""
    for name, text in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)


def net(imports: str = "", inside: str = "") -> str:
    return NET.format(imports=imports, inside=inside)


def identity(name: str = "nets.py:net") -> str:
    """As it is found after importing, which is what is found without."""
    code = code_of(load("models", name), name)
    assert code == code_named(name)
    return code


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ('def area(a, b=1_0):  # a comment\n    """About."""\n    return (a\n            * b)', True),
        ("def area(a, b=10):\n    'Other words.'\n\n    return a*b\n", True),
        ("def area(a, b=10):\n    return a * b\n", True),
        ("def area(a, b=11):\n    return a * b\n", False),
        ("def area(a, b=10.0):\n    return a * b\n", False),
        ("def area(b, a=10):\n    return a * b\n", False),
        ("def area(a, b=10):\n    return a + b\n", False),
        ("@staticmethod\ndef area(a, b=10):\n    return a * b\n", False),
    ],
)
def test_comments_docstrings_and_formatting_do_not_count(folder: Path, other: str, same: bool) -> None:
    write({"nets.py": 'def area(a, b=10):\n    """What it is."""\n    return a * b\n'})
    before = code_named("nets.py:area")
    write({"nets.py": other})
    assert (code_named("nets.py:area") == before) == same


def test_the_text_below_a_setting_does_not_count(folder: Path, ink_blot: str) -> None:
    write({"blot.py": ink_blot})
    blot = build("poison", "blot.py:InkBlot")
    write({"blot.py": ink_blot.replace("Side of the blot", "How wide it is") + "# more\n"})
    assert describe(build("poison", describe(blot))) == describe(blot)
    write({"blot.py": ink_blot.replace("] = 0", "] = 1")})
    with pytest.raises(RequestError, match=r"blot\.py:InkBlot is not what this was made with \(its code changed\)"):
        build("poison", describe(blot))


IMPORTED = {
    "beside": ({"nets.py": net("import layers"), "layers.py": "x = 1"}, "layers.py", "nets.py:net"),
    "from beside": ({"nets.py": net("from layers import x"), "layers.py": "x = 1"}, "layers.py", "nets.py:net"),
    "in a function": ({"nets.py": net(inside="import layers"), "layers.py": "x = 1"}, "layers.py", "nets.py:net"),
    "of an import": (
        {"nets.py": net("import layers"), "layers.py": "from deep import y", "deep.py": "y = 1"},
        "deep.py",
        "nets.py:net",
    ),
    "package": (
        {"nets.py": net("from own.deep import layers"), "own/__init__.py": "", "own/deep/__init__.py": "",
         "own/deep/layers.py": "x = 1"},
        "own/deep/layers.py",
        "nets.py:net",
    ),
    "of the package itself": (
        {"nets.py": net("import own.layers"), "own/__init__.py": "x = 1", "own/layers.py": ""},
        "own/__init__.py",
        "nets.py:net",
    ),
    "relative": (
        {"own/__init__.py": "", "own/nets.py": net("from .layers import x"), "own/layers.py": "x = 1"},
        "own/layers.py",
        "own.nets:net",
    ),
    "relative, of a parent": (
        {"own/__init__.py": "", "own/a/__init__.py": "", "own/a/nets.py": net("from .. import layers"),
         "own/layers.py": "x = 1"},
        "own/layers.py",
        "own.a.nets:net",
    ),
    "parent of the module": (
        {"own/__init__.py": "x = 1", "own/nets.py": net()}, "own/__init__.py", "own.nets:net",
    ),
    "namespace": (
        {"space/own/nets.py": net("from space.own import layers"), "space/own/layers.py": "x = 1"},
        "space/own/layers.py",
        "space.own.nets:net",
    ),
    "circle": (
        {"nets.py": net("import layers"), "layers.py": "import again", "again.py": "import layers\nx = 1"},
        "again.py",
        "nets.py:net",
    ),
    "made elsewhere": ({"nets.py": "from layers import net", "layers.py": net()}, "layers.py", "nets.py:net"),
}  # fmt: skip


@pytest.mark.parametrize(("files", "changed", "name"), IMPORTED.values(), ids=IMPORTED.keys())
def test_local_imports_count(folder: Path, files: dict[str, str], changed: str, name: str) -> None:
    write(files)
    before = identity(name)
    text = Path(changed).read_text()
    write({changed: text + "\n# a thought\n"})
    assert identity(name) == before
    write({changed: text + "\nz = 2\n"})
    assert identity(name) != before
    write({changed: text})
    assert identity(name) == before


def test_the_same_code_in_another_folder_is_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"nets.py": net("from own import layers"), "own/__init__.py": "", "own/layers.py": "from . import more",
             "own/more.py": "x = 1"}  # fmt: skip
    write(files)
    before = code_named("nets.py:net")
    (folder / "other").mkdir()
    monkeypatch.chdir(folder / "other")
    write(files)
    assert code_named("nets.py:net") == before == code_named("../other/nets.py:net")


def test_what_is_installed_ours_or_no_code_does_not_count(folder: Path) -> None:
    write({"nets.py": net("import json, torch, bascule.attacks", "open('sizes.json')"), "sizes.json": "1"})
    before = code_named("nets.py:net")
    write({"sizes.json": "2"})
    assert code_named("nets.py:net") == before
    from bascule.core.catalog.sources import code_at

    assert list(code_at([folder / "nets.py"], beside=folder).files) == [folder / "nets.py"]


@pytest.mark.parametrize("broken", [b"def f(:", b"\0", b"\xff\xfe x", b"x = " + b"(" * 5000, b"-" * 50_000 + b"1"])
def test_a_helper_that_is_no_python_counts_by_its_bytes(folder: Path, broken: bytes) -> None:
    write({"nets.py": net(inside="import layers")})
    before = identity()
    Path("layers.py").write_bytes(broken)
    assert identity() not in (before, None)
    Path("layers.py").write_bytes(broken + b"#")
    assert identity() != before


def test_a_long_sum_and_large_numbers_are_read(folder: Path) -> None:
    write({"nets.py": net("x = " + " + ".join(["1"] * 900) + f"\ny = 0x{'f' * 9000}\nz = '\\ud800'")})
    assert identity().startswith("ast1:")


def test_a_c_extension_counts_by_its_bytes(folder: Path) -> None:
    from importlib.machinery import EXTENSION_SUFFIXES

    write({"nets.py": net(inside="import fast")})
    before = identity()
    Path(f"fast{EXTENSION_SUFFIXES[0]}").write_bytes(b"\x7fELF")
    assert identity() != before


def test_what_runs_is_what_the_identity_speaks_of(folder: Path) -> None:
    write({"nets.py": "import layers\ndef net(): return layers.x, 1", "layers.py": "x = 1"})
    old = load("models", "nets.py:net")
    code = identity()
    write({"layers.py": "x = 2"})
    assert load("models", "nets.py:net")() == (2, 1)
    write({"nets.py": "import layers\ndef net(): return layers.x, 2"})
    assert load("models", "nets.py:net")() == (2, 2)
    assert old() == (1, 1)
    assert code_of(old, "nets.py:net") == code != identity()


def test_files_of_two_folders_have_their_own_imports(folder: Path) -> None:
    for number in (1, 2):
        write({f"{number}/nets.py": "from layers import x\ndef net(): return x"})
        write({f"{number}/layers.py": f"x = {number}"})
    assert [load("models", f"{number}/nets.py:net")() for number in (1, 2)] == [1, 2]
    assert identity("1/nets.py:net") != identity("2/nets.py:net")


def test_an_import_beside_the_file_is_found_when_the_function_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write({"1/nets.py": "def net():\n    import layers_of_one as one\n    return one.x", "1/layers_of_one.py": "x = 1"})
    assert load("models", "1/nets.py:net")() == 1


LONG = "x" * 5000
NO_NAMES = ["a\0b.py:x", "~nobody/x.py:y", "..:x", ":x", f"{LONG}.py:y", f"{LONG}:y", "/tmp:x", "\ud800.py:x"]


@pytest.mark.parametrize("name", NO_NAMES, ids=map(str, range(len(NO_NAMES))))
def test_a_name_that_cannot_be_one_is_refused_and_has_no_identity(folder: Path, name: str) -> None:
    assert code_named(name) is None
    assert catalog.origin("models", name).endswith(" (not found)")
    assert catalog.origin("models", name).isprintable()
    assert catalog.changed_in({"name": name, "code": "ast1:0"}) == (name,)
    with pytest.raises(RequestError, match=r"cannot import|no file"):
        build("models", name)


def test_of_a_prompt_it_is_the_class_alone(tmp_path: Path) -> None:
    code = """
import sys
from bascule.core.catalog import component, contract, describe

@contract("poison")
@component
class Trigger: ...

def make(by):
    exec(f'''@component
class Mine(Trigger):
    def stamp(self, x, *, generator):
        return x + {by}''', globals())
    return describe(Mine())["code"]

one, same, other = make(1), make(1), make(2)
assert one == same != other, (one, same, other)
assert one.startswith("code1:")
"""
    done = subprocess.run([sys.executable, "-"], input=code, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# --- records of earlier versions -------------------------------------------------------------------------------------


def old_code(file: str) -> str:
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


def test_a_code_of_an_earlier_version_is_good_while_the_bytes_are_the_same(folder: Path, ink_blot: str) -> None:
    write({"nets.py": net(), "blot.py": ink_blot})
    model = {**describe(build("models", "nets.py:net")), "code": old_code("nets.py")}
    blot = {**describe(build("poison", "blot.py:InkBlot")), "code": old_code("blot.py")}
    assert describe(build("models", model)) == model
    assert build("poison", blot).size == 2
    write({"nets.py": net() + "#", "blot.py": ink_blot + "#"})
    with pytest.raises(RequestError, match="not the factory this was made with"):
        build("models", model)
    with pytest.raises(RequestError, match="its code changed"):
        build("poison", blot)


@pytest.fixture
def recalled() -> Iterator[Callable[[str, str], bool]]:
    """A record of an earlier version holds this code under this name."""
    known = sys.modules["bascule.core.catalog.identity"]._RECALLED
    yield lambda name, code: catalog.recall([{"model": {"name": name, "code": code}}])
    known.clear()


def test_a_run_of_an_earlier_version_keeps_its_identities(folder: Path, recalled: Callable[[str, str], bool]) -> None:
    write({"nets.py": net(), "more.py": net("import layers"), "layers.py": ""})
    assert not recalled("nets.py:net", "ast1:0")
    for file in ("nets", "more"):
        assert recalled(f"{file}.py:net", old_code(f"{file}.py"))
    assert describe(build("models", "nets.py:net"))["code"] == old_code("nets.py")
    assert describe(build("models", "more.py:net"))["code"].startswith("ast1:")  # its bytes say nothing of layers.py
    write({"nets.py": net() + "# changed"})
    assert describe(build("models", "nets.py:net"))["code"].startswith("ast1:")


def test_changes_are_noted_where_a_model_is_only_looked_at(folder: Path, ink_blot: str) -> None:
    write({"nets.py": net(), "blot.py": ink_blot})
    specs = {
        "models": describe(build("models", "nets.py:net")),
        "poison": describe(build("poison", "blot.py:InkBlot")),
    }
    write({"nets.py": net("x = 1"), "blot.py": ink_blot + "x = 1"})
    changed: list[str] = []
    with catalog.changes_noted(changed):
        for _ in range(2):
            for room, spec in specs.items():
                build(room, spec)
    assert changed == ["nets.py:net", "blot.py:InkBlot"]
    with pytest.raises(RequestError, match="its code changed"):
        build("poison", specs["poison"])
    assert catalog.changed_in(specs) == ("nets.py:net", "blot.py:InkBlot")
