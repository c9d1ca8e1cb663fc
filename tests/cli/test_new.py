"""What `bascule new` writes works as it is: studies are planned, plug-ins keep their contracts."""

from __future__ import annotations

import ast
import errno
import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from api.test_surface import is_public
from bascule.cli.new import TEMPLATES
from bascule.core.catalog import ROOMS
from bascule.plan.document import parse_study
from bascule.plan.json_schema import study_schema
from bascule.plan.resolve import make_plan

SWITCHED_OFF = re.compile(r"^( *)# ([a-z_]+): (?=\S)", re.MULTILINE)
"""A key of the study template that is switched off."""


@pytest.fixture
def text(bascule: Callable, tmp_path: Path) -> str:
    said = bascule("new", "study")
    assert (said.code, said.out) == (0, "study.yaml\nThen: bascule run study.yaml\n")
    return (tmp_path / "study.yaml").read_text()


def test_the_study_runs_as_it_is_and_in_minutes(text: str, bascule: Callable) -> None:
    plan = make_plan(parse_study(text, name="study", source="study.yaml"))
    assert len(plan.cells()) <= 8
    assert bascule("validate", "study.yaml").code == 0
    quick = ("--set", "train.epochs=1", "--set", "data.max_train=100", "--set", "attack=[]", "--seeds", "1")
    assert bascule("run", "study.yaml", *quick).code == 0


def test_every_key_of_the_schema_is_there_with_a_comment(text: str) -> None:
    schema = study_schema()
    keys = [*schema["properties"], *schema["$defs"]["plan.schema.Setup"]["properties"]]
    switched_on = SWITCHED_OFF.sub(r"\1\2: ", text)
    for key in keys:
        assert re.search(rf"^ *{key}:", switched_on, re.MULTILINE), key
    for key in {key for _, key in SWITCHED_OFF.findall(text)}:
        assert re.search(rf"# {key}: .*  # \S|^#[^\n]*\n# {key}: ", text, re.MULTILINE), key


def test_every_key_may_be_switched_on_alone_and_with_the_others(text: str) -> None:
    found = list(SWITCHED_OFF.finditer(text))
    assert len(found) >= 14
    variants = [text[: key.start()] + f"{key[1]}{key[2]}: " + text[key.end() :] for key in found]
    judge = jsonschema.Draft202012Validator(study_schema())
    everything = SWITCHED_OFF.sub(lambda key: key[0] if key[2] == "filter" else f"{key[1]}{key[2]}: ", text)
    for variant in [*variants, everything]:  # a row has either a filter or `inspect`, as the comment says
        document = parse_study(variant, name="study", source="study.yaml")
        assert list(judge.iter_errors(document.content)) == []
        make_plan(document)


