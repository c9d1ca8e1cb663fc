"""The operations of a model, found by symbolic tracing and replayed for a batch."""

from __future__ import annotations

import operator
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from bascule.certifiers import _layers
from bascule.certifiers._ops import Network, Ref, UnsupportedError
from bascule.core.errors import RequestError


@dataclass(frozen=True, eq=False)
class Trace:
    """What a model does, as a list of calls; holds no part of the model."""

    graph: fx.Graph
    constants: Mapping[str, Tensor]
    """Tensors made inside the forward pass."""


class _Shell(nn.Module):
    """Around the model while it is traced, so that constants end up here and arguments with defaults stay plain."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Any:
        return self.model(x)


class _Tracer(fx.Tracer):
    """Follows buffers too, so that what is computed from them is computed anew at each replay."""

    proxy_buffer_attributes = True

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """Of a kind that tells `x += 1` from `x = x + 1`."""
        return _Proxy(node, self)


class _Proxy(fx.Proxy):
    """Leaves what works in place in the graph: torch's own proxy makes a new value of it."""

    def __iadd__(self, other: Any) -> fx.Proxy:
        return self._in_place(operator.iadd, other)

    def __isub__(self, other: Any) -> fx.Proxy:
        return self._in_place(operator.isub, other)

    def __imul__(self, other: Any) -> fx.Proxy:
        return self._in_place(operator.imul, other)

    def __itruediv__(self, other: Any) -> fx.Proxy:
        return self._in_place(operator.itruediv, other)

    def _in_place(self, what: Callable[[Any, Any], Any], other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", what, (self, other), {})


_PREFIX = "model"


def _bare(model: nn.Module) -> nn.Module:
    """The model itself, when it was compiled."""
    inner = getattr(model, "_orig_mod", model)
    return inner if isinstance(inner, nn.Module) else model


def trace(model: nn.Module) -> Trace:
    """The calls that the forward pass of `model` makes.

    Raises:
        RequestError: They depend on the values of the image, or one changes in place what another one uses later.
    """
    shell, tracer = _Shell(_bare(model)), _Tracer()
    try:
        graph = tracer.trace(shell)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0].partition(". ")[0]
        raise RequestError(
            f"certified bounds cannot follow {_where(tracer, model, error)}: {type(error).__name__}: {reason}. "
            "It must make the same calls for every image: no `if` or loop on values"
        ) from error
    _check_in_place(graph, shell)
    return Trace(graph, {name: value for name, value in vars(shell).items() if isinstance(value, Tensor)})


def _where(tracer: fx.Tracer, model: nn.Module, error: Exception) -> str:
    """The layer in whose forward pass tracing stopped, and the line of its file."""
    inside = [(path.removeprefix(_PREFIX).removeprefix("."), kind) for path, kind in tracer.module_stack.values()]
    path, kind = inside[-1] if inside else ("", type(model))
    torchs = str(Path(torch.__file__).parent)
    lines = [
        f" ({Path(frame.filename).name}, line {frame.lineno})"
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.name == "forward" and not frame.filename.startswith(torchs) and frame.filename != __file__
    ]
    name = getattr(kind, "__name__", str(kind))
    return f"the forward pass of {name}{f' at {path!r}' if path else ''}{lines[-1] if lines else ''}"


_IN_PLACE = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
}
"""What works in place, and what makes a new value instead."""
_SAME_STORAGE = {torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze, torch.permute, torch.transpose}
_SAME_STORAGE |= {operator.getitem, F.dropout}
_SAME_STORAGE_METHODS = {"flatten", "view", "reshape", "squeeze", "unsqueeze", "permute", "transpose", "contiguous"}
_SAME_STORAGE_LAYERS = (nn.Flatten, nn.Identity, nn.Dropout, nn.Dropout2d)


