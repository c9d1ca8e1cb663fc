"""The fault lab: kills, damage and nonsense, and what came of it. `python tests/faults/lab.py` is the long part.

Four experiments, each repeatable by its seed:

- `kills`: a run is killed (SIGKILL) at random moments and continued, again and again; in the end its weights and its
  table must be those of a run that nobody disturbed.
- `records`: files of a finished record are damaged; whoever reads it must get the same numbers or be told what is
  wrong, and the same command again must make it whole.
- `studies`: study files are garbled; each is planned, or refused in one message.
- `data`: data files are garbled; each is read, or refused in one message.

Everything happens in child processes with a limit on time and memory: a hang or a crash is counted, not suffered.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

SECONDS = 10.0
"""No request may take longer."""
MEMORY = 1 << 30
"""Bytes that a request may need beyond an idle process."""


class Trial(NamedTuple):
    """What came of one fault."""

    outcome: str
    """`served` (as if nothing had happened), `refused` (one message), or one of `BAD`."""
    fault: str
    """What was done."""
    note: str = ""


BAD = ("wrong", "traceback", "slow", "big", "crash")
"""Other numbers or a message that misleads; no message but a traceback; over the limits; a process that died."""


class Overtime(BaseException):
    """A request took too long; not for `except Exception`."""


def attempt(request: Callable[[], str]) -> tuple[str, str]:
    """Carry out a request; its own verdict, `refused` with the message, or what went wrong."""
    from bascule.core.errors import RequestError

    def stop(*_: object) -> None:
        raise Overtime

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        return request(), ""
    except RequestError as error:
        message = str(error)
        if message.count("\n") > 3:
            return "wrong", f"a message of {message.count(chr(10)) + 1} lines: {message[:100]!r}"
        if any(unicodedata.category(letter) in ("Cc", "Cf") and letter != "\n" for letter in message):
            return "wrong", f"control characters in the message: {message[:200]!r}"
        return "refused", message[:300]
    except Overtime:
        return "slow", f"over {SECONDS:.0f} s"
    except MemoryError:
        return "big", f"over {MEMORY >> 20} MiB"
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return "traceback", f"{type(error).__name__}: {error} ({Path(frame.filename).name}:{frame.lineno})"[:300]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def limit_memory() -> None:
    """Of this process, to what it has now and `MEMORY`."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def settle() -> None:
    """A child's start: one thread, quiet, limited."""
    import warnings

    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    limit_memory()


def try_all(experiment: Callable[[int], Trial], seeds: Iterable[int], *, workers: int) -> Iterator[Trial]:
    """Every trial, in processes of their own; a crash is a trial too."""
    waiting = list(seeds)
    context = multiprocessing.get_context("fork")
    while waiting:
        done: list[int] = []
        with ProcessPoolExecutor(workers, mp_context=context, initializer=settle) as pool:
            futures = {seed: pool.submit(experiment, seed) for seed in waiting}
            try:
                for seed, future in futures.items():
                    yield future.result()
                    done.append(seed)
            except BrokenProcessPool:
                yield Trial("crash", f"seed {waiting[len(done)]}", "the process died")
                done.append(waiting[len(done)])
        waiting = waiting[len(done) :]


# --- kills ------------------------------------------------------------------------------------------------------------


TINY = """\
base:
  data: {name: digits, max_train: 200, max_test: 60, held_out: 40}
  poison: {trigger: {name: sticker, size: 2}, target: 7, rate: 0.5, rate_of: target}
  model: {name: digits-cnn, width: 2, hidden: 8}
  train: {objective: standard, epochs: 3, batch_size: 20}
  attack: [{name: fgsm, eps: 0.1}, {name: pgd, eps: 0.1, steps: 2}]
  certify: {name: interval, eps: 0.001}
rows:
  None: {inspect: spectral-signatures, explain: saliency}
  Filtered: {filter: spectral-signatures}
  Repaired: {repair: {name: fine-tune, epochs: 1}}
seeds: 2
"""


