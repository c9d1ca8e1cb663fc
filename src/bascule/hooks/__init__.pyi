from .announced import InstalledHook as InstalledHook
from .announced import installed as installed
from .contract import CellEnd as CellEnd
from .contract import CellFacts as CellFacts
from .contract import Hook as Hook
from .contract import RunEnd as RunEnd
from .contract import RunFacts as RunFacts