def imported(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def bascule_names(module: Any) -> list[tuple[str, str]]:
    """What a module imports of ours: from where, and the name."""
    tree = ast.walk(ast.parse(Path(module.__file__).read_text()))
    found = [
        (node.module or "", alias.name) for node in tree if isinstance(node, ast.ImportFrom) for alias in node.names
    ]
    return [(place, name) for place, name in found if place.partition(".")[0] == "bascule"]


@pytest.mark.parametrize("kind", ROOMS)
def test_a_plug_in_of_every_kind_keeps_its_contract(
    kind: str, bascule: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"own-{kind}"
    said = bascule("new", kind, name)
    assert said.code == 0
    assert len(said.out.splitlines()) == 5
    project = tomllib.loads((tmp_path / name / "pyproject.toml").read_text())
    module, cls = f"own_{kind}", f"Own{kind.capitalize()}"
    assert project["project"]["entry-points"][f"bascule.{kind}"] == {name: f"{module}:{cls}"}
    for key in (module, f"test_{module}"):
        monkeypatch.delitem(sys.modules, key, raising=False)
    made = imported(tmp_path / name / "src" / f"{module}.py")
    test = imported(tmp_path / name / "tests" / f"test_{module}.py")
    assert getattr(made, cls).room == kind
    assert [word for word in (*bascule_names(made), *bascule_names(test)) if not is_public(*word)] == []
    test.test_the_contract_holds()
    for key in (module, f"test_{module}"):
        sys.modules.pop(key, None)
    readme = (tmp_path / name / "README.md").read_text()
    (used,) = re.findall(r"```yaml\n(.*?)\n```", readme, flags=re.DOTALL)
    assert name in str(yaml.safe_load(used))
    (tried,) = re.findall(r"^bascule run (digits .*)", readme, flags=re.MULTILINE)
    words = shlex.split(re.sub(rf"\b{name}\b", f'"{name}/src/{module}.py:{cls}"', tried))
    assert words[3:5] == ["--runs", "tried"]  # not where the table of `digits` itself is
    assert bascule("validate", *words[:3], *words[5:]).code == 0


def test_a_plug_in_is_built_installed_and_passes_its_tests(bascule: Callable, tmp_path: Path) -> None:
    assert bascule("new", "measure", "moved-at-all").code == 0
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-build-isolation", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(site), str(tmp_path / "moved-at-all")], check=True, capture_output=True)
    assert (site / "moved_at_all.py").is_file()
    folder = tmp_path / "moved-at-all"
    words = ["-q", "-p", "no:cacheprovider", "-c", str(folder / "pyproject.toml"), str(folder / "tests")]
    code = f"import sys; sys.path.insert(0, {str(site)!r}); import pytest; sys.exit(pytest.main({words}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_nothing_is_written_over(bascule: Callable, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("mine")
    (tmp_path / "own-attack").mkdir()
    for words in (("study",), ("study", "study.yaml"), ("attack", "own-attack")):
        said = bascule("new", *words)
        assert said.code == 2
        assert "is there already, and nothing is written over it" in said.err
    (tmp_path / "my-attack").mkdir()
    assert "another name, as in my-attack-2" in " ".join(bascule("new", "attack", "my-attack").err.split())
    assert "a component needs a name: bascule new attack attack-2" in bascule("new", "attack").err
    assert (tmp_path / "study.yaml").read_text() == "mine"
    assert list((tmp_path / "own-attack").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("atack", "x"), "unknown kind 'atack'. Did you mean 'attack'?"),
        (("studies",), "Did you mean 'study'?"),
        (("study", "mine.txt"), "the name of a study file ends in .yaml or .yml"),
        (("study", "nowhere\x1b/x.txt"), "ends in .yaml"),
        (("attack",), "a component needs a name: bascule new attack my-attack"),
        (("attack", "My Attack"), "small letters, digits and single -"),
        (("attack", "../x"), "small letters, digits and single -"),
        (("attack", "pgd"), "attack/pgd is built in; give another name, as in my-pgd"),
        (("attack", "sticker"), "poison/sticker is built in"),
        (("attack", "random"), "Python has a module or a word of this name"),
        (("attack", "torch"), "Python has a module or a word of this name"),
        (("attack", "pydantic"), "Python has a module or a word of this name; give another name, as in my-pydantic"),
        (("attack", "conftest"), "Python has a module or a word of this name"),
        (("attack", "class"), "Python has a module or a word of this name"),
        (("attack", ""), "'': a component is called with small letters"),
        (("attack", "a/b"), "small letters, digits and single -"),
        (("attack", ".."), "small letters, digits and single -"),
        (("attack", "\u00e9"), "small letters, digits and single -"),
        (("attack", 101 * "a"), "at most 100, as in my-attack"),
        (("study", ""), "'': the name of a study file ends in .yaml or .yml"),
        (("study", "a\nb.yaml"), "'a\\nb.yaml': the name of a study file ends in .yaml or .yml, and can be printed"),
        (("study", f"{300 * 'a'}.yaml"), "File name too long. Give another name or place"),
        (("study", "/dev/null/x.yaml"), "cannot write to the folder /dev/null: "),
    ],
)
def test_wrong_words_are_one_clear_error(
    words: tuple[str, ...], expected: str, bascule: Callable, tmp_path: Path
) -> None:
    said = bascule("new", *words)
    assert said.code == 2
    assert expected in said.err
    assert list(tmp_path.iterdir()) == []


def test_a_name_with_a_space_is_quoted_for_the_shell(bascule: Callable, tmp_path: Path) -> None:
    assert bascule("new", "study", "my own.yaml").out.endswith("Then: bascule run 'my own.yaml'\n")


def test_what_cannot_be_written_whole_is_not_begun(
    bascule: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_text

    def no_room(self: Path, *words: Any, **more: Any) -> int:
        if self.name == "test_own_attack.py":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
        return write(self, *words, **more)

    monkeypatch.setattr(Path, "write_text", no_room)
    said = bascule("new", "attack", "own-attack")
    assert said.code == 2
    assert said.err == "bascule: cannot write 'own-attack': No space left on device. Give another name or place\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_to(bascule: Callable, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    said = bascule("new", "study", "locked/x.yaml")
    assert said.code == 2
    assert said.err == "bascule: cannot write to the folder locked: Permission denied. Give another one\n"


def test_every_kind_has_a_template() -> None:
    assert {path.name.partition(".")[0] for path in (TEMPLATES / "components").iterdir()} == set(ROOMS)
