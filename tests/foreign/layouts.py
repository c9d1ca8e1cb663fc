"""Checkpoints as the libraries themselves write them: each layout makes a file of a network's weights.

A layout is a function (network, folder) -> the file. The network is the library's own, and what is read back must
answer as it does afterwards; where averaged weights lie beside others, the averaged ones are the network's.
"""

from __future__ import annotations

import argparse
import copy
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import timm.models
import timm.utils
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint, StochasticWeightAveraging
from safetensors.torch import save_file, save_model
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, TensorDataset

Layout = Callable[[nn.Module, Path], Path]
LAYOUTS: dict[str, Layout] = {}
TIMM_ONLY = {"for-the-hub-safetensors", "for-the-hub-bin"}
"""Layouts by functions that take timm's own networks alone."""
SIDE = 32


def layout(make: Layout) -> Layout:
    """Enter it under its name."""
    LAYOUTS[make.__name__.replace("_", "-")] = make
    return make


def saved(content: Any, file: Path, **settings: Any) -> Path:
    torch.save(content, file, **settings)
    return file


def other(net: nn.Module) -> nn.Module:
    """The same network with other weights: what a training holds beside those that count."""
    found = copy.deepcopy(net)
    with torch.no_grad():
        for value in found.parameters():
            value.add_(0.1)
    return found


def sgd(net: nn.Module) -> torch.optim.Optimizer:
    """An optimiser with a state of its own."""
    optimiser = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=1e-9)
    net.eval()(torch.rand(1, 3, SIDE, SIDE)).sum().backward()
    before = copy.deepcopy(net.state_dict())
    optimiser.step()
    net.load_state_dict(before)
    return optimiser


# --- a state dict alone ----------------------------------------------------------------------------------------------


@layout
def plain(net: nn.Module, folder: Path) -> Path:
    return saved(net.state_dict(), folder / "net.pth")


@layout
def plain_bin(net: nn.Module, folder: Path) -> Path:
    return saved(net.state_dict(), folder / "pytorch_model.bin")


@layout
def before_torch_1_6(net: nn.Module, folder: Path) -> Path:
    return saved(net.state_dict(), folder / "net.pt", _use_new_zipfile_serialization=False)


@layout
def before_torch_1_6_with_settings(net: nn.Module, folder: Path) -> Path:
    content = {"args": argparse.Namespace(lr=0.1), "state_dict": net.state_dict()}
    return saved(content, folder / "net.pth.tar", _use_new_zipfile_serialization=False)


@layout
def safetensors_file(net: nn.Module, folder: Path) -> Path:
    save_file(net.state_dict(), folder / "net.safetensors", metadata={"format": "pt"})
    return folder / "net.safetensors"


@layout
def safetensors_model(net: nn.Module, folder: Path) -> Path:
    save_model(net, str(folder / "model.safetensors"))
    return folder / "model.safetensors"


@layout
def safetensors_under_another_ending(net: nn.Module, folder: Path) -> Path:
    save_file(net.state_dict(), folder / "net.ckpt")
    return folder / "net.ckpt"


@layout
def for_the_hub_safetensors(net: nn.Module, folder: Path) -> Path:
    timm.models.save_for_hf(net, folder, safe_serialization="both")
    return folder / "model.safetensors"


@layout
def for_the_hub_bin(net: nn.Module, folder: Path) -> Path:
    timm.models.save_for_hf(net, folder, safe_serialization="both")
    return folder / "pytorch_model.bin"


@layout
def double_precision(net: nn.Module, folder: Path) -> Path:
    return saved(copy.deepcopy(net).double().state_dict(), folder / "net.pth")


@layout
def channels_last(net: nn.Module, folder: Path) -> Path:
    return saved(copy.deepcopy(net).to(memory_format=torch.channels_last).state_dict(), folder / "net.pth")  # type: ignore[call-overload]


@layout
def parameters_kept_as_such(net: nn.Module, folder: Path) -> Path:
    return saved(net.state_dict(keep_vars=True), folder / "net.pth")


