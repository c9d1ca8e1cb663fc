"""The documentation site, without building it: no page is lost, and what is generated names all there is."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import generators
import pytest
import typer
from generators import checkout, components
from generators.contents import START, contents
from generators.markdown import escaped, paragraphs
from generators.offered import offered

import bascule
from bascule.cli.app import app
from bascule.core import catalog

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


@cache
def made() -> dict[str, str]:
    return generators.pages()


def written() -> list[Path]:
    """Pages that people write."""
    ours = {Path(name).parts[0] for name in made()} | {"_build", "generators"}
    return [path for path in sorted(DOCS.rglob("*.md")) if path.relative_to(DOCS).parts[0] not in ours]


def test_every_page_is_listed_by_exactly_one(tmp_path: Path) -> None:
    texts = {path.relative_to(DOCS).with_suffix("").as_posix(): path.read_text("utf-8") for path in written()}
    texts |= {name.removesuffix(".md"): text for name, text in made().items()}
    texts |= {path.relative_to(DOCS).with_suffix("").as_posix(): "" for path in DOCS.glob("tutorials/*.ipynb")}
    listed = [name for page, text in texts.items() for name in contents(DOCS, page, text)]
    assert sorted(listed) == sorted(texts.keys() - {START})


def test_a_page_that_nobody_lists_is_found(tmp_path: Path) -> None:
    assert contents(tmp_path, "guide", "[a](guide/a.md) and [b](b.md), [again](guide/a.md#there)") == ["guide/a"]
    (tmp_path / "decisions").mkdir()
    (tmp_path / "decisions" / "0001-a.md").touch()
    assert contents(tmp_path, "decisions/README", "") == ["decisions/0001-a"]


@pytest.mark.parametrize("kind", catalog.ROOMS)
def test_every_component_is_described_with_every_setting(kind: str) -> None:
    text = made()[f"reference/components/{kind}.md"]
    for name in components.names(kind):
        section = text.partition(f"({components.anchor(kind, name)})=\n## {name}\n")[2].partition("\n## ")[0]
        about = catalog.documentation(kind, name)
        assert escaped(about.summary)[:40] in section
        rows = re.findall(r"^\| `(\w+)` \| (.*) \| (.*) \| (.*) \|$", section, re.MULTILINE)
        assert [row[0] for row in rows] == [field.name for field in about.fields]
        assert all(allowed and default for _, allowed, default, _ in rows)
        assert f"src/bascule/{catalog.PACKAGES[kind]}/{name.replace('-', '_')}.py" in section


def test_every_command_and_option_is_described() -> None:
    text = made()["reference/commands.md"]
    root = typer.main.get_command(app)
    for name, command in root.commands.items():
        if not hasattr(command, "commands") and not command.hidden:
            section = text.partition(f"## bascule {name}\n")[2].partition("\n## ")[0]
            shown = [param for param in command.params if not getattr(param, "hidden", False)]
            assert all(param.opts[0] in section for param in shown if param.opts[0].startswith("--")), name
    assert "## bascule data get" in text


def test_everything_public_in_python_is_described() -> None:
    text = made()["reference/python/index.md"]
    for name in ("perturb", "evaluate", "check", "load"):
        assert f".. autofunction:: bascule.{name}\n" in text + "\n"
    for package in catalog.PACKAGES.values():
        page = made()[f"reference/python/{package}.md"]
        assert all(f"`{name}`" in page or f"bascule.{package}.{name}\n" in page for name in offered(package))
    assert ".. autoclass:: bascule.triggers.placement.Poison\n" in made()["reference/python/types.md"]
    public = {name for name in (*bascule.__all__, *offered("")) if not name.startswith("_")}
    shown = set(re.findall(r"bascule\.(\w+)$", text, re.MULTILINE)) | set(re.findall(r"\]\((\w+)\.md\)", text))
    assert public <= shown


def test_links_to_generated_pages_lead_somewhere() -> None:
    for path in written():
        for link in re.findall(r"\]\(([\w./-]+\.md)", path.read_text(encoding="utf-8")):
            target = (path.parent / link).resolve()
            assert target.exists() or str(target.relative_to(DOCS)) in made(), f"{path.name}: {link}"


def test_no_line_is_taken_for_a_comment() -> None:
    """MyST leaves out lines that begin with a percent sign."""
    for path in [*written(), ROOT / "README.md"]:
        parts = re.split(r"^ *```.*?^ *```", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        assert not [line for part in parts for line in part.splitlines() if line.startswith(("%", "+++"))], path.name


def test_docstrings_become_markdown_that_says_the_same() -> None:
    text = "One of `a*b` and\n* c <d>, x_[0].\n\n- first\n  goes on\n- second"
    assert paragraphs(text) == "One of `a*b` and \\* c \\<d>, x\\_\\[0\\].\n\n- first goes on\n- second"


def test_links_of_a_checkout_hold_on_the_site() -> None:
    assert (
        checkout.with_links("docs/performance.md", "[a](../benchmarks/README.md#m)") == "[a](/checkout/benchmarks.md#m)"
    )
    assert checkout.with_links("docs/a.md", "[a](b.md) [c](https://d.e/f.md)") == "[a](b.md) [c](https://d.e/f.md)"
    assert checkout.with_links("benchmarks/README.md", "[a](../docs/flags.md)") == "[a](/flags.md)"
    assert checkout.with_links("docs/guide/a.md", "[a](../../README.md)") == "[a](/index.md)"
    assert checkout.with_links("CONTRIBUTING.md", "[a](docs/decisions/)") == "[a](/decisions/README.md)"
