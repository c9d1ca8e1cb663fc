"""Networks of timm and torchvision with random weights: every part works, or refuses in one sentence."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bascule.core.catalog import build
from bascule.core.errors import RequestError
from bascule.core.features import features
from bascule.core.images import Images
from bascule.core.rng import stream
from bascule.explanations.run import run_heat_map
from bascule.filters.run import run_filter
from bascule.repairs.run import run_repair
from bascule.scanners.run import run_scanner
from bascule.training.loop import train
from bascule.training.settings import Training
from cli.conftest import Said, bascule  # noqa: F401  (a fixture)

timm = pytest.importorskip("timm", reason="needs timm and torchvision: make foreign")
pytest.importorskip("torchvision")
pytestmark = pytest.mark.filterwarnings("default")  # the libraries' own
SIZE = (3, 32, 32)
_TOKENS: dict[str, Any] = {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 24, "num_heads": 2}
_WINDOWS: dict[str, Any] = {
    "img_size": 32, "window_size": 4, "patch_size": 2, "embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4),
}  # fmt: skip
NETWORKS: dict[str, dict[str, Any]] = {
    "resnet": {"name": "timm:test_resnet"},
    "convnext": {"name": "timm:test_convnext"},
    "efficientnet": {"name": "timm:test_efficientnet"},
    "mobilenetv3": {"name": "timm:mobilenetv3_small_050"},
    "shufflenet": {"name": "torchvision:shufflenet_v2_x0_5"},
    "vit": {"name": "timm:vit_tiny_patch16_224", "settings": _TOKENS},
    "deit": {"name": "timm:deit_tiny_distilled_patch16_224", "settings": _TOKENS},
    "swin": {"name": "timm:swin_tiny_patch4_window7_224", "settings": _WINDOWS},
    "swinv2": {"name": "timm:swinv2_tiny_window8_256", "settings": _WINDOWS},
}
PARTS: dict[str, list[dict[str, Any]]] = {
    "explain": [{"name": "grad-cam"}, {"name": "saliency"}, {"name": "integrated-gradients", "steps": 2}],
    "filter": [
        *({"name": name} for name in ("spectral-signatures", "activation-clustering", "gram", "spectre", "strip")),
        {"name": "two-component"}, {"name": "neighbours", "k": 5}, {"name": "early-loss", "epochs": 1},
    ],
    "scan": [{"name": "mm-bd", "starts": 2, "steps": 2}, {"name": "feature-inversion", "max_looks": 1}],
    "repair": [
        {"name": "i-bau", "rounds": 1, "steps": 2, "search_steps": 2}, {"name": "anp", "steps": 2}, {"name": "clp"},
        {"name": "nad", "epochs": 1, "teacher_epochs": 1}, {"name": "fine-pruning", "epochs": 1},
    ],
    "train": [{"name": "lipschitz"}, {"name": "pgd", "eps": 0.01, "steps": 1}],
}  # fmt: skip
_ON_TOKENS = "behind the model's last convolution with a picture .* its layers work on tokens or on another order"
_NO_VECTOR = "fine-pruning needs a linear layer that takes"
_NO_RESET = "holds parameters but has no reset_parameters"
REFUSED = {
    **{(name, "grad-cam"): _ON_TOKENS for name in ("vit", "deit", "swin", "swinv2")},
    **{(name, "fine-pruning"): _NO_VECTOR for name in ("vit", "deit", "swin", "swinv2", "convnext")},
    **{(name, "early-loss"): _NO_RESET for name in ("vit", "deit", "convnext")},
}  # fmt: skip
"""What cannot work on which network, and what is said."""


@functools.cache
def _fresh(name: str) -> Any:
    return build("models", NETWORKS[name]).initialised(SIZE, 4, seed=0).eval()


@pytest.fixture
def images() -> Images:
    pixels = torch.randint(256, (40, *SIZE), dtype=torch.uint8, generator=stream(0, "pixels"))
    return Images(pixels=pixels, labels=torch.arange(40) % 4, ids=torch.arange(40), classes=tuple("abcd"))


def used(room: str, part: Any, net: nn.Module, images: Images) -> Tensor:
    """What the part says, finite numbers."""
    few, generator = images.at(torch.arange(4)), stream(0, "part")
    match room:
        case "explain":
            x = few.batch(torch.arange(4))
            heat = run_heat_map(net, part, x, few.labels, generator=generator, batch_size=4)
            assert bool(heat.flatten(1).any(1).any())
            return heat
        case "filter":
            return run_filter(net, part, images, generator=generator).score
        case "scan":
            return run_scanner(net, part, images, generator=generator).anomaly
        case "repair":
            return torch.tensor(list(run_repair(net, part, images, generator=generator).notes.values()))
    return torch.tensor([entry["loss"] for entry in train(net, few, Training(objective=part, epochs=1), seed=0)])


@pytest.mark.parametrize(("room", "spec"), [(room, spec) for room, specs in PARTS.items() for spec in specs], ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_part_works_or_says_why_not(name: str, room: str, spec: dict[str, Any], images: Images) -> None:
    net, part = _fresh(name), build(room, spec)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    try:
        if said := REFUSED.get((name, spec["name"])):
            with pytest.raises(RequestError, match=said):
                used(room, part, net, images)
            few = images.at(torch.arange(2))
            given = few.batch(torch.arange(2)) if room == "explain" else few
            with pytest.raises(RequestError, match=said), torch.no_grad():  # and so is found before any training
                part.check_model(net, given)
        else:
            assert bool(used(room, part, net, images).isfinite().all())
    finally:
        net.load_state_dict(before)
        net.eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_features_are_what_the_library_gives_its_head(name: str, images: Images) -> None:
    net, x = _fresh(name), images.batch(torch.arange(40))
    found = features(net, images).matrix()
    with torch.no_grad():
        inner, scaled = net.net, net.normalise(x)
        if name == "shufflenet":
            maps = inner.conv5(inner.stage4(inner.stage3(inner.stage2(inner.maxpool(inner.conv1(scaled))))))
            expected = maps.mean((2, 3))
        elif name == "deit":  # two heads, on two tokens: the one on the distillation token runs last
            expected = inner.forward_features(scaled)[:, 1]
        else:
            expected = inner.forward_head(inner.forward_features(scaled), pre_logits=True)
    torch.testing.assert_close(found, expected.flatten(1), atol=1e-4, rtol=1e-4)


def test_a_layer_with_a_picture_can_be_asked_for(images: Images) -> None:
    x = images.batch(torch.arange(4))
    for name, layer in (("vit", "net.patch_embed.proj"), ("swin", "net.patch_embed.proj"), ("mobilenetv3", "net.bn1")):
        part = build("explain", {"name": "grad-cam", "layer": layer})
        heat = run_heat_map(_fresh(name), part, x, images.labels[:4], generator=stream(0, "x"), batch_size=4)
        assert heat.shape == (4, 32, 32)
    part = build("explain", {"name": "grad-cam", "layer": "net.layers.1"})
    with pytest.raises(RequestError, match=r"the output of 'net.layers.1' is 8 x 8 x 48 for each image"):
        run_heat_map(_fresh("swin"), part, x, images.labels[:4], generator=stream(0, "x"), batch_size=4)


# --- the command line ------------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path) -> str:
    """Four colours in noise, as an archive."""
    draw, sets = np.random.default_rng(0), {}
    for name, count in (("train", 80), ("test", 60)):
        labels = np.arange(count) % 4
        colours = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 1.0, 1.0]])[labels]
        noise = draw.random((count, 32, 32, 3))
        sets |= {
            f"x_{name}": (255 * (colours[:, None, None] * 0.6 + noise * 0.4)).astype(np.uint8),
            f"y_{name}": labels,
        }
    np.savez(tmp_path / "data.npz", **sets)
    return f"{{name: npz, path: {tmp_path / 'data.npz'}, held_out: 20}}"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A network of timm, saved by its own saver with an average beside it."""
    net = timm.create_model("test_vit", num_classes=4, img_size=32, patch_size=8)
    saver = timm.utils.CheckpointSaver(
        net, torch.optim.SGD(net.parameters(), lr=0.1), model_ema=timm.utils.ModelEmaV3(net),
        checkpoint_dir=str(tmp_path), recovery_dir=str(tmp_path),
    )  # fmt: skip
    saver.save_checkpoint(0, metric=1.0)
    return tmp_path / "model_best.pth.tar"