def run_tiny(folder: Path) -> None:
    """The tiny study, in this process."""
    import torch

    from bascule.plan.document import parse_study
    from bascule.plan.resolve import make_plan
    from bascule.record.run import RunRecord
    from bascule.run.run import run_plan

    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), 2)
    plan = make_plan(parse_study(TINY, name="tiny", source="tiny.yaml"))
    ran = run_plan(plan, RunRecord(folder), device=torch.device("cpu"), roots=())
    os._exit(1 if ran.failures else 0)


def content(folder: Path) -> dict[str, object]:
    """What a run holds: its table, and the bytes of its models."""
    from bascule.record.rows import read_rows
    from bascule.record.run import RunRecord

    run = RunRecord(folder)
    models = {cell.fingerprint: run.cell(cell.fingerprint).model_file.read_bytes() for cell in run.plan().cells()}
    return {"table": [row.as_dict() for row in read_rows(run)], **models}


def spawn(folder: Path) -> multiprocessing.process.BaseProcess:
    """The tiny study in a child."""
    process = multiprocessing.get_context("fork").Process(target=run_tiny, args=(folder,))
    process.start()
    return process


def kills(count: int, *, seed: int = 0) -> Iterator[Trial]:
    """At least `count` kills: runs that are killed until they end, each compared with one that was not."""
    import torch

    torch.set_num_threads(1)
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as place:
        whole = Path(place) / "whole"
        began = time.monotonic()
        spawn(whole).join()
        length = time.monotonic() - began
        expected, killed, number = content(whole), 0, 0
        while killed < count:
            number += 1
            folder, of_this = Path(place) / f"cut{number}", 0
            while True:
                process = spawn(folder)
                process.join(chance.uniform(0.02, length / 3))
                if process.exitcode is not None:
                    break
                os.kill(process.pid or 0, signal.SIGKILL)
                process.join()
                killed, of_this = killed + 1, of_this + 1
                yield Trial("served", f"run {number}, kill {of_this}")
            leftovers = [path.name for path in folder.rglob(".*") if path.name not in (".lock", ".holder")]
            if process.exitcode != 0:
                yield Trial("crash", f"run {number}", f"ended with {process.exitcode} after {of_this} kills")
            elif content(folder) != expected:
                yield Trial("wrong", f"run {number}", f"other bytes after {of_this} kills")
            elif leftovers:
                yield Trial("wrong", f"run {number}", f"left {', '.join(leftovers[:3])}")
            shutil.rmtree(folder)


# --- records ----------------------------------------------------------------------------------------------------------


def numbers(folder: Path) -> list[dict[str, object]]:
    """The rows of a table, with everything that a reader sees."""
    from bascule.record.rows import read_rows
    from bascule.record.run import RunRecord

    return json.loads(json.dumps([row.as_dict() for row in read_rows(RunRecord(folder))]))


def damage(path: Path, others: list[Path], chance: random.Random) -> str:
    """Damage a file; says how."""
    data = bytearray(path.read_bytes())
    how = chance.choice(["flip", "flip", "flip", "truncate", "empty", "delete", "swap", "zeros"])
    if how == "flip" and data:
        place = chance.randrange(len(data))
        data[place] ^= 1 << chance.randrange(8)
    elif how == "truncate":
        del data[chance.randrange(len(data) or 1) :]
    elif how == "empty":
        data.clear()
    elif how == "zeros" and data:
        start = chance.randrange(len(data))
        data[start : start + 512] = bytes(len(data[start : start + 512]))
    elif how == "swap":
        twins = [other for other in others if other.name == path.name and other != path]
        data = bytearray(chance.choice(twins).read_bytes()) if twins else data[::-1]
    elif how == "delete":
        path.unlink()
        return how
    path.write_bytes(bytes(data))
    return how


