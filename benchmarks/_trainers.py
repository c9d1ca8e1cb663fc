"""Adversarial training as other packages offer it: each call is one epoch over the images, in batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from bascule.training.pgd import Pgd


@dataclass(frozen=True)
class Given:
    """What everyone is given; the network is its own."""

    model: nn.Module
    x: Tensor
    y: Tensor
    batch: int
    attack: Pgd

    @property
    def step_size(self) -> float:
        return self.attack.step_size or 2.5 * self.attack.eps / self.attack.steps

    def adam(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.model.parameters(), lr=1e-4)


Epoch = Callable[[], object]


def torchattacks(given: Given) -> Epoch:
    """It attacks and does not train: its PGD in a loop of the user's own."""
    from torchattacks import PGD

    model, optimizer = given.model, given.adam()
    attack = PGD(model, eps=given.attack.eps, alpha=given.step_size, steps=given.attack.steps, random_start=True)

    def call() -> None:
        for index in torch.randperm(len(given.x)).split(given.batch):
            model.eval()
            found = attack(given.x[index], given.y[index])
            model.train()
            optimizer.zero_grad()
            F.cross_entropy(model(found), given.y[index]).backward()
            optimizer.step()

    return call


def secml(given: Given) -> Epoch:
    from secmlt.adv.evasion.pgd import PGDNative
    from secmlt.defenses.adv_training.pytorch.adversarial_trainer import AdversarialTrainer
    from secmlt.models.pytorch.base_pytorch_nn import BasePyTorchClassifier

    attack = PGDNative(
        perturbation_model="linf",
        epsilon=given.attack.eps,
        num_steps=given.attack.steps,
        step_size=given.step_size,
        random_start=True,
    )
    loader = DataLoader(TensorDataset(given.x, given.y), batch_size=given.batch, shuffle=True)
    trainer, model = AdversarialTrainer(given.adam(), epochs=1), BasePyTorchClassifier(given.model)
    return lambda: trainer.train(model, loader, attack)


def art(given: Given) -> Epoch:
    """NumPy in, as its users call it."""
    from art.defences.trainer import AdversarialTrainerMadryPGD
    from art.estimators.classification import PyTorchClassifier

    x, y = given.x.numpy(), F.one_hot(given.y, 10).numpy()
    classifier = PyTorchClassifier(
        given.model,
        nn.CrossEntropyLoss(),
        input_shape=x.shape[1:],
        nb_classes=10,
        optimizer=given.adam(),
        clip_values=(0, 1),
        device_type="cpu",
    )
    trainer = AdversarialTrainerMadryPGD(
        classifier,
        nb_epochs=1,
        batch_size=given.batch,
        eps=given.attack.eps,
        eps_step=given.step_size,
        max_iter=given.attack.steps,
    )
    return lambda: trainer.fit(x, y)


PEERS: dict[str, Callable[[Given], Epoch]] = {"torchattacks": torchattacks, "secml-torch": secml, "ART": art}