MODEL = "{name: 'timm:test_vit', settings: {img_size: 32, patch_size: 8}}"


@pytest.mark.parametrize(
    "words",
    [
        ("evaluate", "--attack", "{name: pgd, eps: 0.03, steps: 2}", "--trigger", "sticker", "--target", "1"),
        ("scan", "--with", "{name: mm-bd, starts: 2, steps: 2}", "--images", "20"),
        ("filter", "--with", "spectral-signatures"),
        ("repair", "--with", "{name: i-bau, rounds: 1, steps: 2, search_steps: 2}", "--images", "20", "--output",
         "repaired.safetensors", "--attack", "{name: fgsm, eps: 0.03}"),
    ],
    ids=lambda words: words[0],
)  # fmt: skip
def test_a_checkpoint_of_timm_is_audited(words: tuple[str, ...], checkpoint: Path, data: str, bascule: Any) -> None:  # noqa: F811
    command, *options = words
    said: Said = bascule(command, str(checkpoint), "--model", MODEL, "--data", data, *options)
    assert said.code == 0, said.err
    assert said.out
    assert "Traceback" not in said.err


def test_what_cannot_be_repaired_is_one_message(checkpoint: Path, data: str, bascule: Any) -> None:  # noqa: F811
    repair = ("--with", "fine-pruning", "--images", "20", "--output", "repaired.safetensors")
    said: Said = bascule("repair", str(checkpoint), "--model", MODEL, "--data", data, *repair)
    assert (said.code, said.out) == (2, "")
    assert "fine-pruning needs a linear layer that takes one vector per image" in said.err


