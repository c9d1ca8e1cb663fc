"""Bascule: measures both ends of an image classifier's security, adversarial examples and backdoors, in one run.

What it offers stands in `__init__.pyi`, and is imported when it is first used.
"""

from importlib.metadata import version

import lazy_loader

__version__ = version("bascule")
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
