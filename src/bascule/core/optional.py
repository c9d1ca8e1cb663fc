"""Packages that not everybody needs."""

from __future__ import annotations

import importlib
from typing import Any

from bascule.core.errors import RequestError


def import_optional(module: str, *, extra: str) -> Any:
    """A module of an optional package, imported at its first use.

    Args:
        module: Its full name.
        extra: The extra of ours that installs the package.

    Raises:
        RequestError: The package is missing, or importing it fails.
    """
    try:
        return importlib.import_module(module)
    except Exception as error:  # a build for another torch fails with more than ImportError
        package = module.partition(".")[0]
        problem = f"needs the package {package}, which cannot be imported ({type(error).__name__}: {error})"
        remedy = f"install a build of it that fits the other packages, with pip install 'bascule[{extra}]'"
        raise RequestError(f"{problem}; {remedy}") from error
