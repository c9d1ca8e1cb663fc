"""How many images a rate asks for."""

from __future__ import annotations

import math

from bascule.core.errors import RequestError


def checked_count(name: str, rate: float, whole: int, available: int, who: str) -> int:
    """Number of images that a rate asks for; `who` has `available`.

    Raises:
        RequestError: These are too few, or it rounds to none.
    """
    count = round(rate * whole)
    if count > available:
        raise RequestError(
            f"{name} {rate} of {whole} images is {count}, but {who} only {available}. "
            f"The largest possible {name} is {_rounded_down(available / whole):g}.",
            place=(name,),
        )
    if rate > 0 and count == 0:
        raise RequestError(
            f"{name} {rate} of {whole} images rounds to no image. A {name} of {1 / whole:.2g} "
            f"{'poisons one; 0 plants nothing' if name == 'rate' else 'stamps one; 0 stamps none'}.",
            place=(name,),
        )
    return count


def _rounded_down(share: float) -> float:
    """`share` to four significant digits, never more than it is."""
    unit = 10.0 ** (4 - math.ceil(math.log10(share))) if share else 1.0
    return math.floor(share * unit) / unit
