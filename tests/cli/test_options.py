"""What the library calls an argument is an option in every message of the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bascule.cli.options import component_of, in_options, spec_of
from bascule.core.errors import RequestError
from bascule.data.download import Remote
from bascule.data.mnist import Mnist
from bascule.record.lock import lock_run

KNOWN = ("--attack", "--capture", "--compile", "--data-dir", "--from", "--max-images", "--target")


@pytest.mark.parametrize(
    ("problem", "place", "expected"),
    [
        ("too large", ("max_images",), "--max-images: too large"),
        ("too large", ("attack", "eps"), "--attack.eps: too large"),
        ("it fails", ("compile_passes",), "--compile: it fails"),
        ("not here", ("capture_steps",), "--capture: not here"),
        ("name it with `target`", (), "name it with --target"),
        (
            "set `roots`, or give another place with `place`",
            (),
            "set --data-dir, or give another place with --from URL",
        ),
        ("say `attack` or `target`", ("target",), "--target: say --attack or --target"),
        # The command has no such option: a key of a study, a setting, something else in backticks.
        ("set `label`", ("base", "attack"), "base.attack: set `label`"),
        ("no `if` in `forward`", ("model",), "model: no `if` in `forward`"),
        ("plain", (), "plain"),
    ],
)
def test_arguments_become_options(problem: str, place: tuple[str, ...], expected: str) -> None:
    assert str(in_options(RequestError(problem, place=place), KNOWN)) == expected


def test_texts_are_names_or_mappings() -> None:
    assert spec_of("pgd", "attack") == "pgd"
    assert spec_of("{name: pgd, eps: 8/255}", "attack") == {"name": "pgd", "eps": 8 / 255}
    assert spec_of(None, "attack") is None
    with pytest.raises(RequestError, match=r"^attack: cannot read the value '\{name: pgd': "):
        spec_of("{name: pgd", "attack")
    with pytest.raises(RequestError, match=r"^with: unknown filter name 'stripp'. Did you mean 'strip'\?"):
        component_of("filter", "stripp")
    with pytest.raises(RequestError, match=r"^with: cannot read the value"):
        component_of("filter", "{name: strip")


def test_data_that_are_missing(bascule: Callable, study: Path, tmp_path: Path) -> None:
    study.write_text(study.read_text().replace("{name: digits, max_train: 200, max_test: 40}", "mnist"))
    way_out = "Set --data-dir or $BASCULE_DATA to the folder that holds it, or run: bascule data get mnist\n"
    for command in ("run", "validate"):
        assert bascule(command, str(study)).err.endswith(way_out)
    (tmp_path / "weights").touch()
    said = bascule("scan", "weights", "--data", "mnist", "--model", "mnist-fast")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("bascule: no 'MNIST/raw' or '")
    assert said.err.endswith(way_out)


def test_a_download_that_fails(bascule: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = Remote(path="part", places=("http://127.0.0.1:9",), sha256="0" * 64, size=3)
    monkeypatch.setattr(Mnist, "remote", (nowhere,))
    said = bascule("data", "get", "mnist", "--data-dir", "elsewhere")
    assert ". Give another place with --from URL, or put the file (SHA-256 000" in said.err


def test_what_a_run_is_refused_for(
    bascule: Callable, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_compiler(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no compiler")

    assert bascule("run", str(study), "--device", "gpu").err == (
        "bascule: --device: allowed are auto, cpu, cuda and cuda:N; got 'gpu'\n"
    )
    monkeypatch.setattr(torch, "compile", no_compiler)
    said = bascule("run", str(study), "--compile")
    assert said.err.startswith("bascule: --compile: torch.compile does not work on ")
    assert said.err.endswith("Leave --compile out.\n")
    assert bascule("run", str(study), "--capture", "--device", "cpu").err == (
        "bascule: --capture: steps are captured on CUDA, where launching them takes time; this is cpu. Leave --capture "
        "out.\n"
    )
    with lock_run(tmp_path / "runs" / "tiny", "bascule run"):
        said = bascule("run", str(study))
    assert said.err.endswith(" (what it has finished is kept), or give another folder with --runs\n")


def test_one_comparison_at_a_time(bascule: Callable, study: Path) -> None:
    assert bascule("run", str(study), "--set", "twin=false").code == 0
    said = bascule("table", "tiny", "--before", "--against", "None")
    assert said.err == ("bascule: a row is compared with one other: ask for --against or for --before, not for both\n")


def test_a_setting_is_not_taken_for_an_option(bascule: Callable, study: Path, tmp_path: Path) -> None:
    """The scanner has a `target`, and so has the command."""
    assert bascule("run", str(study), "--set", "twin=false").code == 0
    cell = next((tmp_path / "runs/tiny/cells").iterdir())
    method = "{name: unlearn, epochs: 1, scanner: {name: neural-cleanse, target: 70}}"
    said = bascule("repair", str(cell), "--with", method, "--images", "20", "--output", "x.safetensors")
    assert said.err == "bascule: scanner.target: there is no class 70; the classes are 0..9\n"
