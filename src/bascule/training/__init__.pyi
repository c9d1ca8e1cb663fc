from .abl import Abl as Abl
from .against import Against as Against
from .contract import (
    Adversarial as Adversarial,
)
from .contract import (
    Course as Course,
)
from .contract import (
    CrossEntropy as CrossEntropy,
)
from .contract import (
    DivergencePenalty as DivergencePenalty,
)
from .contract import (
    Isolated as Isolated,
)
from .contract import (
    Objective as Objective,
)
from .contract import (
    Samples as Samples,
)
from .contract import (
    Smoothing as Smoothing,
)
from .crown_ibp import CrownIbp as CrownIbp
from .d_br import DBr as DBr
from .fast import Fast as Fast
from .fgsm_targeted import FgsmTargeted as FgsmTargeted
from .ibp import Ibp as Ibp
from .lipschitz import Lipschitz as Lipschitz
from .mart import Mart as Mart
from .pgd import Pgd as Pgd
from .standard import Standard as Standard
from .trades import Trades as Trades
