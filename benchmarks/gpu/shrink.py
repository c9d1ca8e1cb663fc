"""A folder of pictures at a smaller size: the middle square, as JPEG of quality 90. shrink.py FROM TO SIZE"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image


def shrink(source: Path, target: Path, size: int) -> int:
    """How many pictures `source`/split/class/*.JPEG were written below `target`."""
    pictures = sorted(source.glob("*/*/*.JPEG"))
    for path in pictures:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        short = min(image.size)
        left, top = (image.width - short) // 2, (image.height - short) // 2
        box = (left, top, left + short, top + short)
        image = image.resize((size, size), Image.Resampling.BILINEAR, box=box)
        place = target / path.relative_to(source).with_suffix(".jpg")
        place.parent.mkdir(parents=True, exist_ok=True)
        image.save(place, quality=90)
    return len(pictures)


if __name__ == "__main__":
    print(shrink(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])), "pictures")
