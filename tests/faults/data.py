"""Data files are garbled; each is read, or refused in one message."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path

from faults.damage import damage
from faults.trials import Trial, attempt

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
