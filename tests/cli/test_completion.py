"""What the shell is told when somebody presses the tabulator key: asked as bash and zsh ask."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bascule.cli import app
from bascule.core import catalog

RUN = Path(__file__).parents[1] / "golden" / "run"


@pytest.fixture
def offered(bascule: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], list[str]]:
    """What bash is offered for the last word of a line, in a folder with one run, two studies and a file of weights."""
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    for path in RUN.glob("study.json*"):
        (tmp_path / "runs" / "mine" / path.name).write_bytes(path.read_bytes())
    for cell in RUN.glob("cells/*"):
        (tmp_path / "runs" / "mine" / "cells" / cell.name).mkdir(parents=True)
        (tmp_path / "runs" / "mine" / "cells" / cell.name / "model.safetensors").touch()
    (tmp_path / "own.yaml").write_text("scales: {small: {}, 'very large': {}}")
    (tmp_path / "own.safetensors").touch()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "deep.yml").write_text("rows: {A: {}}")

    def ask(line: str) -> list[str]:
        words = line.split(" ")
        monkeypatch.setenv("_BASCULE_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
        said = bascule()
        assert said.code == 0
        assert said.err == ""
        return said.out.split("\n")[:-1] if said.out.strip() else []

    return ask


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("bascule ru", ["run"]),
        ("bascule run dig", ["digits"]),
        ("bascule run paper/mnist-1", ["paper/mnist-1a", "paper/mnist-1b"]),
        ("bascule validate own", ["own.yaml"]),
        ("bascule validate ./ow", ["./own.yaml"]),
        ("bascule run sub/", ["sub/deep.yml"]),
        ("bascule run own.yaml --scale ", ["small", "very\\ large"]),
        ("bascule run paper/mnist-1a --scale f", ["fast"]),
        ("bascule run digits --set train.ep", ["train.epochs="]),
        ("bascule run digits --set poison.trigger.siz", ["poison.trigger.size="]),
        ("bascule run digits --set train.epochs=", []),
        ("bascule run digits --set train.ob", ["train.objective=", "train.objective."]),
        ("bascule run digits --set train.objective.la", ["train.objective.label_smoothing=", "train.objective.layer="]),
        ("bascule run digits --set poi", ["poison=", "poison."]),
        ("bascule run digits --device c", ["cpu", "cuda"]),
        ("bascule run digits --engine r", ["ray"]),
        ("bascule table m", ["mine"]),
        ("bascule table mine --against ", ["None", "Adv.\\ training", "Filtered", "Repaired"]),
        ("bascule table mine --format m", ["markdown"]),
        ("bascule check mine --row A", ["Adv.\\ training"]),
        ("bascule check mine asr_p", ["asr_paper"]),
        ("bascule evaluate mine --attack fgs", ["fgsm", "fgsm-targeted"]),
        ("bascule evaluate mine --measure robust-accuracy-", ["robust-accuracy-detected", "robust-accuracy-evaded"]),
        ("bascule evaluate own", ["own.safetensors"]),
        ("bascule evaluate own.safetensors --trigger stic", ["sticker"]),
        ("bascule evaluate own.safetensors --model resnet1", ["resnet18"]),
        ("bascule evaluate own.safetensors --data cifar100", ["cifar100"]),
        ("bascule evaluate own.safetensors --certify i", ["interval"]),
        ("bascule scan own.safetensors --with mm", ["mm-bd"]),
        ("bascule repair own.safetensors --with clp", ["clp"]),
        ("bascule filter own.safetensors --with str", ["strip"]),
        ("bascule audit own.safetensors --repair fine-p", ["fine-pruning"]),
        ("bascule ls stud", ["studies"]),
        ("bascule ls a", ["attack"]),
        ("bascule ls hoo", ["hooks"]),
        ("bascule show attack/pg", ["attack/pgd"]),
        ("bascule show studies/dig", ["studies/digits"]),
        ("bascule data get cifar1", ["cifar10", "cifar100"]),
        ("bascule new st", ["study"]),
        ("bascule new att", ["attack"]),
    ],
)
def test_words_are_completed(line: str, expected: list[str], offered: Callable[[str], list[str]]) -> None:
    assert offered(line) == expected


def test_a_kind_offers_all_of_it(offered: Callable[[str], list[str]]) -> None:
    assert offered("bascule show atta") == [f"attack/{name}" for name in catalog.names("attack")]
    assert offered("bascule evaluate mine --measure ") == list(catalog.names("measure"))
    cells = sorted(path.name for path in RUN.glob("cells/*"))
    assert offered("bascule scan runs/") == [f"runs/mine/cells/{name}" for name in cells]


def test_what_is_damaged_or_missing_offers_nothing(offered: Callable[[str], list[str]], tmp_path: Path) -> None:
    (tmp_path / "runs" / "mine" / "study.json").write_text("{")
    (tmp_path / "own.yaml").write_text("scales: [")
    for line in ("run own.yaml --scale ", "table mine --against ", "table nowhere --against ", "run nowhere/"):
        assert offered(f"bascule {line}") == []


def test_the_script_of_a_shell_is_shown_by_its_name(bascule: Callable) -> None:
    for shell, sign in (("bash", "complete -o"), ("zsh", "#compdef bascule"), ("fish", "complete --command")):
        said = bascule("--show-completion", shell)
        assert (said.code, said.err) == (0, "")
        assert sign in said.out
    wrong = bascule("--show-completion", "tcsh")
    assert wrong.code == 2
    assert all(word in wrong.err for word in ("tcsh", "bash", "zsh", "fish", "powershell"))


def test_zsh_is_told_what_words_mean(
    bascule: Callable, monkeypatch: pytest.MonkeyPatch, offered: Callable[[str], list[str]]
) -> None:
    def ask(line: str) -> str:
        monkeypatch.setenv("_BASCULE_COMPLETE", "complete_zsh")
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", line)
        said = bascule()
        assert (said.code, said.err) == (0, "")
        return str(said.out)

    assert '"attack":"evasion attacks"' in ask("bascule ls att")
    assert re.search(r'"pgd":"Projected gradient descent[^"\n]*\.\.\."', ask("bascule evaluate mine --attack pg"))
    assert '"Adv. training"' in ask("bascule table mine --against ")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_the_shell_is_shown(shell: str, bascule: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("typer.completion._get_shell_name", lambda: shell)  # of the process that calls, else
    said = bascule("--show-completion")
    assert said.code == 0
    assert f"_BASCULE_COMPLETE=complete_{shell}" in said.out


def test_every_word_that_names_something_is_completed() -> None:
    named = re.compile(r"RUN|MODEL|STUDY|KIND|ROW|NAME|METRIC|CONDITION|SOURCE|NETWORK|SCALE|DEVICE|KEY=VALUE")
    free = {("new", "name")}  # a name that is to be given
    missing = []
    for command in [*app.registered_commands, *app.registered_groups[0].typer_instance.registered_commands]:
        for name, parameter in inspect.signature(command.callback, eval_str=True).parameters.items():
            (about,) = [extra for extra in parameter.annotation.__metadata__ if hasattr(extra, "metavar")]
            if named.search(about.metavar or "") and about.autocompletion is None:
                missing.append((command.name, name))
    assert set(missing) == free


def test_completing_loads_no_torch() -> None:
    code = """
import sys, typer
from bascule.cli import completion
ctx = typer.Context(typer.main.get_command(typer.Typer(callback=lambda: None)))
ctx.params = {"study": "digits", "run": ("x",), "what": "x"}
for name, complete in list(vars(completion).items()):
    if hasattr(complete, "__wrapped__"):
        complete(ctx, "")
for room in ("attack", "measure", "data"):
    assert completion.components(room)(ctx, "")
print(" ".join(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "bascule.plan.json_schema" in done.stdout.split()
    assert "torch" not in done.stdout.split()
