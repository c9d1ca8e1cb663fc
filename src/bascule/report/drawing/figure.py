"""What can be shown on the page and saved as a file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Literal

Form = Literal["svg", "png", "pdf"]

DPI = 300
"""Of PNG files, in which a pixel of the page is 1/72 inch."""


class Figure(ABC):
    """A figure of the report."""

    name: str
    """Unique in the report."""
    label: str
    """What it shows, in words."""

    @abstractmethod
    def save(self, path: Path, form: Form) -> None:
        """Write it, in the colours of a light page; the same figure gives the same bytes."""
