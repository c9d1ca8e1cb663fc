"""Nothing that lives on the CPU meets what lives on the run's device: every component, on a device that does not exist.

Its tensors say that they are there, hold their values on the CPU, and mix as those of CUDA do: an operation on tensors
of both places fails, and so does drawing there with a generator of the CPU, or `.numpy()`. Allowed is what CUDA allows:
copies, single numbers of the CPU in arithmetic, and places of the CPU as an index. The device is called `meta`, a name
that torch knows without any hardware and runs backward passes for.

What this cannot see: operations that CUDA lacks or rounds otherwise, memory, and compiled passes.
"""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import yaml
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from bascule.core import catalog
from bascule.core.images import Images
from bascule.metrics.needs import keys_of
from bascule.plan.document import parse_study
from bascule.plan.overrides import Override
from bascule.plan.resolve import make_plan
from bascule.record.run import RunRecord
from bascule.running.run import run_plan
from bascule.training.loop import train
from bascule.training.settings import Training
from bascule.triggers.placement import Poison
from bascule.triggers.stamping import stamp_bytes

EVERYTHING = runpy.run_path(str(Path(__file__).with_name("test_everything.py")))
"""The study over every component."""

# --- the device ------------------------------------------------------------------------------------------------------

THERE = torch.device("meta")
CPU = torch.device("cpu")
_aten = torch.ops.aten
_INDEXING = {_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default, _aten._index_put_impl_.default}


class MixedError(RuntimeError):
    """Something of the CPU met something of the device."""


class There(Tensor):
    """A tensor of the device; `held` has its values."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor, requires_grad: bool = False) -> There:
        place = {"strides": held.stride(), "storage_offset": held.storage_offset()}
        found = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, held.shape, **place, dtype=held.dtype, device=THERE, requires_grad=requires_grad
        )
        found.held = held
        return found  # type: ignore[no-any-return]

    def __deepcopy__(self, memo: dict[int, Any]) -> There:
        found = There(self.held.detach().clone(), self.requires_grad)
        if getattr(self, "_is_param", False):
            found._is_param = True  # type: ignore[attr-defined]
        memo[id(self)] = found
        return found

    def tolist(self) -> Any:
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return carried_out(func, args, kwargs or {})


def carried_out(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """An operation on the values held; its results are where they would be."""
    tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
    ours, theirs = (
        [value for value in tensors if isinstance(value, There)],
        [value for value in tensors if not isinstance(value, There)],
    )
    wanted = kwargs.get("device")
    if func is _aten.copy_.default:
        there = isinstance(args[0], There)
    else:
        there = bool(ours) if wanted is None else torch.device(wanted) == THERE
        if ours and theirs and not _may_mix(func, args, theirs):
            shapes = [tuple(value.shape) for value in theirs]
            raise MixedError(f"{func} is given tensors of the device and of the CPU, these of shapes {shapes}")
    held = kwargs if wanted is None else {**kwargs, "device": CPU}
    held_args, held_kwargs = tree_map(lambda v: v.held if isinstance(v, There) else v, (args, held))
    found = func(*held_args, **held_kwargs)
    if not there:
        return found
    given = {id(value.held): value for value in ours}  # what was changed in place is the tensor it was

    def wrapped(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return given[id(value)] if id(value) in given else There(value)

    return tree_map(wrapped, found)


def _may_mix(func: Any, args: Any, theirs: list[Tensor]) -> bool:
    if func in _INDEXING:
        values = () if func is _aten.index.Tensor else args[2:3]
        return isinstance(args[0], There) and all(isinstance(value, There) or value.ndim == 0 for value in values)
    changes = func._schema.name.endswith("_") and not isinstance(args[0], There)
    return torch.Tag.pointwise in func.tags and all(value.ndim == 0 for value in theirs) and not changes


class Operations(TorchDispatchMode):
    """What makes tensors of the device out of nothing, or brings them there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return carried_out(func, args, kwargs or {})


class Draws(torch.Generator):
    """A generator of the device."""

    device = THERE  # type: ignore[assignment]


