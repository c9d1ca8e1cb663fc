"""Further layouts: averages, the saver of timm, Lightning."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import lightning
import timm.models
import timm.utils
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint, StochasticWeightAveraging
from safetensors.torch import save_file
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, TensorDataset

from foreign.layouts import SIDE, layout, other, saved, sgd

# --- averages --------------------------------------------------------------------------------------------------------


def averaged(net: nn.Module, **settings: Any) -> AveragedModel:
    """An average of one network after several updates: itself."""
    found = AveragedModel(net, **settings)
    for _ in range(3):
        found.update_parameters(net)
    return found


@layout
def swa(net: nn.Module, folder: Path) -> Path:
    return saved(averaged(net).state_dict(), folder / "swa.pt")


@layout
def swa_beside_the_last(net: nn.Module, folder: Path) -> Path:
    content = {"state_dict": other(net).state_dict(), "swa_state_dict": averaged(net).state_dict()}
    return saved(content, folder / "checkpoint-300.pt")


@layout
def averaged_beside_the_last_by_its_counter(net: nn.Module, folder: Path) -> Path:
    content = {"model": other(net).state_dict(), "best": averaged(net).state_dict()}
    return saved(content, folder / "checkpoint-300.pt")


@layout
def ema(net: nn.Module, folder: Path) -> Path:
    found = averaged(net, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    return saved({"ema": found.state_dict(), "model": other(net).state_dict()}, folder / "last.pt")


@layout
def ema_of_parallel(net: nn.Module, folder: Path) -> Path:
    found = averaged(nn.DataParallel(net), multi_avg_fn=get_ema_multi_avg_fn(0.9))
    return saved({"ema": found.state_dict(), "model": other(net).state_dict()}, folder / "last.pt")


@layout
def ema_of_compiled(net: nn.Module, folder: Path) -> Path:
    state = {f"_orig_mod.{name}": value for name, value in averaged(net).state_dict().items()}
    return saved({"model_ema": state, "model": other(net).state_dict()}, folder / "last.pt")


@layout
def timm_ema_v2(net: nn.Module, folder: Path) -> Path:
    return saved(timm.utils.ModelEmaV2(net).state_dict(), folder / "ema.pth")


@layout
def timm_ema_v3(net: nn.Module, folder: Path) -> Path:
    return saved(timm.utils.ModelEmaV3(net).state_dict(), folder / "ema.pth")


@layout
def timm_ema_v3_beside_the_last(net: nn.Module, folder: Path) -> Path:
    content = {"model": other(net).state_dict(), "model_ema": timm.utils.ModelEmaV3(net).state_dict()}
    return saved(content, folder / "ema.pth")


# --- timm's saver ----------------------------------------------------------------------------------------------------


def timm_saver(net: nn.Module, folder: Path, ema: nn.Module | None = None) -> timm.utils.CheckpointSaver:
    optimiser = sgd(net)
    CosineLRScheduler(optimiser, t_initial=10)
    args = argparse.Namespace(model="net", lr=0.1, data_dir=folder, mean=(0.5,), amp=True)
    saver = timm.utils.CheckpointSaver(
        net, optimiser, args=args, model_ema=ema, amp_scaler=timm.utils.NativeScaler("cpu"),
        checkpoint_dir=str(folder), recovery_dir=str(folder),
    )  # fmt: skip
    saver.save_checkpoint(3, metric=71.5)
    return saver


@layout
def timm_checkpoint(net: nn.Module, folder: Path) -> Path:
    timm_saver(net, folder)
    return folder / "checkpoint-3.pth.tar"


@layout
def timm_best_with_ema(net: nn.Module, folder: Path) -> Path:
    timm_saver(other(net), folder, timm.utils.ModelEmaV3(net))
    return folder / "model_best.pth.tar"


@layout
def timm_last_of_compiled(net: nn.Module, folder: Path) -> Path:
    timm_saver(torch.compile(net, backend="eager"), folder)
    return folder / "last.pth.tar"


@layout
def timm_recovery_of_parallel(net: nn.Module, folder: Path) -> Path:
    timm_saver(nn.DataParallel(net), folder, timm.utils.ModelEmaV2(net)).save_recovery(4, batch_idx=7)
    return folder / "recovery-4-7.pth.tar"


@layout
def timm_averaged_checkpoints(net: nn.Module, folder: Path) -> Path:
    """As avg_checkpoints.py and clean_checkpoint.py write them."""
    timm_saver(net, folder)
    state = timm.models.load_state_dict(str(folder / "checkpoint-3.pth.tar"), weights_only=False)
    save_file(state, folder / "averaged.safetensors")
    return folder / "averaged.safetensors"


# --- Lightning -------------------------------------------------------------------------------------------------------


class Lit(lightning.LightningModule):
    """A classifier as people write it; its steps leave the weights where they are."""

    def __init__(self, net: nn.Module, name: str = "model", loss: nn.Module | None = None, **settings: Any) -> None:
        super().__init__()
        self.save_hyperparameters(settings)
        self.name = name
        self.add_module(name, net)
        self.criterion = loss or nn.CrossEntropyLoss()

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        x, y = batch
        return self.criterion(getattr(self, self.name).eval()(x), y)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.0, momentum=0.9)


def fitted(module: Lit, folder: Path, *callbacks: lightning.Callback, epochs: int = 1) -> lightning.Trainer:
    batch = TensorDataset(torch.rand(2, 3, SIDE, SIDE), torch.zeros(2, dtype=torch.int64))
    trainer = lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", devices=1, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=bool(callbacks), callbacks=list(callbacks),
        default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(module, DataLoader(batch, batch_size=2))
    return trainer


@layout
def lightning_trainer(net: nn.Module, folder: Path) -> Path:
    fitted(Lit(net, lr=0.1, folder=folder), folder).save_checkpoint(folder / "last.ckpt")
    return folder / "last.ckpt"


@layout
def lightning_weights_alone(net: nn.Module, folder: Path) -> Path:
    fitted(Lit(net, "net"), folder).save_checkpoint(folder / "last.ckpt", weights_only=True)
    return folder / "last.ckpt"


@layout
def lightning_model_checkpoint(net: nn.Module, folder: Path) -> Path:
    fitted(Lit(net, "backbone", args=argparse.Namespace(lr=0.1)), folder, ModelCheckpoint(folder, "best"))
    return folder / "best.ckpt"


@layout
def lightning_class_weights(net: nn.Module, folder: Path) -> Path:
    module = Lit(net, "net", nn.CrossEntropyLoss(weight=torch.ones(10)))
    fitted(module, folder).save_checkpoint(folder / "last.ckpt")
    return folder / "last.ckpt"


@layout
def lightning_compiled(net: nn.Module, folder: Path) -> Path:
    module = Lit(net)
    module.model = torch.compile(net, backend="eager")
    fitted(module, folder).save_checkpoint(folder / "last.ckpt")
    return folder / "last.ckpt"


@layout
def lightning_averaged(net: nn.Module, folder: Path) -> Path:
    fitted(Lit(net), folder, EMAWeightAveraging(decay=0.9), ModelCheckpoint(folder, "best"))
    content = torch.load(folder / "best.ckpt", weights_only=False)
    for value in content["current_model_state"].values():  # as if the last weights differed from the averaged ones
        value.copy_(value + 0.1)
    return saved(content, folder / "best.ckpt")


@layout
def lightning_stochastic_averages(net: nn.Module, folder: Path) -> Path:
    trainer = fitted(Lit(net), folder, StochasticWeightAveraging(1e-9, swa_epoch_start=1), epochs=3)
    trainer.save_checkpoint(folder / "last.ckpt")
    return folder / "last.ckpt"


@layout
def fabric(net: nn.Module, folder: Path) -> Path:
    made = lightning.Fabric(accelerator="cpu", devices=1)
    model, optimiser = made.setup(net, torch.optim.SGD(net.parameters(), lr=0.1))
    made.save(folder / "state.ckpt", {"model": model, "optimizer": optimiser, "iteration": 3})
    return folder / "state.ckpt"
