"""The project's papers: versions that agree, workflows that run what there is, a whole container and a whole wheel."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted(path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
PAPERS = ("CHANGELOG.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "SECURITY.md", ".github/pull_request_template.md")


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def targets() -> set[str]:
    """What the Makefile can make; names of environments are written out."""
    makefile = text("Makefile")
    values = dict(re.findall(r"^(\w+) \?= (.+)$", makefile, flags=re.MULTILINE))
    written = re.sub(r"\$\((\w+)\)", lambda found: values.get(found[1], found[0]), makefile)
    return set(re.findall(r"^([.\w/-]+):", written, flags=re.MULTILINE))


# --- versions ---------------------------------------------------------------------------------------------------------


def test_changelog_citation_and_package_have_one_version() -> None:
    released = re.findall(r"^## \[(.+)\] - (.+)$", text("CHANGELOG.md"), flags=re.MULTILINE)
    versions, dates = zip(*((Version(version), date.fromisoformat(day)) for version, day in released), strict=True)
    assert str(versions[0]) == PROJECT["version"]
    assert list(versions) == sorted(versions, reverse=True)
    assert list(dates) == sorted(dates, reverse=True)
    citation = yaml.safe_load(text("CITATION.cff"))
    assert (citation["version"], citation["date-released"]) == (PROJECT["version"], dates[0])


def test_the_changelog_has_the_kinds_of_entries_that_its_form_knows() -> None:
    kinds = re.findall(r"^### (.+)$", text("CHANGELOG.md"), flags=re.MULTILINE)
    assert set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_citation_has_what_its_format_demands() -> None:
    """Required keys of version 1.2.0 of the Citation File Format, for the file and for the paper it refers to."""
    citation = yaml.safe_load(text("CITATION.cff"))
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= citation.keys()
    (paper,) = citation["references"]
    assert {"type", "title", "authors"} <= paper.keys()
    assert paper["url"] == PROJECT["urls"]["Paper"]
    assert citation["license"] == PROJECT["license"]


# --- versions of what is used -----------------------------------------------------------------------------------------


def pins(name: str) -> dict[str, Version]:
    lines = (line.partition("==") for line in text(name).splitlines() if not line.startswith("#"))
    return {canonicalize_name(package): Version(version) for package, _, version in lines}


def wanted(*extras: str) -> list[Requirement]:
    """What the package and these extras ask for, without its own extras by name."""
    lists = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra] for extra in extras)]
    found = [Requirement(line) for lines in lists for line in lines]
    return [one for one in found if one.name != PROJECT["name"]]


@pytest.mark.parametrize(
    ("name", "extras"),
    [
        ("constraints.txt", ("explain", "frames", "ray", "umap", "dev")),
        ("constraints-foreign.txt", ("explain", "vision", "foreign")),
        ("constraints-lowest.txt", ("explain", "frames", "ray", "dev")),
    ],
)
def test_what_is_asked_for_is_pinned_to_something_allowed(name: str, extras: Sequence[str]) -> None:
    pinned = pins(name)
    for requirement in wanted(*extras):
        assert pinned[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_the_lowest_versions_are_those_that_are_allowed() -> None:
    pinned = pins("constraints-lowest.txt")
    for requirement in wanted("explain", "frames", "ray", "dev"):
        (bound,) = requirement.specifier
        lowest = Version(bound.version).release
        assert bound.operator == ">=", requirement
        assert pinned[canonicalize_name(requirement.name)].release[: len(lowest)] == lowest, requirement


def test_what_is_left_out_with_the_lowest_versions_is_there() -> None:
    left_out = re.findall(r"\b(tests/[\w/]+\.py)::(\w+)", text(".ci/lowest"))
    assert left_out
    for file, function in left_out:
        assert f"def {function}(" in text(file)


# --- workflows and forms ----------------------------------------------------------------------------------------------


def steps(path: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_may_only_read_and_run_what_there_is(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["group"]
    assert all(0 < job["timeout-minutes"] <= 90 for job in workflow["jobs"].values())
    commands = [step["run"] for step in steps(path) if "run" in step]
    made = {name for command in commands for name in re.findall(r"^make (\S+.*)$", command, flags=re.MULTILINE)}
    assert made
    variants = {name.replace("${{ matrix.versions }}", versions) for name in made for versions in ("lowest", "newest")}
    assert variants <= targets()


def test_ci_runs_what_the_workflow_runs_on_every_python_that_is_claimed() -> None:
    (path,) = (path for path in WORKFLOWS if path.stem == "ci")
    jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
    assert {"run": "bash .ci/run"} in jobs["pinned"]["steps"]
    assert text(".ci/run").splitlines()[-1] == "exec make test"
    claimed = [name.removeprefix("Programming Language :: Python :: ") for name in PROJECT["classifiers"]]
    pythons = jobs["pinned"]["strategy"]["matrix"]["python"]
    assert pythons == [name for name in claimed if re.fullmatch(r"3\.\d+", name)]
    assert PROJECT["requires-python"] == f">={pythons[0]}"
    tried = {one["versions"]: one["python"] for one in jobs["range"]["strategy"]["matrix"]["include"]}
    assert tried == {"lowest": pythons[0], "newest": pythons[-1]}


def test_scripts_of_ci_can_be_run() -> None:
    for script in (ROOT / ".ci").iterdir():
        assert script.read_text(encoding="utf-8").startswith("#!/usr/bin/env bash\n")
        assert script.stat().st_mode & 0o111, script.name
        subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_issue_forms_ask_in_the_ways_that_there_are(path: Path) -> None:
    """What GitHub's form schema demands: a name and a description, elements with a label, each id once."""
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= form.keys()
    asked = [element for element in form["body"] if element["type"] != "markdown"]
    assert {element["type"] for element in asked} <= {"textarea", "input", "dropdown", "checkboxes"}
    assert all(element["attributes"]["label"] for element in asked)
    ids = [element["id"] for element in asked]
    assert len(set(ids)) == len(ids)
    assert any(element.get("validations", {}).get("required") for element in asked)