STUDY = """\
title: Small networks of timm
base:
  data: {data}
  poison: {{trigger: {{name: sticker, size: 4}}, target: 1, rate: 0.2}}
  model: {{name: "timm:test_convnext"}}
  train: {{objective: standard, epochs: 1, batch_size: 20}}
  attack: {{name: fgsm, eps: 0.03}}
  explain: [{explain}]
  scan: {{name: mm-bd, starts: 2, steps: 2}}
rows:
  ConvNeXt: {{}}
  Swin:
    model: {{name: "timm:swin_tiny_patch4_window7_224", settings: {{img_size: 32, window_size: 4, patch_size: 2,
      embed_dim: 24, depths: [2, 2], num_heads: [2, 4]}}}}
    filter: spectral-signatures
  Repaired ViT:
    model: {{name: "timm:test_vit", settings: {{img_size: 32, patch_size: 8}}}}
    repair: {{name: i-bau, rounds: 1, steps: 2, search_steps: 2}}
twin: false
"""


def test_a_study_trains_networks_of_timm(data: str, tmp_path: Path, bascule: Any) -> None:  # noqa: F811
    study = tmp_path / "study.yaml"
    study.write_text(STUDY.format(data=data, explain="saliency"))
    said: Said = bascule("run", str(study), "--seeds", "1")
    assert said.code == 0, said.err
    for row in ("ConvNeXt", "Swin", "Repaired ViT"):
        assert row in said.out
    study.write_text(STUDY.format(data=data, explain="grad-cam"))
    said = bascule("validate", str(study))
    assert said.code == 2
    assert said.err.count("behind the model's last convolution with a picture") == 1
