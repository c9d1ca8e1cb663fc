"""Steps of 20 ms, as on a device, on 64 pictures of 224 pixels from JPEG files: how long they wait for pictures.

Pictures of about 400 x 500 pixels and 70 KB, near those of ImageNet, in random order, from a folder, tar shards,
parquet with row groups of 100 and Arrow. The step is a stand-in: it sleeps. Each way to read is a process of its own
that may use one core, or two. The yardstick is the steps alone.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from _apart import Cost, cost_apart, cost_here
from _interleaved import Result, Timed, add_clock, run
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bascule.core.ahead import Reading, read_batches, reading_as
from bascule.core.images import Images
from bascule.data import _streamed
from bascule.data.contract import Source
from bascule.data.folder import Folder
from bascule.data.parquet import Parquet
from bascule.data.shards import Shards

STEP, BATCH, SIDE = 0.02, 64, 224
_DISTINCT = 60
"""Pictures that differ; the others are copies."""

SOURCES: dict[str, type[Source]] = {"folder": Folder, "shards": Shards, "parquet": Parquet, "arrow": Parquet}
WAYS = ("when asked for", "ahead, threads", "DataLoader, processes")


def write_sets(place: Path, count: int) -> None:
    """The same pictures in each form."""
    contents = [jpeg(number) for number in range(_DISTINCT)]
    for split, size in (("train", count), ("test", 2)):
        pictures = [contents[number % _DISTINCT] for number in range(size)]
        write_folder(place / "folder" / split, pictures)
        for name in ("shards", "parquet", "arrow"):
            (place / name).mkdir(exist_ok=True)
        with tarfile.open(place / "shards" / f"{split}-000000.tar", "w") as tar:
            for number, content in enumerate(pictures):
                for name, data in ((f"{number:06}.jpg", content), (f"{number:06}.cls", str(number % 2).encode())):
                    about = tarfile.TarInfo(name)
                    about.size = len(data)
                    tar.addfile(about, io.BytesIO(data))
        cells = pa.array([{"bytes": content, "path": None} for content in pictures])
        table = pa.table({"image": cells, "label": np.arange(size) % 2})
        pq.write_table(table, place / "parquet" / f"{split}-00000-of-00001.parquet", row_group_size=100)
        with pa.ipc.new_stream(str(place / "arrow" / f"set-{split}.arrow"), table.schema) as file:
            file.write_table(table, max_chunksize=100)


def write_folder(place: Path, pictures: Sequence[bytes]) -> None:
    for label in "01":
        (place / label).mkdir(parents=True)
    for number, content in enumerate(pictures):
        (place / str(number % 2) / f"{number}.jpg").write_bytes(content)


def jpeg(number: int) -> bytes:
    draw = np.random.default_rng(number)
    height, width = ((375, 500), (400, 500), (500, 375), (333, 500))[number % 4]
    coarse = Image.fromarray(draw.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(float)
    noisy = smooth + draw.normal(0, (2, 6, 12)[number % 3], smooth.shape)
    file = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=88)
    return file.getvalue()


class Batches(Dataset[Tensor]):
    """What a script would hand to a loader: each item is a whole batch."""

    def __init__(self, images: Images, parts: Sequence[Tensor]) -> None:
        self._images, self._parts = images, parts

    def __len__(self) -> int:
        return len(self._parts)

    def __getitem__(self, number: int) -> Tensor:
        with reading_as(Reading(workers=1)):
            return self._images.pixels[self._parts[number]]


def batches(images: Images, way: str, parts: Sequence[Tensor], cores: int) -> Iterable[object]:
    if way == "DataLoader, processes":
        return DataLoader(Batches(images, parts), batch_size=None, num_workers=cores)
    return read_batches(images, parts)


def go_through(images: Images, way: str, steps: int, cores: int) -> None:
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    parts = order.repeat(-(-steps * BATCH // len(order)))[: steps * BATCH].split(BATCH)
    with reading_as(Reading(cores, 0) if way == "when asked for" else Reading(cores)):
        for _ in batches(images, way, parts, cores):
            time.sleep(STEP)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    made.add_argument("--pictures", type=int, default=4000, help="default 4000")
    made.add_argument("--steps", type=int, default=40, help="default 40")
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--cores", type=int, nargs="*", default=[1, 2], help="default 1 2")
    add_clock(made)
    made.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    made.add_argument("--source", choices=SOURCES, default="folder", help=argparse.SUPPRESS)
    made.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return made


def run_here(options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    (cores,) = options.cores
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    _streamed.IN_MEMORY = 0
    source = SOURCES[options.source](path=options.source, size=SIDE)  # type: ignore[call-arg]
    images = source.load([options.folder]).train
    cost_here(lambda: go_through(images, options.one, options.steps, cores), "wall")


def measure(options: argparse.Namespace) -> Iterator[Result]:
    ways = [("folder", way, cores) for cores in options.cores for way in WAYS]
    ways += [(source, WAYS[1], options.cores[-1]) for source in SOURCES if source != "folder"]
    costs: dict[tuple[str, str, int], list[Cost]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as name:
        write_sets(Path(name), options.pictures)
        for _ in range(options.rounds):
            for source, way, cores in ways:
                command = ["--one", way, "--source", source, "--cores", str(cores), "--folder", name]
                command += ["--steps", str(options.steps)]
                costs[source, way, cores].append(cost_apart(__file__, command, options.threads))
    pictures, alone = options.steps * BATCH, options.steps * STEP
    for (source, way, cores), own in costs.items():
        seconds = [cost.seconds for cost in own]
        middle = statistics.median(seconds)
        cpu = statistics.median(cost.cpu for cost in own)
        yield Timed(
            job=f"{options.steps} steps of {1000 * STEP:.0f} ms on {BATCH} pictures of {SIDE} pixels",
            who=f"{source}, {way}, {cores} core{'s' * (cores > 1)}",
            seconds=seconds,
            base=[alone] * len(seconds),
            found={
                "waiting": f"{100 * (1 - alone / middle):.0f} %",
                "pictures/s": f"{pictures / middle:.0f}",
                "ms of a core for a picture": f"{1000 * cpu / pictures:.2f}",
                "peak MiB": f"{statistics.median(cost.mib for cost in own):.0f}",
            },
        )


if __name__ == "__main__":
    given = parser().parse_args()
    if given.one:
        run_here(given)
    else:
        run(parser(), measure)
