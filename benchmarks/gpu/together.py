"""What a training step of two shares costs, taken by one process and by two; and how far apart they end.

    python -m torch.distributed.run --standalone --nproc-per-node 2 benchmarks/gpu/together.py
        [--device cuda:0,cuda:0|cuda:0,1|cpu,cpu] [--only TEXT] [--steps 20] [--batch N]

Two processes on one GPU exchange by Gloo, on two by NCCL. On one they share its time, so that the figures say what the
exchange costs; a gain they can show on two. The cases are those of steps.py.
"""

from __future__ import annotations

import argparse
import copy
from dataclasses import replace
from functools import partial

import torch
from steps import Case, cases, milliseconds

from bascule.core import catalog, rng
from bascule.core.lending import lending
from bascule.core.team import ALONE, Team, joined
from bascule.running.together import own_device
from bascule.training.precision import Mixed
from bascule.training.steps import Steps


def taken(case: Case, device: torch.device, count: int, team: Team) -> tuple[float, list[torch.Tensor]]:
    """Milliseconds per step, and what six steps end in."""
    training = replace(case.training, shares=2)
    model = copy.deepcopy(catalog.build("models", case.model).initialised(case.size, 10, seed=0))
    model = model.to(device, memory_format=torch.channels_last).train()
    net = (Mixed(model) if training.precision == "bfloat16" else model).train()
    steps = Steps(model, case.images(device), training, seed=0, team=team)
    with lending(net, classes=10), rng.borrowed_global_stream(0, "train"):
        for number in range(6):
            steps.take(net, number)
        state = [value.clone().cpu() for value in model.state_dict().values()]
        return milliseconds(partial(steps.take, net), count, device), state


def measure(case: Case, device: torch.device, count: int, team: Team) -> str:
    alone, one = team.first(lambda: taken(case, device, count, ALONE))
    together, other = team.alike(lambda: taken(case, device, count, team))
    apart = max(float((a.double() - b.double()).abs().max()) for a, b in zip(one, other, strict=True))
    return f"{alone:9.2f} {together:9.2f}  apart by {apart:.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0,cuda:0")
    parser.add_argument("--only", default="", help="cases whose title holds this")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, help="instead of the case's own: for a rehearsal")
    given = parser.parse_args()
    torch.backends.cudnn.deterministic = True
    with joined() as team:
        device = own_device(given.device, team)
        tell = partial(print, flush=True) if team.leads else (lambda *_: None)
        tell(f"torch {torch.__version__}, {given.device}\n{'ms per step':46s} {'alone':>9s} {'together':>9s}")
        for title, case in cases().items():
            if given.only in title:
                if given.batch:
                    title = title.replace(f"batch {case.batch}", f"batch {given.batch}")
                    case = replace(case, batch=given.batch)
                try:
                    line = measure(case, device, given.steps, team)
                except Exception as error:  # one that all have together leaves the other cases be
                    if not team.is_common(error):
                        raise
                    line = f"failed: {type(error).__name__}: {str(error).splitlines()[0][:100]}"
                tell(f"{title:46s} {line}")


if __name__ == "__main__":
    main()
