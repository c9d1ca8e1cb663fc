"""Weights in the wrappings that training scripts write: which are taken, and what is said."""

from __future__ import annotations

import argparse
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from bascule.core.errors import RequestError
from bascule.models.normalise import Normalise
from bascule.models.weights import load_weights

State = dict[str, Tensor]


class Net(nn.Module):
    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1)
        self.layer1 = nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1))
        self.fc = nn.Linear(2, classes)


def state(net: nn.Module | None = None, prefix: str = "") -> State:
    return {f"{prefix}{name}": value.clone() for name, value in (net or Net()).state_dict().items()}


def zeros(prefix: str = "") -> State:
    return {name: torch.zeros_like(value) for name, value in state(prefix=prefix).items()}


def below(prefix: str, given: State) -> State:
    return {f"{prefix}{name}": value for name, value in given.items()}


COUNTED = {"n_averaged": torch.tensor(2)}


def loaded(content: Any, folder: Path, net: nn.Module | None = None, file: str = "net.pth", **settings: Any) -> State:
    net = net or Net()
    if file.endswith(".safetensors"):
        safetensors.torch.save_file(content, folder / file)
    else:
        torch.save(content, folder / file)
    load_weights(net, str(folder / file), **settings)
    return net.state_dict()


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


PREFIXES = (
    "", "module.", "model.", "net.", "0.", "1.", "_orig_mod.", "backbone.", "encoder.", "module._orig_mod.",
    "_orig_mod.module.", "module.1.", "model.backbone.net.", "ema_model.module.",
)  # fmt: skip


@pytest.mark.parametrize("file", ["net.pth", "net.safetensors"])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_any_one_prefix_is_taken_away(tmp_path: Path, prefix: str, file: str) -> None:
    net = Net()
    assert same(loaded(state(net, prefix), tmp_path, file=file), state(net))


@pytest.mark.parametrize("given", ["", "model.", "net.", "module.0."])
@pytest.mark.parametrize("wrap", [lambda net: nn.Sequential(nn.Identity(), net), nn.DataParallel, AveragedModel])
def test_a_prefix_is_added_where_the_network_has_one(
    tmp_path: Path, given: str, wrap: Callable[[nn.Module], nn.Module]
) -> None:
    net = Net()
    found = loaded(state(net, given), tmp_path, wrap(Net()))
    for name, value in net.state_dict().items():
        (place,) = (key for key in found if key.endswith(f".{name}"))
        assert torch.equal(found[place], value), name


KEYS = (
    "state_dict", "model_state_dict", "model", "net", "params", "params_ema", "state_dict_ema", "model_ema", "ema",
    "ema_state_dict", "teacher", "student", "module", "weights", "network", "netC", "best_model", "modelEma",
)  # fmt: skip


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("file", ["net.pth", "net.pt", "net.ckpt", "net.bin", "net"])
def test_any_key_leads_to_the_weights(tmp_path: Path, key: str, file: str) -> None:
    net = Net()
    assert same(loaded({"epoch": 3, key: state(net, "module.")}, tmp_path, file=file), state(net))
    assert same(loaded({"epoch": 3, "checkpoint": {key: state(net)}}, tmp_path, file=file), state(net))
    assert same(loaded(({"lr": 0.1}, state(net)), tmp_path, file=file), state(net))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda s: {"state_dict": zeros(), "state_dict_ema": s}, "'state_dict_ema' (averaged); not those under"),
        (lambda s: {"model_ema": s, "model": zeros()}, "'model_ema' (averaged); not those under 'model'"),
        (lambda s: {"params": zeros(), "params_ema": s}, "'params_ema' (averaged); not those under 'params'"),
        (lambda s: {**zeros("model."), **below("model_ema.", s)}, "'model_ema' (averaged); not those under 'model'"),
        (lambda s: {**zeros(), "ema": s}, "'ema' (averaged); not those under the top level"),
        (lambda s: {"net": zeros(), "b": {**COUNTED, **s}}, "'b' (averaged); not those under 'net'"),
        (lambda s: {"net": zeros(), "b": {**COUNTED, **below("module.", s)}}, "'b.module' (averaged); not those"),
        (lambda s: {"student": zeros(), "teacher": s}, "'teacher'; not those under 'student'"),
        (lambda s: {"teacher": zeros(), "model": s}, "'model'; not those under 'teacher'"),
        (lambda s: {"model": zeros(), "state_dict": s}, "'state_dict'; not those under 'model'"),
        (
            lambda s: {"state_dict": s, "ema": {"fc.bias": torch.zeros(3)}},
            "'state_dict'; those under 'ema' (averaged) do not fit: it lacks conv.bias",
        ),
    ],
)  # fmt: skip
def test_of_several_sets_it_says_which_is_taken(
    tmp_path: Path, content: Callable[[State], dict[str, Any]], said: str
) -> None:
    net = Net()
    with pytest.warns(UserWarning, match=re.escape(f"net.pth: taken are the weights under {said}")):
        assert same(loaded(content(state(net)), tmp_path), state(net))


