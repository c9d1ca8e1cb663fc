"""Bascule: measures both ends of an image classifier's security, adversarial examples and backdoors, in one run."""

from importlib.metadata import version

__version__ = version("bascule")
__all__ = ["__version__"]
