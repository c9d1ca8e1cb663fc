"""The contracts of the rooms, for tests of components of one's own: `bascule.testing.check_attack(Mine(eps=0.1))`.

Each check tries a component on small things (the embedded digits, little networks, random images) and raises an
AssertionError with one sentence where its contract does not hold. Nothing of it needs pytest. The names stand in
`__init__.pyi`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
