from .contract import Certified as Certified
from .contract import Certifier as Certifier
from .crown_ibp import CrownIbp as CrownIbp
from .interval import Interval as Interval
from .smoothing import Smoothing as Smoothing
