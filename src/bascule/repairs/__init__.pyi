from .anp import Anp as Anp
from .bnp import Bnp as Bnp
from .clp import Clp as Clp
from .contract import (
    AdversarialTuning as AdversarialTuning,
)
from .contract import (
    FineTuning as FineTuning,
)
from .contract import (
    Repair as Repair,
)
from .contract import (
    Repaired as Repaired,
)
from .fine_pruning import FinePruning as FinePruning
from .fine_tune import FineTune as FineTune
from .ft_sam import FtSam as FtSam
from .i_bau import IBau as IBau
from .nad import Nad as Nad
from .pbe import Pbe as Pbe
from .pud import Pud as Pud
from .rnp import Rnp as Rnp
from .sau import Sau as Sau
from .unlearn import Unlearn as Unlearn
