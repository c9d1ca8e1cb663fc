"""Two epochs of shuffled batches from pictures on disk: Bascule's folder source, torchvision's, and a script's own.

PNG files of 32 x 32 pixels in ten folders, written here. Bascule decodes a split of up to 1 GiB once and keeps it as
bytes; `batch by batch` is how it does larger ones. Each in a process of its own; memory is the peak above what the
process held before.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from _apart import Cost, cost_apart, cost_here
from _interleaved import Result, Said, Timed, add_clock, run
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

EPOCHS, BATCH, CLASSES = 2, 128, 10


def write_pictures(folder: Path, count: int) -> None:
    draw = np.random.default_rng(0)
    for label in range(CLASSES):
        for split in ("train", "test"):
            (folder / split / f"class {label}").mkdir(parents=True)
    for number in range(count + CLASSES):
        split = "train" if number < count else "test"
        coarse = draw.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((32, 32), Image.Resampling.BICUBIC)
        picture.save(folder / split / f"class {number % CLASSES}" / f"{number}.png")


def bascule(folder: Path, *, in_memory: bool) -> None:
    from bascule.data import _streamed
    from bascule.data.folder import Folder

    if not in_memory:
        _streamed.IN_MEMORY = 0
    images = Folder(path=folder.name).load([folder.parent])[0]
    for epoch in range(EPOCHS):
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(epoch))
        for index in order.split(BATCH):
            images.batch(index)


def torchvision(folder: Path) -> None:
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import ToTensor

    go_through(ImageFolder(folder / "train", ToTensor()))


class Pictures(Dataset[tuple[Tensor, int]]):
    """As it stands in a training script: pictures opened by Pillow when they are wanted."""

    def __init__(self, folder: Path) -> None:
        classes = sorted(folder.iterdir())
        self._files = [(file, label) for label, place in enumerate(classes) for file in sorted(place.iterdir())]

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        file, label = self._files[index]
        pixels = np.array(Image.open(file).convert("RGB"))
        return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255, label


def go_through(pictures: Dataset[tuple[Tensor, int]]) -> None:
    loader = DataLoader(pictures, batch_size=BATCH, shuffle=True)
    for _ in range(EPOCHS):
        for _ in loader:
            pass


CONTESTANTS: dict[str, Callable[[Path], None]] = {
    "bascule": lambda folder: bascule(folder, in_memory=True),
    "bascule, batch by batch": lambda folder: bascule(folder, in_memory=False),
    "a script (Pillow, DataLoader)": lambda folder: go_through(Pictures(folder / "train")),
    "torchvision": torchvision,
}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    made.add_argument("--pictures", type=int, default=50_000, help="default 50000")
    made.add_argument("--rounds", type=int, default=1)
    add_clock(made)
    made.add_argument("--one", choices=CONTESTANTS, help=argparse.SUPPRESS)
    made.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return made


def run_here(options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    if options.one == "torchvision":
        try:
            import torchvision.datasets  # noqa: F401 - importing is not timed
        except RuntimeError as error:  # made for another torch
            raise ImportError(str(error)) from None
    else:
        import bascule.data.folder  # noqa: F401
    cost_here(lambda: CONTESTANTS[options.one](options.folder), options.clock)


def measure(options: argparse.Namespace) -> Iterator[Result]:
    costs: dict[str, list[Cost]] = {who: [] for who in CONTESTANTS}
    with tempfile.TemporaryDirectory() as name:
        write_pictures(Path(name), options.pictures)
        for _ in range(options.rounds):
            for who in list(costs):
                command = ["--one", who, "--folder", name, "--clock", options.clock]
                try:
                    costs[who].append(cost_apart(__file__, command, options.threads))
                except ImportError as error:
                    del costs[who]
                    yield Said(f"{who} is skipped: {error}")
    job = f"{options.pictures} pictures on disk, {EPOCHS} epochs"
    base = [cost.seconds for cost in costs["bascule"]]
    for who, own in costs.items():
        memory = {"peak MiB": f"{statistics.median(cost.mib for cost in own):.0f}"}
        yield Timed(job=job, who=who, seconds=[cost.seconds for cost in own], base=base, found=memory)


if __name__ == "__main__":
    given = parser().parse_args()
    if given.one:
        run_here(given)
    else:
        run(parser(), measure)
