"""Captured steps: what the device does in a training step is noted down once and done again without Python.

On CUDA a step of a small network waits for its launches, thousands of them. A captured one is launched as a whole, with
the same operations on the same memory in the same order, and so ends in the same bytes. What changes from step to step
is put before each into tensors that the captured operations read: the numbers of the images, the learning rate, the
seeds of the generators.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from bascule.core.errors import RequestError
from bascule.training.rehearsal import CannotCaptureError, Rehearsal
from bascule.training.steps import Steps

_WARM = 3
"""Steps taken one by one on the stream of the capture, before it: they make the optimiser's memory, and let libraries
choose and allocate. They count as steps of the training like any other."""


class Recorder(Protocol):
    """What notes down operations: the device's own graphs, or a rehearsal of them."""

    def warm(self, body: Callable[[], Tensor]) -> Tensor:
        """Do `body` once, as it will be recorded."""

    def record(self, body: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """What does the operations of `body` again, on the tensors they were recorded with, and gives its result.

        May do them while it records.

        Raises:
            CannotCaptureError: They cannot be recorded; nothing else has gone wrong.
        """


@contextmanager
def capturing(steps: Steps, net: nn.Module) -> Iterator[Callable[[int], Tensor]]:
    """What takes a step by its number, as `steps.take(net, ...)` does, captured as soon and as far as it can be."""
    device = steps.images.device
    recorder = CudaGraphs(device, steps.generator) if device.type == "cuda" else Rehearsal()
    captured = Captured(steps, net, recorder)
    try:
        yield captured.take
    finally:
        captured.close()


def check_captures(device: torch.device) -> None:
    """Refuse to capture where there is nothing to gain.

    Raises:
        RequestError: Not on CUDA.
    """
    if device.type != "cuda":
        raise RequestError(
            f"steps are captured on CUDA, where launching them takes time; this is {device.type}. Leave "
            "`capture_steps` out.",
            place=("capture_steps",),
        )


class Captured:
    """The steps of a training, taken one by one until they are steady, and captured from then on.

    The first captured step is taken twice, the other time without, from the same state: where the bytes differ, or
    where nothing can be captured, a warning says so and the training goes on step by step.
    """

    def __init__(self, steps: Steps, net: nn.Module, recorder: Recorder) -> None:
        self._steps, self._net, self._recorder = steps, net, recorder
        self._inputs = _Inputs(steps)
        self._warm = 0
        self._replay: Callable[[], Tensor] | None = None
        self._from = steps.training.steady_from
        if self._from is not None and steps.shares is not None:
            self._give_up("the batch is cut into shares")
        elif self._from is not None and not all(group["fused"] for group in steps.optimizer.param_groups):
            self._give_up("the optimiser takes its step parameter by parameter")
        elif self._from is not None:
            self._set_lr(torch.tensor(steps.training.lr, device=steps.images.device))

    def take(self, step: int) -> Tensor:
        """Step number `step`; the loss, which the next step may overwrite."""
        if self._from is None or step < self._from * self._steps.total:
            return self._steps.take(self._net, step)
        if self._replay is not None:
            self._prepare(step)
            return self._replay()
        if self._warm < _WARM:
            self._warm += 1
            return self._one_by_one(step)
        return self._first(step)

    def close(self) -> None:
        """Let go of the graph's memory, in which the gradients lie, and of the tensor for the learning rate."""
        self._replay = None
        if self._from is not None:
            self._steps.optimizer.zero_grad(set_to_none=True)
            self._set_lr(self._steps.training.lr)

    def _one_by_one(self, step: int) -> Tensor:
        self._prepare(step)
        return self._recorder.warm(partial(self._body, step))

    def _prepare(self, step: int) -> None:
        self._inputs.fill(step, self._steps.prepare(step))

    def _body(self, step: int) -> Tensor:
        return self._steps.descend(self._net, *self._inputs.read(), progress=step / self._steps.total)

    def _first(self, step: int) -> Tensor:
        """Capture, and see whether the captured step is the step."""
        state = [*self._steps.model.parameters(), *self._steps.model.buffers()]
        state += [v for memory in self._steps.optimizer.state.values() for v in memory.values() if torch.is_tensor(v)]
        before = _copied(state)
        self._prepare(step)
        try:
            replay = self._recorder.record(partial(self._body, step))
        except CannotCaptureError as error:
            _put_back(before, state)
            self._give_up(str(error))
            return self._steps.take(self._net, step)
        _put_back(before, state)
        loss = self._one_by_one(step).clone()
        after = _copied(state)
        _put_back(before, state)
        self._prepare(step)
        again = replay()
        if all(torch.equal(one, other) for one, other in zip([again, *state], [loss, *after], strict=True)):
            self._replay = replay
            return again
        _put_back(after, state)
        self._give_up("a captured step ends in other bytes than the step itself")
        return loss

    def _give_up(self, why: str) -> None:
        self.close()
        self._from = None
        warnings.warn(f"steps are not captured: {why}. The training goes on step by step", stacklevel=2)

    def _set_lr(self, lr: Tensor | float) -> None:
        for group in self._steps.optimizer.param_groups:
            group["lr"] = lr


class _Inputs:
    """Tensors that hold the images of a step: their numbers, or copies where the pixels are not on the device."""

    def __init__(self, steps: Steps) -> None:
        self._images, self._ahead = steps.images, steps.ahead
        pixels = self._images.pixels
        self._resident = isinstance(pixels, Tensor) and pixels.device == self._images.device
        self._held: tuple[Tensor, ...] = ()

    def fill(self, step: int, index: Tensor) -> None:
        """Take the images of a step, at these positions, as many each time."""
        values = (index,) if self._resident else (self._ahead.batch(step, index), self._images.labels[index])
        if not self._held:
            self._held = tuple(torch.empty_like(value) for value in values)
        for held, value in zip(self._held, values, strict=True):
            held.copy_(value)

    def read(self) -> tuple[Tensor, Tensor]:
        """Images and labels."""
        if not self._resident:
            return self._held[0], self._held[1]
        (index,) = self._held
        return self._images.batch(index), self._images.labels[index]


def _copied(values: list[Tensor]) -> list[Tensor]:
    return [value.detach().clone() for value in values]


@torch.no_grad()
def _put_back(copies: list[Tensor], values: list[Tensor]) -> None:
    for copy, value in zip(copies, values, strict=True):
        value.copy_(copy)


class CudaGraphs:
    """Records CUDA graphs."""

    def __init__(self, device: torch.device, generator: torch.Generator) -> None:
        self._device, self._generator = device, generator
        self._stream = torch.cuda.Stream(device)
        self._waits = ""

    def warm(self, body: Callable[[], Tensor]) -> Tensor:
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream), self._watching():
            result = body()
        current.wait_stream(self._stream)
        return result

    def record(self, body: Callable[[], Tensor]) -> Callable[[], Tensor]:
        if self._waits:  # known beforehand, since a capture that fails leaves torch's generators unusable
            raise CannotCaptureError(f"something waits for the device ({self._waits})")
        graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self._device)
        graph.register_generator_state(self._generator)
        try:
            with torch.cuda.graph(graph):
                result = body()
        except Exception as error:  # somebody's network may do anything
            torch.cuda.set_stream(current)
            with suppress(Exception):
                graph.reset()
                self._release()
            raise CannotCaptureError(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}") from error

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """Note whether the last thing done inside waited for the device, which nothing captured may do."""
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                yield
        finally:
            torch.cuda.set_sync_debug_mode(before)
        waits = [one for one in told if "synchronizing CUDA operation" in str(one.message)]
        self._waits = f"{waits[0].filename}:{waits[0].lineno}" if waits else ""
        for one in told:
            if one not in waits and "Synchronization debug mode" not in str(one.message):
                warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)

    def _release(self) -> None:
        """A capture that ends well lets go of the generators that a failed one holds (pytorch issue 171263)."""
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._generator)
        with torch.cuda.graph(graph):
            torch.zeros(1, device=self._device)
