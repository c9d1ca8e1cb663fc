"""What the field calls components: the names of other benchmarks and of papers, and what each is here.

Nothing is built under these names, so that one component has one name in studies and records. Whoever asks for one is
told what it is called here, or that it is not here and what comes nearest. docs/coming-from.md shows the same table.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

BACKDOORBENCH, BACKDOORBOX, TROJANZOO, ART = "BackdoorBench", "BackdoorBox", "TrojanZoo", "ART"
ROBUSTBENCH, TORCHATTACKS, FOOLBOX = "RobustBench", "torchattacks", "foolbox"
PAPERS = "papers"
"""Where a name comes from that no collection of code has."""


@dataclass(frozen=True)
class Term:
    """One thing and its names elsewhere."""

    names: tuple[str, ...]
    """As others write them; case, `-`, `_` and spaces do not matter."""
    here: tuple[str, ...]
    """KIND/NAME of what it is here, where it is; else of what comes nearest."""
    is_here: bool
    about: str
    """What to add: the setting that makes it so, or why it is not here."""
    used_by: tuple[str, ...]

    def sentence(self, name: str) -> str:
        """What to say to somebody who asked for it by this name."""
        components = " or ".join(self.here)
        if self.is_here:
            return f"{name!r} is {', '.join(filter(None, (components, self.about)))}."
        nearest = f". Nearest: {components}" if components else ""
        return f"{name!r} is not here: {self.about}{nearest}."


def plain(name: str) -> str:
    """A name without what people write differently: `I-BAU`, `i_bau` and `ibau` are the same."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def term_for(room: str, name: str) -> Term | None:
    """What is known under this name: of the kind that was asked for if there is that, else of any.

    Args:
        room: The kind of component that was asked for; "" for any.
        name: As somebody wrote it.
    """
    known = _by_name().get(plain(name), ())
    return next((term for term in known if any(part.startswith(f"{room}/") for part in term.here)), None) or next(
        iter(known), None
    )


@functools.cache
def _by_name() -> Mapping[str, tuple[Term, ...]]:
    found: dict[str, tuple[Term, ...]] = {}
    for term in (term for terms in TERMS.values() for term in terms):
        for name in dict.fromkeys(map(plain, term.names)):
            found[name] = (*found.get(name, ()), term)
    return MappingProxyType(found)


def _is(names: str, here: str, about: str = "", *used_by: str) -> Term:
    return Term(tuple(names.split()), tuple(here.split()), True, about, used_by or (PAPERS,))


def _lacks(names: str, about: str, nearest: str = "", *used_by: str) -> Term:
    return Term(tuple(names.split()), tuple(nearest.split()), False, about, used_by or (PAPERS,))


_POISONED_SET = "a poisoned set that others made is measured with `poison: {name: given, ...}`"
_SEARCHED = "its trigger comes out of a network that is trained or searched with it"
_TARGETS = "it aims at single test images and has no trigger"
_STEPS = "it is made for attacks that shall carry over to other models"
_NORM = "attacks in L0 and without a norm are missing"
_DECISIONS = "attacks that see decisions alone are missing"
_MODEL = "it needs models trained for it, clean and backdoored ones"

