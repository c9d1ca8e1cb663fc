from .contract import Passes as Passes
from .contract import Scan as Scan
from .contract import Scanner as Scanner
from .feature_inversion import FeatureInversion as FeatureInversion
from .mm_bd import MmBd as MmBd
from .neural_cleanse import NeuralCleanse as NeuralCleanse
from .universal_perturbation import UniversalPerturbation as UniversalPerturbation
