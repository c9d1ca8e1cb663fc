"""Every block of code in the README, the guide and the pages beside it is run by a test, or says what it costs.

A block of commands, Python or YAML has a comment above it: `<!-- run by FILE: TEST -->`, or
`<!-- not run by a test: why and cost; last run ... -->`.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import typer
import yaml
from typer.testing import CliRunner

from bascule.cli.app import app
from bascule.core import catalog
from bascule.core.errors import RequestError
from bascule.plan.document import parse_study
from bascule.plan.resolve import make_plan

ROOT = Path(__file__).parents[1]
COMMAND = re.compile(r"^(?:\$ )?(?:\.venv/bin/)?(?:bascule|make|pip|python3?|docker|git) ", re.MULTILINE)


class Block(NamedTuple):
    page: str
    mark: str
    language: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.page}: {self.text.splitlines()[0]}"


def all_blocks() -> list[Block]:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "guide").glob("*.md"))]
    found = []
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(r"(?:^<!-- ([^\n]*) -->\n)?^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            found.append(Block(page.relative_to(ROOT).as_posix(), match[1] or "", match[2], match[3]))
    return [block for block in found if block.language in ("python", "yaml", "bash") or COMMAND.search(block.text)]


BLOCKS = all_blocks()


def marked(test: str) -> list[Block]:
    return [block for block in BLOCKS if block.mark.startswith(f"run by tests/test_blocks.py: {test}")]


def test_every_block_is_run_or_says_what_it_costs() -> None:
    assert len(BLOCKS) > 35
    silent = [block.name for block in BLOCKS if not is_told(block.mark)]
    assert silent == []


def is_told(mark: str) -> bool:
    run = re.match(r"run by (tests/[\w/]+\.py)(?:: (\w+))?", mark)
    if run is None:
        return bool(re.match(r"not run by a test: .+(?:last run|last at commit|never run as written)", mark))
    return f"def {run[2] or 'test_'}" in (ROOT / run[1]).read_text(encoding="utf-8")


def lines_of(block: Block) -> list[str]:
    """The calls of the program in a block, each on one line and without comments."""
    text = block.text.replace("\\\n", " ")
    lines = [line.removeprefix("$ ").partition("  #")[0] for line in text.splitlines()]
    return [part.strip() for line in lines if line.startswith("bascule ") for part in line.split("; ")]


CALLS = [
    call
    for block in BLOCKS
    if "test_the_list_of_commands" not in block.mark and block.language in ("", "bash")
    for call in lines_of(block)
]


@pytest.mark.parametrize("call", CALLS)
def test_commands_are_read_as_shown(call: str) -> None:
    """Names and options are those that there are; nothing is run."""
    _, *words = shlex.split(call, comments=True)
    command: Any = typer.main.get_command(app)
    context = command.make_context("bascule", words, resilient_parsing=False)
    name, sub, rest = command.resolve_command(context, [*context._protected_args, *context.args])
    assert sub is not None, name
    sub.make_context(name, list(rest), parent=context)


def test_the_list_of_commands_is_complete() -> None:
    (block,) = marked("test_the_list_of_commands_is_complete")
    shown = set(re.findall(r"^bascule ([a-z]+(?: get)?)", block.text, re.MULTILINE))
    root: Any = typer.main.get_command(app)
    there = {name for name, command in root.commands.items() if not command.hidden}
    assert {name.split()[0] for name in shown} == there


ROOT_OPTIONS = {"--help", "--version", "--install-completion", "--show-completion"}
"""Options of the program itself."""
FOREIGN_OPTIONS = {
    *("--build-arg", "--rm", "--user"),  # docker
    *("--array", "--cpus-per-task", "--job-name", "--requeue", "--time"),  # sbatch
    *("--head", "--port", "--address", "--num-cpus", "--generate", "--object-store-memory"),  # ray
}


OF_TORCHRUN = {
    *("--standalone", "--nnodes", "--nproc-per-node", "--node-rank", "--master-addr", "--master-port"),
    *("--rdzv-backend", "--rdzv-endpoint", "--rdzv-id", "--nodes", "--ntasks-per-node", "--gpus-per-node"),
    *("--cpus-per-task", "--time", "--signal", "--kill-on-bad-exit"),
}
"""Options of torchrun, and of sbatch around it."""


def test_options_that_pages_name_are_there() -> None:
    root: Any = typer.main.get_command(app)
    groups = [getattr(command, "commands", {"": command}) for command in root.commands.values()]
    commands = [command for group in groups for command in group.values()]
    known = {name for command in commands for param in command.params for name in (*param.opts, *param.secondary_opts)}
    known |= OF_TORCHRUN
    pages = [ROOT / "README.md", ROOT / "docs/start.md", ROOT / "docs/faq.md", *(ROOT / "docs" / "guide").glob("*.md")]
    for page in pages:
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page.read_text(encoding="utf-8")))
        assert named - known - ROOT_OPTIONS - FOREIGN_OPTIONS == set(), page.name


@pytest.mark.parametrize("block", marked("test_what_commands_print_is_as_shown"), ids=lambda block: block.name)
def test_what_commands_print_is_as_shown(block: Block) -> None:
    command, *lines = block.text.splitlines()
    done = CliRunner().invoke(app, shlex.split(command)[2:])
    said = f"bascule: {done.exception}" if isinstance(done.exception, RequestError) else done.output
    assert " ".join(said.split()).startswith(" ".join(" ".join(lines).removesuffix("...").split()))


SMALL: dict[str, Any] = {
    "data": {"name": "digits", "held_out": 200},
    "model": "digits-cnn",
    "train": {"objective": "standard", "epochs": 12, "batch_size": 64},
    "poison": {"trigger": {"name": "sticker", "size": 2}, "target": 7, "rate": 0.05},
    "attack": {"name": "pgd", "eps": 0.1},
}


def parts(text: str) -> list[dict[str, Any]]:
    """The mappings of a block; a key that is there again begins another one."""
    found: list[str] = []
    seen: set[str] = set()
    for line in text.splitlines(keepends=True):
        key = re.match(r"(\w+):", line)
        if not found or (key and key[1] in seen):
            found.append("")
            seen = set()
        seen |= {key[1]} if key else set()
        found[-1] += line
    return [yaml.safe_load(part) for part in found]


@pytest.mark.parametrize("block", marked("test_parts_of_studies_are_valid"), ids=lambda block: block.name)
def test_parts_of_studies_are_valid(block: Block) -> None:
    """Beside a small study, on data that need no files."""
    for part in parts(block.text):
        whole = {key: part.pop(key) for key in ("vary", "measure") if key in part}
        data = {"held_out": 500} if "data" in part else {}
        base = {**SMALL, **part, "data": {**SMALL["data"], **data}}
        for left_out in ("filter", "inspect") if {"filter", "inspect"} <= part.keys() else ("",):
            row = {key: value for key, value in base.items() if key != left_out}
            text = yaml.safe_dump({"base": row, "rows": {"None": {}}, **whole})
            assert make_plan(parse_study(text, name="part", source=block.page)).cells


@pytest.mark.parametrize("block", marked("test_studies_with_files_of_yours_are_valid"), ids=lambda block: block.name)
def test_studies_with_files_of_yours_are_valid(block: Block) -> None:
    """With digits and small networks in place of files: every key, row and setting."""
    study = yaml.safe_load(block.text.replace("{seed}", ""))
    held_out = study["base"]["data"].get("held_out", 0)
    base = {**study["base"], "data": {"name": "digits", "held_out": min(held_out, 300)}, "model": "digits-cnn"}
    if base["poison"].get("name") == "given":
        base["poison"] = SMALL["poison"]
    if base["poison"]["trigger"] == {"name": "sticker", "size": 6}:
        base["poison"]["trigger"]["size"] = 3
    rows = {name: dict(row or {}) for name, row in study["rows"].items()}
    for number, row in enumerate([base, *rows.values()], 1):
        theirs = row is not base and "model" in row
        if theirs:
            del row["model"]
        if theirs or row.get("train") == "none":
            row["train"] = {"objective": "standard", "epochs": number}
    text = yaml.safe_dump({**study, "base": base, "rows": rows}, sort_keys=False)
    assert [row.name for row in make_plan(parse_study(text, name="mine", source=block.page)).rows] == list(rows)


def test_data_of_yours_are_named_right() -> None:
    (block,) = marked("test_data_of_yours_are_named_right")
    built = [catalog.build("data", part["data"]) for part in parts(block.text)]
    assert [catalog.name_of(source) for source in built] == ["folder", "parquet", "shards", "npz", "mnist", "cifar100"]


def test_the_readme_in_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = marked("test_the_readme_in_python_runs")
    digits = catalog.build("data", "digits").load([])
    model = catalog.build("models", "digits-cnn").initialised((1, 8, 8), 10, seed=0)
    known: dict[str, Any] = {"model": model, "x": digits.test.batch(torch.arange(20)), "y": digits.test.labels[:20]}
    exec(block.text, known)
    assert known["x_adv"].shape == known["x"].shape
    assert capsys.readouterr().out
