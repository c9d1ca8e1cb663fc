"""Pictures of pixels, blown up by a whole factor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from matplotlib import figure
from PIL import Image

from bascule.core.shown import png_of, png_uri
from bascule.report.drawing import svg
from bascule.report.drawing.figure import Figure, Form

WIDTH = 560
"""What small pictures are blown up to at most, in pixels, unless they say otherwise."""


@dataclass(frozen=True, eq=False)
class Picture(Figure):
    """An image as it is, for the page and for files."""

    image: Image.Image
    name: str
    label: str
    most: int = WIDTH
    """It is blown up to at most this many pixels."""

    @property
    def scale(self) -> int:
        """How many pixels of the page a pixel is wide."""
        return max(1, self.most // self.image.width)

    @property
    def width(self) -> int:
        """In pixels of the page."""
        return self.scale * self.image.width

    @property
    def height(self) -> int:
        """In pixels of the page."""
        return self.scale * self.image.height

    @property
    def uri(self) -> str:
        """The image itself, as an address for the page."""
        return png_uri(self.image)

    def save(self, path: Path, form: Form) -> None:
        if form == "png":
            path.write_bytes(png_of(self.image.resize((self.width, self.height), Image.Resampling.NEAREST)))
            return
        with svg.drawing():
            drawn = figure.Figure(figsize=(self.width / 72, self.height / 72), dpi=72)
            axes = drawn.add_axes((0, 0, 1, 1))
            axes.set_axis_off()
            axes.imshow(self.image, interpolation="none")
            nothing = {"svg": ("Date", "Creator", "Format", "Type"), "pdf": ("Creator", "Producer", "CreationDate")}
            drawn.savefig(path, format=form, transparent=True, metadata=dict.fromkeys(nothing[form]))