def test_without_a_preference_none_is_taken(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"several sets of weights that fit: 'fold1', 'fold2'\. Save the one"):
        loaded({"fold1": zeros(), "fold2": state()}, tmp_path)
    same_twice = state()
    assert same(loaded({"fold1": same_twice, "fold2": same_twice}, tmp_path), same_twice)


@pytest.mark.parametrize("average", [None, get_ema_multi_avg_fn(0.9)])
def test_averaged_models_of_torch(tmp_path: Path, average: Any) -> None:
    net = Net()
    averaged = AveragedModel(net, multi_avg_fn=average)
    averaged.update_parameters(net)
    with torch.no_grad():
        net.conv.weight.add_(1)
    averaged.update_parameters(net)
    assert same(loaded(averaged.state_dict(), tmp_path), averaged.module.state_dict())
    assert not same(averaged.module.state_dict(), net.state_dict())


def test_the_weights_of_parts_that_were_compiled(tmp_path: Path) -> None:
    net = Net()
    given = {name.replace("layer1.", "layer1._orig_mod."): value for name, value in state(net).items()}
    assert same(loaded(given, tmp_path), state(net))


def test_what_an_optimiser_keeps_is_no_model(tmp_path: Path) -> None:
    net = Net()
    given = {"optimizer": {"ema": zeros()}, "exp_avg": zeros(), "grads": zeros(), "model": state(net)}
    assert same(loaded(given, tmp_path), state(net))


def test_bookkeeping_does_not_count(tmp_path: Path) -> None:
    net = Net()
    extra = {"total_ops": torch.zeros(1), "layer1.total_params": torch.zeros(1), "n_averaged": torch.tensor(1)}
    given = {**state(net), **extra}
    del given["layer1.0.num_batches_tracked"]
    assert same(loaded(given, tmp_path), state(net))


@pytest.mark.parametrize("name", ["criterion.weight", "loss.weight", "loss_fn.pos_weight", "val_metrics.acc.correct"])
def test_the_loss_and_the_metrics_of_a_training_do_not_count(tmp_path: Path, name: str) -> None:
    net = Net()
    assert same(loaded({"state_dict": {**state(net, "model."), name: torch.ones(3)}}, tmp_path), state(net))


def test_what_a_callback_keeps_is_no_model(tmp_path: Path) -> None:
    net = Net()
    kept = {"StochasticWeightAveraging": {"n_averaged": torch.tensor(2), "average_model_state": zeros("model.")}}
    assert same(loaded({"state_dict": state(net, "model."), "callbacks": kept}, tmp_path), state(net))