@layout
def without_counters(net: nn.Module, folder: Path) -> Path:
    """As before torch 0.4.1."""
    state = {name: value for name, value in net.state_dict().items() if not name.endswith("num_batches_tracked")}
    return saved(state, folder / "net.pth")


# --- wrapped networks ------------------------------------------------------------------------------------------------


@layout
def data_parallel(net: nn.Module, folder: Path) -> Path:
    return saved(nn.DataParallel(net).state_dict(), folder / "net.pth")


@layout
def data_parallel_safetensors(net: nn.Module, folder: Path) -> Path:
    save_file(nn.DataParallel(net).state_dict(), folder / "net.safetensors")
    return folder / "net.safetensors"


@layout
def distributed(net: nn.Module, folder: Path) -> Path:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=0, world_size=1)
    try:
        state = nn.parallel.DistributedDataParallel(copy.deepcopy(net)).state_dict()
    finally:
        torch.distributed.destroy_process_group()
    return saved({"epoch": 3, "model": state}, folder / "net.pt")


@layout
def compiled(net: nn.Module, folder: Path) -> Path:
    return saved(torch.compile(net).state_dict(), folder / "net.pt")


@layout
def compiled_parallel(net: nn.Module, folder: Path) -> Path:
    return saved({"model": torch.compile(nn.DataParallel(net)).state_dict()}, folder / "net.pt")


@layout
def parallel_compiled(net: nn.Module, folder: Path) -> Path:
    return saved({"net": nn.DataParallel(torch.compile(net)).state_dict()}, folder / "net.pt")


@layout
def partly_compiled(net: nn.Module, folder: Path) -> Path:
    found = copy.deepcopy(net)
    for name, part in list(found.named_children()):
        if isinstance(part, nn.Sequential):
            setattr(found, name, torch.compile(part))
    return saved(found.state_dict(), folder / "net.pth")


class Normalised(nn.Module):
    """As the packages robustness, RobustBench and others put a normalisation before a network."""

    def __init__(self, net: nn.Module, names: tuple[str, str, str, str], shape: tuple[int, ...] = (3, 1, 1)) -> None:
        super().__init__()
        part, mean, std, inner = names
        normaliser = nn.Module()
        normaliser.register_buffer(mean, torch.tensor([0.485, 0.456, 0.406]).reshape(shape))
        normaliser.register_buffer(std, torch.tensor([0.229, 0.224, 0.225]).reshape(shape))
        self.add_module(part, normaliser)
        self.add_module(inner, net)


@layout
def robustness(net: nn.Module, folder: Path) -> Path:
    outer = Normalised(net, ("normalizer", "new_mean", "new_std", "model"))
    outer.attacker = Normalised(net, ("normalize", "new_mean", "new_std", "model"))
    content = {"model": nn.DataParallel(outer).state_dict(), "optimizer": sgd(net).state_dict(), "epoch": 150}
    return saved(content, folder / "checkpoint.pt.best")


@layout
def robustbench(net: nn.Module, folder: Path) -> Path:
    outer = Normalised(net, ("normalize", "mean", "std", "model"), (1, 3, 1, 1))
    return saved(outer.state_dict(), folder / "net.pt")


@layout
def robustbench_parallel(net: nn.Module, folder: Path) -> Path:
    outer = Normalised(net, ("normalize", "mean", "std", "model"), (1, 3, 1, 1))
    return saved({"state_dict": nn.DataParallel(outer).state_dict()}, folder / "net.pt")


@layout
def buffers_mu_and_sigma(net: nn.Module, folder: Path) -> Path:
    state = {"mu": torch.tensor([0.485, 0.456, 0.406]), "sigma": torch.tensor([0.229, 0.224, 0.225])}
    return saved({**state, **net.state_dict()}, folder / "net.pt")


@layout
def smoothing(net: nn.Module, folder: Path) -> Path:
    content = {"epoch": 90, "arch": "net", "state_dict": nn.Sequential(nn.Identity(), net).state_dict()}
    return saved({**content, "optimizer": sgd(net).state_dict()}, folder / "checkpoint.pth.tar")