def record_trial(seed: int, whole: Path) -> Trial:
    """Damage one file of a copy of the record, read its table and the cell's model, and run the study again."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(shutil.copytree(whole, Path(place) / "run"))
        files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
        path = chance.choice(files)
        before = path.read_bytes()
        how = damage(path, files, chance)
        fault = f"{how} {path.relative_to(folder)}"
        if path.is_file() and path.read_bytes() == before:
            return Trial("served", fault, "unchanged")
        expected = numbers(whole)

        def read() -> str:
            rows = numbers(folder)
            return "served" if rows == expected else told(rows, expected)

        outcome, note = attempt(read)
        if outcome == "refused" and note and path.name not in note:
            return Trial("wrong", fault, f"the file is not named: {note}")
        if outcome not in BAD and path.name == "model.safetensors":
            outcome, note = attempt(lambda: weights(path.parent, whole / path.parent.relative_to(folder)))
        if outcome not in BAD and chance.random() < 0.25:
            process = spawn(folder)
            process.join()
            if process.exitcode != 0:
                return Trial("crash", fault, f"the same command again ended with {process.exitcode}")
            if content(folder) != content(whole):
                return Trial("wrong", fault, "the same command again left other bytes")
        return Trial(outcome, fault, note)


def weights(cell: Path, whole: Path) -> str:
    """Open the model of a cell; whether it is that of the whole record."""
    import torch

    from bascule.audit.open import open_model

    ours, theirs = (open_model(path, device=torch.device("cpu"), roots=()).model.state_dict() for path in (cell, whole))
    return "served" if all(torch.equal(value, theirs[name]) for name, value in ours.items()) else "wrong"


def told(rows: list[dict[str, object]], expected: list[dict[str, object]]) -> str:
    """Whether a table that differs says so: fewer seeds, or a flag that is not there otherwise."""
    if len(rows) != len(expected):
        return "wrong"
    for row, whole in zip(rows, expected, strict=True):
        flags = set(map(str, row["flags"])) - set(map(str, whole["flags"]))  # type: ignore[call-overload]
        if row != whole and not flags and row["seeds"] == whole["seeds"]:
            return "wrong"
    return "refused"


# --- studies ----------------------------------------------------------------------------------------------------------


NONSENSE: list[object] = [
    *(
        0,
        -1,
        1e300,
        float("inf"),
        float("nan"),
        None,
        True,
        "",
        [],
        {},
        [1, [2, [3]]],
        {"name": "pgd"},
        "pgd",
        "digits",
    ),
    *(10**30, {"name": "pgd", "eps": [1]}, "sticker", "8/255", "1/0", "no", "010", "\u202eabc", "a\nb", "\x1b[31mred"),
    *("x" * 100_000, "2024-01-01", [None] * 1000, {"a": {"b": {"c": {}}}}, "../../x", 1_000_000_000, 0.05, [0.1, 0.2]),
]
WORDS = [
    *("0", "1e999", ".nan", "null", "~", "true", "010", "0x10", "8/255", "''", "[]", "{}", "{name: pgd}", "&a", "*a"),
    *("<<: *a", "!!python/object:os.system", "\u202e", "\x00", "'a", "-", "? |", "%", "@", "`", "1000000000"),
    *("[" * 16, "{a: " * 40),
]


def twisted(text: str, chance: random.Random) -> tuple[str, str]:
    """A study file with one or two of its values or keys replaced by nonsense, and where."""
    import yaml

    content, done = yaml.safe_load(text), []
    for _ in range(chance.randint(1, 2)):
        holder, key, path = content, None, []
        value = content
        while isinstance(value, (dict, list)) and value and (not path or chance.random() < 0.8):
            holder = value
            key = chance.choice(list(value)) if isinstance(value, dict) else chance.randrange(len(value))
            value = value[key]
            path.append(str(key))
        nonsense = chance.choice(NONSENSE)
        if isinstance(holder, dict) and chance.random() < 0.2:
            holder[str(nonsense)[:50]] = holder.pop(key)
        elif key is not None:
            holder[key] = nonsense
        done.append(f"{'.'.join(path)} = {str(nonsense)[:20]!r}")
    return yaml.safe_dump(content, allow_unicode=True), ", ".join(done)


def garbled(text: str, chance: random.Random) -> tuple[str, str]:
    """A study file with a few changes, and what they are."""
    lines, done = text.splitlines(), []
    for _ in range(chance.randint(1, 4)):
        how = chance.choice(
            ["word", "word", "word", "drop", "double", "indent", "swap", "bytes", "cut", "nest", "join"]
        )
        place = chance.randrange(len(lines)) if lines else 0
        line = lines[place] if lines else ""
        if how == "word":
            key, colon, _ = line.partition(":")
            lines[place : place + 1] = [f"{key}{colon} {chance.choice(WORDS)}"]
        elif how == "drop":
            del lines[place : place + 1]
        elif how == "double":
            lines.insert(place, line)
        elif how == "indent":
            lines[place : place + 1] = [" " * chance.randint(0, 9) + line.lstrip()]
        elif how == "swap" and lines:
            other = chance.randrange(len(lines))
            lines[place], lines[other] = lines[other], lines[place]
        elif how == "bytes":
            raw = list(line)
            if raw:
                raw[chance.randrange(len(raw))] = chr(
                    chance.choice([0, 9, 27, 34, 39, 58, 91, 123, 125, 255, 8238, 65279])
                )
            lines[place : place + 1] = ["".join(raw)]
        elif how == "cut":
            lines[place : place + 1] = [line[: chance.randint(0, len(line))]]
        elif how == "nest":
            depth = chance.choice([3, 50, 5000])
            lines[place : place + 1] = [f"{line.partition(':')[0]}: {'[' * depth}{']' * depth}"]
        elif how == "join":
            lines[place : place + 2] = [" ".join(lines[place : place + 2])]
        done.append(f"{how} {place + 1}")
    return "\n".join(lines) + "\n", ", ".join(done)


def study_trial(seed: int) -> Trial:
    """Plan a garbled study."""
    from bascule.plan.document import BUILT_IN, parse_study
    from bascule.plan.overrides import parse_override
    from bascule.plan.resolve import make_plan

    chance = random.Random(seed)
    name, text = chance.choice([("tiny", TINY), ("tiny", TINY), ("digits", (BUILT_IN / "digits.yaml").read_text())])
    text, done = (twisted if chance.random() < 0.6 else garbled)(text, chance)
    changes = []
    if chance.random() < 0.2:
        key = chance.choice(["train.lr", "attack", "seeds", "vary.train.lr", "data"])
        changes.append(f"{key}={chance.choice(WORDS)}")

    def request() -> str:
        overrides = [parse_override(change, "--set") for change in changes]
        plan = make_plan(parse_study(text, name=name, source="garbled.yaml"), overrides=overrides)
        plan.recorded().as_dict()
        return "served"

    outcome, note = attempt(request)
    return Trial(outcome, f"{name}: {done}", note)


# --- data -------------------------------------------------------------------------------------------------------------


CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def data_files(place: Path, chance: random.Random) -> tuple[str, dict[str, object], list[Path]]:
    """Small data of some format in `place`: its source's settings and its files."""
    import gzip

    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    draws = np.random.default_rng(chance.randrange(1 << 30))
    kind = chance.choice(["npz", "parquet", "folder", "mnist", "cifar10"])
    pictures = {split: draws.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8) for split in ("train", "test")}
    labels = {split: np.arange(12) % 3 for split in pictures}
    if kind == "npz":
        file = place / "data.npz"
        np.savez(
            file, x_train=pictures["train"], y_train=labels["train"], x_test=pictures["test"], y_test=labels["test"]
        )
        return kind, {"path": str(file)}, [file]
    if kind in ("folder", "parquet"):
        for split, images in pictures.items():
            for number, image in enumerate(images):
                file = place / split / f"class{number % 3}" / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(file)
    if kind == "folder":
        return kind, {"path": str(place)}, sorted(place.rglob("*.png"))
    if kind == "parquet":
        files = []
        for split in pictures:
            shown = [{"bytes": p.read_bytes(), "path": p.name} for p in sorted((place / split).rglob("*.png"))]
            table = pa.table({"image": shown, "label": [n % 3 for n in range(12)]})
            files.append(place / f"{split}-00000-of-00001.parquet")
            pq.write_table(table, files[-1])
        for split in pictures:
            shutil.rmtree(place / split)
        return kind, {"path": str(place)}, files
    if kind == "mnist":
        files = []
        for prefix, split in (("train", "train"), ("t10k", "test")):
            grey = np.zeros((12, 28, 28), dtype=np.uint8)
            grey[:, :8, :8] = pictures[split][..., 0]
            for suffix, header, body in (
                ("images-idx3-ubyte", [2051, 12, 28, 28], grey),
                ("labels-idx1-ubyte", [2049, 12], labels[split].astype(np.uint8)),
            ):
                files.append(place / "MNIST" / "raw" / f"{prefix}-{suffix}.gz")
                files[-1].parent.mkdir(parents=True, exist_ok=True)
                with gzip.open(files[-1], "wb") as out:
                    out.write(np.array(header, dtype=">i4").tobytes() + body.tobytes())
        return kind, {}, files
    import pickle

    folder = place / "cifar-10-batches-py"
    folder.mkdir()
    rows = np.zeros((12, 3072), dtype=np.uint8)
    files = [folder / name for name in (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch", "batches.meta")]
    for file in files[:-1]:
        file.write_bytes(pickle.dumps({b"data": rows, b"labels": list(map(int, labels["train"]))}))
    files[-1].write_bytes(pickle.dumps({b"label_names": [name.encode() for name in CIFAR]}))
    return kind, {}, files


def data_trial(seed: int) -> Trial:
    """Read garbled data."""
    from bascule.core.catalog import build

    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        kind, settings, files = data_files(place, chance)
        path = chance.choice(files)
        how = damage(path, files, chance)

        def request() -> str:
            source = build("data", {"name": kind, **settings})
            source.facts([place])
            splits = source.load([place])
            for images in splits:
                import torch

                images.batch(torch.arange(len(images)))
            return "served"

        outcome, note = attempt(request)
        return Trial(outcome, f"{kind}: {how} {path.relative_to(place)}", note)


# --- all of it --------------------------------------------------------------------------------------------------------


def experiments(counts: dict[str, int], *, seed: int, workers: int) -> Iterator[tuple[str, Trial]]:
    """All trials asked for, with the name of their experiment."""
    import bascule.audit.open  # children are forked from a process that has imported everything
    import bascule.plan.resolve
    import bascule.record.rows
    import bascule.run.run  # noqa: F401

    for trial in kills(counts["kills"], seed=seed) if counts["kills"] else ():
        yield "kills", trial
    with tempfile.TemporaryDirectory() as place:
        whole = Path(place) / "whole"
        if counts["records"]:
            spawn(whole).join()
        for name, experiment in (
            ("records", Bound(record_trial, whole)), ("studies", study_trial), ("data", data_trial),
        ):  # fmt: skip
            first = seed * 1_000_000
            for trial in try_all(experiment, range(first, first + counts[name]), workers=workers):
                yield name, trial


class Bound:
    """A trial about one record; a class, since it is sent to other processes."""

    def __init__(self, trial: Callable[[int, Path], Trial], whole: Path) -> None:
        self.trial, self.whole = trial, whole

    def __call__(self, seed: int) -> Trial:
        return self.trial(seed, self.whole)


def main() -> int:
    """Run the long part and print its figures; 1 when anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    for name, count in (("kills", 500), ("records", 2000), ("studies", 3000), ("data", 1000)):
        parser.add_argument(f"--{name}", type=int, default=count, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    given = vars(parser.parse_args())
    began, tally, bad = time.monotonic(), {}, []
    counts = {name: given[name] for name in ("kills", "records", "studies", "data")}
    for name, trial in experiments(counts, seed=given["seed"], workers=given["workers"]):
        tally.setdefault(name, Counter())[trial.outcome] += 1
        if trial.outcome in BAD:
            bad.append((name, trial))
    lines = ["| experiment | tried | served | refused | " + " | ".join(BAD) + " |", "|---|" + "---|" * (3 + len(BAD))]
    for name, outcomes in tally.items():
        figures = [outcomes.total(), *(outcomes[kind] for kind in ("served", "refused", *BAD))]
        lines.append(f"| {name} | " + " | ".join(f"{number:,}" for number in figures) + " |")
    lines += [f"{name}: {trial.outcome}: {trial.fault}: {trial.note}" for name, trial in bad[:60]]
    tried = sum(outcomes.total() for outcomes in tally.values())
    lines.append(f"{len(bad)} of {tried:,} went wrong, {time.monotonic() - began:.0f} s")
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
