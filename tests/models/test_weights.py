"""Weights from files: what fits, what starts fresh, what is refused, and that nothing is run."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from bascule.core import catalog
from bascule.core.errors import RequestError
from bascule.core.fingerprint import fingerprint
from bascule.models.resnet18 import Resnet18
from bascule.models.resnet50 import Resnet50
from bascule.models.weights import load_weights


def small(classes: int = 3, width: int = 2, *, extra: bool = False) -> nn.Sequential:
    parts = OrderedDict(conv=nn.Conv2d(1, width, 1), norm=nn.BatchNorm2d(width), head=nn.Linear(width, classes))
    if extra:
        parts["extra"] = nn.Sequential(nn.Conv2d(1, 1, 1))
    return nn.Sequential(parts)


def written(net: nn.Module, path: Path) -> str:
    state = net.state_dict()
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path)
    return str(path)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("file", ["net.pth", "net.safetensors", "net.bin"])
def test_a_file_of_either_kind_is_loaded(tmp_path: Path, file: str) -> None:
    first, second = small(), small()
    first.norm.running_mean.fill_(7.0)  # type: ignore[union-attr, operator]
    load_weights(second, written(first, tmp_path / file))
    assert same(first.state_dict(), second.state_dict())


@pytest.mark.parametrize("wrap", ["state_dict", "model", "module", "half", "no-counters"])
def test_usual_forms_of_a_state_dict(tmp_path: Path, wrap: str) -> None:
    first, second = small(), small()
    state: Any = first.state_dict()
    if wrap == "module":
        state = {f"module.{name}": value for name, value in state.items()}
    elif wrap == "half":
        first.half()
        state = first.state_dict()
        first.float()
    elif wrap == "no-counters":
        state = {name: value for name, value in state.items() if "num_batches" not in name}
    else:
        state = {wrap: state, "epoch": 3}
    torch.save(state, tmp_path / "net.pth")
    load_weights(second, str(tmp_path / "net.pth"))
    assert same(first.state_dict(), second.state_dict())


@pytest.mark.parametrize("classes", [2, 5])
def test_another_number_of_classes_leaves_the_head_fresh(tmp_path: Path, classes: int) -> None:
    first, second = small(3), small(classes)
    before = {name: value.clone() for name, value in second.state_dict().items()}
    load_weights(second, written(first, tmp_path / "net.pth"))
    after = second.state_dict()
    for name, value in after.items():
        assert torch.equal(value, before[name] if name.startswith("head") else first.state_dict()[name]), name


def test_parts_that_may_be_missing_stay_fresh_or_are_loaded(tmp_path: Path) -> None:
    without, first, second = small(), small(extra=True), small(extra=True)
    fresh = second.extra[0].weight.clone()  # type: ignore[index, union-attr, operator]
    load_weights(second, written(without, tmp_path / "without.pth"), fresh=("extra",))
    assert torch.equal(second.extra[0].weight, fresh)  # type: ignore[index, union-attr, arg-type]
    assert torch.equal(second.conv.weight, without.conv.weight)  # type: ignore[arg-type]
    load_weights(second, written(first, tmp_path / "with.pth"), fresh=("extra",))
    assert same(first.state_dict(), second.state_dict())
    half = {name: value for name, value in first.state_dict().items() if name != "extra.0.bias"}
    torch.save(half, tmp_path / "half.pth")
    with pytest.raises(RequestError, match=r"it lacks extra\.0\.bias$"):
        load_weights(second, str(tmp_path / "half.pth"), fresh=("extra",))


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (small(extra=True).state_dict(), "it has what the network lacks: extra.0.bias, extra.0.weight"),
        (
            small(width=4).state_dict(),
            "it has other shapes: conv.bias (4,) instead of (2,), conv.weight (4, 1, 1, 1) instead of (2, 1, 1, 1), "
            "head.weight (3, 4) instead of (3, 2) and 4 more",
        ),
        (
            {"a": torch.zeros(1)},
            "it lacks conv.bias, conv.weight, head.bias and 5 more; it has what the network lacks: a",
        ),
        (small(3, 4).state_dict() | {"head.weight": torch.zeros(9, 4)}, "it has other shapes: conv.bias (4,)"),
    ],
    ids=["more", "shapes", "other-names", "other-classes-and-width"],
)
def test_what_does_not_fit_is_named(tmp_path: Path, state: dict[str, Tensor], said: str) -> None:
    torch.save(state, tmp_path / "net.pth")
    net = small()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(RequestError) as caught:
        load_weights(net, str(tmp_path / "net.pth"))
    assert f"weights: the file '{tmp_path}/net.pth' does not fit this network: " in str(caught.value)
    assert said in str(caught.value)
    assert same(before, net.state_dict())


def test_a_model_to_judge_must_be_of_these_classes(tmp_path: Path) -> None:
    state = small().state_dict() | {"head.weight": torch.zeros(9, 2), "head.bias": torch.zeros(9)}
    torch.save(state, tmp_path / "net.pth")
    load_weights(small(), str(tmp_path / "net.pth"))
    with pytest.raises(RequestError, match=r"head.bias \(9,\) instead of \(3,\)"):
        load_weights(small(), str(tmp_path / "net.pth"), other_classes=False)


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "net"])
def test_the_weights_in_a_checkpoint_are_found(tmp_path: Path, key: str) -> None:
    first, second = small(), small()
    torch.save({"epoch": 3, key: first.state_dict()}, tmp_path / "net.pth")
    load_weights(second, str(tmp_path / "net.pth"))
    assert same(first.state_dict(), second.state_dict())


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    torch.save({"conv.weight": Trap(tmp_path / "sprung")}, tmp_path / "net.pth")
    with pytest.raises(
        RequestError, match=r"cannot read the weights '.*net\.pth' as a \.pth file: it holds more"
    ) as caught:
        load_weights(small(), str(tmp_path / "net.pth"))
    assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([torch.zeros(2)], "holds no state dict: a mapping from names to tensors"),
        ({"epoch": 3}, "holds no state dict"),
        ({"state_dict": {"a": 1}}, "holds no state dict"),
        (torch.zeros(2), "holds no state dict"),
    ],
    ids=["list", "numbers", "nested", "tensor"],
)
def test_other_contents_are_refused(tmp_path: Path, content: Any, said: str) -> None:
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(RequestError, match=said):
        load_weights(small(), str(tmp_path / "net.pth"))


@pytest.mark.parametrize("file", ["net.pth", "net.safetensors", "net"])
def test_damaged_files_are_refused(tmp_path: Path, file: str) -> None:
    (tmp_path / file).write_bytes(b"weights")
    with pytest.raises(RequestError, match=r"it is neither a file by torch.save nor safetensors, or it is damaged"):
        load_weights(small(), str(tmp_path / file))
    torch.save(small().state_dict(), tmp_path / file)
    content = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(RequestError, match="it is cut off or damaged; get it again"):
        load_weights(small(), str(tmp_path / file))


@pytest.mark.parametrize("file", ["net.pth", "net.safetensors"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n", "it is a Git LFS pointer"),
        (b"\n<!DOCTYPE html><html>", "it is a web page"),
    ],
    ids=["empty", "pointer", "page"],
)
def test_what_stands_in_for_a_file_is_named(tmp_path: Path, file: str, content: bytes, said: str) -> None:
    (tmp_path / file).write_bytes(content)
    with pytest.raises(RequestError, match=f"weights: cannot read the weights '.*{file}': {said}"):
        load_weights(small(), str(tmp_path / file))


def test_data_parallel_weights_in_safetensors_are_found(tmp_path: Path) -> None:
    first, second = small(), small()
    state = {f"module.{name}": value for name, value in first.state_dict().items()}
    safetensors.torch.save_file(state, tmp_path / "net.safetensors")
    load_weights(second, str(tmp_path / "net.safetensors"))
    assert same(first.state_dict(), second.state_dict())


# --- as a setting ----------------------------------------------------------------------------------------------------


def test_a_missing_file_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"weights: cannot read the weights 'nowhere\.pth': No such file"):
        catalog.build("models", {"name": "resnet50", "weights": "nowhere.pth"})
    with pytest.raises(RequestError, match="it is a folder; give the file"):
        Resnet50(weights=str(tmp_path))


def test_the_files_content_is_part_of_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    path.write_bytes(b"one")
    old = Resnet18(weights=str(path))
    assert old.weights_sha256 == hashlib.sha256(b"one").hexdigest()
    assert catalog.build("models", catalog.describe(old)) == old == eval(repr(old), {"Resnet18": Resnet18})
    path.write_bytes(b"two")
    new = Resnet18(weights=str(path))
    assert fingerprint("cell", old) != fingerprint("cell", new)
    with pytest.raises(RequestError, match=re.escape("is not the file this was made with (its content changed)")):
        catalog.build("models", catalog.describe(old))


def test_a_network_starts_from_its_own_file(tmp_path: Path) -> None:
    first = Resnet18().initialised((3, 8, 8), 4, seed=0)
    architecture = Resnet18(weights=written(first, tmp_path / "net.safetensors"))
    assert same(architecture.initialised((3, 8, 8), 4, seed=1).state_dict(), first.state_dict())
    found, plain = (one.initialised((3, 8, 8), 2, seed=1).state_dict() for one in (architecture, Resnet18()))
    assert torch.equal(found["fc.weight"], plain["fc.weight"]), "a fresh head is drawn from the seed"
    assert torch.equal(found["layer4.1.conv2.weight"], first.state_dict()["layer4.1.conv2.weight"])


def test_a_denoising_network_starts_from_a_plain_ones_file(tmp_path: Path) -> None:
    first = Resnet50().initialised((3, 8, 8), 2, seed=0)
    architecture = Resnet50(denoise=True, weights=written(first, tmp_path / "net.pth"))
    found = architecture.initialised((3, 8, 8), 2, seed=1).state_dict()
    fresh = dataclasses.replace(architecture, weights=None, weights_sha256=None)
    blocks = fresh.initialised((3, 8, 8), 2, seed=1).state_dict()
    for name, value in found.items():
        assert torch.equal(value, blocks[name] if name.startswith("denoise") else first.state_dict()[name]), name


def test_a_file_that_is_cut_off_or_empty_is_said_to_be_so(tmp_path: Path) -> None:
    whole = Path(written(small(), tmp_path / "net.pth")).read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    torch.save({}, tmp_path / "none.pth")
    for file, said in (("cut.pth", "it is cut off or damaged"), ("none.pth", "holds no tensors$")):
        with pytest.raises(RequestError, match=said):
            load_weights(small(), str(tmp_path / file))