@layout
def smoothing_parallel(net: nn.Module, folder: Path) -> Path:
    state = nn.Sequential(nn.Identity(), nn.DataParallel(net)).state_dict()
    return saved({"arch": "net", "state_dict": state}, folder / "checkpoint.pth.tar")


@layout
def denoised_smoothing(net: nn.Module, folder: Path) -> Path:
    named = nn.Sequential(OrderedDict(norm=nn.Identity(), classifier=net))
    return saved({"state_dict": nn.DataParallel(named).state_dict()}, folder / "best.pth.tar")


# --- keys of training scripts ----------------------------------------------------------------------------------------


@layout
def torch_examples_imagenet(net: nn.Module, folder: Path) -> Path:
    optimiser = sgd(net)
    scheduler = torch.optim.lr_scheduler.StepLR(optimiser, 30)
    content = {
        "epoch": 1, "arch": "net", "state_dict": nn.DataParallel(net).state_dict(), "best_acc1": torch.tensor(71.0),
        "optimizer": optimiser.state_dict(), "scheduler": scheduler.state_dict(),
    }  # fmt: skip
    return saved(content, folder / "model_best.pth.tar")


class ReferenceEma(AveragedModel):
    """torchvision's references/classification/utils.py."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


@layout
def torchvision_references(net: nn.Module, folder: Path) -> Path:
    training = other(net)
    optimiser = sgd(training)
    content = {
        "model": training.state_dict(), "optimizer": optimiser.state_dict(), "epoch": 3,
        "lr_scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 10).state_dict(),
        "args": argparse.Namespace(data_path="/data", lr=0.5, output_dir=folder),
        "model_ema": ReferenceEma(net, 0.99).state_dict(), "scaler": torch.amp.GradScaler("cpu").state_dict(),
    }  # fmt: skip
    return saved(content, folder / "checkpoint.pth")


@layout
def kuangliu_cifar(net: nn.Module, folder: Path) -> Path:
    return saved({"net": nn.DataParallel(net).state_dict(), "acc": 93.1, "epoch": 7}, folder / "ckpt.pth")


@layout
def basicsr(net: nn.Module, folder: Path) -> Path:
    content = {"params": other(net).state_dict(), "params_ema": net.state_dict()}
    return saved(content, folder / "net_g_latest.pth")


@layout
def catalyst(net: nn.Module, folder: Path) -> Path:
    content = {"model_state_dict": net.state_dict(), "optimizer_state_dict": sgd(net).state_dict(), "epoch": 2}
    return saved(content, folder / "best.pth")


@layout
def fastai(net: nn.Module, folder: Path) -> Path:
    return saved({"model": net.state_dict(), "opt": sgd(net).state_dict()}, folder / "learner.pth")


@layout
def composer(net: nn.Module, folder: Path) -> Path:
    state = {f"module.{name}": value for name, value in net.state_dict().items()}
    return saved({"state": {"model": state, "optimizers": {}}, "rng": []}, folder / "ep1-rank0.pt")


@layout
def backdoorbench(net: nn.Module, folder: Path) -> Path:
    content = {
        "model_name": "net", "num_classes": 10, "model": net.state_dict(), "data_path": "./data",
        "img_size": (32, 32, 3), "clean_data": "cifar10", "bd_train": None,
        "bd_test": {"bd_data_container": {"save_folder_path": str(folder)}},
    }  # fmt: skip
    return saved(content, folder / "attack_result.pt")


@layout
def self_distilled(net: nn.Module, folder: Path) -> Path:
    student = {f"module.backbone.{name}": value for name, value in other(net).state_dict().items()}
    teacher = {f"backbone.{name}": value for name, value in net.state_dict().items()}
    content = {"student": student, "teacher": teacher, "dino_loss": {"center": torch.zeros(1, 8)}}
    return saved(content, folder / "checkpoint0080.pth")


@layout
def list_of_stages(net: nn.Module, folder: Path) -> Path:
    return saved([{"lr": 0.1}, {"weights": net.state_dict()}], folder / "net.pt")


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
