"""As much of Ray as the engine uses, in this process: what an actor is told is done when its answer is fetched."""

from __future__ import annotations

import copy
import pickle
import socket
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any


class LostError(Exception):
    """What Ray says of a worker that the system killed, and the like."""


class TaskError(LostError):
    """What Ray says of an actor that raised."""

    cause: BaseException | None = None


class StandInRay:
    """Nodes with `cores` each; `lose` says of each answer, by actor and method, whether the actor is lost instead."""

    exceptions = SimpleNamespace(RayError=LostError, RayTaskError=TaskError)

    def __init__(self, *cores: int, lose: Callable[[int, str], bool] = lambda actor, method: False) -> None:
        self.cores, self.lose, self.actors, self.killed = cores, lose, 0, 0
        self.stored: list[Any] = []
        self.head = socket.create_server(("127.0.0.1", 0))

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(gcs_address=f"127.0.0.1:{self.head.getsockname()[1]}")

    def nodes(self) -> list[dict[str, Any]]:
        return [
            {"NodeID": str(place), "Alive": True, "NodeManagerHostname": f"node{place}",
             "Resources": {"CPU": float(cores), "object_store_memory": 2e9}}
            for place, cores in enumerate(self.cores)
        ]  # fmt: skip

    def remote(self, made: type) -> Any:
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda *told: self._actor(made(*told))))

    def _actor(self, worker: Any) -> Any:
        number, self.actors = self.actors, self.actors + 1

        def method(name: str) -> Any:
            def remote(*told: Any) -> Callable[[], Any]:
                def answer() -> Any:
                    if self.lose(number, name):
                        raise LostError("The node ran low on memory.\nMore lines.")
                    return pickle.loads(pickle.dumps(getattr(worker, name)(*told)))

                return answer

            return SimpleNamespace(remote=remote)

        return SimpleNamespace(**{name: method(name) for name in ("arrive", "do", "listen", "leave")}, worker=worker)

    def wait(self, answers: Sequence[Any], *, num_returns: int = 1, timeout: float) -> tuple[list[Any], list[Any]]:
        return list(answers)[:num_returns], []

    def get(self, answer: Callable[[], Any]) -> Any:
        return answer()

    def put(self, value: Any) -> Callable[[], Any]:
        self.stored.append(value)
        return lambda: copy.copy(value)

    def kill(self, actor: Any, *, no_restart: bool) -> None:
        assert no_restart
        self.killed += 1
        actor.worker.leave()