def _check_in_place(graph: fx.Graph, shell: nn.Module) -> None:
    """A replay makes new values: it would hand an old one to whoever uses later what the model has overwritten.

    Raises:
        RequestError: There is such a use.
    """
    order = {node: place for place, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        if not _works_in_place(node, shell) or not node.all_input_nodes:
            continue
        base = node.all_input_nodes[0]
        while _shares_storage(base, shell) and base.all_input_nodes:
            base = base.all_input_nodes[0]
        users = {user for user in _users_of_storage(base, shell) - {node} if not _asks_for_shape(user)}
        if any(order[user] > order[node] for user in users):
            raise RequestError(
                f"certified bounds cannot follow {node.name!r}: it works in place on a value that is used again. "
                "Give it a copy, or leave `inplace` out"
            )


def _users_of_storage(base: fx.Node, shell: nn.Module) -> set[fx.Node]:
    """Whoever uses a value or a view of it."""
    found: set[fx.Node] = set()
    for user in base.users:
        found.add(user)
        if _shares_storage(user, shell):
            found |= _users_of_storage(user, shell)
    return found


def _shares_storage(node: fx.Node, shell: nn.Module) -> bool:
    """Whether the result may be a view of the first input, or the input itself."""
    if node.op == "call_module":
        return isinstance(shell.get_submodule(str(node.target)), _SAME_STORAGE_LAYERS)
    return node.target in (_SAME_STORAGE_METHODS if node.op == "call_method" else _SAME_STORAGE)


def _asks_for_shape(node: fx.Node) -> bool:
    return node.target is getattr or node.target in ("size", "dim")


def _works_in_place(node: fx.Node, shell: nn.Module) -> bool:
    if node.op == "call_module":
        return bool(getattr(shell.get_submodule(str(node.target)), "inplace", False))
    if node.op == "call_method":
        return str(node.target).endswith("_") and not str(node.target).endswith("__")
    if node.op != "call_function":
        return False
    asked = node.kwargs.get("inplace", node.args[1:2] == (True,) and node.target is F.relu)
    return node.target in _IN_PLACE or bool(asked)


_kept: WeakKeyDictionary[nn.Module, tuple[object, Trace]] = WeakKeyDictionary()


def kept_trace(model: nn.Module) -> Trace:
    """`trace`, remembered while the model consists of the same modules in the same modes."""
    made_of = [(id(module), module.training) for module in model.modules()]
    before = _kept.get(model)
    if before is not None and before[0] == made_of:
        return before[1]
    traced = trace(model)
    _kept[model] = made_of, traced
    return traced


def replay(model: nn.Module, traced: Trace, net: Network, image: Ref) -> Ref:
    """Add the model's operations on `image` to `net`, in order; returns the logits.

    Raises:
        RequestError: One of them cannot be bounded, or the answer is not B x K logits.
    """
    model = _bare(model)
    values: dict[fx.Node, Any] = {}
    for node in traced.graph.nodes:
        args, kwargs = (fx.node.map_arg(part, values.__getitem__) for part in (node.args, node.kwargs))
        match node.op:
            case "placeholder":
                values[node] = image
            case "get_attr":
                values[node] = _attribute(model, traced, str(node.target))
            case "output":
                return _check_logits(args[0])
            case _:
                values[node] = _call(model, node, args, kwargs, net)
    raise AssertionError("a traced graph ends in an output")


def _attribute(model: nn.Module, traced: Trace, target: str) -> Any:
    if target in traced.constants:
        return traced.constants[target]
    return operator.attrgetter(target.removeprefix(f"{_PREFIX}."))(model)


def _check_logits(answer: Any) -> Ref:
    if isinstance(answer, Ref) and len(answer.shape) == 2:
        return answer
    given = f"a tensor of shape {tuple(answer.shape)}" if isinstance(answer, Ref) else type(answer).__name__
    given = given.removeprefix("immutable_")  # as tracing calls its own lists and dictionaries
    raise RequestError(f"certified bounds need a model that answers with logits, images x classes; got {given}")


def _call(model: nn.Module, node: fx.Node, args: Any, kwargs: Any, net: Network) -> Any:
    refs: list[Ref] = []
    fx.node.map_aggregate((args, kwargs), lambda item: refs.append(item) if isinstance(item, Ref) else None)
    module = _module(model, node)
    try:
        if not refs:
            return _plain(module, node, args, kwargs)
        if module is not None:
            return _layers.of_module(net, module, args, kwargs)
        return _layers.of_call(net, node, args, kwargs)
    except UnsupportedError as error:
        _refuse(node, module, str(error), _layers.SUPPORTED)


def _module(model: nn.Module, node: fx.Node) -> nn.Module | None:
    if node.op != "call_module":
        return None
    return model.get_submodule(str(node.target).removeprefix(_PREFIX).removeprefix("."))


def _plain(module: nn.Module | None, node: fx.Node, args: Any, kwargs: Any) -> Any:
    """A call that has nothing to do with the image: computed as it stands."""
    if module is not None:
        return module(*args, **kwargs)
    if callable(node.target):
        return _IN_PLACE.get(node.target, node.target)(*args, **kwargs)  # a buffer stays as it is
    return getattr(args[0], node.target)(*args[1:], **kwargs)


def _refuse(node: fx.Node, module: nn.Module | None, reason: str, supported: str) -> NoReturn:
    if module is not None:
        what, path = f"layer {type(module).__name__}", str(node.target)
    else:
        name = getattr(node.target, "__name__", node.target)
        what = f"call of {name}" if node.op == "call_function" else f"method .{name}()"
        stack = node.meta.get("nn_module_stack")
        path = str(next(reversed(stack.values()))[0]) if stack else ""
    path = path.removeprefix(_PREFIX).removeprefix(".")
    where = f"at {path!r}" if path else "in the model's own forward pass"
    raise RequestError(f"certified bounds cannot follow the {what} {where}: {reason}. Supported: {supported}") from None
