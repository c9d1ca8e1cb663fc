"""Files that a study names are found beside it, wherever the command runs, and its models keep their names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
from PIL import Image

from bascule.core.errors import RequestError
from bascule.core.images import Splits
from bascule.plan.document import built_in_names, read_study
from bascule.plan.overrides import parse_override
from bascule.plan.plan import Plan
from bascule.plan.resolve import make_plan

STUDY = """\
base:
  data: {name: npz, path: set.npz}
  poison: {trigger: {name: sticker, size: 2, picture: mark.png}, target: 7, rate: 0.05}
  model: {name: digits-cnn, width: 8, hidden: 32}
  train: {objective: standard, epochs: 1}
  attack: {name: fgsm, eps: 0.1}
rows:
  As it is: {train: none, model: {weights: nets/net.safetensors}}
  Of each seed: {train: none, model: {weights: "nets/net-{seed}.safetensors"}}
  Trained on: {model: {weights: nets/net.safetensors}}
  Given: {poison: {name: given, path: theirs.npz, target: 7}}
twin: false
"""


@pytest.fixture
def place(tmp_path: Path, trained, digits: Splits, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a study and what it names, below the current one."""
    folder = tmp_path / "audits"
    (folder / "nets").mkdir(parents=True)
    state = {name: value.clone() for name, value in trained.model.state_dict().items()}
    for name in ("net", "net-0"):
        safetensors.torch.save_file(state, folder / "nets" / f"{name}.safetensors")
    x, y = digits.test.pixels.numpy(), digits.test.labels.numpy()
    np.savez(folder / "set.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    np.savez(folder / "theirs.npz", test_index=np.arange(len(x)), test_images=255 - x)
    Image.new("L", (2, 2), 255).save(folder / "mark.png")
    (folder / "study.yaml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    return folder


def plan_from(study: str, *overrides: str) -> Plan:
    return make_plan(read_study(study), overrides=[parse_override(text, "--set") for text in overrides], roots=[Path()])


def test_they_are_found_from_everywhere(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from_above = plan_from("audits/study.yaml")
    monkeypatch.chdir(place)
    inside = plan_from("study.yaml")
    assert inside.rows[0].setup.model.weights == "nets/net.safetensors", "as it was written"
    assert from_above.rows[0].setup.model.weights == "audits/nets/net.safetensors"
    assert from_above.rows[1].setup.model.weights == "audits/nets/net-0.safetensors"
    assert from_above.rows[3].setup.poison.path == "audits/theirs.npz"  # type: ignore[union-attr]
    for one, other in zip(from_above.rows, inside.rows, strict=True):
        assert [cell.fingerprint for cell in one.cells] == [cell.fingerprint for cell in other.cells], one.name
    assert (from_above.recorded().folder, inside.recorded().folder) == ("audits", "")
    assert "folder" not in inside.recorded().as_dict()


def test_what_lies_there_goes_before_the_current_folder_and_what_does_not_is_looked_for_here(place: Path) -> None:
    (place.parent / "nets").mkdir()
    for name in ("net", "net-0"):
        (place / "nets" / f"{name}.safetensors").rename(place.parent / "nets" / f"{name}.safetensors")
    assert plan_from("audits/study.yaml").rows[0].setup.model.weights == "nets/net.safetensors"
    (place / "nets" / "net.safetensors").write_bytes(b"no network")
    with pytest.raises(RequestError, match=r"audits/nets/net\.safetensors"):
        plan_from("audits/study.yaml")


def test_what_is_given_on_the_command_line_lies_here(place: Path) -> None:
    with pytest.raises(RequestError, match=r"cannot read the weights 'nets/net\.safetensors'"):
        plan_from("audits/study.yaml", "model.weights=nets/net.safetensors")


def test_what_varies_is_found_too(place: Path) -> None:
    text = STUDY.replace("rows:", "vary: {model.weights: [nets/net.safetensors]}\nrows:").partition("  Of each seed")[0]
    (place / "varies.yaml").write_text(text)
    (row,) = plan_from("audits/varies.yaml").rows
    assert row.setup.model.weights == "audits/nets/net.safetensors"
    assert row.vary == {"model.weights": "nets/net.safetensors"}


def test_built_in_studies_lie_nowhere() -> None:
    assert all(read_study(name).folder is None for name in built_in_names())


@pytest.mark.parametrize("word", ["{sed}", "{seeds}", "{}", "{SEED}"])
def test_a_word_in_braces_that_is_not_the_seed_is_told(place: Path, word: str) -> None:
    text = STUDY.replace("{seed}", word)
    (place / "study.yaml").write_text(text)
    with pytest.raises(RequestError) as refused:
        plan_from("audits/study.yaml")
    assert f"{word} stands for nothing; {{seed}} stands for the row's seed" in str(refused.value)
    assert "rows.Of each seed.model.weights" in str(refused.value)
