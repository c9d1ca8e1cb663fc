"""The command line as a whole: help, version, wrong words."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from bascule.cli import app


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["run", "digitz"], "unknown study 'digitz'. Did you mean 'digits'?"),
        (["run", "nowhere.yaml"], "cannot read the study 'nowhere.yaml'"),
        (["run", "digits", "--set", "train.epochs"], "expected key=value"),
        (["run", "digits", "--set", "train={epochs"], "bascule: --set train: cannot read the value"),
        (["run", "digits", "--set", "attack=pdg"], "bascule: --set attack: in row 'None': attack[0]: unknown attack"),
        (
            ["run", "digits", "--set", "attack+=pdg"],
            "bascule: --set attack+=: in row 'None': unknown attack name 'pdg'",
        ),
        (["run", "digits", "--set", "measure+=pdg"], "bascule: --set measure+=: unknown measure name 'pdg'"),
        (["run", "digits", "--set", "measure=pdg"], "bascule: --set measure: unknown measure name 'pdg'"),
        (["run", "digits", "--set", "seeds=none"], "bascule: --set seeds: must be "),
        (["run", "digits", "--set", "seeds=[1, 1]"], "bascule: --set seeds: expected 1 to 1000 different seeds"),
        (["run", "digits", "--set", "twin=3"], "bascule: --set twin: must be true or false"),
        (["run", "digits", "--set", "vary.train.lr=3"], "bascule: --set vary.train.lr: expected a list of values"),
        (["run", "digits", "--set", "vary.train.lr=[a]"], "bascule: --set vary.train.lr: in row 'None' with train.lr"),
        (["run", "digits", "--set", "rows.None.train.lr=-1"], "bascule: --set rows.None.train.lr: in row 'None': "),
        (["validate", "study.txt"], "bascule: 'study.txt': the name of a study file ends in .yaml or .yml"),
        (["run", "digits", "--device", "gpu"], "allowed are auto, cpu, cuda and cuda:N"),
        (["table", "digits"], "There are no runs in runs"),
        (["report", "digits"], "There are no runs in runs"),
        (["data", "get", "mnits"], "unknown data name 'mnits'. Did you mean 'mnist'?"),
        (
            ["data", "get", "folder"],
            "data/folder reads files that you have; cifar10, cifar100, mnist, svhn can be downloaded",
        ),
        (["export", "digits"], "There are no runs in runs"),
        (["ls", "atack"], "unknown kind 'atack'. Did you mean 'attack'?"),
        (["ls", "triggers"], "unknown kind 'triggers'. Did you mean 'poison' (backdoor triggers)? Allowed: attack,"),
        (["ls", "metric"], "Did you mean 'measure' (metrics)?"),
        (["ls", "defenses"], "'filter' (data defences), 'scan' (model scanners), 'detect' (test-time detectors) or "),
        (["show", "trigger"], "for example attack/pgd. Did you mean 'poison' (backdoor triggers)? Kinds: data, "),
        (["show", "trigger/sticker"], "unknown kind 'trigger'. Did you mean 'poison' (backdoor triggers)?"),
        (["show", "study/digits"], "unknown kind 'study'. Did you mean 'studies'?"),
        (["new", "attacks", "mine"], "unknown kind 'attacks'. Did you mean 'attack' (evasion attacks)?"),
        (["show", "attack/pdg"], "unknown attack name 'pdg'. Did you mean 'pgd'?"),
        (["show", "pgd"], "expected KIND/NAME"),
        (["show", "studies/digit"], "Did you mean 'digits'?"),
    ],
)
def test_wrong_words_are_exit_code_2(bascule: Callable, words: list[str], expected: str) -> None:
    said = bascule(*words)
    assert said.code == 2
    assert expected in said.err


@pytest.mark.parametrize(
    "words", [["run"], ["run", "digits", "--sede", "3"], ["run", "digits", "--seeds", "0"], ["fly"]]
)
def test_wrong_options_are_exit_code_2(bascule: Callable, words: list[str]) -> None:
    assert bascule(*words).code == 2


def test_help_names_every_command(bascule: Callable) -> None:
    said = bascule("--help")
    assert said.code == 0
    commands = [command.name for command in app.registered_commands] + [group.name for group in app.registered_groups]
    assert len(commands) >= 12
    for command in commands:
        assert re.search(rf"\b{command}\b", said.out)


def test_help_says_what_to_write(bascule: Callable) -> None:
    for command in (["run"], ["evaluate"], ["table"], ["export"], ["scan"], ["repair"], ["check"], ["data", "get"]):
        said = bascule(*command, "--help").out
        assert not re.search(r"<(path|int|float|list|str|bool)\b[^>]*>", said.partition("Options")[2])
    assert re.search(r"--runs +FOLDER ", said := bascule("table", "--help").out)
    assert "text|json|csv" in said


def test_the_version(bascule: Callable) -> None:
    said = bascule("--version")
    assert said.code == 0
    assert re.fullmatch(r"bascule \d+\.\d+\.\d+\S*\n", said.out)


def test_python_runs_the_same_command_under_the_same_name() -> None:
    done = subprocess.run([sys.executable, "-m", "bascule", "fly"], capture_output=True, text=True)
    assert done.returncode == 2
    assert re.search(r"^Usage: bascule \[OPTIONS\]", done.stderr, re.MULTILINE)
    assert "__main__" not in done.stderr
