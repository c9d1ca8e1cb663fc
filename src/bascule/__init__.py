"""Bascule: measures both ends of an image classifier's security, adversarial examples and backdoors, in one run.

What it offers stands in `__init__.pyi`, and is imported when it is first used.
"""

from importlib.metadata import version

import lazy_loader

from bascule.core import calling

__version__ = version("bascule")
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

_VERBS = {
    "attack": "perturb",
    "certify": "certify",
    "filter": "filter",
    "scan": "scan",
    "detect": "detect",
    "repair": "repair",
}
"""The function that runs components of each kind, also where one is called itself."""

calling.find_verbs_with(lambda kind: __getattr__(_VERBS[kind]))