TERMS: dict[str, tuple[Term, ...]] = {
    "Triggers and poison": (
        _is(
            "BadNets badnet patch PoisoningAttackBackdoor add_pattern_bd add_single_bd",
            "poison/sticker", "with `label: dirty`", BACKDOORBENCH, TROJANZOO, ART,
        ),
        _is("Blended blend insert_image", "poison/watermark", "with `mode: blend` and `label: dirty`",
            BACKDOORBENCH, ART),
        _is(
            "LC label-consistent LabelConsistent clean_label PoisoningAttackCleanLabelBackdoor",
            "poison/sticker", "with `label: clean` and `prepare: {name: pgd, ...}`", BACKDOORBENCH, TROJANZOO, ART,
        ),
        _lacks("SSBA ISSBA", f"an encoder draws a trigger for each image; {_POISONED_SET}", "poison/watermark",
               BACKDOORBENCH),
        _is("input_aware_dynamic IAD", "poison/input-aware",
            "with `label: dirty`; its generator is trained on a proxy, and the model only on what it poisons",
            BACKDOORBENCH, TROJANZOO),
        _lacks("LIRA", f"{_SEARCHED}, for each image; {_POISONED_SET}", "poison/input-aware", BACKDOORBENCH),
        _is("LF low-frequency smooth_trigger", "poison/low-frequency", "with `label: dirty`", BACKDOORBENCH),
        _is("Narcissus", "poison/narcissus", "with `label: clean`"),
        _lacks("TrojanNN trojannn", f"{_SEARCHED}; {_POISONED_SET}", "poison/sticker", BACKDOORBENCH, TROJANZOO),
        _lacks("Refool reflection_backdoor", f"reflections are missing; {_POISONED_SET}", "poison/watermark",
               BACKDOORBENCH, TROJANZOO),
        _lacks("FTrojan ftrojann", f"triggers in frequencies other than a wave are missing; {_POISONED_SET}",
               "poison/sig", BACKDOORBENCH),
        _is("BppAttack bpp", "poison/bpp", "with `label: dirty`, as far as a poisoned set goes; they also change the "
            "training", BACKDOORBENCH),
        _lacks("CTRL", f"it poisons self-supervised training; {_POISONED_SET}", "poison/watermark", BACKDOORBENCH),
        _lacks("PoisonInk poison_ink", f"{_SEARCHED}; {_POISONED_SET}", "poison/watermark", BACKDOORBENCH),
        _lacks("Blind blind_backdoor", "it changes the training and not the data", "poison/sticker",
               BACKDOORBENCH, TROJANZOO),
        _lacks(
            "latent_backdoor IMC bypass_embed trojannet invisible_poison PoisoningAttackAdversarialEmbedding",
            f"the trigger or the training is searched together with the model; {_POISONED_SET}", "poison/sticker",
            TROJANZOO, ART,
        ),
        _lacks("hidden_trigger HiddenTriggerBackdoor HTBA",
               "it makes the network's features alike, for one that is fine-tuned and not trained from the start",
               "poison/sleeper-agent", TROJANZOO, ART),
        _lacks("GradientMatching WitchesBrew", _TARGETS, "poison/sleeper-agent", ART),
        _lacks(
            "BullseyePolytope FeatureCollision PoisonFrogs PoisoningAttackSVM",
            _TARGETS, "poison/sticker", ART,
        ),
    ),
    "Data defences": (
        _is("AC ActivationDefence ActivationClustering", "filter/activation-clustering", "", BACKDOORBENCH, TROJANZOO,
            ART),
        _is("SS spectral SpectralSignature SpectralSignatureDefense", "filter/spectral-signatures", "", BACKDOORBENCH,
            TROJANZOO, ART),
        _is("Beatrix", "filter/gram", "which works in its manner", BACKDOORBENCH),
        _is("SCAn", "filter/two-component", "which works in its manner", BACKDOORBENCH),
        _is("ABL AntiBackdoorLearning", "train/abl",
            "which isolates and unlearns as it trains; filter/early-loss isolates alone, and trains anew on the rest",
            BACKDOORBENCH),
        _is("D-BR", "train/d-br", "which tells images apart and removes the backdoor in one training", BACKDOORBENCH),
        _is("DeepKNN kNN", "filter/neighbours"),
        _lacks("AGPD ASSET CD CognitiveDistillation", "this detector is missing",
               "filter/spectre filter/two-component filter/gram", BACKDOORBENCH),
        _lacks("RONI ProvenanceDefense", "this detector is missing", "filter/neighbours filter/spectral-signatures",
               ART),
    ),
    "Model scanners": (
        _is("NC", "scan/neural-cleanse", "and the repair by what it finds is repair/unlearn", BACKDOORBENCH, TROJANZOO,
            ART),
        _is("FeatureRE feature_re", "scan/feature-inversion"),
        _lacks("TABOR", "this inversion is missing", "scan/neural-cleanse", TROJANZOO),
        _lacks("ABS K-ARM DeepInspect NeuronInspect MESA", "this scanner is missing",
               "scan/neural-cleanse scan/feature-inversion scan/mm-bd", TROJANZOO, BACKDOORBENCH),
        _lacks("MNTD ULP UAL", _MODEL, "scan/mm-bd", BACKDOORBENCH),
    ),
    "Test-time detectors": (
        _is("SCALE_UP", "detect/scale-up", "", BACKDOORBOX),
        _is("IBD_PSC", "detect/ibd-psc", "for networks with batch norm", BACKDOORBOX),
        _is("TeCo", "detect/teco", "with eleven of its fifteen corruptions", BACKDOORBENCH),
        _is("KNN-OOD", "detect/latent-distance"),
        _is("Mahalanobis", "detect/latent-distance", "with `distance: mahalanobis`"),
        _lacks("SentiNet NEO LID", "this detector is missing", "detect/strip detect/scale-up detect/latent-distance",
               BACKDOORBENCH, TROJANZOO),
    ),
    "Model defences": (
        _is("FT finetuning", "repair/fine-tune", "", BACKDOORBENCH),
        _is("FP fineprune", "repair/fine-pruning", "", BACKDOORBENCH, TROJANZOO),
        _lacks("EP", "it looks at the poisoned training set, which no repair is shown", "repair/bnp", BACKDOORBENCH),
        _is("AFT", "repair/pbe", "which is PBE of a defender with clean images"),
        _lacks("NPD", "this repair is missing", "repair/i-bau repair/sau", BACKDOORBENCH),
        _lacks("MCR", "this repair is missing", "repair/fine-tune repair/nad", BACKDOORBENCH),
        _lacks("D-ST", "its contrastive training is missing", "train/d-br", BACKDOORBENCH),
        _lacks("DBD NAB UCN-BR", "this training is missing", "train/abl train/d-br filter/early-loss", BACKDOORBENCH),
    ),
    "Training objectives": (
        _is(
            "AT PGD-AT Madry adv_train AdversarialTrainer AdversarialTrainerMadryPGD", "train/pgd", "",
            TROJANZOO, ART, ROBUSTBENCH,
        ),
        _is("AdversarialTrainerTRADES", "train/trades", "", ART),
        _is("FastAT FGSM-RS RS-FGSM FBF AdversarialTrainerFBF", "train/fast", "", ART),
        _is("ERM vanilla no_defense nodefense", "train/standard", "", BACKDOORBENCH),
        _is("AdversarialTrainerCertifiedIBPPyTorch", "train/ibp", "", ART),
        _lacks("MSD MNG-AC", "of trainings in several threat models the worst, the mean, one drawn at random and "
               "the composite one are here", "train/against"),
        _lacks("grad_train curvature CURE", "this penalty is missing", "train/lipschitz", TROJANZOO),
        _lacks("FreeAT free", "several uses of one backward pass are missing", "train/fast"),
        _is("AWP AdversarialTrainerAWP AT-AWP", "train/pgd", "with the setting `awp: {}` of the training", ART,
            ROBUSTBENCH),
        _is("TRADES-AWP", "train/trades", "with the setting `awp: {}` of the training", ROBUSTBENCH),
        _lacks("OAAT AdversarialTrainerOAAT HAT LBGAT", "this objective is missing",
               "train/trades train/mart train/pgd", ART, ROBUSTBENCH),
        _lacks("GaussianAugmentation noise_augmentation MACER SmoothAdv", "training with noise is missing",
               "train/pgd", ART),
    ),
    "Evasion attacks": (
        _is("AA", "attack/autoattack", "", ART, ROBUSTBENCH, TORCHATTACKS),
        _is("AutoPGD AutoProjectedGradientDescent APGD-CE", "attack/apgd", "", ART, ROBUSTBENCH),
        _is("APGD-DLR", "attack/apgd", "with `loss: dlr`", ART, ROBUSTBENCH),
        _is("APGD-T APGDT", "attack/apgd", "with `loss: dlr-targeted`", ROBUSTBENCH, TORCHATTACKS),
        _is("APGD-L1 L1-APGD", "attack/apgd", "with `norm: l1`"),
        _is("FAB-T FastAdaptiveBoundary", "attack/fab", "", ART, ROBUSTBENCH),
        _is("SquareAttack", "attack/square", "", ART, ROBUSTBENCH),
        _is("ProjectedGradientDescent LinfPGD LinfProjectedGradientDescentAttack PGDLinf PGDRS", "attack/pgd", "", ART,
            FOOLBOX, TORCHATTACKS),
        _is("L2PGD L2ProjectedGradientDescentAttack PGDL2 PGDRSL2", "attack/pgd", "with `norm: l2`", FOOLBOX,
            TORCHATTACKS),
        _is("SLIDE SparseL1DescentAttack SparseL1Descent L1PGD PGDL1", "attack/pgd", "with `norm: l1`", FOOLBOX),
        _is("BIM IFGSM BasicIterativeMethod LinfBasicIterativeAttack L2BasicIterativeAttack", "attack/pgd",
            "with `random_start: false`", ART, FOOLBOX, TORCHATTACKS),
        _is("EOTPGD", "attack/apgd", "with `eot_iter: 20`", TORCHATTACKS),
        _is("RFGSM FFGSM", "attack/pgd", "with `steps: 1`", TORCHATTACKS),
        _is("FGM FastGradientMethod LinfFastGradientAttack L2FastGradientAttack GradientSignAttack", "attack/fgsm", "",
            ART, FOOLBOX),
        _is("CarliniWagner CarliniL2Method L2CarliniWagnerAttack CWL2", "attack/cw", "", ART, FOOLBOX),
        _is("L2DeepFoolAttack LinfDeepFoolAttack", "attack/deepfool", "", FOOLBOX),
        _is("CAA CompositeAttack composite-adversarial-attack", "attack/composite"),
        _is("MultiAttack", "", "a list: `attack: [...]`, each on what withstood the ones before", TORCHATTACKS),
        _lacks("CarliniLInfMethod CWLinf", "of this search the L2 one is here, and its loss in others: `loss: margin`",
               "attack/pgd", ART, TORCHATTACKS),
        _lacks("StepLL IterLL", "towards the least likely class is missing", "attack/fgsm-targeted"),
        _lacks(
            "MIFGSM NIFGSM SINIFGSM DIFGSM TIFGSM VMIFGSM VNIFGSM PIFGSM PIFGSMPP Jitter LGV MomentumIterativeMethod",
            _STEPS, "attack/apgd", ART, TORCHATTACKS,
        ),
        _lacks("TPGD UPGD ACG AutoConjugateGradient", "this search is missing", "attack/pgd attack/apgd",
               ART, TORCHATTACKS),
        _lacks("DDN FMN NewtonFool LBFGS LBFGSAttack L2FMNAttack DDNAttack", "this search is missing",
               "attack/fab attack/cw", ART, FOOLBOX, TORCHATTACKS),
        _lacks("SPSA NES ZOO ZooAttack SimBA GenAttack", "this search is missing", "attack/square", ART, FOOLBOX,
               TORCHATTACKS),
        _lacks(
            "BoundaryAttack HopSkipJump HopSkipJumpAttack HSJA GeoDA SignOPT SignOPTAttack BrendelBethgeAttack RayS",
            _DECISIONS, "attack/square", ART, FOOLBOX,
        ),
        _lacks(
            "JSMA SaliencyMapMethod SparseFool OnePixel Pixle PointwiseAttack SaltAndPepperNoiseAttack CWL0 "
            "CarliniL0Method",
            _NORM, "attack/square attack/fab", ART, FOOLBOX, TORCHATTACKS,
        ),
        _lacks("EAD ElasticNet EADL1 EADEN EADAttack", "other searches in L1 are here, with `norm: l1`",
               "attack/apgd attack/fab", ART, FOOLBOX, TORCHATTACKS),
        _is("SpatialTransformation SpatialAttack RandomTransforms", "attack/spatial", "", ART, FOOLBOX),
        _is("AdversarialPatch AdversarialPatchPyTorch ROA", "attack/patch",
            "which gives each image a patch of its own; one that serves all is missing", ART),
        _lacks("ShadowAttack Wasserstein stAdv", _NORM, "attack/spatial attack/pgd", ART, FOOLBOX),
        _lacks("UniversalPerturbation UAP TargetedUniversalPerturbation", "as an attack it is missing",
               "scan/universal-perturbation", ART),
        _lacks("GN AdditiveGaussianNoiseAttack AdditiveUniformNoiseAttack GaussianBlurAttack",
               "noise and blur are no attacks here", "explain/fourier explain/pass-filter", FOOLBOX, TORCHATTACKS),
    ),
    "Certified bounds": (
        _is("IBP interval-bound-propagation", "certify/interval"),
        _is("RandomizedSmoothing randomized_smooth Cohen", "certify/smoothing", "", ART, TROJANZOO),
        _lacks("CROWN alpha-CROWN beta-CROWN auto_LiRPA DeepZ PytorchDeepZ", "tighter bounds are missing",
               "certify/crown-ibp", ART),
        _lacks("DerandomizedSmoothing", "certificates against patches are missing", "certify/smoothing", ART),
    ),
    "Explanations": (
        _is("IG", "explain/integrated-gradients"),
        _is("vanilla_gradient gradient", "explain/saliency"),
        _is("UMAP PCA ICA", "explain/latents", "with `method: umap`, `pca` or `ica`"),
        _lacks("t-SNE tSNE", "this projection is missing", "explain/latents", BACKDOORBENCH),
        _lacks("SHAP LIME", "this explanation is missing", "explain/integrated-gradients", BACKDOORBENCH),
    ),
    "Networks": (
        _is(
            "vgg19 vgg19_bn vgg16 densenet161 mobilenet_v3_large efficientnet_b3 convnext_tiny vit_b_16 alexnet",
            "models/torchvision", "named like `torchvision:vgg19_bn`", BACKDOORBENCH, TROJANZOO,
        ),
        _lacks("WideResNet WRN WRN-28-10 WRN-34-10 wideresnet", "give its own function, `module:factory`",
               "models/resnet18 models/preactresnet18", ROBUSTBENCH),
    ),
    "Data": (
        _is("FashionMNIST KMNIST EMNIST", "data/mnist", "with `path: ` to its IDX files"),
        _is("GTSRB TinyImageNet tiny ImageNet CelebA Imagenette VGGFace2 ISIC CUB200", "data/folder",
            "with `path: ` to its folders", BACKDOORBENCH, TROJANZOO),
        _is("MedMNIST", "data/npz"),
    ),
    "Metrics": (
        _is("ACC C-Acc CA BA CDA clean_acc", "measure/accuracy", "", BACKDOORBENCH, TROJANZOO),
        _is(
            "R-Acc RA", "measure/triggered-accuracy",
            "as BackdoorBench means it: triggered, and given the true label; under attacks it is "
            "measure/robust-accuracy", BACKDOORBENCH,
        ),
        _is("robust_acc adversarial_accuracy", "measure/robust-accuracy", "", ROBUSTBENCH),
        _is("TPR", "measure/filter-recall", "", BACKDOORBENCH),
        _is("FPR", "measure/filter-removed-benign", "", BACKDOORBENCH),
    ),
}  # fmt: skip
"""Every term, under the heading that it has in docs/coming-from.md."""
