from .contract import CellEnd as CellEnd
from .contract import CellFacts as CellFacts
from .contract import Hook as Hook
from .contract import RunEnd as RunEnd
from .contract import RunFacts as RunFacts
from .installed import InstalledHook as InstalledHook
from .installed import installed as installed
