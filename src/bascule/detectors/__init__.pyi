from .contract import Detector as Detector
from .contract import Prepared as Prepared
from .ibd_psc import IbdPsc as IbdPsc
from .latent_distance import LatentDistance as LatentDistance
from .scale_up import ScaleUp as ScaleUp
from .strip import Strip as Strip
from .teco import Teco as Teco
