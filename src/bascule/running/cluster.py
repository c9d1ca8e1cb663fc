"""A Ray cluster as it is seen from the process that holds the run: reaching it, its nodes, what they share with it."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, cast

from bascule.core.errors import RequestError
from bascule.core.files import write_atomically

_PATIENCE = 5.0
"""Seconds that a cluster's door may take to open."""
_AWAY = 30.0
"""Seconds that the head may be out of reach."""
_NODE = (
    "This machine must be one of its nodes (`ray start`), of the same version of Ray, and with the cluster's "
    "token if it has one (RAY_AUTH_MODE=token and ~/.ray/auth_token)"
)


@contextmanager
def connected() -> Iterator[Any]:
    """Ray, inside the block connected to the cluster that RAY_ADDRESS names, or else to one of its own on this machine.

    What Ray prints meanwhile goes to standard error.

    Raises:
        RequestError: Ray is not installed, or the cluster cannot be reached.
    """
    try:
        import ray
    except ImportError as error:
        raise RequestError("Ray is not installed: pip install 'bascule[ray]'", place=("engine",)) from error
    with contextlib.redirect_stdout(cast(TextIO, _OfThisThread())):
        if ray.is_initialized():  # by the caller, whose it stays
            yield ray
            return
        _connect(ray)
        try:
            yield ray
        finally:
            ray.shutdown()


class _OfThisThread:
    """Standard output; what other threads print, as Ray's do when a node is lost, goes to standard error."""

    def __init__(self) -> None:
        self._out, self._thread = sys.stdout, threading.get_ident()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._out if threading.get_ident() == self._thread else sys.stderr, name)


def _connect(ray: Any) -> None:
    address = os.environ.get("RAY_ADDRESS", "")
    _check_address(address)
    try:
        with _sigterm_as_before():
            # Not what Ray takes by itself: a cluster that was started here once, and may be gone.
            ray.init(
                address=address or "local", log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR
            )
    except Exception as error:  # refused connections, other versions, no room: each has a type of its own
        where = f"no Ray cluster can be reached at {address} (RAY_ADDRESS)" if address else "Ray cannot be started"
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise RequestError(f"{where}: {reason}{f'. {_NODE}' if address else ''}", place=("engine",)) from error


@contextmanager
def _sigterm_as_before() -> Iterator[None]:
    """Ray ends the process at SIGTERM by an exception of its own; not where somebody else does, as the command line."""
    before = signal.getsignal(signal.SIGTERM)
    came = False
    try:
        yield
    except SystemExit as end:
        came = end.code == signal.SIGTERM
        if not came:
            raise
    finally:
        if callable(before) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
    if came:
        signal.raise_signal(signal.SIGTERM)


def _check_address(address: str) -> None:
    """Knock at the cluster's door: Ray itself tries for minutes.

    Raises:
        RequestError: Nobody is there.
    """
    try:
        _knock(address)
    except (OSError, OverflowError, UnicodeError) as error:
        problem = f"no Ray cluster can be reached at {address} (RAY_ADDRESS): {error}. Start one, or unset it"
        raise RequestError(problem, place=("engine",)) from error


def _knock(address: str) -> None:
    """Reach for the cluster at HOST:PORT; not where that says none, or is a word such as `auto`.

    Raises:
        OSError: Nobody is there.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()


class Head:
    """The node that holds a cluster together. Ray ends a process that has not reached it for a minute."""

    def __init__(self, ray: Any) -> None:
        try:
            self._address = str(ray.get_runtime_context().gcs_address)
        except AttributeError:  # through Ray's client, which knows no head
            self._address = os.environ.get("RAY_ADDRESS", "").removeprefix("ray://")
        self._silent: float | None = None

    def answers(self) -> bool:
        """Whether it can be reached now; it is waited for, for a while.

        Raises:
            RequestError: It did not come back.
        """
        try:
            _knock(self._address)
        except OSError as error:
            now, what = time.monotonic(), f"the head of the Ray cluster ({self._address}) cannot be reached any more"
            if self._silent is None:
                self._silent = now
                warnings.warn(f"{what}: {error}; it is waited for", stacklevel=2)
            elif now - self._silent > _AWAY:
                kept = "What is finished is kept; the same command continues when there is a cluster again"
                raise RequestError(f"{what}: {error}. {kept}", place=("engine",)) from error
            return False
        self._silent = None
        return True


def nodes_of(ray: Any) -> dict[str, tuple[dict[str, float], str]]:
    """The nodes that live, by Ray's id: resources, and name for people."""
    return {
        node["NodeID"]: (node["Resources"], node.get("NodeManagerHostname") or node["NodeManagerAddress"])
        for node in ray.nodes()
        if node["Alive"]
    }


@contextmanager
def token_in(folder: Path) -> Iterator[tuple[str, str]]:
    """A file in the run's folder, by which workers tell whether they share it; its name and what it holds."""
    # Named as files that are not whole yet, which are cleared away should this process be killed.
    name, content = f".shared.{os.getpid()}-{secrets.token_hex(4)}", secrets.token_hex(16)
    path = folder / name
    write_atomically(path, lambda temporary: temporary.write_text(content))
    try:
        yield name, content
    finally:
        path.unlink(missing_ok=True)