@pytest.mark.parametrize("file", ["net.pth", "net.pth.tar"])
def test_files_of_the_format_before_torch_1_6(tmp_path: Path, file: str) -> None:
    net, found = Net(), Net()
    content = {"args": argparse.Namespace(lr=0.1), "state_dict": state(net)}
    torch.save(content, tmp_path / file, _use_new_zipfile_serialization=False)
    load_weights(found, str(tmp_path / file))
    assert same(found.state_dict(), state(net))
    torch.save({**content, "hook": Runs()}, tmp_path / file, _use_new_zipfile_serialization=False)
    with pytest.raises(RequestError, match=r"it asks for '[a-z]*.check_output', which could run code\. Nothing"):
        load_weights(found, str(tmp_path / file))
    (tmp_path / file).write_bytes((tmp_path / file).read_bytes()[:300])
    with pytest.raises(RequestError, match="cannot read the weights"):
        load_weights(found, str(tmp_path / file))


def test_an_archive_of_arrays_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "net.npz", w=np.zeros(3))
    with pytest.raises(RequestError, match="it is an archive of NumPy arrays"):
        load_weights(Net(), str(tmp_path / "net.npz"))


def test_names_beside_the_prefix_are_refused(tmp_path: Path) -> None:
    given = {**state(prefix="model."), "denoiser.weight": torch.ones(3), "model.head2.bias": torch.ones(3)}
    with pytest.raises(RequestError, match=r"of 'model', it has what the network lacks: denoiser.weight, model.head2"):
        loaded(given, tmp_path)


def test_a_longer_network_does_not_pass_for_a_shorter_one(tmp_path: Path) -> None:
    longer, shorter = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(RequestError, match="it has what the network lacks: 1"):
        loaded(state(longer), tmp_path, shorter)


def test_what_lies_beside_the_weights_is_not_imported(tmp_path: Path) -> None:
    net = Net()
    given = {
        "state_dict": state(net), "args": argparse.Namespace(lr=0.1, out=tmp_path), "best": np.float64(0.5),
        "history": np.zeros(3),
    }  # fmt: skip
    assert same(loaded(given, tmp_path), state(net))


def test_a_class_that_is_nowhere_is_no_hindrance(tmp_path: Path) -> None:
    code = (
        "import sys, types, torch\n"
        "module = types.ModuleType('gone'); sys.modules['gone'] = module\n"
        "exec('class Settings:\\n    def __init__(self): self.lr = 0.1', module.__dict__)\n"
        "torch.save({'config': module.Settings(), 'model': torch.nn.Linear(2, 2).state_dict()}, sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "net.pth")], check=True)
    net = nn.Linear(2, 2)
    before = net.weight.clone()
    load_weights(net, str(tmp_path / "net.pth"))
    assert not torch.equal(net.weight, before)


class Runs:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> Any:
        return subprocess.check_output, (["touch", "sprung"],)


@pytest.mark.parametrize("place", ["state_dict", "args"])
def test_code_beside_the_weights_is_named_and_not_run(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match=r"it asks for '[a-z]*.check_output', which could run code\. Nothing"):
        loaded({"model": state(), place: Runs()}, tmp_path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("wrap", [lambda net: net, lambda net: {"model": net, "epoch": 1}])
def test_a_whole_network_is_named(tmp_path: Path, wrap: Callable[[nn.Module], Any]) -> None:
    with pytest.raises(RequestError, match=r"a whole pickled network \('.*\.Net'\), which is code\. Where you trust"):
        loaded(wrap(Net()), tmp_path)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_program_is_named(tmp_path: Path) -> None:
    torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)).save(tmp_path / "net.pt")  # type: ignore[no-untyped-call]
    with pytest.raises(RequestError, match=r"it is a TorchScript program; opening it runs it"):
        load_weights(nn.Linear(2, 2), str(tmp_path / "net.pt"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x1f\x8b\x08\x00", "a compressed archive"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b'{"weight_map": {}}', "JSON text"),
        (b"\x93NUMPY\x01\x00", "a NumPy array"),
        (b'<?xml version="1.0"?><html>', "a web page"),
    ],
)
def test_other_files_are_named(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "net.bin").write_bytes(content)
    with pytest.raises(RequestError, match=f"cannot read the weights '.*net.bin': it is {said}"):
        load_weights(Net(), str(tmp_path / "net.bin"))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_plain_pickle_is_named_without_a_word_of_torch(tmp_path: Path, protocol: int) -> None:
    (tmp_path / "net.pkl").write_bytes(pickle.dumps(state(Net()), protocol=protocol))
    with pytest.raises(RequestError, match=r"it is a plain pickle, not a file by torch.save, and unpickling may run"):
        load_weights(Net(), str(tmp_path / "net.pkl"))
    torch.save(state(Net()), tmp_path / "net.pkl", _use_new_zipfile_serialization=False)
    load_weights(Net(), str(tmp_path / "net.pkl"))


