"""Bascule: measures both ends of an image classifier's security, adversarial examples and backdoors, in one run.

On a model and images in memory (`help(bascule.perturb)` and so on tell the arguments):

    perturb    adversarial copies of images          poison     a training set with a backdoor in it
    certify    what is proved of predictions         train      a trained copy of a model, or a new one
    evaluate   both ends, with intervals             filter     how suspicious training images are
    check      conditions on what was measured       scan       which classes look like a backdoor's target
                                                     detect     a guard that refuses inputs
                                                     repair     a copy without its backdoor

On files and folders: `run` carries out a study, `load` reads one that was run, `audit` looks at somebody's model.

Components are given to these by name or made (`bascule.attacks.Pgd(eps=8 / 255)`), and `help(bascule.attacks.Pgd)`
tells the settings. They stand in `attacks`, `certifiers`, `triggers`, `training`, `filters`, `scanners`, `detectors`,
`repairs`, `explanations`, `metrics`, `models` and `data`; `component` makes one of a class of your own, `testing` tests
it, and `hooks` are told of runs.

A wrong argument is a `RequestError`, a training that does not stay finite a `DivergedError`.
"""

# What it offers stands in `__init__.pyi`, and is imported when it is first used.

from importlib.metadata import version

import lazy_loader

from bascule.core import calling

__version__ = version("bascule")
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

_VERBS = {
    "attack": "perturb",
    "certify": "certify",
    "filter": "filter",
    "scan": "scan",
    "detect": "detect",
    "repair": "repair",
}
"""The function that runs components of each kind, also where one is called itself."""

calling.find_verbs_with(lambda kind: __getattr__(_VERBS[kind]))
