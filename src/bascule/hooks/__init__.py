"""What other packages do along a run (a tracker, a message, a page): `bascule.hooks.Hook`.

The contract stands in `contract.py`, the names in `__init__.pyi`. Nothing that a hook does can change a result.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