# --- what the papers say ----------------------------------------------------------------------------------------------


def test_links_of_the_papers_lead_somewhere() -> None:
    for name in PAPERS:
        for target in re.findall(r"\]\(([^)#]+)\)", text(name)):
            assert target.startswith("http") or ((ROOT / name).parent / target).exists(), f"{name}: {target}"


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "README.md"])
def test_what_the_papers_say_to_make_can_be_made(name: str) -> None:
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", text(name), flags=re.MULTILINE))
    assert named
    assert named <= targets()


# --- the container ----------------------------------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's, with continued lines joined."""
    joined = re.sub(r"\\\n\s*", "", text("Dockerfile"))
    lines = (line for line in joined.splitlines() if line and not line.startswith("#"))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def test_the_containers_commands_are_those_of_the_readme() -> None:
    shown = "\n".join(re.findall(r"```\n(.*?)```", text("README.md"), flags=re.DOTALL))
    done = dict(instructions())
    started = " ".join(yaml.safe_load(done["ENTRYPOINT"]) + yaml.safe_load(done["CMD"]))
    installed = [
        rest for word, rest in instructions() if word == "RUN" and rest.endswith("pip install -c constraints.txt .")
    ]
    told = re.findall(r"^# (docker build .+)$", text("Dockerfile"), flags=re.MULTILINE)
    bases = re.findall(r"--build-arg BASE=\S+\b", text("Dockerfile"))
    assert len(installed) == len(told) == len(bases) == 1
    for command in (started, *installed, *told, *bases):
        assert command in shown
    # The README's folder is where the container works.
    assert f":{done['WORKDIR']}/runs" in shown


def test_the_container_is_given_what_it_copies_and_belongs_to_nobody() -> None:
    let_in = {line[1:] for line in text(".dockerignore").splitlines() if line.startswith("!")}
    copied = {name for word, rest in instructions() if word == "COPY" for name in rest.split()[:-1]}
    assert copied == let_in
    assert all((ROOT / name).exists() for name in copied)
    assert instructions()[0] == ("ARG", "BASE=python:3.12-slim")
    assert int(dict(instructions())["USER"]) > 0


# --- wheel and sdist --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[set[str], set[str]]:
    """Names in the wheel, and in the sdist below its folder."""
    place = tmp_path_factory.mktemp("build")
    aside = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", place / "src", ignore=aside)
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, place)
    statements = "from setuptools import build_meta as b; b.build_sdist('dist'); b.build_wheel('dist')"
    subprocess.run([sys.executable, "-c", statements], cwd=place, check=True, capture_output=True)
    (wheel,), (sdist,) = (place / "dist").glob("*.whl"), (place / "dist").glob("*.tar.gz")
    stem = f"bascule-{PROJECT['version']}"
    assert (wheel.name, sdist.name) == (f"{stem}-py3-none-any.whl", f"{stem}.tar.gz")
    with zipfile.ZipFile(wheel) as whole, tarfile.open(sdist) as packed:
        return set(whole.namelist()), {name.partition("/")[2] for name in packed.getnames()}


def test_the_wheel_has_every_file_of_the_package_and_nothing_else(built: tuple[set[str], set[str]]) -> None:
    """Studies, templates, the page's style and script, stubs, py.typed: whatever lies there."""
    source = ROOT / "src"
    files = (path for path in (source / "bascule").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    package = {path.relative_to(source).as_posix() for path in files}
    assert {Path(name).suffix for name in package} >= {".py", ".pyi", ".yaml", ".jinja", ".css", ".js", ".typed"}
    assert {name for name in built[0] if ".dist-info/" not in name} == package
    assert {f"src/{name}" for name in package} <= built[1]


def test_the_sdist_has_what_one_needs_to_install_and_to_cite(built: tuple[set[str], set[str]]) -> None:
    beside = {name for name in built[1] if "/" not in name}
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "constraints.txt"} <= beside
    assert not any(name.startswith("tests/") for name in built[1])
