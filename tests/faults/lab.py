"""The fault lab: kills, damage and nonsense, and what came of it. `python tests/faults/lab.py` is the long part.

Six experiments, each repeatable by its seed:

- `kills`: a run is killed (SIGKILL) at random moments and continued, again and again; in the end its weights and its
  table must be those of a run that nobody disturbed.
- `parts`: the same with the parts of a run side by side in one folder, killed and started again at random moments
  while somebody reads its table.
- `records`: files of a finished record are damaged; whoever reads it must get the same numbers or be told what is
  wrong, and the same command again must make it whole.
- `hostile`: what a record says is replaced by nonsense, with sums that fit; it is shown or refused in one message, and
  no code that it names is run.
- `studies`: study files are garbled; each is planned, or refused in one message.
- `data`: data files are garbled; each is read, or refused in one message.

Everything happens in child processes with a limit on time and memory: a hang or a crash is counted, not suffered.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from faults.damage import record_trial
from faults.data import data_trial
from faults.hostile import hostile_trial
from faults.kills import finish, kills, parts, spawn
from faults.studies import study_trial
from faults.trials import BAD, Trial, try_all

_IMPORTS = (
    *("bascule.auditing.open", "bascule.plan.resolve", "bascule.record.rows", "bascule.running.run"),
    *("pandas", "pyarrow.dataset", "sklearn.datasets", "torch.fx.experimental.symbolic_shapes"),
)
"""What children need: they are forked from a process that has imported it, else most kills hit them importing."""

_COUNTS = {"kills": 500, "parts": 200, "records": 2000, "hostile": 500, "studies": 3000, "data": 1000}
"""Trials of the long part."""


def experiments(counts: dict[str, int], *, seed: int, workers: int) -> Iterator[tuple[str, Trial]]:
    """All trials asked for, with the name of their experiment."""
    for name in _IMPORTS:
        importlib.import_module(name)
    for trial in kills(counts["kills"], seed=seed) if counts["kills"] else ():
        yield "kills", trial
    for trial in parts(counts["parts"], seed=seed) if counts["parts"] else ():
        yield "parts", trial
    with tempfile.TemporaryDirectory() as place:
        whole = Path(place) / "whole"
        if counts["records"] or counts["hostile"]:
            finish(spawn(whole))
        first = seed * 1_000_000
        trials = {"records": partial(record_trial, whole=whole), "hostile": partial(hostile_trial, whole=whole),
                  "studies": study_trial, "data": data_trial}  # fmt: skip
        for name, experiment in trials.items():
            for trial in try_all(experiment, range(first, first + counts[name]), workers=workers):
                yield name, trial


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the long part, or as many trials as asked for, and print the figures; 1 when anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    for name, count in _COUNTS.items():
        parser.add_argument(f"--{name}", type=int, default=count, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    given = vars(parser.parse_args(arguments))
    began, tally, bad = time.monotonic(), {}, []
    counts = {name: given[name] for name in _COUNTS}
    for name, trial in experiments(counts, seed=given["seed"], workers=given["workers"]):
        tally.setdefault(name, Counter())[trial.outcome] += 1
        if trial.outcome in BAD:
            bad.append(f"{name}: {trial.outcome}: {trial.fault}: {trial.note}")
            print(bad[-1], file=sys.stderr, flush=True)  # noqa: T201  (the long part takes long)
    lines = ["| experiment | tried | served | refused | " + " | ".join(BAD) + " |", "|---|" + "---|" * (3 + len(BAD))]
    for name, outcomes in tally.items():
        figures = [outcomes.total(), *(outcomes[kind] for kind in ("served", "refused", *BAD))]
        lines.append(f"| {name} | " + " | ".join(f"{number:,}" for number in figures) + " |")
    lines += bad[:60]
    tried = sum(outcomes.total() for outcomes in tally.values())
    lines.append(f"{len(bad)} of {tried:,} went wrong, {time.monotonic() - began:.0f} s")
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