def test_the_ending_does_not_decide(tmp_path: Path) -> None:
    net, found = Net(), Net()
    safetensors.torch.save_file(state(net), tmp_path / "net.bin")
    load_weights(found, str(tmp_path / "net.bin"))
    assert same(state(net), state(found))
    torch.save(state(net), tmp_path / "net.safetensors")
    found = Net()
    load_weights(found, str(tmp_path / "net.safetensors"))
    assert same(state(net), state(found))


# --- a normalisation beside the weights -------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("mu", "sigma"), ("normalizer.new_mean", "normalizer.new_std"), ("mean", "std")])
@pytest.mark.parametrize("prefix", ["", "model."])
def test_a_normalisation_is_compared(tmp_path: Path, names: tuple[str, str], prefix: str) -> None:
    net = Net()
    given = {**state(net, prefix), names[0]: torch.full((1, 1, 1, 1), 0.5), names[1]: torch.full((1, 1, 1), 0.25)}
    right = nn.Sequential(Normalise((0.5,), (0.25,), channels=1), Net())
    assert torch.equal(loaded(given, tmp_path, right)["1.fc.weight"], net.fc.weight)
    for other in (nn.Sequential(Normalise((0.1,), (0.25,), channels=1), Net()), Net()):
        with pytest.warns(
            UserWarning, match=r"normalised with `mean` \[0.5\], `std` \[0.25\], and this network does ot"
        ):
            loaded(given, tmp_path, other)


@pytest.mark.parametrize("values", [(torch.tensor([0.5]), torch.tensor([0.25])), ([0.5], [0.25]), ((0.5,), (0.25,))])
@pytest.mark.parametrize("around", [False, True])
def test_a_normalisation_around_the_weights_is_compared(tmp_path: Path, values: tuple[Any, Any], around: bool) -> None:
    net, pair = Net(), dict(zip(("mean", "std"), values, strict=True))
    given = {"net": state(net), **pair} if around else {**state(net), **pair}
    with pytest.warns(
        UserWarning, match=r"normalised with `mean` \[0.5\], `std` \[0.25\], and this network does otherw"
    ):
        loaded(given, tmp_path, Net())
    right = nn.Sequential(Normalise((0.5,), (0.25,), channels=1), Net())
    assert torch.equal(loaded(given, tmp_path, right)["1.fc.weight"], net.fc.weight)


def test_the_layout_of_the_package_robustness(tmp_path: Path) -> None:
    net = Net()
    given = {
        "model": {
            **state(net, "module.model."), **state(net, "module.attacker.model."),
            "module.normalizer.new_mean": torch.zeros(3, 1, 1), "module.normalizer.new_std": torch.ones(3, 1, 1),
            "module.attacker.normalize.new_mean": torch.zeros(3, 1, 1),
            "module.attacker.normalize.new_std": torch.ones(3, 1, 1),
        },
        "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(2)}}}, "epoch": 3,
    }  # fmt: skip
    assert same(loaded(given, tmp_path), state(net))