class Calls(TorchFunctionMode):
    """What torch hides from `Operations`: who draws, and data that become tensors."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        generator = kwargs.get("generator")
        if generator is not None:
            own = args[0].device if args and isinstance(args[0], Tensor) else kwargs.get("device", CPU)
            if torch.device(own) != generator.device:
                raise MixedError(f"{func} draws on {own} with a generator of {generator.device}")
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            return func(*args, **{**kwargs, "device": CPU}).to(kwargs["device"])
        return func(*args, **kwargs)


@contextmanager
def on_the_device() -> Iterator[torch.device]:
    """The device, inside the block."""
    plain, save = torch.Generator, safetensors.torch.save_file

    class Either(type):
        def __instancecheck__(cls, value: object) -> bool:
            return isinstance(value, plain)

    class Generator(metaclass=Either):
        def __new__(cls, device: torch.device | str = CPU) -> Any:
            return Draws() if torch.device(device) == THERE else plain(device)

    def keep(state: dict[str, Tensor], file: Path) -> None:
        save({name: value.cpu() for name, value in state.items()}, file)

    def load(model: nn.Module, file: Path, device: str) -> None:
        model.load_state_dict({name: value.to(device) for name, value in safetensors.torch.load_file(file).items()})

    with pytest.MonkeyPatch.context() as patch, Calls(), Operations():
        patch.setattr(torch, "Generator", Generator)
        patch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
        patch.setattr(safetensors.torch, "load_model", load)
        patch.setattr(
            safetensors.torch, "save_file", lambda state, file: save({k: v.cpu() for k, v in state.items()}, file)
        )
        yield THERE


@pytest.fixture
def device() -> Iterator[torch.device]:
    with on_the_device() as found:
        yield found


def test_what_mixes_on_cuda_mixes_here(device: torch.device) -> None:
    x = torch.rand(3, 4).to(device)
    place = torch.tensor([0, 2])
    assert (x + torch.tensor(1.0)).device == x[place].device == x[x > 2].device == device
    x[place] = 0.0
    assert x.cpu().device == torch.zeros(3).copy_(x[:, 0]).device == CPU
    assert x.sum(1).tolist()[0] == float(x[2].sum()) == 0
    draw = torch.rand(2, generator=torch.Generator(device=device), device=device)
    assert torch.equal(draw.cpu(), torch.rand(2, generator=torch.Generator()))


@pytest.mark.parametrize(
    "mixing",
    [
        lambda x: x + torch.ones(4),
        lambda x: x @ torch.ones(4, 1),
        lambda x: torch.cat([x, torch.zeros(1, 4)]),
        lambda x: torch.ones(4)[x[0].long()],
        lambda x: torch.ones(3, 4).add_(x),
        lambda x: torch.tensor(1.0).add_(x[0, 0]),
        lambda x: torch.where(x > 0, torch.ones(4), x),
        lambda x: x.index_put_((torch.tensor([0]),), torch.ones(1, 4)),
        lambda x: x.gather(1, torch.zeros(3, 1, dtype=torch.int64)),
        lambda x: torch.rand(2, generator=torch.Generator(), device=x.device),
        lambda x: torch.empty_like(x).normal_(generator=torch.Generator()),
        lambda x: torch.randperm(3, generator=torch.Generator(device=x.device)),
        lambda x: nn.Linear(4, 2)(x),
        lambda x: x.numpy(),
    ],
)
def test_what_fails_on_cuda_fails_here(device: torch.device, mixing: Callable[[Tensor], object]) -> None:
    x = torch.zeros(3, 4).to(device)
    with pytest.raises((MixedError, RuntimeError, TypeError)):
        mixing(x)


# --- everything on it ------------------------------------------------------------------------------------------------

L2 = [
    {"name": name, "norm": "l2", "eps": 0.5, **settings}
    for name, settings in (
        ("pgd", {"steps": 2, "restarts": 2}),
        ("apgd", {"steps": 5, "loss": "dlr", "eot_iter": 2}),
        ("fab", {"steps": 2, "targets": 2, "random_start": True}),
        ("deepfool", {"steps": 2}),
        ("square", {"queries": 30}),
    )
]
SMALL = {"train.epochs": 4, "train.batch_size": 50, "data.max_train": 100, "data.max_test": 12, "data.held_out": 40}


def components() -> str:
    """The study over every component, its attacks apart: none leaves the next one without images.

    All rows meet `fgsm`.
    """
    study = yaml.safe_load(EVERYTHING["everything"]())
    attacks = study["rows"]["asked"].pop("attack")
    study["rows"] |= {f"attack {attack['name']}": {"attack": attack} for attack in attacks if attack["name"] != "fgsm"}
    return yaml.safe_dump(study)


def variants() -> str:
    """A study of what the settings of components choose between."""
    rows: dict[str, Any] = {
        "asked": {
            "attack": {"name": "pgd", "eps": 0.1, "steps": 2},
            "curve": [0.05, 0.2],
            "certify": {"name": "crown-ibp", "eps": 0.001, "norm": "l2", "intermediate": "crown"},
            "inspect": {"name": "activation-clustering", "rule": "silhouette", "reduce": "pca"},
            "scan": {"name": "neural-cleanse", "mask": "channel", "max_looks": 2},
            "detect": {"name": "strip", "overlays": 2},
        },
        "corners": {"poison": {"trigger": {"name": "sticker", "size": 2, "position": "random-corner"}}},
        "anywhere": {"poison": {"trigger": {"name": "sticker", "size": 2, "position": "random"}}},
        "shifted": {"train": {"augment": {"pad": 1, "flip": True}, "optimizer": "sgd", "weight_decay": 0.1}},
        "mixed precision": {"train": {"precision": "bfloat16"}},
        "statistics": {"train": {"objective": {"name": "pgd", "eps": 0.1, "restarts": 2, "batch_norm": "batch"}}},
        "penalty": {
            "train": {"objective": {"name": "lipschitz", "inner": {"name": "fast", "eps": 0.1}, "estimate": "random"}}
        },
        "defended": {
            "filter": {"name": "strip", "overlays": 2}, "repair": {"name": "fine-tune", "epochs": 1}, "defender": 20
        },
    }  # fmt: skip
    rows |= {f"attack {attack['name']}": {"attack": attack} for attack in L2}
    study = yaml.safe_load(EVERYTHING["everything"]())
    asked = {"poison", "twin", *study["base"], *(key for row in rows.values() for key in row)}
    measured = [name for name in catalog.names("measure") if asked >= {*keys_of(catalog.load("measure", name).needs)}]
    return yaml.safe_dump({**study, "rows": rows, "twin": True, "measure": measured})


@pytest.mark.parametrize("study", [components, variants])
def test_every_row_of_a_study(study: Callable[[], str], device: torch.device, tmp_path: Path) -> None:
    overrides = [Override(path=path, value=value, origin=path) for path, value in SMALL.items()]
    plan = make_plan(parse_study(study(), name="everything", source="everything.yaml"), overrides=overrides)
    assert run_plan(plan, RunRecord(tmp_path), device=device, roots=()).failures == ()


@pytest.mark.parametrize("denoise", [False, True])
@pytest.mark.parametrize("name", ["mnist-fast", "mnist-paper", "cifar-paper", "ibp-small", "ibp-large", "resnet18"])
def test_every_architecture(name: str, denoise: bool, device: torch.device) -> None:
    settings: dict[str, Any] = {"denoise": True} if denoise else {}
    if denoise and name in ("ibp-small", "ibp-large", "resnet18"):
        pytest.skip("has no denoising blocks")
    if name == "ibp-large":
        settings = {"width": 4, "normalise": ((0.5, 0.2),) * 3}
    model = catalog.build("models", {"name": name, **settings}).initialised((3, 12, 12), 4, seed=0).to(device)
    pixels = torch.randint(256, (8, 3, 12, 12), dtype=torch.uint8)
    images = Images(pixels=pixels, labels=torch.arange(8) % 4, ids=torch.arange(8), classes=tuple("abcd")).to(device)
    curve = train(model, images, Training(objective=catalog.build("train", "standard"), epochs=1), seed=0)
    assert len(curve) == 1


@pytest.mark.parametrize("position", ["center", "random", "random-corner", (1, 2)], ids=str)
def test_triggers_for_colour_images(position: Any, device: torch.device) -> None:
    pixels = torch.randint(1, 256, (8, 3, 12, 12), dtype=torch.uint8)
    images = Images(pixels=pixels, labels=torch.arange(8) % 4, ids=torch.arange(8), classes=tuple("abcd")).to(device)
    trigger = catalog.build("poison", {"name": "channel", "position": position})
    found = stamp_bytes(images, torch.arange(8, device=device), trigger, generator=torch.Generator(device=device))
    assert found.device == device
    poison = Poison(trigger=trigger, target=1, rate=0.1)
    planted, truth = poison.plant(images, generator=torch.Generator(device=device))
    assert planted.pixels[truth.ids].ne(images.pixels[truth.ids]).any()
